"""Trains the decoder on for a while on the cached latents, so that the UNet need not wait for sharp pictures."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from diffusers import AutoencoderTiny

from actors.bundled.resume import Progress, load_checkpoint, save_checkpoint
from actors.bundled.train_autoencoder import reconstruction_loss
from actors.bundled.work import load_latents, load_pictures

CHECKPOINT = "decoder.pt"
ANIMAL_WEIGHT = 25.0
LATENT_NOISE = 0.05


def train(work: Path, steps: int, batch_size: int, seed: int) -> AutoencoderTiny:
    """The encoder, and with it every latent, stays as it is; resumes from the checkpoint in ``work``."""
    pictures, latents = load_pictures(work), load_latents(work)
    model = AutoencoderTiny.from_pretrained(work / "vae")
    decoder = model.decoder.to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.Adam(decoder.parameters(), lr=1e-3, betas=(0.9, 0.99))
    parts = {"decoder": decoder, "optimizer": optimizer}
    start = load_checkpoint(work / CHECKPOINT, parts)
    weights = torch.tensor([ANIMAL_WEIGHT if entry["animal"] else 1.0 for entry in pictures.entries])
    progress = Progress(start)
    for step in range(start, steps):
        random = torch.Generator().manual_seed(seed * 1_000_003 + step)
        optimizer.param_groups[0]["lr"] = 1e-3 * min((step + 1) / 50, 1 - step / steps)
        rows = torch.multinomial(weights, batch_size, generator=random)
        mirrored = torch.randint(2, (batch_size,), generator=random)
        target = pictures.batch(rows)
        target = torch.where(mirrored[:, None, None, None] == 1, target.flip(-1), target)
        clean = latents[mirrored, rows]
        noisy = clean + LATENT_NOISE * torch.randn(clean.shape, generator=random)
        with torch.autocast("cpu", torch.bfloat16):
            output = decoder(noisy.to(memory_format=torch.channels_last))
        loss = reconstruction_loss(output.float(), target)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(decoder.parameters(), 1.0)
        optimizer.step()
        if progress.save_due(loss.item(), last=step + 1 == steps):
            save_checkpoint(work / CHECKPOINT, step + 1, parts)
    return model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="folder with vae and latents.npy")
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    model = train(arguments.work, arguments.steps, arguments.batch_size, arguments.seed)
    model.to(memory_format=torch.contiguous_format).save_pretrained(arguments.work / "vae_sharp")


if __name__ == "__main__":
    main()
