"""One task from prompts to rewards: drawn, scored, and done again where a process was lost on the way."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from actors.trajectory import SampleTask
from cluster.pool import Done, Handle, Lost, Outcome, Pool
from learner.events import CallLost, Events
from learner.ledger import State
from rewards.reward import RewardRequest, RewardResult

log = logging.getLogger(__name__)

MAX_LOSSES = 5
"""A task that was lost this often is taken to kill its workers."""


@dataclass(frozen=True, slots=True, eq=False)
class ScoredTask:
    """A task's results; latents and pixels stay where they were made."""

    task: SampleTask
    trajectory: Handle
    images: Handle
    result: RewardResult
    sampling_seconds: float
    scoring_seconds: float


@dataclass(frozen=True, slots=True, eq=False)
class Errand:
    """A task under way, and who wants to know of it."""

    task: SampleTask
    snapshot: Handle
    moved: Callable[[State], None]
    """Told when its samples are pending (again), sampling, scoring."""
    then: Callable[[ScoredTask], None]


class Drawing:
    """Takes tasks through the pools of samplers and reward workers."""

    def __init__(self, events: Events, samplers: Pool, rewards: Pool) -> None:
        self._events, self._samplers, self._rewards = events, samplers, rewards
        self._losses: Counter[int] = Counter()

    def start(self, errand: Errand) -> None:
        """Have a task drawn and scored; its callbacks come from within `Events.until`."""
        errand.moved(State.SAMPLING)
        self._events.submit(
            self._samplers,
            errand.task.task_id,
            "run",
            errand.task,
            errand.snapshot,
            then=lambda outcome: self._drawn(errand, outcome),
            outputs=2,
        )

    def _drawn(self, errand: Errand, outcome: Outcome) -> None:
        match outcome:
            case Done():
                errand.moved(State.SCORING)
                self._score(errand, outcome)
            case Lost():
                self._start_again(errand, outcome)

    def _score(self, errand: Errand, drawn: Done) -> None:
        task = errand.task
        self._events.submit(
            self._rewards,
            task.task_id,
            "run",
            drawn.outputs[0],
            RewardRequest(task.task_id, task.prompts),
            then=lambda outcome: self._scored(errand, drawn, outcome),
        )

    def _scored(self, errand: Errand, drawn: Done, outcome: Outcome) -> None:
        match outcome:
            case Done(outputs=(result,), seconds=seconds):
                images, trajectory = drawn.outputs
                value = self._events.get(result)
                errand.then(ScoredTask(errand.task, trajectory, images, value, drawn.seconds, seconds))
            case Lost(arguments_gone=False):
                self._count(outcome)
                self._score(errand, drawn)
            case Lost():
                self._start_again(errand, outcome)

    def _start_again(self, errand: Errand, lost: Lost) -> None:
        """The same task with the same seeds and weights: it comes out identical."""
        self._count(lost)
        errand.moved(State.PENDING)
        self.start(errand)

    def _count(self, lost: Lost) -> None:
        """Raises CallLost for a task that is lost again and again."""
        assert isinstance(lost.key, int)
        self._losses[lost.key] += 1
        if self._losses[lost.key] >= MAX_LOSSES:
            raise CallLost(f"task {lost.key} was lost {MAX_LOSSES} times, last on {lost.worker}: {lost.reason}")
        log.warning("%s lost task %d (%s); it is done again", lost.worker, lost.key, lost.reason)
