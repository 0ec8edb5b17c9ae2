"""Log-probs as the learner computes them, and the proof that a sampler's are the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from actors.ddim import PredictionType, step_gaussian, step_log_prob
from actors.denoiser import Denoiser, guided_output
from actors.policy import LoraSnapshot, PolicyVersion, WeightsError
from actors.schedule import DdimSchedule
from actors.trajectory import Trajectory
from learner.batch import Pairs, TrainBatch


@runtime_checkable
class TrainablePolicy(Denoiser, Protocol):
    """What the learner needs of a model with an adapter."""

    device: torch.device
    dtype: torch.dtype
    prediction: PredictionType

    @property
    def lora(self) -> Mapping[str, torch.nn.Parameter]: ...
    def schedule(self, num_steps: int, eta: float) -> DdimSchedule: ...
    def embed(self, prompts: tuple[str, ...]) -> Float[Tensor, "batch token feature"]: ...
    def snapshot(self, version: PolicyVersion) -> LoraSnapshot: ...
    def apply(self, snapshot: LoraSnapshot) -> str: ...
    def save_adapter(self, folder: Path) -> None: ...


class Scorer:
    """Log-probs of drawn latents under a policy's present weights, gradients included."""

    def __init__(self, policy: TrainablePolicy, schedule: DdimSchedule, guidance_scale: float) -> None:
        self.policy, self.schedule, self._guidance_scale = policy, schedule, guidance_scale

    def __call__(
        self, batch: TrainBatch, embeddings: Float[Tensor, "sample token feature"], pairs: Pairs
    ) -> Float[Tensor, " pair"]:
        samples, steps = pairs.samples, pairs.steps
        latents = batch.latents[samples, steps].float()
        output = guided_output(
            self.policy,
            latents,
            self.schedule.timesteps[steps],
            embeddings[samples],
            self.policy.embed(("",))[0],
            self._guidance_scale,
        )
        mean, std = step_gaussian(self.schedule, steps, latents, output, self.policy.prediction)
        return step_log_prob(batch.latents[samples, steps + 1], mean, std)


def verify_origin(
    trajectory: Trajectory, version: int, published: Mapping[int, LoraSnapshot], schedule: DdimSchedule
) -> None:
    """Hold a trajectory against the version that should have drawn it, and against what was published.

    Raises:
        WeightsError: its version is another or not in use, its digest is another, or its noise levels are.
    """
    if trajectory.version != version:
        raise WeightsError(
            f"task {trajectory.task_id} was drawn by version {trajectory.version}, the schedule asked for {version}"
        )
    snapshot = published.get(trajectory.version)
    if snapshot is None:
        known = ", ".join(map(str, published))
        raise WeightsError(
            f"task {trajectory.task_id} was drawn by version {trajectory.version}, which is not in use ({known})"
        )
    if trajectory.digest != snapshot.digest:
        raise WeightsError(
            f"task {trajectory.task_id} was drawn with LoRA weights {trajectory.digest[:12]}, but version "
            f"{trajectory.version} was published as {snapshot.digest[:12]}: the weights never arrived"
        )
    same_times = np.array_equal(trajectory.timesteps, schedule.timesteps.cpu().numpy())
    if not (same_times and np.array_equal(trajectory.sigmas, schedule.sigmas.cpu().numpy())):
        raise WeightsError(f"task {trajectory.task_id} was drawn on other noise levels than the learner's")


@torch.no_grad()
def log_prob_error(
    scorer: Scorer, trajectories: Sequence[Trajectory], steps: Int[Tensor, " trained_step"], seeds: Sequence[int]
) -> float:
    """Largest difference between stored and re-scored log-probs, over one pair of each trajectory.

    The policy must hold the weights that drew them. Which of the trained steps and which sample are looked at follows
    from the trajectory's seed.
    """
    policy = scorer.policy
    chosen = [divmod(seed, len(steps)) for seed in seeds]
    rows = [quotient % len(t.prompts) for (quotient, _), t in zip(chosen, trajectories, strict=True)]
    chosen_steps = steps[[rest for _, rest in chosen]]
    of_rows = list(zip(trajectories, rows, strict=True))
    batch = TrainBatch(
        tuple(t.prompts[row] for t, row in of_rows),
        torch.from_numpy(np.stack([t.latents[row] for t, row in of_rows])).to(policy.device),
        torch.from_numpy(np.stack([t.log_probs[row] for t, row in of_rows])).to(policy.device),
        torch.zeros(len(rows)),
    )
    pairs = Pairs(torch.arange(len(rows)), chosen_steps)
    new_log_probs = scorer(batch, policy.embed(batch.prompts), pairs)
    return float((new_log_probs - batch.log_probs[pairs.samples, pairs.steps]).abs().max())
