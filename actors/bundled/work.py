"""Reads the work folder: rendered pictures with captions, and the latents cached from them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Pictures:
    """All rendered pictures."""

    pixels: np.ndarray
    """uint8 ``[N, 64, 64, 3]``."""
    entries: list[dict[str, str]]
    """N of them; keys style, name, caption, animal (empty for no animal)."""

    def batch(self, rows: Tensor) -> Tensor:
        """Float32 ``[B, 3, 64, 64]`` in [-1, 1]."""
        chosen = torch.from_numpy(self.pixels[rows.numpy()])
        return chosen.permute(0, 3, 1, 2).float() / 127.5 - 1


def load_pictures(work: Path) -> Pictures:
    """What :mod:`actors.bundled.pictures` wrote into the work folder."""
    if not (work / "pictures.npz").exists():
        raise SystemExit(f"{work}: no pictures.npz; run actors.bundled.pictures first")
    entries = json.loads((work / "pictures.json").read_text(encoding="utf-8"))
    return Pictures(np.load(work / "pictures.npz")["pixels"], entries)


def load_latents(work: Path) -> Tensor:
    """Float32 ``[2, N, 8, 8, 8]``: the latents of all pictures, then of their mirror images."""
    if not (work / "latents.npy").exists():
        raise SystemExit(f"{work}: no latents.npy; run actors.bundled.train_autoencoder first")
    return torch.from_numpy(np.load(work / "latents.npy")).float()
