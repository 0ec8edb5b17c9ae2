"""The policy's weights as they travel: a version, a flat buffer, and a digest that proves what was applied."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NewType

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

PolicyVersion = NewType("PolicyVersion", int)
"""Rounds trained so far."""


class WeightsError(RuntimeError):
    """The adapter's weights are not what they should be; training on would be training on something else."""


@dataclass(frozen=True, slots=True)
class Entry:
    """Where one tensor lies in the flat buffer."""

    name: str
    shape: tuple[int, ...]
    offset: int
    """Index of its first element."""


@dataclass(frozen=True, slots=True, eq=False)
class LoraSnapshot:
    """All LoRA weights of one version."""

    version: PolicyVersion
    digest: str
    """SHA-256 of names, shapes and values, as 64 hex digits; the version is not part of it."""
    manifest: tuple[Entry, ...]
    buffer: Float[np.ndarray, " parameter"]
    """float32, every tensor in the manifest's order; read-only once it has travelled."""

    def __post_init__(self) -> None:
        if not self.manifest:
            raise WeightsError("the LoRA adapter is bound to no module: check model.lora_targets")
        size = sum(math.prod(entry.shape) for entry in self.manifest)
        if self.buffer.dtype != np.float32 or self.buffer.shape != (size,):
            raise WeightsError(f"LoRA buffer {self.buffer.dtype}{self.buffer.shape} does not fit its manifest ({size})")

    def tensors(self) -> dict[str, Tensor]:
        """A copy of every tensor, by name.

        Raises:
            WeightsError: the buffer is not the one that was published.
        """
        owned = torch.from_numpy(self.buffer.copy())
        named = {e.name: owned[e.offset : e.offset + math.prod(e.shape)].view(e.shape) for e in self.manifest}
        if digest(named) != self.digest:
            raise WeightsError(f"LoRA weights of version {self.version} were corrupted on their way")
        return named


def pack(version: PolicyVersion, named: Mapping[str, Tensor]) -> LoraSnapshot:
    """A snapshot of the named tensors' present values."""
    manifest: list[Entry] = []
    offset = 0
    for name, tensor in named.items():
        manifest.append(Entry(name, tuple(tensor.shape), offset))
        offset += tensor.numel()
    parts = [tensor.detach().float().cpu().reshape(-1).numpy() for tensor in named.values()]
    buffer = np.concatenate(parts) if parts else np.zeros(0, np.float32)
    return LoraSnapshot(version, digest(named), tuple(manifest), buffer)


def digest(named: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, shapes and float32 values, in the mapping's order."""
    sha = hashlib.sha256()
    for name, tensor in named.items():
        sha.update(f"{name}{tuple(tensor.shape)}".encode())
        sha.update(tensor.detach().float().cpu().contiguous().numpy().astype("<f4", copy=False).tobytes())
    return sha.hexdigest()
