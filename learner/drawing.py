"""One task from prompts to rewards: drawn, scored, and drawn again where a process was lost on the way."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from actors.trajectory import SampleTask
from cluster.pool import Done, Handle, Lost, Outcome, Pool
from learner.events import CallLost, Events
from learner.ledger import State
from learner.panel import Panel
from rewards.reward import RewardResult

log = logging.getLogger(__name__)

MAX_LOSSES = 5
"""A task that was lost this often is taken to kill its workers."""


@dataclass(frozen=True, slots=True, eq=False)
class ScoredTask:
    """A task's results; latents and pixels stay where they were made."""

    task: SampleTask
    trajectory: Handle
    images: Handle
    results: dict[str, RewardResult]
    """By the rewards' labels."""
    sampling_seconds: float
    scoring_seconds: float
    """Summed over the rewards."""


@dataclass(frozen=True, slots=True, eq=False)
class Errand:
    """A task under way, and who wants to know of it."""

    task: SampleTask
    snapshot: Handle
    moved: Callable[[State], None]
    """Told when its samples are pending (again), sampling, scoring."""
    then: Callable[[ScoredTask], None]


class Drawing:
    """Takes tasks through the samplers and the panel of rewards."""

    def __init__(self, events: Events, samplers: Pool, panel: Panel) -> None:
        self._events, self._samplers, self._panel = events, samplers, panel
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
        images, trajectory = drawn.outputs

        def scored(results: dict[str, RewardResult], seconds: float) -> None:
            self._losses.pop(errand.task.task_id, None)
            errand.then(ScoredTask(errand.task, trajectory, images, results, drawn.seconds, seconds))

        self._panel.score(errand.task, images, scored, lambda lost: self._start_again(errand, lost))

    def _start_again(self, errand: Errand, lost: Lost) -> None:
        """The same task with the same seeds and weights: it comes out identical."""
        self._count(errand.task.task_id, lost)
        errand.moved(State.PENDING)
        self.start(errand)

    def _count(self, task_id: int, lost: Lost) -> None:
        """Raises CallLost for a task that is lost again and again."""
        self._losses[task_id] += 1
        if self._losses[task_id] >= MAX_LOSSES:
            raise CallLost(f"task {task_id} was lost {MAX_LOSSES} times, last on {lost.worker}: {lost.reason}")
        log.warning("%s lost task %d (%s); it is drawn again", lost.worker, task_id, lost.reason)
