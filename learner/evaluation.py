"""The fixed evaluation: the same prompts and seeds under any version, so that versions compare pairwise."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from actors.policy import PolicyVersion
from actors.prompts import Stream, stream_seed
from actors.trajectory import SampleTask
from cluster.pool import Handle, Pool
from learner.drawing import Drawing, Errand, ScoredTask
from learner.events import Events
from learner.intake import RoundFailed
from learner.ledger import State


@dataclass(frozen=True, slots=True, eq=False)
class EvaluationReport:
    """Rewards of one version on the fixed prompts and seeds."""

    version: int
    rewards: Float[np.ndarray, " sample"]
    """NaN where the reward failed."""
    images: tuple[Handle, ...]
    """One batch per task, in order."""

    @property
    def mean(self) -> float:
        return float(np.nanmean(self.rewards))


def evaluation_batches(
    prompts: tuple[str, ...], samples: int, batch_size: int, run_seed: int
) -> list[tuple[tuple[str, ...], tuple[int, ...]]]:
    """Prompts in turn and seeds of their own stream, cut into tasks; the last may be smaller."""
    chosen = [prompts[index % len(prompts)] for index in range(samples)]
    seeds = [stream_seed(run_seed, Stream.EVALUATION, index) for index in range(samples)]
    starts = range(0, samples, batch_size)
    return [(tuple(chosen[s : s + batch_size]), tuple(seeds[s : s + batch_size])) for s in starts]


class Evaluation:
    """Draws and scores the evaluation's tasks on the same pools as training; its trajectories are thrown away."""

    def __init__(
        self,
        events: Events,
        samplers: Pool,
        rewards: Pool,
        batches: list[tuple[tuple[str, ...], tuple[int, ...]]],
        every: int,
        rounds: int,
    ) -> None:
        self._events, self._drawing = events, Drawing(events, samplers, rewards)
        self._batches, self._every, self._rounds = batches, every, rounds

    def due(self, version: int) -> bool:
        return version in (0, self._rounds) or (self._every > 0 and version % self._every == 0)

    def run(self, version: int, snapshot: Handle) -> EvaluationReport:
        """Evaluate one version.

        Raises:
            RoundFailed: no sample got a reward.
        """
        done: dict[int, ScoredTask] = {}

        def take_in(scored: ScoredTask) -> None:
            done[scored.task.task_id] = scored

        order = [-1 - place for place in range(len(self._batches))]
        for task_id, (prompts, seeds) in zip(order, self._batches, strict=True):
            task = SampleTask(task_id, version, prompts, seeds, PolicyVersion(version))
            self._drawing.start(Errand(task, snapshot, _not_in_the_ledger, take_in))
        self._events.until(lambda: len(done) == len(order), f"evaluation of version {version}")
        rewards = np.concatenate([done[task_id].result.values for task_id in order])
        if not np.isfinite(rewards).any():
            raise RoundFailed(f"evaluation of version {version}: no sample has a reward: {done[-1].result.details[0]}")
        return EvaluationReport(version, rewards, tuple(done[task_id].images for task_id in order))


def _not_in_the_ledger(state: State) -> None:
    """Evaluation samples are not trained on, so nobody keeps account of them."""
