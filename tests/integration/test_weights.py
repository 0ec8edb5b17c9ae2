"""Weights that do not arrive, through the whole loop: the run stops with its reason instead of training on."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from actors.policy import LoraSnapshot, PolicyVersion, digest
from actors.pretrained import PretrainedPolicy
from actors.rollout import RolloutWorker
from actors.trajectory import SampleTask
from learner.main import main
from tests.tiny_run import folder_of, rows, tiny_config, write_preset

real_apply, real_run = PretrainedPolicy.apply, RolloutWorker.run


def applies_nothing(self: PretrainedPolicy, snapshot: LoraSnapshot) -> str:
    return digest(self.lora)


def applies_nothing_and_says_it_did(self: PretrainedPolicy, snapshot: LoraSnapshot) -> str:
    return snapshot.digest


def applies_one_value_wrongly(self: PretrainedPolicy, snapshot: LoraSnapshot) -> str:
    real_apply(self, snapshot)
    if snapshot.version == 1:
        with torch.no_grad():
            next(iter(self.lora.values())).view(-1)[0] += 1e-3
    return digest(self.lora)


def applies_half_of_the_modules(self: PretrainedPolicy, snapshot: LoraSnapshot) -> str:
    tensors = snapshot.tensors()
    with torch.no_grad():
        for name in list(self.lora)[::2]:
            self.lora[name].copy_(tensors[name])
    return digest(self.lora)


def draws_with_damaged_weights(self: RolloutWorker, task: SampleTask, snapshot: LoraSnapshot) -> Any:
    if task.round < 1:
        return real_run(self, task, snapshot)
    buffer = snapshot.buffer.copy()
    buffer.view(np.uint32)[5] ^= 1
    return real_run(self, task, dataclasses.replace(snapshot, buffer=buffer))


def answers_with_another_version(self: RolloutWorker, task: SampleTask, snapshot: LoraSnapshot) -> Any:
    images, trajectory = real_run(self, task, snapshot)
    version = PolicyVersion(task.version + 1 if task.round == 1 else task.version)
    return images, dataclasses.replace(trajectory, version=version)


@pytest.mark.parametrize(
    ("owner", "method", "broken", "reason"),
    [
        (PretrainedPolicy, "apply", applies_nothing, "the weights never arrived"),
        (PretrainedPolicy, "apply", applies_nothing_and_says_it_did, "disagree on log-probs"),
        (PretrainedPolicy, "apply", applies_one_value_wrongly, "the weights never arrived"),
        (PretrainedPolicy, "apply", applies_half_of_the_modules, "the weights never arrived"),
        (RolloutWorker, "run", draws_with_damaged_weights, "version 1 were corrupted on their way"),
        (RolloutWorker, "run", answers_with_another_version, "drawn by version 2, the schedule asked for 1"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_the_run_stops_with_the_reason_and_trains_on_none_of_it(
    tiny_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    owner: type,
    method: str,
    broken: Callable[..., Any],
    reason: str,
) -> None:
    monkeypatch.setattr(owner, method, broken)
    config = tiny_config(tiny_model, tmp_path)
    assert main([write_preset(config, tmp_path / "preset.toml")]) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("run failed: ")
    assert re.search(reason, last)
    # Round 0, drawn with the adapter as it was made, was right.
    assert [row["version"] for row in rows(folder_of(config))] == [1]
    journal = [json.loads(line) for line in (folder_of(config) / "ledger.jsonl").read_text().splitlines()]
    assert {event["task"] for event in journal if event["state"] == "trained"} == {0, 1}
    assert not (folder_of(config) / "summary.json").exists()
