"""Checkpoints: a folder each, written whole, renamed into place, verified when read."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from learner.ledger import Ledger
from learner.state import LearnerState

log = logging.getLogger(__name__)

FORMAT = 2
"""Raised when a file's meaning changes; other formats are refused."""


@dataclass(frozen=True, slots=True, eq=False)
class Checkpoint:
    """Everything a run needs to go on bit for bit."""

    learner: LearnerState
    ledger: Ledger
    tasks_in_flight: dict[int, int]
    """Unfinished tasks and the versions that draw them."""
    reward_scales: dict[str, list[float]]
    """Running scales of rewards, by label."""
    images: int
    """Drawn so far, evaluations included."""
    seconds: float
    """Spent so far."""


class NoCheckpoint(ValueError):
    """There is nothing to resume from."""


class Checkpoints:
    """The `checkpoints/` folder of a run."""

    def __init__(self, folder: Path, every: int, keep: int, rounds: int) -> None:
        self._folder, self._every, self._keep, self._rounds = folder, every, keep, rounds

    def due(self, version: int) -> bool:
        return version % self._every == 0 or version == self._rounds

    def save(self, checkpoint: Checkpoint) -> Path:
        """Write and rename into place; the oldest beyond `keep` go."""
        version = checkpoint.learner.version
        partial = self._folder / f".partial-{version:06d}-{os.getpid()}"
        partial.mkdir(parents=True)
        facts = {
            "format": FORMAT,
            "version": version,
            "learner": json.loads(checkpoint.learner.facts),
            "ledger": checkpoint.ledger.record(),
            "tasks_in_flight": checkpoint.tasks_in_flight,
            "reward_scales": checkpoint.reward_scales,
            "images": checkpoint.images,
            "seconds": checkpoint.seconds,
        }
        files = {
            "learner.safetensors": checkpoint.learner.tensors,
            "state.json": json.dumps(facts, indent=1).encode(),
        }
        digests = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
        for name, content in {**files, "manifest.json": json.dumps(digests, indent=1).encode()}.items():
            _write_durably(partial / name, content)
        final = self._folder / f"{version:06d}"
        if final.exists():
            shutil.rmtree(final)
        partial.rename(final)
        _sync_folder(self._folder)
        for old in self._complete()[: -self._keep]:
            shutil.rmtree(old)
        return final

    def newest(self) -> Checkpoint:
        """The newest one that is whole; a damaged one is passed over with a warning.

        Raises:
            NoCheckpoint: there is none.
        """
        for folder in reversed(self._complete()):
            try:
                return _load(folder)
            except (OSError, ValueError, KeyError, TypeError) as error:
                log.warning("checkpoint %s is damaged (%s); trying the one before", folder, error)
        raise NoCheckpoint(f"--resume: no whole checkpoint under {self._folder}; remove that run and start it again")

    def _complete(self) -> list[Path]:
        return sorted(path for path in self._folder.glob("[0-9]*") if path.is_dir())


def _load(folder: Path) -> Checkpoint:
    digests: dict[str, str] = json.loads((folder / "manifest.json").read_text("utf-8"))
    contents = {name: (folder / name).read_bytes() for name in digests}
    for name, content in contents.items():
        if hashlib.sha256(content).hexdigest() != digests[name]:
            raise ValueError(f"{name} is not what was written")
    facts: dict[str, Any] = json.loads(contents["state.json"])
    if facts["format"] != FORMAT:
        raise ValueError(f"its format is {facts['format']}, this version reads {FORMAT}")
    learner = LearnerState(facts["version"], contents["learner.safetensors"], json.dumps(facts["learner"]))
    in_flight = {int(task_id): version for task_id, version in facts["tasks_in_flight"].items()}
    ledger = Ledger.resume(facts["ledger"])
    return Checkpoint(learner, ledger, in_flight, facts["reward_scales"], facts["images"], facts["seconds"])


def _write_durably(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
