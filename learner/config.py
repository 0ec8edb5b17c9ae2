"""The whole configuration: every section of it, and the checks between them."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field, field_validator, model_validator

from actors.config import SECTION, DenoisingConfig, ModelConfig, PromptsConfig, SamplersConfig
from cluster.config import ClusterConfig
from rewards.config import RewardsConfig


class RunSection(BaseModel):
    """The run itself."""

    model_config = SECTION

    name: str = ""
    """Folder of the run; empty means the preset's name with the date and time."""
    dir: str = "runs"
    """Where runs lie."""
    seed: int = Field(default=0, ge=0)
    """Seed of everything random."""
    rounds: int = Field(default=40, ge=1)
    """Rounds to train in all, those before a resume included."""

    @field_validator("name")
    @classmethod
    def _one_folder(cls, name: str) -> str:
        if "/" in name or "\\" in name or name.startswith("."):
            raise ValueError(f"run.name {name!r} must be a plain folder name; choose the place with run.dir")
        return name


class ScheduleConfig(BaseModel):
    """Which policy version draws which samples."""

    model_config = SECTION

    samples_per_round: int = Field(default=256, ge=1)
    """Samples that one round trains on; a multiple of samplers.batch_size."""
    lag: int = Field(default=1, ge=0)
    """Rounds that the sampling policy may trail; 0 is synchronous, 1 lets sampling and training overlap."""
    kind: Literal["fixed", "freshest"] = "fixed"
    """`fixed`: round n is always drawn by version max(0, n - lag), reproducible. `freshest`: by the newest there is."""


class LearnerConfig(BaseModel):
    """The updates."""

    model_config = SECTION

    learning_rate: float = Field(default=3e-4, gt=0)
    """AdamW's step size, constant."""
    adam_beta1: float = Field(default=0.9, ge=0, lt=1)
    """Decay of the gradient's mean."""
    adam_beta2: float = Field(default=0.999, ge=0, lt=1)
    """Decay of the gradient's square."""
    adam_epsilon: float = Field(default=1e-8, gt=0)
    """Added to the root of the gradient's square."""
    weight_decay: float = Field(default=1e-4, ge=0)
    """Decoupled weight decay."""
    max_grad_norm: float = Field(default=1.0, gt=0)
    """Gradients are clipped to this norm before each optimizer step."""
    optimizer_steps: int = Field(default=4, ge=1)
    """Optimizer steps of one pass over a round; each uses an equal share of its samples with all denoising steps."""
    inner_epochs: int = Field(default=1, ge=1)
    """Passes over a round."""
    step_window: tuple[int, int] | None = None
    """Denoising steps that are trained on, as [first, end), 0 = the noisiest; none means all. With few steps the last
    ones are all but deterministic: their log-probs drown the others' gradient in noise and hardly touch the image."""
    minibatch: int = Field(default=64, ge=1)
    """(sample, denoising step) pairs computed at once; gradients are accumulated over an optimizer step's pairs."""
    clip_range: float = Field(default=1e-4, gt=0)
    """Half-width of the ratio's trust region; it scales with the latent's size, since log-probs are means over it."""
    advantage_clip: float = Field(default=5.0, gt=0)
    """Advantages are cut to plus or minus this."""
    prompt_buffer: int = Field(default=16, ge=1)
    """Newest rewards kept for each prompt's mean and standard deviation."""
    prompt_min_count: int = Field(default=16, ge=1)
    """Rewards a prompt needs before its own statistics replace the round's."""
    log_prob_tolerance: float | None = Field(default=None, gt=0)
    """Largest difference allowed between a sampler's log-prob and the learner's under the same weights; none means a
    tenth of the clip range for float32 and 1e-3 otherwise."""
    threads: int = Field(default=1, ge=1)
    """CPU threads of the learner; part of what makes two runs equal."""
    device: str = "auto"
    """`auto` (CUDA where there is one), `cpu`, `cuda`, …"""
    num_cpus: float = Field(default=0.0, ge=0.0)
    """CPUs that Ray reserves for the learner; 0 lets it share them."""
    num_gpus: float = Field(default=0.0, ge=0.0)
    """GPUs that Ray reserves for the learner."""


class EvaluationConfig(BaseModel):
    """Fixed prompts and seeds, drawn by version 0, by the last one and in between."""

    model_config = SECTION

    samples: int = Field(default=64, ge=1)
    """Evaluation samples; prompts of the set in turn."""
    every: int = Field(default=0, ge=0)
    """Rounds between evaluations; 0 evaluates version 0 and the last one only."""


class CheckpointConfig(BaseModel):
    """What a run can be resumed from."""

    model_config = SECTION

    every: int = Field(default=5, ge=1)
    """Rounds between checkpoints; the last round always writes one."""
    keep: int = Field(default=3, ge=2)
    """Newest checkpoints kept; at least two, so that a damaged one can be passed over."""


class LogConfig(BaseModel):
    """What the run's folder shows besides numbers."""

    model_config = SECTION

    images: int = Field(default=16, ge=0)
    """Samples of each round saved as one grid; 0 saves none."""
    every: int = Field(default=1, ge=1)
    """Rounds between grids."""


class RunConfig(BaseModel):
    """A whole run."""

    model_config = SECTION

    run: RunSection = RunSection()
    model: ModelConfig = ModelConfig()
    denoising: DenoisingConfig = DenoisingConfig()
    prompts: PromptsConfig = PromptsConfig()
    samplers: SamplersConfig = SamplersConfig()
    rewards: RewardsConfig = RewardsConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    learner: LearnerConfig = LearnerConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    log: LogConfig = LogConfig()
    cluster: ClusterConfig = ClusterConfig()

    @property
    def tasks_per_round(self) -> int:
        return self.schedule.samples_per_round // self.samplers.batch_size

    @model_validator(mode="after")
    def _sections_fit(self) -> RunConfig:
        samples, batch = self.schedule.samples_per_round, self.samplers.batch_size
        if samples % batch:
            raise ValueError(
                f"schedule.samples_per_round ({samples}) must be a multiple of samplers.batch_size ({batch})"
            )
        if self.learner.optimizer_steps > samples:
            raise ValueError(
                f"learner.optimizer_steps ({self.learner.optimizer_steps}) exceeds the {samples} samples of a round"
            )
        first, end = self.learner.step_window or (0, self.denoising.steps)
        if not 0 <= first < end <= self.denoising.steps:
            raise ValueError(
                f"learner.step_window ({first}, {end}) must lie within the {self.denoising.steps} denoising steps"
            )
        for reward in self.rewards.all:
            if reward.timeout_s >= self.cluster.stall_timeout_s:
                raise ValueError(
                    f"cluster.stall_timeout_s ({self.cluster.stall_timeout_s:g}) must exceed rewards.timeout_s "
                    f"({reward.timeout_s:g} of {reward.called}), or a call that hangs ends the run"
                )
        if self.learner.prompt_min_count > self.learner.prompt_buffer:
            raise ValueError(
                f"learner.prompt_min_count ({self.learner.prompt_min_count}) can never be reached with "
                f"learner.prompt_buffer ({self.learner.prompt_buffer})"
            )
        return self
