"""The noise levels of every denoising step as tensors: exact, made once, shipped with each trajectory."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

SIGMA_FLOOR = 1e-4
"""A step with less noise than this (a float32 latent barely resolves it) is deterministic: it has no density."""


@dataclass(frozen=True, slots=True, eq=False)
class DdimSchedule:
    """T denoising steps from the noisiest to the cleanest latent, in float32 (computed in float64)."""

    timesteps: Int[Tensor, " step"]
    """The model's time at x_t, descending."""
    alpha_prod: Float[Tensor, " step"]
    """Cumulative signal variance at x_t (the paper's alpha-bar)."""
    alpha_prod_next: Float[Tensor, " step"]
    """Cumulative signal variance at x_{t'}, the latent that the step draws."""
    sigmas: Float[Tensor, " step"]
    """Standard deviation of x_{t'} given x_t."""

    @property
    def num_steps(self) -> int:
        return len(self.timesteps)

    @property
    def stochastic(self) -> Bool[Tensor, " step"]:
        """Steps that have a density, and so a gradient and a ratio."""
        return self.sigmas > SIGMA_FLOOR

    def to(self, device: torch.device | str) -> DdimSchedule:
        return DdimSchedule(
            self.timesteps.to(device),
            self.alpha_prod.to(device),
            self.alpha_prod_next.to(device),
            self.sigmas.to(device),
        )


def ddim_schedule(
    alphas_cumprod: Float[Tensor, " train_step"],
    timesteps: Int[Tensor, " step"],
    final_alpha_prod: float,
    eta: float,
) -> DdimSchedule:
    """The schedule of DDIM (arXiv 2010.02502, equation 16) for evenly spaced, descending timesteps.

    A step whose next time lies before 0 ends at `final_alpha_prod`. The model's training time is divided evenly
    (`train_step // step`), as in diffusers, so spacings that do not start at the last time work too.
    """
    alphas = alphas_cumprod.to(torch.float64)
    timesteps = timesteps.to(torch.int64)
    next_times = timesteps - len(alphas) // len(timesteps)
    alpha = alphas[timesteps]
    alpha_next = torch.where(
        next_times >= 0, alphas[next_times.clamp(min=0)], torch.tensor(final_alpha_prod, dtype=torch.float64)
    )
    variance = (1 - alpha_next) / (1 - alpha) * (1 - alpha / alpha_next)
    sigmas = eta * variance.clamp(min=0).sqrt()
    return DdimSchedule(timesteps, alpha.float(), alpha_next.float(), sigmas.float())
