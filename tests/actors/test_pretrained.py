"""A diffusers pipeline as a policy: what is loaded, adapted, encoded, saved."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    EulerDiscreteScheduler,
    PNDMScheduler,
    StableDiffusionPipeline,
)

from actors.config import ModelConfig
from actors.policy import PolicyVersion, WeightsError
from actors.pretrained import PretrainedPolicy, ddim_scheduler
from tests.tiny_model import save_tiny_model

ZERO = PolicyVersion(0)
NOISE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1}


def load(model: Path, lora_seed: int = 1, **settings: Any) -> PretrainedPolicy:
    return PretrainedPolicy(ModelConfig(path=str(model), **settings), "cpu", lora_seed)


def disturb(policy: PretrainedPolicy) -> None:
    """An adapter that changes something, as a trained one does."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in policy.lora.values():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)


def inputs(policy: PretrainedPolicy) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    latents = torch.randn(2, *policy.latent_shape, generator=torch.Generator().manual_seed(3))
    return latents, torch.tensor([10, 700]), policy.embed(("a cat", "a dog"))


@torch.no_grad()
def output_of(policy: PretrainedPolicy) -> torch.Tensor:
    return policy.predict(*inputs(policy))


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_every_kind_of_prediction_is_read_from_the_model(tmp_path: Path, prediction: str) -> None:
    policy = load(save_tiny_model(tmp_path, prediction=prediction))
    assert policy.prediction == prediction
    assert policy.latent_shape == (4, 8, 8)


@pytest.mark.parametrize("kind", [PNDMScheduler, EulerDiscreteScheduler])
def test_another_scheduler_is_replaced_by_ddim_on_the_same_noise(caplog: pytest.LogCaptureFixture, kind: type) -> None:
    with caplog.at_level(logging.INFO, "actors.pretrained"):
        replaced = ddim_scheduler(kind(**NOISE, prediction_type="v_prediction"))
    assert caplog.messages == [f"the model's {kind.__name__} is replaced by DDIM built from its configuration"]
    reference = DDIMScheduler(**NOISE, clip_sample=False)
    assert type(replaced) is DDIMScheduler
    assert replaced.config["prediction_type"] == "v_prediction"
    assert not replaced.config["clip_sample"]
    torch.testing.assert_close(replaced.alphas_cumprod, reference.alphas_cumprod)


def test_ddim_itself_is_taken_without_a_word(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "actors.pretrained"):
        ddim_scheduler(DDIMScheduler(**NOISE))
    assert caplog.messages == []


def test_a_pipeline_with_another_scheduler_loads(tmp_path: Path) -> None:
    policy = load(save_tiny_model(tmp_path, scheduler=PNDMScheduler(**NOISE, skip_prk_steps=True)))
    assert policy.schedule(4, 1.0).timesteps.tolist() == [751, 501, 251, 1]


def test_a_fresh_adapter_changes_nothing_and_a_disturbed_one_does(tiny_model: Path) -> None:
    policy = load(tiny_model)
    plain: Any = StableDiffusionPipeline.from_pretrained(tiny_model, safety_checker=None)
    latents, times, embeddings = inputs(policy)
    with torch.no_grad():
        expected = plain.unet(latents, times, embeddings, return_dict=False)[0]
    torch.testing.assert_close(output_of(policy), expected, rtol=0, atol=1e-6)
    disturb(policy)
    assert (output_of(policy) - expected).abs().max() > 1e-2


