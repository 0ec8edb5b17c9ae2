"""The learner: a scored round in, new weights out."""

from __future__ import annotations

import tempfile
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from actors.config import DenoisingConfig
from actors.policy import LoraSnapshot, PolicyVersion, WeightsError
from actors.prompts import Stream, stream_seed
from actors.trajectory import Trajectory
from learner.advantages import PromptStatistics
from learner.algorithms import Algorithm
from learner.batch import TrainBatch, minibatches, optimizer_step_samples, stack
from learner.config import LearnerConfig
from learner.scoring import Scorer, TrainablePolicy, log_prob_error, verify_origin
from learner.state import LearnerState, restore_optimizer, save_state, saved_prompt_rewards, saved_snapshots

HALF_PRECISION_TOLERANCE = 1e-3
"""What other batch sizes and kernels make of a log-prob in bfloat16 or float16."""


@dataclass(frozen=True, slots=True)
class UpdateReport:
    """What one round of training did; means are over its (sample, step) pairs."""

    version: int
    """After the update."""
    staleness: int
    """Largest of the round's samples."""
    num_samples: int
    loss: float
    approx_kl: float
    """Mean of half the squared log-ratio."""
    clip_fraction: float
    first_ratio_error: float
    """Largest |ratio - 1| in the first optimizer step; rounding alone where the staleness is 0."""
    grad_norm: float
    """Mean over the optimizer steps, before clipping."""
    log_prob_error: float
    """Largest difference between a sampler's log-prob and the learner's under the same weights."""
    seconds: float


