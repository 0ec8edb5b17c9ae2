"""Where every sample stands; each ends exactly once, as trained or as dropped with a reason."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any


class State(str, Enum):
    PENDING = "pending"
    SAMPLING = "sampling"
    SCORING = "scoring"
    SCORED = "scored"
    TRAINED = "trained"
    DROPPED = "dropped"


NEXT = {
    State.PENDING: {State.SAMPLING},
    State.SAMPLING: {State.SCORING, State.PENDING},
    State.SCORING: {State.SCORED, State.PENDING},
    State.SCORED: {State.TRAINED, State.DROPPED, State.PENDING},
}
"""Moves that are allowed; back to pending when a task's result was lost. Trained and dropped are final."""


Observer = Callable[[int, State, int, str], None]
"""Takes (task id, new state, number of samples, reason)."""


class LedgerError(AssertionError):
    """A sample would be counted twice or get lost: a bug of ours."""


@dataclass(slots=True)
class Ledger:
    """States of all samples; finished ones are counted, those in flight listed."""

    trained: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    """By reason."""
    issued: int = 0
    reissued: int = 0
    """Times that a task was issued again because its result was lost."""
    _tasks: dict[int, dict[int, State]] = field(default_factory=dict)
    """State of every sample in flight, by task id and index in the task."""
    observer: Observer | None = None
    """Told of every change, for a journal."""

    def issue(self, task_id: int, size: int) -> None:
        """A task's samples come into being."""
        if task_id in self._tasks:
            raise LedgerError(f"task {task_id} was issued twice")
        self._tasks[task_id] = dict.fromkeys(range(size), State.PENDING)
        self.issued += size
        self._tell(task_id, State.PENDING, size)

    def move(self, task_id: int, to: State) -> None:
        """All samples of a task that are in flight change their state."""
        samples = self._samples(task_id)
        for index in samples:
            self._change(task_id, index, to)
        self._tell(task_id, to, len(samples))

    def reissue(self, task_id: int) -> None:
        """A task's result was lost: it will be drawn again, identically."""
        self.move(task_id, State.PENDING)
        self.reissued += 1

    def drop(self, task_id: int, reasons: Mapping[int, str]) -> None:
        """The samples at these indices of a scored task will not be trained on, for the reasons given."""
        for index, reason in reasons.items():
            self._change(task_id, index, State.DROPPED)
            del self._tasks[task_id][index]
            self.dropped[reason] += 1
            self._tell(task_id, State.DROPPED, 1, reason)

    def train(self, task_id: int) -> None:
        """The round of this task is trained; what is left of it is final."""
        self.move(task_id, State.TRAINED)
        self.trained += len(self._tasks.pop(task_id))

    def counts(self) -> dict[str, int]:
        """Samples by state, in the order of their life; `issued` is what they must add up to."""
        living = Counter(state.value for samples in self._tasks.values() for state in samples.values())
        return {
            "issued": self.issued,
            **{state.value: living[state.value] for state in NEXT},
            "trained": self.trained,
            "dropped": self.dropped.total(),
            "reissued_tasks": self.reissued,
        }

    @property
    def in_flight(self) -> int:
        return sum(len(samples) for samples in self._tasks.values())

    def check(self) -> None:
        """Every sample ever issued is trained, dropped or in flight.

        Raises:
            LedgerError: it is not so.
        """
        missing = self.issued - (self.trained + self.dropped.total() + self.in_flight)
        if missing:
            raise LedgerError(f"issued = trained + dropped + in flight is off by {missing}: {self.counts()}")

    def tasks(self) -> list[int]:
        """Ids of the tasks in flight, ascending."""
        return sorted(self._tasks)

    def alive(self, task_id: int) -> list[int]:
        """Indices of a task's samples that have not been dropped."""
        return list(self._samples(task_id))

    def record(self) -> dict[str, object]:
        """All of it as JSON can hold it; states are left out, since what is in flight starts again on a resume."""
        return {
            "issued": self.issued,
            "trained": self.trained,
            "dropped": dict(self.dropped),
            "reissued": self.reissued,
            "in_flight": {str(task_id): list(samples) for task_id, samples in self._tasks.items()},
        }

    @classmethod
    def resume(cls, record: dict[str, Any]) -> Ledger:
        """The ledger of a record, every sample in flight pending again."""
        return cls(
            record["trained"],
            Counter(record["dropped"]),
            record["issued"],
            record["reissued"],
            {int(t): dict.fromkeys(alive, State.PENDING) for t, alive in record["in_flight"].items()},
        )

    def _samples(self, task_id: int) -> dict[int, State]:
        if task_id not in self._tasks:
            raise LedgerError(f"task {task_id} is not in flight")
        return self._tasks[task_id]

    def _tell(self, task_id: int, state: State, samples: int, reason: str = "") -> None:
        if self.observer is not None:
            self.observer(task_id, state, samples, reason)

    def _change(self, task_id: int, index: int, to: State) -> None:
        present = self._tasks[task_id][index]
        if to not in NEXT[present]:
            raise LedgerError(f"sample {index} of task {task_id} cannot go from {present.value} to {to.value}")
        self._tasks[task_id][index] = to
