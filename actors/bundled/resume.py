"""Training checkpoints that a kill at any moment leaves whole, and progress on the way to them."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import torch

SAVE_EVERY_S = 120


class Progress:
    """Prints the running loss every 100 steps, and says when a checkpoint is due."""

    def __init__(self, step: int) -> None:
        self._step = step
        self._loss: float | None = None
        self._began = self._saved = time.monotonic()

    def save_due(self, loss: float, last: bool) -> bool:
        """Counts a step done; true every two minutes and after the last step."""
        self._step += 1
        self._loss = loss if self._loss is None else 0.99 * self._loss + 0.01 * loss
        now = time.monotonic()
        if self._step % 100 == 0:
            print(f"step {self._step} loss {self._loss:.4f} {now - self._began:.0f} s", flush=True)
        due = last or now - self._saved > SAVE_EVERY_S
        if due:
            self._saved = now
        return due


def save_checkpoint(path: Path, step: int, parts: dict[str, Any]) -> None:
    """Writes the state of every part beside the number of steps done."""
    state = {name: part.state_dict() for name, part in parts.items()}
    fresh = path.with_suffix(".tmp")
    torch.save({"step": step, "parts": state}, fresh)
    os.replace(fresh, path)


def load_checkpoint(path: Path, parts: dict[str, Any]) -> int:
    """Restores every part from ``path``; the number of steps done, 0 without a checkpoint."""
    if not path.exists():
        return 0
    saved = torch.load(path, weights_only=True)
    for name, part in parts.items():
        part.load_state_dict(saved["parts"][name])
    return saved["step"]
