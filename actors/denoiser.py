"""What the denoising chain needs of a model, and classifier-free guidance on top of it."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from actors.ddim import Latents


@runtime_checkable
class Denoiser(Protocol):
    """A text-conditioned denoising network."""

    def predict(
        self, latents: Latents, timesteps: Int[Tensor, " batch"], embeddings: Float[Tensor, "batch token feature"]
    ) -> Latents:
        """The raw network output, float32, at the model's own times."""
        ...


def guided_output(
    denoiser: Denoiser,
    latents: Latents,
    timesteps: Int[Tensor, " batch"],
    prompt: Float[Tensor, "batch token feature"],
    unconditional: Float[Tensor, "token feature"],
    scale: float,
) -> Latents:
    """Classifier-free guidance (arXiv 2207.12598): `u + scale (c - u)`, both branches in one batch.

    Gradients flow through both branches. At scale 1 the unconditional branch is not computed.
    """
    if scale == 1.0:
        return denoiser.predict(latents, timesteps, prompt)
    both = denoiser.predict(
        torch.cat([latents, latents]),
        torch.cat([timesteps, timesteps]),
        torch.cat([unconditional.expand_as(prompt), prompt]),
    )
    without, with_prompt = both.chunk(2)
    return without + scale * (with_prompt - without)
