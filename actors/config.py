"""Configuration of the model, the denoising chain, the samplers and the prompts."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

SECTION = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class ModelConfig(BaseModel):
    """The frozen model and the LoRA adapter on it."""

    model_config = SECTION

    path: str = "emoji"
    """`emoji` (the bundled model), a folder in diffusers format, or a hub id of a StableDiffusionPipeline."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Type of the frozen weights and of their arithmetic; the adapter and all log-probs stay float32."""
    lora_rank: int = Field(default=4, ge=1, le=1024)
    """Rank of each adapted projection."""
    lora_alpha: float | None = Field(default=None, gt=0)
    """Scale of the adapter is alpha / rank; none means alpha = rank."""
    lora_targets: tuple[str, ...] = Field(default=("to_q", "to_k", "to_v", "to_out.0"), min_length=1)
    """Name endings of the UNet's modules to adapt; the default is all attention projections."""


class DenoisingConfig(BaseModel):
    """The denoising chain; sampling and training use the same one."""

    model_config = SECTION

    steps: int = Field(default=50, ge=1, le=1000)
    """Denoising steps of a trajectory."""
    eta: float = Field(default=1.0, gt=0.0, le=1.0)
    """DDIM's eta: 1 draws like DDPM; the policy needs noise, so 0 is refused."""
    guidance_scale: float = Field(default=5.0, ge=1.0)
    """Classifier-free guidance, in sampling and in training; 1 switches it off."""


class SamplersConfig(BaseModel):
    """The sampler actors."""

    model_config = SECTION

    num: int = Field(default=1, ge=1)
    """Sampler actors; results do not depend on it."""
    batch_size: int = Field(default=8, ge=1)
    """Samples of one task, drawn as one batch; part of what makes two runs equal."""
    threads: int = Field(default=1, ge=1)
    """CPU threads of each sampler; part of what makes two runs equal, since it changes rounding."""
    device: str = "auto"
    """`auto` (CUDA where there is one), `cpu`, `cuda`, `cuda:1`, …"""
    num_cpus: float = Field(default=0.0, ge=0.0)
    """CPUs that Ray reserves for each sampler; 0 lets it share them."""
    num_gpus: float = Field(default=0.0, ge=0.0)
    """GPUs that Ray reserves for each sampler; a fraction shares one."""


class PromptsConfig(BaseModel):
    """What the images are asked to show."""

    model_config = SECTION

    source: str = "animals45"
    """A shipped set or a UTF-8 file. Sets of names: `animals45` (the paper's), `imagenet_animals` (398),
    `imagenet_dogs` (118), `imagenet_classes` (1000). Sets of sentences: `animals_activities` (135, the paper's for
    alignment), `counting` (360, with questions and answers). A file is text, one prompt a line, or `.jsonl`, one object
    a line: its `prompt`, and further keys (`questions`, `answers`, …), the metadata that rewards see."""
    template: str = "a(n) {}"
    """Sentence around each name of a shipped set of names; `a(n)` becomes `a` or `an`. Sets of sentences and files are
    taken as they are."""
    images_per_prompt: int = Field(default=1, ge=1)
    """Consecutive samples that share a prompt; every prompt of the set comes equally often."""
    limit: int | None = Field(default=None, ge=1)
    """Use the first so many prompts only."""

    @model_validator(mode="after")
    def _template_has_a_place(self) -> PromptsConfig:
        if "{}" not in self.template:
            raise ValueError(f"prompts.template {self.template!r} needs {{}} where the entry goes")
        return self
