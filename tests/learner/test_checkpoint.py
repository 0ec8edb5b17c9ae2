"""Checkpoints are whole or passed over."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

import learner.checkpoint
from learner.checkpoint import Checkpoint, Checkpoints, NoCheckpoint
from learner.ledger import Ledger, State
from learner.state import LearnerState


def checkpoint(version: int) -> Checkpoint:
    ledger = Ledger()
    for task_id in range(version, version + 2):
        ledger.issue(task_id, 4)
        ledger.move(task_id, State.SAMPLING)
    tensors = {"snapshot.0": torch.from_numpy(np.random.default_rng(version).normal(size=100))}
    state = LearnerState(version, safetensors.torch.save(tensors), '{"optimizer_step": 3}')
    return Checkpoint(
        state, ledger, {version: 0, version + 1: version}, {"a": [3.0, 0.5, 2.25, 1.0]}, 10 * version, 1.5 * version
    )


def checkpoints(folder: Path, keep: int = 3) -> Checkpoints:
    return Checkpoints(folder, every=2, keep=keep, rounds=7)


def flip_a_byte(folder: Path) -> None:
    path = folder / "learner.safetensors"
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)


def cut_off(folder: Path) -> None:
    path = folder / "state.json"
    path.write_bytes(path.read_bytes()[:-20])


def lose(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def empty(folder: Path) -> None:
    (folder / "manifest.json").write_text("{}")


def cut_off_manifest(folder: Path) -> None:
    (folder / "manifest.json").write_text('{"state.json": "')


def age(folder: Path) -> None:
    """As written by another version of the program, so its digests are right."""
    saved = learner.checkpoint.FORMAT
    shutil.rmtree(folder)
    try:
        learner.checkpoint.FORMAT = 99
        checkpoints(folder.parent).save(checkpoint(int(folder.name)))
    finally:
        learner.checkpoint.FORMAT = saved


DAMAGES = [
    flip_a_byte,
    cut_off,
    lose("manifest.json"),
    lose("learner.safetensors"),
    lose("state.json"),
    empty,
    cut_off_manifest,
    age,
]


def test_what_was_saved_comes_back(tmp_path: Path) -> None:
    saved = checkpoint(4)
    checkpoints(tmp_path).save(checkpoint(2))
    checkpoints(tmp_path).save(saved)
    loaded = checkpoints(tmp_path).newest()
    assert loaded.learner == saved.learner
    assert loaded.ledger.record() == saved.ledger.record()
    assert loaded.tasks_in_flight == {4: 0, 5: 4}
    assert (loaded.images, loaded.seconds) == (40, 6.0)


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_one_is_passed_over_with_a_warning_that_names_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: Callable[[Path], None]
) -> None:
    checkpoints(tmp_path).save(checkpoint(2))
    damage(checkpoints(tmp_path).save(checkpoint(4)))
    assert checkpoints(tmp_path).newest().learner.version == 2
    (warning,) = caplog.messages
    assert f"checkpoint {tmp_path / '000004'} is damaged (" in warning


def test_if_all_are_damaged_the_cure_is_named(tmp_path: Path) -> None:
    for version in (2, 4):
        flip_a_byte(checkpoints(tmp_path).save(checkpoint(version)))
    with pytest.raises(
        NoCheckpoint, match=r"--resume: no whole checkpoint under .*; remove that run and start it again"
    ):
        checkpoints(tmp_path).newest()
    with pytest.raises(NoCheckpoint):
        checkpoints(tmp_path / "nowhere").newest()


@pytest.mark.parametrize("written_files", range(4))
def test_a_kill_while_writing_leaves_nothing_that_is_chosen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, written_files: int
) -> None:
    """Stopped after so many files; after all three of them, before the renaming."""
    checkpoints(tmp_path).save(checkpoint(2))
    write, left = learner.checkpoint._write_durably, [written_files]

    def dies(path: Path, content: bytes) -> None:
        if not left[0]:
            path.write_bytes(content[: len(content) // 2])
            raise KeyboardInterrupt
        left[0] -= 1
        write(path, content)

    def dies_too(path: Path, target: Path) -> Path:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(learner.checkpoint, "_write_durably", dies)
        patch.setattr(Path, "rename", dies_too)
        with pytest.raises(KeyboardInterrupt):
            checkpoints(tmp_path).save(checkpoint(4))
    assert checkpoints(tmp_path).newest().learner.version == 2
    assert caplog.messages == []
    checkpoints(tmp_path).save(checkpoint(6))
    assert checkpoints(tmp_path).newest().learner.version == 6


def test_a_checkpoint_may_be_written_again(tmp_path: Path) -> None:
    checkpoints(tmp_path).save(checkpoint(2))
    flip_a_byte(tmp_path / "000002")
    checkpoints(tmp_path).save(checkpoint(2))
    assert checkpoints(tmp_path).newest().learner == checkpoint(2).learner


def test_the_newest_are_kept(tmp_path: Path) -> None:
    for version in (2, 4, 6, 1000000):
        checkpoints(tmp_path, keep=2).save(checkpoint(version))
    assert {path.name for path in tmp_path.iterdir()} == {"000006", "1000000"}
    assert checkpoints(tmp_path).newest().learner.version == 1000000


def test_every_so_many_rounds_and_the_last_are_due(tmp_path: Path) -> None:
    assert [version for version in range(8) if checkpoints(tmp_path).due(version)] == [0, 2, 4, 6, 7]