@pytest.mark.parametrize("settings", [{}, {"lora_rank": 2, "lora_alpha": 5.0}], ids=["alpha=rank", "alpha=5"])
def test_a_saved_adapter_gives_the_same_output_wherever_it_is_loaded(
    tiny_model: Path, tmp_path: Path, settings: dict[str, Any]
) -> None:
    policy = load(tiny_model, **settings)
    disturb(policy)
    policy.save_adapter(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["pytorch_lora_weights.safetensors"]
    expected = output_of(policy)

    pipeline: Any = StableDiffusionPipeline.from_pretrained(tiny_model, safety_checker=None)
    pipeline.load_lora_weights(tmp_path)
    with torch.no_grad():
        theirs = pipeline.unet(*inputs(policy), return_dict=False)[0]
    torch.testing.assert_close(theirs, expected, rtol=0, atol=1e-5)

    other = load(tiny_model, lora_seed=2)
    other.load_adapter(tmp_path)
    torch.testing.assert_close(output_of(other), expected, rtol=0, atol=1e-5)


def test_a_prompts_embedding_does_not_depend_on_its_neighbours(tiny_model: Path) -> None:
    together = load(tiny_model).embed(("a cat", "a dog", "a cat", ""))
    for place, prompt in enumerate(("a cat", "a dog", "a cat", "")):
        assert torch.equal(load(tiny_model).embed((prompt,))[0], together[place])
    assert not torch.equal(together[0], together[1])


def test_a_prompts_embedding_is_the_pipelines_own(tiny_model: Path) -> None:
    pipeline: Any = StableDiffusionPipeline.from_pretrained(tiny_model, safety_checker=None)
    with torch.no_grad():
        theirs, empty = pipeline.encode_prompt("a cat", "cpu", 1, do_classifier_free_guidance=True)
    torch.testing.assert_close(load(tiny_model).embed(("a cat", "")), torch.cat([theirs, empty]))


def test_a_snapshot_carries_the_adapter_to_another_policy(tiny_model: Path) -> None:
    one, other = load(tiny_model, 1), load(tiny_model, 2)
    disturb(one)
    snapshot = one.snapshot(PolicyVersion(4))
    assert other.snapshot(ZERO).digest != snapshot.digest
    assert other.apply(snapshot) == snapshot.digest == other.snapshot(ZERO).digest
    assert torch.equal(output_of(one), output_of(other))


def test_the_digest_after_applying_is_of_what_stands_in_the_network(tiny_model: Path) -> None:
    policy = load(tiny_model)
    disturb(policy)
    snapshot = policy.snapshot(ZERO)
    broken = next(iter(policy.lora.values()))
    broken.data = broken.data.bfloat16()  # it cannot hold the snapshot's values
    assert policy.apply(snapshot) != snapshot.digest


def test_a_snapshot_of_another_adapter_is_refused_whole(tiny_model: Path) -> None:
    policy = load(tiny_model)
    before = policy.snapshot(ZERO).digest
    for settings in ({"lora_rank": 2}, {"lora_targets": ("to_q",)}):
        with pytest.raises(WeightsError, match="for other modules than this model's adapter"):
            policy.apply(load(tiny_model, **settings).snapshot(ZERO))
    damaged = policy.snapshot(ZERO)
    damaged = dataclasses.replace(damaged, buffer=damaged.buffer + 1)
    with pytest.raises(WeightsError, match="corrupted"):
        policy.apply(damaged)
    assert policy.snapshot(ZERO).digest == before


def test_the_seed_alone_makes_a_fresh_adapter(tiny_model: Path) -> None:
    torch.manual_seed(1)
    one = load(tiny_model, 7).snapshot(ZERO).digest
    torch.manual_seed(2)
    assert load(tiny_model, 7).snapshot(ZERO).digest == one
    assert load(tiny_model, 8).snapshot(ZERO).digest != one


def test_without_a_decoder_none_is_loaded_and_the_adapter_is_the_same(tiny_model: Path) -> None:
    lean = PretrainedPolicy(ModelConfig(path=str(tiny_model)), "cpu", 1, with_decoder=False)
    assert torch.equal(output_of(lean), output_of(load(tiny_model)))
    assert lean.snapshot(ZERO).digest == load(tiny_model).snapshot(ZERO).digest


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_the_adapter_stays_float32_in_a_model_of_half_precision(tiny_model: Path, dtype: str) -> None:
    policy = load(tiny_model, dtype=dtype)
    assert {parameter.dtype for parameter in policy.lora.values()} == {torch.float32}
    assert policy.storage == torch.float16
    output = output_of(policy)
    assert output.dtype == torch.float32
    torch.testing.assert_close(output, output_of(load(tiny_model)), rtol=0.1, atol=0.05)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_device_that_is_not_there_is_refused(tiny_model: Path) -> None:
    with pytest.raises(ValueError, match="this process sees no CUDA device; reserve one"):
        PretrainedPolicy(ModelConfig(path=str(tiny_model)), "cuda", 1)
