"""The one thread that runs the reward, and the bounded crowd before it."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

from rewards.reward import RewardResult
from rewards.service.parts import Part
from rewards.worker import RewardWorker

REMEMBERED = 0.2
"""Weight of the newest call in the average of how long calls take."""


@dataclass(frozen=True, slots=True, eq=False)
class _Job:
    parts: Sequence[Part]
    deadline: float
    done: Future[list[RewardResult]] = field(default_factory=Future)


class Scorer:
    """Scores calls one after another, in the order they came, and none that nobody waits for any more."""

    def __init__(self, worker: RewardWorker, merge_count: int = 1, merge_seconds: float = 0.0) -> None:
        """Up to `merge_count` calls are scored as one; the first waits at most `merge_seconds` for the others."""
        self._worker, self._merge_count, self._merge_seconds = worker, merge_count, merge_seconds
        self._waiting: list[_Job] = []
        self._changed = threading.Condition()
        self._began: float | None = None
        self.seconds_per_call = 0.0
        # A daemon, since a model that hangs must not keep the process from ending.
        threading.Thread(target=self._run, name="scoring", daemon=True).start()

    @property
    def busy_seconds(self) -> float:
        """How long the present call has been running; 0 where there is none."""
        began = self._began
        return 0.0 if began is None else time.monotonic() - began

    def submit(self, parts: Sequence[Part], deadline: float) -> Future[list[RewardResult]]:
        """One result per part, in time.

        Args:
            deadline: on the clock of `time.monotonic`; what has not begun by then is cancelled, as it is when the
                future is cancelled.
        """
        job = _Job(parts, deadline)
        with self._changed:
            # Those given up do not pile up behind a call that hangs.
            self._waiting = [other for other in self._waiting if not other.done.cancelled()]
            self._waiting.append(job)
            self._changed.notify()
        return job.done

    def _run(self) -> None:
        while True:
            jobs = [job for job in self._next() if _is_wanted(job)]
            if not jobs:
                continue
            began = self._began = time.monotonic()
            try:
                results = self._score(jobs)
            except Exception as error:  # noqa: BLE001 - the caller gets it, and the next call its turn
                for job in jobs:
                    job.done.set_exception(error)
            else:
                for job, of_job in zip(jobs, results, strict=True):
                    job.done.set_result(of_job)
            self._began = None
            took = (time.monotonic() - began) / len(jobs)
            self.seconds_per_call += (took - self.seconds_per_call) * (REMEMBERED if self.seconds_per_call else 1)

    def _next(self) -> list[_Job]:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting)
            if self._merge_count > 1:
                self._changed.wait_for(lambda: len(self._waiting) >= self._merge_count, self._merge_seconds)
            jobs, self._waiting = self._waiting[: self._merge_count], self._waiting[self._merge_count :]
            return jobs

    def _score(self, jobs: Sequence[_Job]) -> list[list[RewardResult]]:
        """Images of one size together, whosever they are."""
        by_size: dict[tuple[int, ...], list[Part]] = {}
        for job in jobs:
            for request, images in job.parts:
                by_size.setdefault(images.shape[1:], []).append((request, images))
        results: dict[int, RewardResult] = {}
        for parts in by_size.values():
            scored = self._worker.run(tuple(request for request, _ in parts), *(images for _, images in parts))
            results.update({id(request): result for (request, _), result in zip(parts, scored, strict=True)})
        return [[results[id(request)] for request, _ in job.parts] for job in jobs]


def _is_wanted(job: _Job) -> bool:
    if time.monotonic() >= job.deadline:
        job.done.cancel()
    return job.done.set_running_or_notify_cancel()


class Door:
    """Counts the calls inside, and lets no more in than there are places."""

    def __init__(self, places: int) -> None:
        self._places, self._inside = places, 0
        self._closed = False
        self._changed = threading.Condition()

    @property
    def closed(self) -> bool:
        return self._closed

    @property
    def inside(self) -> int:
        return self._inside

    def enter(self) -> bool:
        """Whether there was a place; whoever has entered must leave."""
        with self._changed:
            if self._closed or self._inside >= self._places:
                return False
            self._inside += 1
            return True

    def leave(self) -> None:
        with self._changed:
            self._inside -= 1
            self._changed.notify_all()

    def close(self) -> None:
        """Nobody enters any more."""
        with self._changed:
            self._closed = True

    def wait_empty(self, seconds: float) -> bool:
        """Whether all have left in time."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._inside, seconds)
