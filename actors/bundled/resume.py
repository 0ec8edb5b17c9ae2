"""Training checkpoints that a kill at any moment leaves whole."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch


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
