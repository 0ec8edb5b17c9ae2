"""Scores that were paid for once, kept on disk by what they are scores of."""

from __future__ import annotations

import hashlib
import json
import logging
import sqlite3
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from rewards.reward import Images, Metadata, Reward, Scores, Status

log = logging.getLogger(__name__)

FILE = "scores.sqlite"
WAIT_S = 30.0
"""Longest wait for another process that writes."""
TABLE = """CREATE TABLE IF NOT EXISTS scores (key BLOB PRIMARY KEY, width INTEGER, value BLOB NOT NULL,
note TEXT NOT NULL)"""
"""`width` is the number of features, NULL for a reward of single numbers; `value` is float32, little-endian."""
AT_ONCE = 500
"""Keys in one question; SQLite allows 999 variables in its oldest builds."""

Known = tuple[np.ndarray, str]
"""Value, of no or one dimension, and note."""


class CachedReward:
    """A reward that is asked only for images that it has not scored before.

    Where one image of a call is unknown the whole call is scored, so that batches are what they would be without a
    cache; images that are known keep their stored value. Only finite values are kept: failures are tried again.
    Any number of processes of one machine may share a folder; SQLite's WAL does not work over network file systems.
    """

    def __init__(self, reward: Reward, folder: Path) -> None:
        self._reward = reward
        self._path = folder / FILE
        self._lock = threading.Lock()
        self.hits = 0
        """Images whose value came from the disk."""
        self.misses = 0
        """Images that were unknown."""
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._database = sqlite3.connect(self._path, timeout=WAIT_S, check_same_thread=False)
            self._database.execute("PRAGMA journal_mode=WAL")
            self._database.execute("PRAGMA synchronous=NORMAL")
            self._database.execute(TABLE)
            self._database.commit()
        except (sqlite3.Error, OSError) as error:
            raise self._unusable(error) from error

    @property
    def name(self) -> str:
        return self._reward.name

    @property
    def provenance(self) -> str:
        return self._reward.provenance

    def __call__(self, images: Images, prompts: Sequence[str], metadata: Sequence[Metadata]) -> Scores:
        """Raises:
        ValueError: the database is damaged.
        """
        before = self.provenance  # a reward on a server may not know its own before the first answer
        keys = keys_of(images, prompts, metadata, before)
        known = self._read(keys)
        found = [key for key in keys if key in known]
        self.hits += len(found)
        self.misses += len(keys) - len(found)
        if len(found) == len(keys):
            return Scores(np.stack([known[key][0] for key in keys]), _notes([known[key][1] for key in keys]))
        scores = self._reward(images, prompts, metadata)
        if np.ndim(scores.values) == 0 or len(scores.values) != len(keys) or len(scores.notes) not in (0, len(keys)):
            return scores  # refused by the worker
        if not self.provenance:
            return scores  # of nobody knows what
        if self.provenance != before:
            keys = keys_of(images, prompts, metadata, self.provenance)
            known = self._read(keys)
        return self._joined(keys, known, scores)

    def _joined(self, keys: Sequence[bytes], known: Mapping[bytes, Known], scores: Scores) -> Scores:
        """The stored value of what is known, the new one of all else, which is stored."""
        values = np.asarray(scores.values).astype(np.float32)
        notes = list(scores.notes) or [""] * len(keys)
        failures: dict[int, tuple[Status, str]] = dict(scores.failures)
        fresh: dict[bytes, Known] = {}
        for index, key in enumerate(keys):
            if key in known and known[key][0].shape == values[index].shape:
                values[index], notes[index] = known[key]
                failures.pop(index, None)
            elif index not in failures and np.isfinite(values[index]).all():
                fresh[key] = (np.asarray(values[index]), notes[index])
        self._write(fresh)
        return Scores(values, _notes(notes), failures)

    def _read(self, keys: Sequence[bytes]) -> dict[bytes, Known]:
        known: dict[bytes, Known] = {}
        try:
            with self._lock:
                for start in range(0, len(keys), AT_ONCE):
                    some = keys[start : start + AT_ONCE]
                    marks = ", ".join("?" * len(some))
                    question = f"SELECT key, width, value, note FROM scores WHERE key IN ({marks})"
                    for key, width, value, note in self._database.execute(question, some):
                        known[key] = (_value(width, value), note)
        except (sqlite3.Error, ValueError, TypeError) as error:
            raise self._unusable(error) from error
        return known

    def _write(self, fresh: Mapping[bytes, Known]) -> None:
        """Another process's value of the same key stays. A full disk costs the cache, not the score."""
        rows = [
            (key, len(value) if value.ndim else None, value.astype("<f4").tobytes(), note)
            for key, (value, note) in fresh.items()
        ]
        try:
            with self._lock, self._database:
                self._database.executemany("INSERT OR IGNORE INTO scores VALUES (?, ?, ?, ?)", rows)
        except sqlite3.OperationalError as error:
            log.warning("rewards.cache: %s was not written: %s", self._path, error)
        except sqlite3.Error as error:
            raise self._unusable(error) from error

    def _unusable(self, error: Exception) -> ValueError:
        cure = "choose another rewards.cache, on a disk of this machine"
        if not isinstance(error, (sqlite3.OperationalError, OSError)):
            cure = "it is damaged or of another kind; remove it, scores are then made anew"
        return ValueError(f"rewards.cache: {self._path} cannot be used ({error}); {cure}")


def cached(reward: Reward, folder: str | Path) -> CachedReward:
    """The reward with a memory in `folder`.

    Raises:
        ValueError: the folder or the database in it cannot be used; one line.
    """
    return CachedReward(reward, Path(folder).expanduser())


def keys_of(images: Images, prompts: Sequence[str], metadata: Sequence[Metadata], provenance: str) -> list[bytes]:
    """SHA-256 of each image with all else that its score depends on."""
    keys: list[bytes] = []
    for image, prompt, of_prompt in zip(images, prompts, metadata, strict=True):
        context = [provenance, prompt, dict(of_prompt), list(image.shape)]
        head = json.dumps(context, sort_keys=True, separators=(",", ":")).encode()
        keys.append(hashlib.sha256(head + b"\0" + np.ascontiguousarray(image).tobytes()).digest())
    return keys


def _value(width: int | None, stored: bytes) -> np.ndarray:
    value = np.frombuffer(stored, dtype="<f4").astype(np.float32).reshape(() if width is None else (width,))
    if not np.isfinite(value).all():
        raise ValueError("a stored value is no finite number")
    return value


def _notes(notes: Sequence[str]) -> tuple[str, ...]:
    return tuple(notes) if any(notes) else ()
