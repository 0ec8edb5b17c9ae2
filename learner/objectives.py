"""The losses, as pure functions of log-probs and advantages."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True, slots=True, eq=False)
class SurrogateTerms:
    """What each (sample, denoising step) pair contributes."""

    loss: Float[Tensor, " pair"]
    log_ratio: Float[Tensor, " pair"]
    """Detached."""
    clipped: Float[Tensor, " pair"]
    """1 where |ratio - 1| exceeds the clip range."""


def clipped_surrogate(
    new_log_probs: Float[Tensor, " pair"],
    log_probs: Float[Tensor, " pair"],
    advantages: Float[Tensor, " pair"],
    clip_range: float,
) -> SurrogateTerms:
    """DDPO-IS: max(-A r, -A clip(r, 1 - e, 1 + e)) with r = exp(new - behaviour) (arXiv 2305.13301, section 4.3).

    Its mean is the loss. `log_probs` are the behaviour policy's, so r is right at any staleness.
    """
    log_ratio = new_log_probs - log_probs
    ratio = log_ratio.exp()
    clipped = ratio.clamp(1 - clip_range, 1 + clip_range)
    loss = torch.maximum(-advantages * ratio, -advantages * clipped)
    outside = (ratio.detach() - 1).abs() > clip_range
    return SurrogateTerms(loss, log_ratio.detach(), outside.float())
