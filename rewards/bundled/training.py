"""The training loop of both models, with checkpoints that a kill at any moment leaves whole."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

SAVE_EVERY_S = 60
WARM_UP = 0.05
"""Share of the steps."""


def rate_at(step: int, steps: int) -> float:
    """Share of the full learning rate: a straight rise, then half a cosine down to nothing."""
    done = step / steps
    return (done + 1 / steps) / WARM_UP if done < WARM_UP else 0.5 * (1 + math.cos(math.pi * done))


def train(
    model: nn.Module,
    loss_of: Callable[[torch.Generator], Tensor],
    steps: int,
    rate: float,
    seed: int,
    checkpoint: Path,
) -> None:
    """Runs ``steps`` steps of AdamW on ``loss_of(random)``; goes on from ``checkpoint`` where there is one."""
    random = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, betas=(0.9, 0.98), weight_decay=0.05)
    first = 0
    if checkpoint.exists():
        saved = torch.load(checkpoint, weights_only=True)
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        random.set_state(saved["random"])
        first = saved["step"]
    began = last_saved = time.monotonic()
    model.train()
    for step in range(first, steps):
        for group in optimizer.param_groups:
            group["lr"] = rate * rate_at(step, steps)
        loss = loss_of(random)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        now = time.monotonic()
        if (step + 1) % 50 == 0:
            print(f"step {step + 1} loss {loss.item():.4f} {now - began:.0f} s", flush=True)
        if step + 1 == steps or now - last_saved > SAVE_EVERY_S:
            fresh = checkpoint.with_suffix(".tmp")
            torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict(),
                        "random": random.get_state(), "step": step + 1}, fresh)  # fmt: skip
            os.replace(fresh, checkpoint)
            last_saved = now
    model.eval()
