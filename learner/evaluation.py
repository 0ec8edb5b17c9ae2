"""The fixed evaluation: the same prompts and seeds under any version, so that versions compare pairwise."""

from __future__ import annotations

from collections.abc import Mapping
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
from learner.mixing import Judged, Mix
from learner.panel import Panel


@dataclass(frozen=True, slots=True, eq=False)
class EvaluationReport:
    """Rewards of one version on the fixed prompts and seeds."""

    version: int
    prompts: tuple[str, ...]
    rewards: Float[np.ndarray, " sample"]
    """The weighted sum that is trained on; NaN where a reward failed."""
    judged: Mapping[str, Judged]
    """What each reward said, those that are never trained on included, by label."""
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
        panel: Panel,
        mix: Mix,
        batches: list[tuple[tuple[str, ...], tuple[int, ...]]],
        every: int,
        rounds: int,
    ) -> None:
        self._events, self._drawing, self._mix = events, Drawing(events, samplers, panel), mix
        self._batches, self._every, self._rounds = batches, every, rounds

    def due(self, version: int) -> bool:
        return version in (0, self._rounds) or (self._every > 0 and version % self._every == 0)

    def run(self, version: int, snapshot: Handle) -> EvaluationReport:
        """Evaluate one version; running scales begin with version 0's.

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
        prompts = tuple(prompt for batch, _ in self._batches for prompt in batch)
        judged = {
            term.label: self._mix.judge(
                term, [done[task_id].results[term.label] for task_id in order], prompts, evaluated=version
            )
            for term in self._mix.terms
        }
        rewards = self._mix.total(judged)
        if not np.isfinite(rewards).any():
            why = next((d.details[place] or d.reasons[place] for d in judged.values() for place in d.reasons), "")
            raise RoundFailed(f"evaluation of version {version}: no sample has a reward: {why}")
        return EvaluationReport(version, prompts, rewards, judged, tuple(done[task_id].images for task_id in order))


def _not_in_the_ledger(state: State) -> None:
    """Evaluation samples are not trained on, so nobody keeps account of them."""
