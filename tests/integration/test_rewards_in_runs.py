"""Several rewards in one run, and a reward server that is killed and started again in the middle of one."""

from __future__ import annotations

import json
import shutil
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from learner.intake import RoundFailed
from tests.rewards.service.servers import free_port, serving
from tests.tiny_run import assert_all_counted_once, folder_of, rows, run_tiny, tiny_config

SUM: dict[str, Any] = {
    "name": "compressibility",
    "scale": "running",
    "others": [
        {"name": "python:tests.user_rewards:brightness", "label": "bright", "weight": 0.5, "scale": 10.0},
        {"name": "diversity", "clip": {"model": "bundled"}, "weight": 2.0},
        {"name": "incompressibility", "evaluate_only": True},
    ],
}


def evaluations(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "evaluation.jsonl").read_text().splitlines()]


def test_a_weighted_sum_is_trained_and_each_part_is_told(tiny_model: Path, tmp_path: Path) -> None:
    config = tiny_config(tiny_model, tmp_path, rewards=SUM, prompts={"images_per_prompt": 4}, log={"images": 8})
    summary = run_tiny(config)
    assert_all_counted_once(summary, 32)
    assert set(summary["rewards"]) == {"compressibility", "bright", "diversity", "incompressibility"}
    for row in rows(folder_of(config)):
        parts = [
            row["reward/compressibility_normalised_mean"],
            0.5 * row["reward/bright_normalised_mean"],
            2 * row["reward/diversity_normalised_mean"],
        ]
        assert row["reward_mean"] == pytest.approx(sum(parts), rel=1e-5)
        assert row["reward/bright_normalised_mean"] == pytest.approx(row["reward/bright_mean"] / 10)
        assert "reward/incompressibility_mean" not in row
        assert row["grad_norm"] > 0
    first, last = evaluations(folder_of(config))
    for evaluation in (first, last):
        by_reward = {label: np.array(values) for label, values in evaluation["by_reward"].items()}
        np.testing.assert_array_equal(by_reward["compressibility"], -by_reward["incompressibility"])
    scale = np.std(first["by_reward"]["compressibility"])
    expected = (
        np.array(first["by_reward"]["compressibility"]) / scale
        + 0.5 * np.array(first["by_reward"]["bright"]) / 10
        + 2 * np.array(first["by_reward"]["diversity"])
    )
    np.testing.assert_allclose(first["rewards"], expected, rtol=1e-5)
    sample = json.loads((folder_of(config) / "samples" / "round-000001.json").read_text())["samples"][0]
    assert set(sample["rewards"]) == {"compressibility", "bright", "diversity"}


def test_a_sum_with_a_running_scale_resumes_bit_for_bit(tiny_model: Path, tmp_path: Path) -> None:
    whole = tiny_config(tiny_model, tmp_path, run={"name": "whole"}, rewards=SUM, prompts={"images_per_prompt": 4})
    half = whole.model_copy(update={"run": whole.run.model_copy(update={"name": "half", "rounds": 2})})
    digest = run_tiny(whole)["lora_digest"]
    run_tiny(half)
    assert (
        run_tiny(half.model_copy(update={"run": half.run.model_copy(update={"rounds": 4})}), True)["lora_digest"]
        == digest
    )


def test_a_run_resumed_from_its_first_checkpoint_learns_its_scales_once(tiny_model: Path, tmp_path: Path) -> None:
    keys = {"rewards": SUM, "prompts": {"images_per_prompt": 4}}
    whole = tiny_config(tiny_model, tmp_path, run={"name": "whole"}, **keys)
    cut = tiny_config(tiny_model, tmp_path, run={"name": "cut"}, **keys)
    digest = run_tiny(whole)["lora_digest"]
    run_tiny(cut)
    folder = folder_of(cut)
    for checkpoint in (folder / "checkpoints").iterdir():
        if checkpoint.name != "000000":
            shutil.rmtree(checkpoint)
    assert run_tiny(cut, resume=True)["lora_digest"] == digest
    assert [evaluation["version"] for evaluation in evaluations(folder)] == [0, 4]
    assert evaluations(folder) == evaluations(folder_of(whole))


def test_a_failed_round_leaves_the_scales_alone(tiny_model: Path, tmp_path: Path) -> None:
    keys = {"rewards": {**SUM, "attempts": 1, "min_valid_fraction": 0.9}, "prompts": {"images_per_prompt": 4}}
    whole = tiny_config(tiny_model, tmp_path, run={"name": "whole"}, **keys)
    broken = tiny_config(tiny_model, tmp_path, run={"name": "broken"}, **keys)
    digest = run_tiny(whole)["lora_digest"]
    calls: list[int] = []

    def fails_once(images: np.ndarray, prompts: Any, metadata: Any) -> np.ndarray:
        calls.append(len(images))
        if 3 <= len(calls) <= 10:  # all attempts at a task of round 0, and at last its images one by one
            raise RuntimeError("just now")
        return images.astype(float).mean(axis=(1, 2, 3))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tests.user_rewards.brightness", fails_once)
        with pytest.raises(RoundFailed, match="4 x bright: failed, for example: RuntimeError: just now"):
            run_tiny(broken)
    assert run_tiny(broken, resume=True)["lora_digest"] == digest


@pytest.mark.slow
def test_a_reward_server_killed_in_mid_run_loses_and_repeats_nothing(tiny_model: Path, tmp_path: Path) -> None:
    changes: dict[str, dict[str, Any]] = {"schedule": {"lag": 1}, "denoising": {"steps": 8}}
    here = tiny_config(tiny_model, tmp_path, run={"name": "here", "rounds": 8}, **changes)
    digest = run_tiny(here)["lora_digest"]
    port = free_port()
    there = tiny_config(
        tiny_model,
        tmp_path,
        run={"name": "there", "rounds": 8},
        rewards={"kind": "grpc", "endpoints": [f"127.0.0.1:{port}"], "attempts": 20, "timeout_s": 20.0},
        **changes,
    )
    killed = threading.Event()

    def attend() -> None:
        with serving("--reward", "compressibility", "--port", str(port)) as server:
            while len(rows(folder_of(there))) < 3:
                time.sleep(0.01)
            server.process.kill()
            server.process.wait(10)
            killed.set()
        with serving("--reward", "compressibility", "--port", str(port)):
            while not (folder_of(there) / "summary.json").exists():
                time.sleep(0.05)

    attendant = threading.Thread(target=attend, daemon=True)
    attendant.start()
    summary = run_tiny(there)
    attendant.join(30)
    assert killed.is_set()
    assert summary["lora_digest"] == digest
    assert_all_counted_once(summary, 64)
