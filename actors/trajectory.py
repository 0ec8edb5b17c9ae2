"""What a sampler is asked to do, and what it answers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from actors.policy import PolicyVersion


@dataclass(frozen=True, slots=True)
class SampleTask:
    """One batch of samples for one sampler; it always gives the same result, whoever draws it and whenever."""

    task_id: int
    """Training tasks count from 0; an evaluation's count down from -1."""
    round: int
    """The round that trains on it (the version that is evaluated, for an evaluation)."""
    prompts: tuple[str, ...]
    seeds: tuple[int, ...]
    """One per sample, from the run's seed, the task id and the index in the task."""
    version: PolicyVersion
    """The policy that must draw it."""

    def __post_init__(self) -> None:
        if len(self.prompts) != len(self.seeds) or not self.prompts:
            raise ValueError(f"task {self.task_id}: {len(self.prompts)} prompts, {len(self.seeds)} seeds")


@dataclass(frozen=True, slots=True, eq=False)
class Trajectory:
    """A task's latents x_T … x_0 with the log-prob of every denoising step, and who drew them."""

    task_id: int
    version: PolicyVersion
    digest: str
    """Of the LoRA weights as they stood in the sampler's network when it drew."""
    prompts: tuple[str, ...]
    latents: Float[np.ndarray, "batch step_plus_1 channel height width"]
    """In the storage dtype; index 0 is the pure noise."""
    timesteps: Int[np.ndarray, " step"]
    sigmas: Float[np.ndarray, " step"]
    log_probs: Float[np.ndarray, "batch step"]
    """Behaviour log-probs, float32, mean over the latent's dimensions; 0 where a step has no noise."""

    def __post_init__(self) -> None:
        batch, steps = self.log_probs.shape
        shapes_fit = (
            self.latents.shape[:2] == (batch, steps + 1)
            and self.timesteps.shape == self.sigmas.shape == (steps,)
            and len(self.prompts) == batch
        )
        if not shapes_fit:
            raise ValueError(
                f"trajectory {self.task_id}: latents {self.latents.shape}, log-probs {self.log_probs.shape}"
            )
        if self.log_probs.dtype != np.float32:
            raise ValueError(f"trajectory {self.task_id}: log-probs are {self.log_probs.dtype}, not float32")
