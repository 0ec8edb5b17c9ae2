"""The fixed evaluation: the same prompts and seeds under any version, so that versions compare pairwise."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from actors.policy import PolicyVersion
from actors.prompts import Stream, stream_seed
from actors.trajectory import SampleTask
from cluster.pool import Handle, Lost, Outcome, Pool
from learner.events import Events
from learner.intake import MAX_LOSSES, RoundFailed
from rewards.reward import RewardRequest, RewardResult


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
        self._events, self._samplers, self._rewards = events, samplers, rewards
        self._batches, self._every, self._rounds = batches, every, rounds

    def due(self, version: int) -> bool:
        return version in (0, self._rounds) or (self._every > 0 and version % self._every == 0)

    def run(self, version: int, snapshot: Handle) -> EvaluationReport:
        """Evaluate one version.

        Raises:
            RoundFailed: a task was lost again and again, or no sample got a reward.
        """
        scores: dict[int, RewardResult] = {}
        images: dict[int, Handle] = {}
        losses = 0

        def draw(task: SampleTask) -> None:
            self._events.submit(
                self._samplers, task.task_id, "run", task, snapshot, then=lambda o: drawn(task, o), outputs=2
            )

        def drawn(task: SampleTask, outcome: Outcome) -> None:
            if again(task, outcome):
                return
            images[task.task_id] = outcome.outputs[0]  # type: ignore[union-attr]
            request = RewardRequest(task.task_id, task.prompts)
            then: Callable[[Outcome], None] = lambda o: rated(task, o)  # noqa: E731
            self._events.submit(self._rewards, task.task_id, "run", images[task.task_id], request, then=then)

        def rated(task: SampleTask, outcome: Outcome) -> None:
            if not again(task, outcome):
                scores[task.task_id] = self._events.get(outcome.outputs[0])  # type: ignore[union-attr]

        def again(task: SampleTask, outcome: Outcome) -> bool:
            nonlocal losses
            if not isinstance(outcome, Lost):
                return False
            losses += 1
            if losses >= MAX_LOSSES * len(self._batches):
                raise RoundFailed(f"evaluation of version {version}: {outcome.worker} died: {outcome.reason}")
            draw(task)
            return True

        for place, (prompts, seeds) in enumerate(self._batches):
            draw(SampleTask(-1 - place, version, prompts, seeds, PolicyVersion(version)))
        self._events.until(lambda: len(scores) == len(self._batches), f"evaluation of version {version}")
        order = [-1 - place for place in range(len(self._batches))]
        rewards = np.concatenate([scores[task_id].values for task_id in order])
        if not np.isfinite(rewards).any():
            raise RoundFailed(f"evaluation of version {version}: no sample has a reward ({scores[-1].details[0]})")
        return EvaluationReport(version, rewards, tuple(images[task_id] for task_id in order))
