"""A scored round as stacked tensors, and its division into optimizer steps and minibatches of pairs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from actors.trajectory import Trajectory


@dataclass(frozen=True, slots=True, eq=False)
class TrainBatch:
    """The samples of a round that have a reward, in the order of (task id, index)."""

    prompts: tuple[str, ...]
    latents: Float[Tensor, "sample step_plus_1 channel height width"]
    """In the storage dtype."""
    log_probs: Float[Tensor, "sample step"]
    """The behaviour policy's."""
    rewards: Float[Tensor, " sample"]

    @property
    def num_samples(self) -> int:
        return len(self.prompts)


@dataclass(frozen=True, slots=True, eq=False)
class Pairs:
    """A minibatch of (sample, denoising step) pairs, as two index vectors."""

    samples: Int[Tensor, " pair"]
    steps: Int[Tensor, " pair"]


def stack(trajectories: Sequence[Trajectory], rewards: Float[np.ndarray, " all"], device: torch.device) -> TrainBatch:
    """Join a round's trajectories, in task order, leaving out samples whose reward is NaN (they were dropped)."""
    valid = np.isfinite(rewards)
    prompts = [prompt for trajectory in trajectories for prompt in trajectory.prompts]
    latents = np.concatenate([trajectory.latents for trajectory in trajectories])[valid]
    log_probs = np.concatenate([trajectory.log_probs for trajectory in trajectories])[valid]
    kept = tuple(prompt for prompt, keep in zip(prompts, valid, strict=True) if keep)
    return TrainBatch(
        kept,
        torch.from_numpy(latents).to(device),
        torch.from_numpy(log_probs).to(device),
        torch.from_numpy(rewards[valid].astype(np.float32)).to(device),
    )


def optimizer_step_samples(num_samples: int, num_steps: int, seed: int) -> list[Int[Tensor, " part"]]:
    """Shuffled sample indices, in as many nearly equal parts as there are optimizer steps."""
    order = torch.randperm(num_samples, generator=torch.Generator().manual_seed(seed))
    return list(order.tensor_split(min(num_steps, num_samples)))


def minibatches(
    samples: Int[Tensor, " part"], steps: Int[Tensor, " trained_step"], size: int, seed: int
) -> Iterator[Pairs]:
    """Every pair of the given samples and denoising steps once, shuffled over both, `size` at a time."""
    order = torch.randperm(len(samples) * len(steps), generator=torch.Generator().manual_seed(seed))
    for part in order.split(size):
        yield Pairs(samples[part // len(steps)], steps[part % len(steps)])
