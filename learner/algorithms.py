"""Reinforcement algorithms behind one small protocol."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from learner.objectives import SurrogateTerms, clipped_surrogate


@runtime_checkable
class Algorithm(Protocol):
    """How advantages and log-probs become a loss."""

    def clip_advantages(self, advantages: Float[Tensor, " sample"]) -> Float[Tensor, " sample"]: ...

    def terms(
        self,
        new_log_probs: Float[Tensor, " pair"],
        log_probs: Float[Tensor, " pair"],
        advantages: Float[Tensor, " pair"],
    ) -> SurrogateTerms:
        """One term per (sample, denoising step) pair; their mean is minimised."""
        ...


@dataclass(frozen=True, slots=True)
class DdpoIs:
    """DDPO with importance sampling (arXiv 2305.13301)."""

    clip_range: float
    advantage_clip: float

    def clip_advantages(self, advantages: Float[Tensor, " sample"]) -> Float[Tensor, " sample"]:
        return advantages.clamp(-self.advantage_clip, self.advantage_clip)

    def terms(
        self,
        new_log_probs: Float[Tensor, " pair"],
        log_probs: Float[Tensor, " pair"],
        advantages: Float[Tensor, " pair"],
    ) -> SurrogateTerms:
        return clipped_surrogate(new_log_probs, log_probs, advantages, self.clip_range)
