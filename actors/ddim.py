"""One reverse step of DDIM as a Gaussian: its mean and standard deviation, a draw from it, its log-density.

Sampler and learner call these same functions, so that their log-probs agree. Notation of arXiv 2010.02502
(equation 12): x_{t'} ~ N(mean(x_t), sigma_t^2), with eta folded into sigma.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from actors.schedule import DdimSchedule

PredictionType = Literal["epsilon", "v_prediction", "sample"]

Latents = Float[Tensor, "batch channel height width"]


def original_and_noise(
    latents: Latents, output: Latents, alpha_prod: Float[Tensor, "batch 1 1 1"], prediction: PredictionType
) -> tuple[Latents, Latents]:
    """The clean latent x_0 and the noise that the model's output implies.

    `v_prediction` is v = sqrt(a) eps - sqrt(1 - a) x_0 (arXiv 2202.00512, appendix D).
    """
    signal, noise = alpha_prod.sqrt(), (1 - alpha_prod).sqrt()
    if prediction == "epsilon":
        return (latents - noise * output) / signal, output
    if prediction == "v_prediction":
        return signal * latents - noise * output, signal * output + noise * latents
    if prediction == "sample":
        return output, (latents - signal * output) / noise
    raise ValueError(f"prediction type {prediction!r}; known: epsilon, v_prediction, sample")


def step_gaussian(
    schedule: DdimSchedule,
    steps: Int[Tensor, " batch"],
    latents: Latents,
    output: Latents,
    prediction: PredictionType,
) -> tuple[Latents, Float[Tensor, "batch 1 1 1"]]:
    """Mean and standard deviation of x_{t'} given x_t, for a batch that may mix denoising steps.

    Args:
        steps: index into the schedule, 0 = noisiest, per sample.
        latents: x_t, float32.
        output: the model's (guided) output at x_t, float32.
    """
    alpha = schedule.alpha_prod[steps].view(-1, 1, 1, 1)
    alpha_next = schedule.alpha_prod_next[steps].view(-1, 1, 1, 1)
    sigma = schedule.sigmas[steps].view(-1, 1, 1, 1)
    original, noise = original_and_noise(latents, output, alpha, prediction)
    direction = (1 - alpha_next - sigma**2).clamp(min=0).sqrt()
    return alpha_next.sqrt() * original + direction * noise, sigma


def sample_step(
    mean: Latents, std: Float[Tensor, "batch 1 1 1"], noise: Latents, storage: torch.dtype
) -> Float[Tensor, "batch channel height width"]:
    """A draw of x_{t'}, rounded to the dtype it is stored in, *before* its log-prob is taken."""
    return (mean + std * noise).to(storage)


def step_log_prob(next_latents: Latents, mean: Latents, std: Float[Tensor, "batch 1 1 1"]) -> Float[Tensor, " batch"]:
    """Log-density of x_{t'}, as the *mean* over the latent's dimensions (as in ddpo-pytorch), float32.

    A clip range on the ratio of such log-probs therefore depends on the latent's size. Only for steps with noise.
    """
    z = (next_latents.float() - mean) / std
    log_density = -0.5 * z**2 - std.log() - 0.5 * math.log(2 * math.pi)
    return log_density.flatten(1).mean(1)