class Learner:
    """Owns the trained adapter, its optimizer and the statistics of each prompt."""

    def __init__(
        self,
        policy: TrainablePolicy,
        algorithm: Algorithm,
        config: LearnerConfig,
        denoising: DenoisingConfig,
        run_seed: int,
        lag: int,
    ) -> None:
        self._policy = policy
        self._algorithm = algorithm
        self._config = config
        self._schedule = policy.schedule(denoising.steps, denoising.eta)
        self._trained_steps = self._schedule.stochastic.nonzero().flatten().cpu()
        first, end = config.step_window or (0, denoising.steps)
        self._trained_steps = self._trained_steps[(self._trained_steps >= first) & (self._trained_steps < end)]
        self._scorer = Scorer(policy, self._schedule, denoising.guidance_scale)
        default_tolerance = config.clip_range / 10 if policy.dtype == torch.float32 else HALF_PRECISION_TOLERANCE
        self._tolerance = config.log_prob_tolerance or default_tolerance
        self._run_seed = run_seed
        self._lag = lag
        self._parameters = list(policy.lora.values())
        self._optimizer = torch.optim.AdamW(
            self._parameters,
            lr=config.learning_rate,
            betas=(config.adam_beta1, config.adam_beta2),
            eps=config.adam_epsilon,
            weight_decay=config.weight_decay,
        )
        self._statistics = PromptStatistics(config.prompt_buffer, config.prompt_min_count)
        self._version = PolicyVersion(0)
        self._published = {0: policy.snapshot(self._version)}

    def published(self, version: int) -> LoraSnapshot:
        """A version's weights; the `lag + 1` newest are kept."""
        return self._published[version]

    def update(
        self, rewards: Float[np.ndarray, " all"], versions: tuple[int, ...], *trajectories: Trajectory
    ) -> tuple[UpdateReport, LoraSnapshot, LearnerState]:
        """Train on one round.

        Args:
            rewards: of all samples in the trajectories' order; NaN where a sample was dropped.
            versions: which one the schedule had draw each trajectory.

        Raises:
            WeightsError: a trajectory was drawn by another version than the schedule's, with weights that were never
                published, or its log-probs are not those of the weights it names.
        """
        torch.set_num_threads(self._config.threads)
        began = time.monotonic()
        for trajectory, version in zip(trajectories, versions, strict=True):
            verify_origin(trajectory, version, self._published, self._schedule)
        error = self._check_log_probs(trajectories)
        batch = stack(trajectories, rewards, self._policy.device)
        totals = self._train(batch)
        staleness = self._version - min(trajectory.version for trajectory in trajectories)
        self._version = PolicyVersion(self._version + 1)
        snapshot = self._publish()
        report = UpdateReport(
            version=self._version,
            staleness=staleness,
            num_samples=batch.num_samples,
            log_prob_error=error,
            seconds=time.monotonic() - began,
            **totals,
        )
        return report, snapshot, self.state()

    def state(self) -> LearnerState:
        return save_state(self._version, self._published, self._policy.lora, self._optimizer, self._statistics)

    def restore(self, state: LearnerState) -> None:
        """Go on from a saved state, bit for bit.

        Raises:
            WeightsError: the saved weights are not this adapter's.
        """
        self._version = PolicyVersion(state.version)
        self._published = saved_snapshots(state, self._published[0].manifest)
        self._policy.apply(self._published[state.version])
        restore_optimizer(state, self._policy.lora, self._optimizer)
        self._statistics.restore(saved_prompt_rewards(state))

    def adapter_files(self) -> dict[str, bytes]:
        """The adapter as diffusers stores it: contents by file name."""
        with tempfile.TemporaryDirectory() as folder:
            self._policy.save_adapter(Path(folder))
            return {path.name: path.read_bytes() for path in sorted(Path(folder).iterdir())}

    def _publish(self) -> LoraSnapshot:
        snapshot = self._policy.snapshot(self._version)
        self._published[self._version] = snapshot
        self._published = {v: s for v, s in self._published.items() if v >= self._version - self._lag}
        return snapshot

    def _train(self, batch: TrainBatch) -> dict[str, float]:
        advantages = self._algorithm.clip_advantages(
            self._statistics.advantages(batch.prompts, batch.rewards.cpu()).to(self._policy.device)
        )
        embeddings = self._policy.embed(batch.prompts)
        sums: defaultdict[str, float] = defaultdict(float)
        first_ratio_error = 0.0
        optimizer_steps = 0
        for epoch in range(self._config.inner_epochs):
            seed = stream_seed(self._run_seed, Stream.MINIBATCHES, self._version, epoch)
            for samples in optimizer_step_samples(batch.num_samples, self._config.optimizer_steps, seed):
                terms = self._optimizer_step(batch, embeddings, advantages, samples, seed + optimizer_steps)
                if optimizer_steps == 0:
                    first_ratio_error = terms.pop("ratio_error")
                for name in ("loss", "approx_kl", "clip_fraction", "grad_norm"):
                    sums[name] += terms[name]
                optimizer_steps += 1
        return {"first_ratio_error": first_ratio_error, **{k: v / optimizer_steps for k, v in sums.items()}}

    def _optimizer_step(
        self, batch: TrainBatch, embeddings: Tensor, advantages: Tensor, samples: Tensor, seed: int
    ) -> dict[str, float]:
        num_pairs = len(samples) * len(self._trained_steps)
        sums = torch.zeros(3, device=self._policy.device)
        ratio_error = torch.zeros((), device=self._policy.device)
        for pairs in minibatches(samples, self._trained_steps, self._config.minibatch, seed):
            new_log_probs = self._scorer(batch, embeddings, pairs)
            terms = self._algorithm.terms(
                new_log_probs, batch.log_probs[pairs.samples, pairs.steps], advantages[pairs.samples]
            )
            (terms.loss.sum() / num_pairs).backward()
            sums += torch.stack([terms.loss.detach().sum(), 0.5 * (terms.log_ratio**2).sum(), terms.clipped.sum()])
            ratio_error = torch.maximum(ratio_error, terms.log_ratio.expm1().abs().max())
        grad_norm = torch.nn.utils.clip_grad_norm_(self._parameters, self._config.max_grad_norm)
        if not torch.isfinite(grad_norm):
            raise WeightsError(f"the gradient of round {self._version} is not finite; lower learner.learning_rate")
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        loss, approx_kl, clip_fraction = (sums / num_pairs).tolist()
        return {
            "loss": loss,
            "approx_kl": approx_kl,
            "clip_fraction": clip_fraction,
            "grad_norm": float(grad_norm),
            "ratio_error": float(ratio_error),
        }

    def _check_log_probs(self, trajectories: tuple[Trajectory, ...]) -> float:
        """Re-score a pair of every trajectory under the version that it names; returns the largest difference."""
        errors: list[float] = []
        for version in sorted({trajectory.version for trajectory in trajectories}):
            group = [trajectory for trajectory in trajectories if trajectory.version == version]
            seeds = [stream_seed(self._run_seed, Stream.CHECK, trajectory.task_id) for trajectory in group]
            if version != self._version:
                self._policy.apply(self._published[version])
            errors.append(log_prob_error(self._scorer, group, self._trained_steps, seeds))
            if version != self._version:
                self._policy.apply(self._published[self._version])
        worst = float(np.max(errors))  # the built-in max would pass over NaN
        if not worst <= self._tolerance:
            raise WeightsError(
                f"round {self._version}: under the same weights, sampler and learner disagree on log-probs by "
                f"{worst:.2e} (tolerance {self._tolerance:.0e}); give both the same dtype and kind of device, "
                "or raise learner.log_prob_tolerance"
            )
        return worst
