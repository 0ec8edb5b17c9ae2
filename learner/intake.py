"""From prompts to scored rounds: keeps work in flight, joins rewards to trajectories, issues the lost again."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from actors.policy import PolicyVersion
from actors.prompts import PromptSource
from actors.trajectory import SampleTask
from cluster.pool import Done, Handle, Lost, Outcome, Pool
from learner.events import CallLost, Events
from learner.ledger import Ledger, State
from learner.staleness import Schedule, issuable, needed_versions
from rewards.reward import RewardRequest, RewardResult, Status

log = logging.getLogger(__name__)

MAX_LOSSES = 5
"""A task that was lost this often is taken to kill its workers."""


@dataclass(frozen=True, slots=True, eq=False)
class ScoredRound:
    """A complete round, in the order of (task id, index)."""

    index: int
    trajectories: tuple[Handle, ...]
    images: tuple[Handle, ...]
    prompts: tuple[str, ...]
    rewards: Float[np.ndarray, " all"]
    """NaN where the sample was dropped."""
    sampling_seconds: float
    """Summed over tasks."""
    scoring_seconds: float


@dataclass(slots=True)
class _Scored:
    trajectory: Handle
    images: Handle
    rewards: Float[np.ndarray, " batch"]
    sampling_seconds: float
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
        self._events, self._samplers, self._rewards = events, samplers, rewards
        self._prompts, self._schedule, self._batch_size, self._rounds = prompts, schedule, batch_size, rounds
        self.ledger = ledger
        self._round = first_round
        self._versions = dict(tasks_in_flight or {})
        self._to_reissue = sorted(self._versions)
        self._snapshots: dict[int, Handle] = {}
        self._scored: dict[int, _Scored] = {}
        self._losses: Counter[int] = Counter()

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
        rewards = np.concatenate([scored.rewards for scored in done])
        if not np.isfinite(rewards).any():
            raise RoundFailed(f"no sample of round {self._round} has a reward: {dict(self.ledger.dropped)}")
        return ScoredRound(
            self._round,
            tuple(scored.trajectory for scored in done),
            tuple(scored.images for scored in done),
            tuple(prompt for task_id in ids for prompt in self._task(task_id).prompts),
            rewards,
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
        self.ledger.move(task_id, State.SAMPLING)
        snapshot = self._snapshots[task.version]
        self._events.submit(self._samplers, task_id, "run", task, snapshot, then=self._drawn(task), outputs=2)

    def _drawn(self, task: SampleTask) -> Callable[[Outcome], None]:
        def then(outcome: Outcome) -> None:
            match outcome:
                case Lost():
                    self._draw_again(outcome)
                case Done():
                    self.ledger.move(task.task_id, State.SCORING)
                    self._score(task, outcome)

        return then

    def _score(self, task: SampleTask, drawn: Done) -> None:
        request = RewardRequest(task.task_id, task.prompts)
        then = self._rated(task, drawn)
        self._events.submit(self._rewards, task.task_id, "run", drawn.outputs[0], request, then=then)

    def _rated(self, task: SampleTask, drawn: Done) -> Callable[[Outcome], None]:
        def then(outcome: Outcome) -> None:
            match outcome:
                case Lost(arguments_gone=True):
                    self._draw_again(outcome)
                case Lost():
                    self._count_loss(outcome)
                    self._score(task, drawn)
                case Done():
                    self._take_in(task, drawn, outcome)

        return then

    def _take_in(self, task: SampleTask, drawn: Done, rated: Done) -> None:
        result: RewardResult = self._events.get(rated.outputs[0])
        self.ledger.score(task.task_id, failures(result))
        rewards = np.full(self._batch_size, np.nan, np.float32)
        alive = self.ledger.alive(task.task_id)
        rewards[alive] = result.values[alive]
        images, trajectory = drawn.outputs
        self._scored[task.task_id] = _Scored(trajectory, images, rewards, drawn.seconds, rated.seconds)

    def _draw_again(self, lost: Lost) -> None:
        """The same task with the same seeds and weights: it comes out identical."""
        task_id = self._count_loss(lost)
        self.ledger.reissue(task_id)
        self._draw(task_id)

    def _count_loss(self, lost: Lost) -> int:
        task_id = lost.key
        assert isinstance(task_id, int)
        self._losses[task_id] += 1
        if self._losses[task_id] >= MAX_LOSSES:
            raise CallLost(f"task {task_id} was lost {MAX_LOSSES} times, last on {lost.worker}: {lost.reason}")
        log.warning("%s died (%s); its task %d is done again", lost.worker, lost.reason, task_id)
        return task_id


def failures(result: RewardResult) -> dict[int, str]:
    """Why samples have no reward, by index."""
    return {index: f"reward {status.value}" for index, status in enumerate(result.statuses) if status is not Status.OK}
