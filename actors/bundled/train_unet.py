"""Trains the UNet and the text encoder together on the cached latents, and averages the weights."""

from __future__ import annotations

import argparse
import copy
from pathlib import Path
from typing import Any

import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from torch import Tensor, distributed, multiprocessing, nn
from torch.nn import functional
from transformers import CLIPTokenizer

from actors.bundled.batches import Batches
from actors.bundled.pictures import animals
from actors.bundled.resume import Progress, load_checkpoint, save_checkpoint
from actors.bundled.text import HIDDEN, build_tokenizer, new_text_encoder
from actors.bundled.work import load_latents, load_pictures

CHECKPOINT = "unet.pt"
LEARNING_RATE = 1e-3
WARM_UP_STEPS = 200
DECAY_FRACTION = 0.3
EMA_DECAY = 0.9985


def new_unet() -> UNet2DConditionModel:
    """4.3 M parameters; text is heard at both resolutions, 8x8 and 4x4."""
    return UNet2DConditionModel(
        sample_size=8,
        in_channels=8,
        out_channels=8,
        down_block_types=("CrossAttnDownBlock2D",) * 2,
        up_block_types=("CrossAttnUpBlock2D",) * 2,
        block_out_channels=(64, 128),
        layers_per_block=1,
        cross_attention_dim=HIDDEN,
        attention_head_dim=2,  # diffusers reads this as the number of heads
        norm_num_groups=16,
    )


def new_scheduler() -> DDIMScheduler:
    """Stable Diffusion's settings but for the betas.

    With SD's own betas a tenth of the first latent of a 10-step run would have to be signal, which
    among 512 numbers is plain to see, and pure noise has none. Linear 1e-4..0.02 leaves under 2 %,
    and v-prediction makes the first step well conditioned.
    """
    return DDIMScheduler(
        num_train_timesteps=1000,
        beta_start=1e-4,
        beta_end=0.02,
        beta_schedule="linear",
        prediction_type="v_prediction",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        timestep_spacing="leading",
    )


def prepare_tokenizer(work: Path) -> None:
    """Builds ``work/tokenizer`` once: the order of equally frequent merges differs from build to build."""
    if not (work / "tokenizer" / "tokenizer_config.json").exists():
        captions = sorted({entry["caption"] for entry in load_pictures(work).entries})
        build_tokenizer(captions, animals(), work / "tokenizer")


def new_models(work: Path) -> nn.ModuleDict:
    """New ``unet`` and ``text_encoder`` for the tokenizer in ``work``."""
    tokenizer = CLIPTokenizer.from_pretrained(work / "tokenizer")
    return nn.ModuleDict({"unet": new_unet(), "text_encoder": new_text_encoder(tokenizer)})


def learning_rate(step: int, steps: int) -> float:
    """Warm-up, plateau, straight fall to zero over the last 30 %: prolong by raising ``steps``."""
    rise = (step + 1) / WARM_UP_STEPS
    fall = (steps - step) / (DECAY_FRACTION * steps)
    return LEARNING_RATE * min(1.0, rise, fall)


def diffusion_loss(
    models: nn.ModuleDict,
    scheduler: DDIMScheduler,
    clean: Tensor,
    tokens: Tensor,
    random: torch.Generator,
    mine: slice,
) -> Tensor:
    """Mean squared error of the velocity; latents ``[B, 8, 8, 8]``, tokens ``[B, 24]``.

    The whole batch is drawn, so that its noise does not depend on the workers; only ``mine`` is used.
    """
    size = len(clean)
    # One timestep from each of B equal slices: the expectation of uniform draws, less variance.
    places = (torch.arange(size) + torch.rand(size, generator=random)) / size
    timesteps = (places * scheduler.config.num_train_timesteps).long()
    noise = torch.randn(clean.shape, generator=random)
    clean, noise, timesteps = clean[mine], noise[mine], timesteps[mine]
    noisy = scheduler.add_noise(clean, noise, timesteps)
    context = models["text_encoder"](tokens[mine]).last_hidden_state
    # bfloat16 is a fifth faster where the processor has it; weights and average stay float32.
    with torch.autocast("cpu", torch.bfloat16):
        velocity = models["unet"](noisy, timesteps, context).sample
    return functional.mse_loss(velocity.float(), scheduler.get_velocity(clean, noise, timesteps))


@torch.no_grad()
def follow(average: nn.Module, models: nn.Module, step: int) -> None:
    """Moves the average towards the models; early on it keeps up faster."""
    decay = min(EMA_DECAY, (1 + step) / (10 + step))
    torch._foreach_lerp_(list(average.parameters()), list(models.parameters()), 1 - decay)


def average_gradients(models: nn.Module, workers: int) -> None:
    """Replaces every gradient by its mean over the workers, in one message."""
    if workers == 1:
        return
    gradients = [parameter.grad for parameter in models.parameters() if parameter.grad is not None]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    distributed.all_reduce(flat)
    flat /= workers
    pieces = flat.split([gradient.numel() for gradient in gradients])
    for gradient, piece in zip(gradients, pieces, strict=True):
        gradient.copy_(piece.view_as(gradient))


def join(rank: int, workers: int, work: Path) -> None:
    """Meets the other workers. One thread each: threads that wait for each other stall on a busy machine."""
    torch.set_num_threads(1)
    if workers > 1:
        meeting = (work / "meeting").absolute().as_uri()
        distributed.init_process_group("gloo", init_method=meeting, rank=rank, world_size=workers)


def new_parts(work: Path) -> dict[str, Any]:
    """What a checkpoint holds: the models, the average of their weights (which ships), the optimizer."""
    models = new_models(work)
    average = copy.deepcopy(models).requires_grad_(False)
    optimizer = torch.optim.AdamW(models.parameters(), betas=(0.9, 0.99), weight_decay=0.01, fused=True)
    return {"models": models, "average": average, "optimizer": optimizer}


def train(rank: int, arguments: argparse.Namespace) -> None:
    """Trains up to ``steps`` in all, from the checkpoint in ``work`` where there is one.

    All workers take the same steps, each on its own slice of every batch.
    """
    work, steps, workers = arguments.work, arguments.steps, arguments.workers
    join(rank, workers, work)
    torch.manual_seed(arguments.seed)
    parts = new_parts(work)
    models, average, optimizer = parts.values()
    start = load_checkpoint(work / CHECKPOINT, parts)
    batches = Batches(load_pictures(work), load_latents(work), work / "tokenizer")
    scheduler = new_scheduler()
    progress = Progress(start)
    for step in range(start, steps):
        random = torch.Generator().manual_seed(arguments.seed * 1_000_003 + step)
        clean, tokens = batches.draw(arguments.batch_size, random)
        loss = diffusion_loss(models, scheduler, clean, tokens, random, slice(rank, None, workers))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        average_gradients(models, workers)
        nn.utils.clip_grad_norm_(models.parameters(), 1.0)
        optimizer.param_groups[0]["lr"] = learning_rate(step, steps)
        optimizer.step()
        follow(average, models, step)
        if rank == 0 and progress.save_due(loss.item(), last=step + 1 == steps):
            save_checkpoint(work / CHECKPOINT, step + 1, parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="folder with latents.npy")
    parser.add_argument("--steps", type=int, default=4100, help="in all, with those done before")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--workers", type=int, default=2, help="processes; they divide each batch")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    prepare_tokenizer(arguments.work)
    (arguments.work / "meeting").unlink(missing_ok=True)
    if arguments.workers == 1:
        train(0, arguments)
    else:
        multiprocessing.spawn(train, args=(arguments,), nprocs=arguments.workers)


if __name__ == "__main__":
    main()
