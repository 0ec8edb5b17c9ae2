"""Advantages from rewards: whitening, and running statistics per prompt."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

STD_FLOOR = 1e-6
"""Added to a standard deviation before dividing by it, as in ddpo-pytorch."""


def whiten(rewards: Float[Tensor, " sample"]) -> Float[Tensor, " sample"]:
    """Rewards with their own mean removed, in units of their own (population) standard deviation."""
    return (rewards - rewards.mean()) / (rewards.std(correction=0) + STD_FLOOR)


@dataclass(slots=True)
class PromptStatistics:
    """Mean and spread of each prompt's newest rewards (arXiv 2305.13301, section 5).

    The buffer takes the round's rewards in before they are normalised, as in ddpo-pytorch.
    """

    buffer_size: int
    min_count: int
    """Below this many rewards, a prompt's samples are normalised by the whole round."""
    rewards: dict[str, deque[float]] = field(default_factory=dict)

    def advantages(self, prompts: Sequence[str], rewards: Float[Tensor, " sample"]) -> Float[Tensor, " sample"]:
        """Take a round's rewards in, and normalise each by its prompt's statistics (float64 inside, float32 out).

        Raises:
            ValueError: a reward is not finite; it must have been dropped before, since it would stay in the buffer.
        """
        if not torch.isfinite(rewards).all():
            raise ValueError("a reward that is not finite reached the statistics")
        values = rewards.double()
        for prompt, value in zip(prompts, values.tolist(), strict=True):
            self.rewards.setdefault(prompt, deque(maxlen=self.buffer_size)).append(value)
        result = whiten(values)
        for place, prompt in enumerate(prompts):
            known = self.rewards[prompt]
            if len(known) >= self.min_count:
                mean, std = float(np.mean(known)), float(np.std(known))
                result[place] = (values[place] - mean) / (std + STD_FLOOR)
        return result.float()

    def restore(self, rewards: dict[str, list[float]]) -> None:
        """Take over saved buffers, oldest reward first."""
        self.rewards = {prompt: deque(values, maxlen=self.buffer_size) for prompt, values in rewards.items()}
