"""From prompts to scored rounds: keeps work in flight, joins rewards to trajectories, issues the lost again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
from jaxtyping import Float

from actors.policy import PolicyVersion
from actors.prompts import PromptSource
from actors.trajectory import SampleTask
from cluster.pool import Handle, Pool
from learner.drawing import Drawing, Errand, ScoredTask
from learner.events import Events
from learner.ledger import Ledger, State
from learner.mixing import Judged, Mix
from learner.panel import Panel
from learner.staleness import Schedule, issuable, needed_versions


@dataclass(frozen=True, slots=True, eq=False)
class ScoredRound:
    """A complete round, in the order of (task id, index)."""

    index: int
    trajectories: tuple[Handle, ...]
    images: tuple[Handle, ...]
    versions: tuple[int, ...]
    """Which one drew each task."""
    prompts: tuple[str, ...]
    """Of all samples."""
    rewards: Float[np.ndarray, " all"]
    """What is trained on: the weighted sum; NaN where the sample was dropped."""
    judged: Mapping[str, Judged]
    """What each reward said, by label."""
    sampling_seconds: float
    """Summed over tasks."""
    scoring_seconds: float


class RoundFailed(RuntimeError):
    """Too few samples of a round have a reward."""


class Intake:
    """Owns the ledger and all tasks in flight; asks for no more than the schedule allows."""

    def __init__(
        self,
        events: Events,
        samplers: Pool,
        panel: Panel,
        mix: Mix,
        min_valid_fraction: float,
        prompts: PromptSource,
        schedule: Schedule,
        batch_size: int,
        rounds: int,
        ledger: Ledger,
        tasks_in_flight: dict[int, int] | None = None,
        first_round: int = 0,
    ) -> None:
        """`tasks_in_flight` maps the ids of a resumed run's tasks to the versions that must draw them."""
        self._events, self._drawing = events, Drawing(events, samplers, panel)
        self.mix, self._min_valid_fraction = mix, min_valid_fraction
        self._prompts, self._schedule, self._batch_size, self._rounds = prompts, schedule, batch_size, rounds
        self.ledger = ledger
        self._round = first_round
        self._versions = dict(tasks_in_flight or {})
        self._to_reissue = sorted(self._versions)
        self._snapshots: dict[int, Handle] = {}
        self._scored: dict[int, ScoredTask] = {}

    def publish(self, snapshots: Mapping[int, Handle]) -> None:
        """Make versions known, let go of those no task can ask for, and issue every task that is now allowed."""
        self._snapshots.update(snapshots)
        newest = max(self._snapshots)
        wanted = needed_versions(newest, self._schedule.lag)
        self._snapshots = {v: handle for v, handle in self._snapshots.items() if v in wanted}
        for task_id in self._to_reissue:
            self._draw(task_id)
        self._to_reissue = []
        first = max([self._round * self._schedule.tasks_per_round, *(task_id + 1 for task_id in self._versions)])
        for task_id in issuable(newest, first, self._schedule, self._rounds):
            self._versions[task_id] = self._schedule.version_for(self._round_of(task_id), newest)
            self.ledger.issue(task_id, self._batch_size)
            self._draw(task_id)

    def next_round(self) -> ScoredRound:
        """The next round, once all of its samples are scored; those without a reward are dropped.

        Raises:
            RoundFailed: too few have one. Nothing is dropped then, so that a resumed run draws and scores them again.
        """
        ids = self._task_ids(self._round)
        self._events.until(lambda: all(task_id in self._scored for task_id in ids), f"round {self._round}")
        done = [self._scored[task_id] for task_id in ids]
        prompts = tuple(prompt for scored in done for prompt in scored.task.prompts)
        scales = self.mix.record()
        judged = self._judge(done, prompts)
        rewards = self.mix.total(judged)
        try:
            self._drop_failures(ids, judged, rewards)
        except RoundFailed:
            self.mix.resume(scales)  # it will be judged again
            raise
        return ScoredRound(
            self._round,
            tuple(scored.trajectory for scored in done),
            tuple(scored.images for scored in done),
            tuple(scored.task.version for scored in done),
            prompts,
            rewards,
            judged,
            sum(scored.sampling_seconds for scored in done),
            sum(scored.scoring_seconds for scored in done),
        )

    def finish_round(self) -> None:
        """The round last handed out is trained; its samples are final and its data is let go."""
        for task_id in self._task_ids(self._round):
            self.ledger.train(task_id)
            del self._scored[task_id], self._versions[task_id]
        self._round += 1
        self.ledger.check()

    def tasks_in_flight(self) -> dict[int, int]:
        """Ids of unfinished tasks and the versions that draw them: what a checkpoint keeps of the queue."""
        return dict(self._versions)

    def _task_ids(self, round_index: int) -> range:
        per_round = self._schedule.tasks_per_round
        return range(round_index * per_round, (round_index + 1) * per_round)

    def _round_of(self, task_id: int) -> int:
        return task_id // self._schedule.tasks_per_round

    def _task(self, task_id: int) -> SampleTask:
        return SampleTask(
            task_id,
            self._round_of(task_id),
            self._prompts.batch(task_id, self._batch_size),
            self._prompts.seeds(task_id, self._batch_size),
            PolicyVersion(self._versions[task_id]),
        )

    def _draw(self, task_id: int) -> None:
        task = self._task(task_id)
        moved = partial(self._moved, task_id)
        self._drawing.start(Errand(task, self._snapshots[task.version], moved, self._take_in))

    def _moved(self, task_id: int, state: State) -> None:
        if state is State.PENDING:
            self.ledger.reissue(task_id)
        else:
            self.ledger.move(task_id, state)

    def _take_in(self, scored: ScoredTask) -> None:
        self.ledger.move(scored.task.task_id, State.SCORED)
        self._scored[scored.task.task_id] = scored

    def _judge(self, done: list[ScoredTask], prompts: tuple[str, ...]) -> dict[str, Judged]:
        trained = [term for term in self.mix.terms if term.weight]
        return {
            term.label: self.mix.judge(term, [scored.results[term.label] for scored in done], prompts)
            for term in trained
        }

    def _drop_failures(self, ids: range, judged: Mapping[str, Judged], rewards: Float[np.ndarray, " all"]) -> None:
        reasons = {
            int(place): "the sum of its rewards is not finite" for place in np.flatnonzero(~np.isfinite(rewards))
        }
        for of_reward in judged.values():
            reasons |= of_reward.reasons
        valid = len(rewards) - len(reasons)
        if valid < self._min_valid_fraction * len(rewards):
            detail = next((d.details[place] for d in judged.values() for place in d.reasons if d.details[place]), "")
            raise RoundFailed(
                f"only {valid} of {len(rewards)} samples of round {self._round} have a reward, while "
                f"rewards.min_valid_fraction asks for {self._min_valid_fraction:g}: "
                + "; ".join(f"{count} x {reason}" for reason, count in Counter(reasons.values()).items())
                + (f", for example: {detail}" if detail else "")
                + "; once this is mended, --resume goes on with this round"
            )
        for place, reason in reasons.items():
            task, index = divmod(place, self._batch_size)
            self.ledger.drop(ids[task], {index: reason})
