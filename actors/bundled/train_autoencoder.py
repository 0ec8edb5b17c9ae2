"""Trains the autoencoder (64x64x3 pixels to 8x8x8 latents), then caches all pictures' latents."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderTiny
from torch import Tensor
from torch.nn import functional

from actors.bundled.resume import Progress, load_checkpoint, save_checkpoint
from actors.bundled.work import Pictures, load_pictures

LATENT_CHANNELS = 8
WIDTH = 32
CHECKPOINT = "autoencoder.pt"
GENERAL_SHARE = 5 / 9
"""Part of the training that goes wide; the rest of it favours animals."""


def new_autoencoder() -> AutoencoderTiny:
    """About 0.7 M parameters. No blocks at full resolution: they would be most of the cost."""
    return AutoencoderTiny(
        latent_channels=LATENT_CHANNELS,
        encoder_block_out_channels=(WIDTH,) * 4,
        decoder_block_out_channels=(WIDTH,) * 4,
        num_encoder_blocks=(0, 1, 3, 3),
        num_decoder_blocks=(6, 4, 2, 0),
    )


def animal_weight(step: int, steps: int) -> float:
    """How many times more often a picture of one of the 45 animals is drawn than any other."""
    return 6.0 if step < GENERAL_SHARE * steps else 25.0


def edges(image: Tensor) -> tuple[Tensor, Tensor]:
    """Horizontal and vertical differences of ``[B, C, H, W]``."""
    return image[..., 1:] - image[..., :-1], image[..., 1:, :] - image[..., :-1, :]


def reconstruction_loss(output: Tensor, target: Tensor) -> Tensor:
    """L1 + MSE + L1 of the edges, which is what keeps outlines sharp; images in [-1, 1]."""
    loss = functional.l1_loss(output, target) + functional.mse_loss(output, target)
    pairs = zip(edges(output), edges(target), strict=True)
    return loss + sum(functional.l1_loss(a, b) for a, b in pairs)


def latent_loss(latents: Tensor) -> Tensor:
    """Pulls every channel of ``[B, C, h, w]`` to zero mean and unit variance over the batch."""
    mean = latents.mean(dim=(0, 2, 3))
    variance = latents.var(dim=(0, 2, 3))
    # Beyond about 3 the decoder's 3·tanh(z / 3) saturates.
    beyond = functional.relu(latents.abs() - 3)
    return (mean**2).mean() + ((variance - 1) ** 2).mean() + beyond.mean()


def one_step(model: AutoencoderTiny, batch: Tensor, noise: Tensor) -> Tensor:
    """Loss on pixels ``[B, 3, 64, 64]`` in [-1, 1]; noise makes the decoder forgive the UNet."""
    with torch.autocast("cpu", torch.bfloat16):
        latents = model.encoder(batch)
    latents = latents.float()
    with torch.autocast("cpu", torch.bfloat16):
        output = model.decoder(latents + 0.05 * noise)
    return reconstruction_loss(output.float(), batch) + 0.02 * latent_loss(latents)


def train(pictures: Pictures, work: Path, steps: int, batch_size: int, seed: int) -> AutoencoderTiny:
    """Trains for ``steps`` in all, from the checkpoint in ``work`` where there is one."""
    torch.manual_seed(seed)
    model = new_autoencoder().to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3, betas=(0.9, 0.99))
    start = load_checkpoint(work / CHECKPOINT, {"model": model, "optimizer": optimizer})
    is_animal = torch.tensor([bool(entry["animal"]) for entry in pictures.entries])
    progress = Progress(start)
    for step in range(start, steps):
        random = torch.Generator().manual_seed(seed * 1_000_003 + step)
        for group in optimizer.param_groups:
            group["lr"] = 2e-3 * min(1.0, (step + 1) / 100, (steps - step) / (0.4 * steps))
        weights = torch.where(is_animal, animal_weight(step, steps), 1.0)
        rows = torch.multinomial(weights, batch_size, generator=random)
        batch = pictures.batch(rows).to(memory_format=torch.channels_last)
        if torch.rand((), generator=random) < 0.5:
            batch = batch.flip(-1)
        noise = torch.randn(batch_size, LATENT_CHANNELS, 8, 8, generator=random)
        loss = one_step(model, batch, noise)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if progress.save_due(loss.item(), last=step + 1 == steps):
            save_checkpoint(work / CHECKPOINT, step + 1, {"model": model, "optimizer": optimizer})
    return model


@torch.inference_mode()
def cache_latents(model: AutoencoderTiny, pictures: Pictures, path: Path) -> Tensor:
    """Writes float16 ``[2, N, 8, 8, 8]``: latents of all pictures, then of their mirror images."""
    model = model.eval()
    rows = torch.arange(len(pictures.entries)).split(256)
    both = []
    for flip in (False, True):
        batches = (pictures.batch(part) for part in rows)
        both.append(torch.cat([model.encoder(b.flip(-1) if flip else b) for b in batches]))
    latents = torch.stack(both)
    np.save(path, latents.numpy().astype(np.float16))
    return latents


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="folder with pictures.npz")
    parser.add_argument("--steps", type=int, default=3600)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    pictures = load_pictures(arguments.work)
    work = arguments.work
    model = train(pictures, work, arguments.steps, arguments.batch_size, arguments.seed)
    model.save_pretrained(work / "vae")
    latents = cache_latents(model, pictures, work / "latents.npy")
    mean, std = latents.mean(dim=(0, 1, 3, 4)), latents.std(dim=(0, 1, 3, 4))
    print(f"latents: mean {mean.tolist()} std {std.tolist()} largest {latents.abs().max():.2f}")


if __name__ == "__main__":
    main()
