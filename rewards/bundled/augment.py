"""Varied copies of training pictures; small changes, since a style must stay recognisable."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def augmented(images: Tensor, random: torch.Generator) -> Tensor:
    """Float32 ``[B, 3, 64, 64]`` in [-1, 1] on white: mirrored, moved, tinted, softened, with noise."""
    size = len(images)

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(size, *shape, generator=random)

    angle, scale = uniform(-0.2, 0.2), uniform(0.9, 1.15)
    mirror = torch.where(uniform(0, 1) < 0.5, -1.0, 1.0)
    cos, sin = angle.cos() * scale, angle.sin() * scale
    rows = [
        torch.stack([cos * mirror, -sin, uniform(-0.1, 0.1)], 1),
        torch.stack([sin * mirror, cos, uniform(-0.1, 0.1)], 1),
    ]
    grid = functional.affine_grid(torch.stack(rows, 1), list(images.shape), align_corners=False)
    # Outside the picture grid_sample gives zeros, so distances from white are sampled and changed.
    ink = functional.grid_sample(1 - images, grid, align_corners=False)
    ink = ink.lerp(ink.mean(1, keepdim=True), uniform(0, 0.25, 1, 1, 1)) * uniform(0.85, 1.15, 3, 1, 1)
    half = functional.avg_pool2d(ink, 2)
    soft = functional.interpolate(half, scale_factor=2.0, mode="bilinear")
    ink = ink.lerp(soft, uniform(0, 0.8, 1, 1, 1))
    ink = ink + uniform(0, 0.08, 1, 1, 1) * torch.randn(images.shape, generator=random)
    return (1 - ink).clamp(-1, 1)
