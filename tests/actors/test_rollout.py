"""Tasks drawn by the tiny model, held against diffusers and torch."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline

from actors.config import DenoisingConfig, ModelConfig
from actors.policy import LoraSnapshot, PolicyVersion, WeightsError
from actors.pretrained import PretrainedPolicy
from actors.rollout import RolloutWorker
from actors.trajectory import SampleTask, Trajectory

DENOISING = DenoisingConfig(steps=5, eta=0.8, guidance_scale=3.0)
TASK = SampleTask(3, 1, ("a cat", "a dog", "a cat"), (11, 12, 13), PolicyVersion(0))


def policy(model: Path, lora_seed: int = 1) -> PretrainedPolicy:
    return PretrainedPolicy(ModelConfig(path=str(model)), "cpu", lora_seed)


def trained(model: Path, version: int, seed: int) -> LoraSnapshot:
    """Weights that change something."""
    source = policy(model)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in source.lora.values():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return source.snapshot(PolicyVersion(version))


@pytest.fixture(scope="module")
def snapshot(tiny_model: Path) -> LoraSnapshot:
    return trained(tiny_model, 0, seed=0)


@pytest.fixture(scope="module")
def worker(tiny_model: Path) -> RolloutWorker:
    return RolloutWorker(policy(tiny_model), DENOISING, threads=1)


def assert_identical(one: tuple[np.ndarray, Trajectory], other: tuple[np.ndarray, Trajectory]) -> None:
    np.testing.assert_array_equal(one[0], other[0])
    for name, value in dataclasses.asdict(one[1]).items():
        np.testing.assert_array_equal(value, getattr(other[1], name), err_msg=name)


def test_a_task_is_drawn_the_same_again_and_elsewhere(
    tiny_model: Path, worker: RolloutWorker, snapshot: LoraSnapshot
) -> None:
    first = worker.run(TASK, snapshot)
    torch.manual_seed(99)
    torch.randn(7)
    worker.run(dataclasses.replace(TASK, seeds=(1, 2, 3)), snapshot)
    assert_identical(worker.run(TASK, snapshot), first)
    elsewhere = RolloutWorker(policy(tiny_model, lora_seed=2), DENOISING, threads=1)
    assert_identical(elsewhere.run(TASK, snapshot), first)


def test_the_seed_and_the_prompt_make_the_sample(worker: RolloutWorker, snapshot: LoraSnapshot) -> None:
    _, trajectory = worker.run(dataclasses.replace(TASK, prompts=("a cat",) * 3, seeds=(5, 5, 6)), snapshot)
    np.testing.assert_allclose(trajectory.latents[0], trajectory.latents[1], rtol=0, atol=1e-5)
    assert np.abs(trajectory.latents[0] - trajectory.latents[2]).max() > 0.1
    _, other = worker.run(dataclasses.replace(TASK, prompts=("a dog",) * 3, seeds=(5, 5, 6)), snapshot)
    np.testing.assert_array_equal(other.latents[:, 0], trajectory.latents[:, 0])
    assert not np.array_equal(other.latents[:, -1], trajectory.latents[:, -1])


@torch.no_grad()
def test_log_probs_are_those_of_diffusers_gaussian(
    tiny_model: Path, tmp_path: Path, worker: RolloutWorker, snapshot: LoraSnapshot
) -> None:
    _, trajectory = worker.run(TASK, snapshot)
    mine = policy(tiny_model)
    mine.apply(snapshot)
    mine.save_adapter(tmp_path)
    pipeline: Any = StableDiffusionPipeline.from_pretrained(tiny_model, safety_checker=None)
    pipeline.load_lora_weights(tmp_path)
    scheduler: Any = DDIMScheduler.from_config(pipeline.scheduler.config)
    scheduler.set_timesteps(DENOISING.steps)
    cat, empty = pipeline.encode_prompt("a cat", "cpu", 1, do_classifier_free_guidance=True)
    dog, _ = pipeline.encode_prompt("a dog", "cpu", 1, do_classifier_free_guidance=True)
    prompts = torch.cat([cat, dog, cat])
    latents = torch.from_numpy(trajectory.latents.copy())
    assert trajectory.timesteps.tolist() == scheduler.timesteps.tolist()
    for step, time in enumerate(scheduler.timesteps):
        now, drawn = latents[:, step], latents[:, step + 1]
        without = pipeline.unet(now, time, empty.expand_as(prompts), return_dict=False)[0]
        with_prompt = pipeline.unet(now, time, prompts, return_dict=False)[0]
        output = without + DENOISING.guidance_scale * (with_prompt - without)
        nothing = torch.zeros_like(now)
        mean = scheduler.step(output, time, now, eta=DENOISING.eta, variance_noise=nothing, return_dict=False)[0]
        before = int(time) - 1000 // DENOISING.steps
        std = DENOISING.eta * scheduler._get_variance(int(time), before).sqrt()
        assert float(std) == pytest.approx(float(trajectory.sigmas[step]), rel=1e-5)
        expected = torch.distributions.Normal(mean, std).log_prob(drawn).flatten(1).mean(1)
        np.testing.assert_allclose(trajectory.log_probs[:, step], expected, rtol=1e-4, atol=1e-4)


def test_x_t_is_the_noise_of_the_seed(worker: RolloutWorker, snapshot: LoraSnapshot) -> None:
    _, trajectory = worker.run(TASK, snapshot)
    for row, seed in enumerate(TASK.seeds):
        noise = torch.randn(6, 4, 8, 8, generator=torch.Generator().manual_seed(seed))
        np.testing.assert_array_equal(trajectory.latents[row, 0], noise[0])


def test_images_are_the_decoded_last_latents(tiny_model: Path, worker: RolloutWorker, snapshot: LoraSnapshot) -> None:
    images, trajectory = worker.run(TASK, snapshot)
    pipeline: Any = StableDiffusionPipeline.from_pretrained(tiny_model, safety_checker=None)
    with torch.no_grad():
        last = torch.from_numpy(trajectory.latents[:, -1].copy())
        pixels = pipeline.vae.decode(last / pipeline.vae.config.scaling_factor, return_dict=False)[0]
    expected = pipeline.image_processor.postprocess(pixels, output_type="np").transpose(0, 3, 1, 2) * 255
    assert images.dtype == np.uint8
    assert images.shape == (3, 3, 16, 16)
    assert images.std() > 1
    assert np.abs(images - expected).max() <= 0.51  # rounded, in float32


def test_weights_are_swapped_between_tasks_and_the_digest_says_which_drew(
    tiny_model: Path, worker: RolloutWorker, snapshot: LoraSnapshot
) -> None:
    other = trained(tiny_model, 1, seed=1)
    old = worker.run(TASK, snapshot)
    new = worker.run(dataclasses.replace(TASK, version=PolicyVersion(1)), other)
    assert (old[1].version, old[1].digest) == (0, snapshot.digest)
    assert (new[1].version, new[1].digest) == (1, other.digest)
    assert not np.array_equal(old[1].latents, new[1].latents)
    assert_identical(worker.run(TASK, snapshot), old)


def test_other_weights_of_the_same_version_are_not_taken_for_those_applied(
    tiny_model: Path, worker: RolloutWorker, snapshot: LoraSnapshot
) -> None:
    other = trained(tiny_model, 0, seed=1)
    worker.run(TASK, snapshot)
    assert worker.run(TASK, other)[1].digest == other.digest != snapshot.digest


def test_a_snapshot_of_another_version_than_the_tasks_is_refused(worker: RolloutWorker, snapshot: LoraSnapshot) -> None:
    with pytest.raises(WeightsError, match="task 3 needs version 2, got version 0"):
        worker.run(dataclasses.replace(TASK, version=PolicyVersion(2)), snapshot)
