"""From prompts to scored rounds: keeps work in flight, joins rewards to trajectories, issues the lost again."""

from __future__ import annotations

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
from learner.staleness import Schedule, issuable, needed_versions
from rewards.reward import RewardResult, Status


@dataclass(frozen=True, slots=True, eq=False)
class ScoredRound:
    """A complete round, in the order of (task id, index)."""

    index: int
    trajectories: tuple[Handle, ...]
    images: tuple[Handle, ...]
    versions: tuple[int, ...]
    """Which one drew each task."""
    rewards: Float[np.ndarray, " all"]
    """NaN where the sample was dropped."""
    sampling_seconds: float
    """Summed over tasks."""
    scoring_seconds: float


class RoundFailed(RuntimeError):
    """A round in which no sample got a reward."""


class Intake:
    """Owns the ledger and all tasks in flight; asks for no more than the schedule allows."""

    def __init__(
        self,
        events: Events,
        samplers: Pool,
        rewards: Pool,
        prompts: PromptSource,
        schedule: Schedule,
        batch_size: int,
        rounds: int,
        ledger: Ledger,
        tasks_in_flight: dict[int, int] | None = None,
        first_round: int = 0,
    ) -> None:
        """`tasks_in_flight` maps the ids of a resumed run's tasks to the versions that must draw them."""
        self._events, self._drawing = events, Drawing(events, samplers, rewards)
        self._prompts, self._schedule, self._batch_size, self._rounds = prompts, schedule, batch_size, rounds
        self.ledger = ledger
        self._round = first_round
        self._versions = dict(tasks_in_flight or {})
        self._to_reissue = sorted(self._versions)
        self._snapshots: dict[int, Handle] = {}
        self._scored: dict[int, ScoredTask] = {}
        self._values: dict[int, Float[np.ndarray, " batch"]] = {}

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
        """The next round, once all of its samples are scored or dropped.

        Raises:
            RoundFailed: not one of them has a reward.
        """
        ids = self._task_ids(self._round)
        self._events.until(lambda: all(task_id in self._scored for task_id in ids), f"round {self._round}")
        done = [self._scored[task_id] for task_id in ids]
        rewards = np.concatenate([self._values[task_id] for task_id in ids])
        if not np.isfinite(rewards).any():
            raise RoundFailed(f"no sample of round {self._round} has a reward: {dict(self.ledger.dropped)}")
        return ScoredRound(
            self._round,
            tuple(scored.trajectory for scored in done),
            tuple(scored.images for scored in done),
            tuple(scored.task.version for scored in done),
            rewards,
            sum(scored.sampling_seconds for scored in done),
            sum(scored.scoring_seconds for scored in done),
        )

    def finish_round(self) -> None:
        """The round last handed out is trained; its samples are final and its data is let go."""
        for task_id in self._task_ids(self._round):
            self.ledger.train(task_id)
            del self._scored[task_id], self._values[task_id], self._versions[task_id]
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
        task_id = scored.task.task_id
        self.ledger.score(task_id, failures(scored.result))
        values = np.full(self._batch_size, np.nan, np.float32)
        alive = self.ledger.alive(task_id)
        values[alive] = scored.result.values[alive]
        self._values[task_id] = values
        self._scored[task_id] = scored


def failures(result: RewardResult) -> dict[int, str]:
    """Why samples have no reward, by index."""
    return {index: f"reward {status.value}" for index, status in enumerate(result.statuses) if status is not Status.OK}
