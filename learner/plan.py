"""What a configuration will do, worked out without starting anything: the answer to `--check`."""

from __future__ import annotations

import json
from pathlib import Path

from actors.model_path import resolve_model
from actors.prompts import load_prompts
from learner.config import RunConfig

TRAIN_COST = 2.07
"""One trained (sample, step) pair in units of one sampled: LoRA, forward and backward (counted on SD 1.5)."""


def plan(config: RunConfig) -> str:
    """A few lines for a person.

    Raises:
        ValueError: the model or the prompts are not there.
    """
    path = resolve_model(config.model.path)
    prompts = load_prompts(config.prompts.source, config.prompts.template, config.prompts.limit).prompts
    schedule, denoising, samplers, learner = config.schedule, config.denoising, config.samplers, config.learner
    samples, steps = schedule.samples_per_round, denoising.steps
    first, end = learner.step_window or (0, steps)
    pairs = samples * (end - first) * learner.inner_epochs
    cost = TRAIN_COST * pairs / (samples * steps)
    bottleneck = "the learner" if cost > 1 / samplers.num else "the samplers"
    lines = [
        f"model       {config.model.path}, {config.model.dtype}, LoRA rank {config.model.lora_rank}",
        f"prompts     {len(prompts)}, e.g. {prompts[0]!r}",
        *_rewards(config),
        f"round       {samples} samples of {steps} steps in {config.tasks_per_round} tasks of {samplers.batch_size}; "
        f"{learner.optimizer_steps * learner.inner_epochs} optimizer steps over {pairs} pairs",
        f"run         {config.run.rounds} rounds = {config.run.rounds * samples} samples, lag {schedule.lag} "
        f"({schedule.kind}), {config.evaluation.samples} evaluation samples",
        f"actors      {samplers.num} samplers (CPU {samplers.num_cpus:g}, GPU {samplers.num_gpus:g} each), "
        f"{sum(reward.num for reward in config.rewards.all)} reward workers, "
        f"1 learner (CPU {learner.num_cpus:g}, GPU {learner.num_gpus:g})",
        f"in flight   at most {(schedule.lag + 1) * config.tasks_per_round} tasks{_memory(config, Path(path))}",
        f"bottleneck  {bottleneck}, if all devices are alike: training a round costs "
        f"{cost:.1f} times drawing it, on {samplers.num} sampler(s)",
    ]
    return "\n".join(lines)


def _rewards(config: RunConfig) -> list[str]:
    lines: list[str] = []
    for reward in config.rewards.all:
        share = "evaluation only" if reward.evaluate_only else f"weight {reward.weight:g}, scale {reward.scale}"
        where = f"on {', '.join(reward.endpoints)}, asked by " if reward.kind == "grpc" else ""
        lines.append(
            f"reward      {reward.called}: {share}; {where}{reward.num} worker(s) "
            f"(CPU {reward.num_cpus:g}, GPU {reward.num_gpus:g} each), {reward.timeout_s:g} s a call"
        )
    return lines


def _memory(config: RunConfig, model: Path) -> str:
    """Object-store memory of everything in flight, if the model's geometry can be read here."""
    try:
        unet = json.loads((model / "unet" / "config.json").read_text("utf-8"))
        vae = json.loads((model / "vae" / "config.json").read_text("utf-8"))
    except FileNotFoundError:
        return " (memory unknown: the model is not on this machine)"
    size, channels = unet["sample_size"], unet["in_channels"]
    stages = len(vae.get("block_out_channels") or vae["decoder_block_out_channels"])
    number = 4 if config.model.dtype == "float32" else 2
    trajectory = (config.denoising.steps + 1) * channels * size * size * number
    image = 3 * (size * 2 ** (stages - 1)) ** 2
    total = (trajectory + image) * config.schedule.samples_per_round * (config.schedule.lag + 1)
    return f", {total / 1e6:.0f} MB ({trajectory / 1e3:.0f} kB of latents and {image / 1e3:.0f} kB of pixels a sample)"
