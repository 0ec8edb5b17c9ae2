"""Getting a task's images scored by one reward, whatever happens to its workers: the place where rewards are retried.

A call that raises, dies, hangs or answers with other weights is made again, on another worker and after a pause; a slow
one may be given to a second worker too. Samples that have been scored keep their score. What is left without one when
all attempts are used up gets a status and a reason; no number is ever made up.
"""

from __future__ import annotations

import logging
import random
from collections import Counter, deque
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field, replace
from itertools import count

import numpy as np

from cluster.pool import Done, Handle, Lost, Outcome, Pool
from learner.events import Events
from rewards.config import RewardConfig
from rewards.reward import Metadata, RewardRequest, RewardResult, Status

log = logging.getLogger(__name__)

HEDGE_AFTER_CALLS = 10
"""Durations needed before a percentile of them means something."""
HEDGE_MIN_S = 1.0
HEDGE_LOOK_S = 0.5
REST_AFTER_FAILURES = 3
"""Calls that fail in a row at one worker before it is left alone for a while."""
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 5.0
FIRST_REST_S, LONGEST_REST_S = 5.0, 300.0

Told = Callable[[RewardResult, float], None]
"""Takes a task's final result and the seconds that scoring took in the workers."""
Gone = Callable[[Lost], None]
"""Told that the images themselves are lost."""


@dataclass(slots=True, eq=False)
class _Task:
    """A task on its way to a result."""

    request: RewardRequest
    images: Handle
    told: Told
    gone: Gone
    attempts: int = 0
    seconds: float = 0.0
    result: RewardResult | None = None
    """The best of each sample so far."""
    avoid: set[str] = field(default_factory=set)
    over: bool = False


@dataclass(slots=True, eq=False)
class _Call:
    """Tasks scored together, by one worker or, hedged, by two."""

    tasks: tuple[_Task, ...]
    keys: list[Hashable] = field(default_factory=list)


class RewardCalls:
    """One reward's workers, seen as something that always answers."""

    def __init__(
        self,
        events: Events,
        pool: Pool,
        config: RewardConfig,
        metadata_of: Callable[[Sequence[str]], tuple[Metadata, ...]],
    ) -> None:
        self.label = config.called
        self.provenance = ""
        """Of the first result; a worker that answers with another one is taken to have failed."""
        self.counts: Counter[str] = Counter()
        """Calls that failed, were late, were lost, were hedged."""
        self._events, self._pool, self._config, self._metadata_of = events, pool, config, metadata_of
        self._numbers = count()
        self._waiting: list[_Task] = []
        self._tasks: dict[int, _Task] = {}
        self._calls: list[_Call] = []
        self._durations: deque[float] = deque(maxlen=1000)
        self._failures_in_a_row: Counter[str] = Counter()
        self._looking = False

    def score(self, task_id: int, prompts: tuple[str, ...], images: Handle, told: Told, gone: Gone) -> None:
        """Have a task scored; `told` or `gone` is called once, from within `Events.until`."""
        task = _Task(RewardRequest(task_id, prompts, self._metadata_of(prompts)), images, told, gone)
        self._tasks[task_id] = task
        self._waiting.append(task)
        if len(self._waiting) >= self._config.merge_tasks:
            self._call_waiting()
        elif len(self._waiting) == 1:
            self._events.after(self._config.merge_seconds, self._call_waiting)

    def forget(self, task_id: int) -> None:
        """Nobody wants this task's result any more."""
        task = self._tasks.pop(task_id, None)
        if task is None:
            return
        task.over = True
        self._waiting = [waiting for waiting in self._waiting if waiting is not task]
        for call in [call for call in self._calls if all(other.over for other in call.tasks)]:
            self._close(call)

    def _call_waiting(self) -> None:
        if self._waiting:
            tasks, self._waiting = tuple(self._waiting), []
            self._call(tasks)

    def _call(self, tasks: tuple[_Task, ...]) -> None:
        tasks = tuple(task for task in tasks if not task.over)
        if not tasks:
            return
        for task in tasks:
            task.attempts += 1
        call = _Call(tasks)
        self._calls.append(call)
        self._submit(call, set().union(*(task.avoid for task in tasks)))
        if self._config.hedge_percentile is not None and not self._looking:
            self._looking = True
            self._events.after(HEDGE_LOOK_S, self._hedge_the_slow)

    def _submit(self, call: _Call, avoid: set[str]) -> None:
        last = any(task.attempts >= self._config.attempts for task in call.tasks)
        requests = tuple(replace(task.request, one_by_one=last) for task in call.tasks)
        key = (*(request.task_id for request in requests), f"call {next(self._numbers)}")
        call.keys.append(key)
        images = [task.images for task in call.tasks]
        self._events.submit(
            self._pool,
            key,
            "run",
            requests,
            *images,
            then=lambda outcome: self._ended(call, key, outcome),
            avoid=avoid,
        )

    def _ended(self, call: _Call, key: Hashable, outcome: Outcome) -> None:
        if key not in call.keys:
            return
        call.keys.remove(key)
        match outcome:
            case Lost(arguments_gone=True):
                self._close(call)
                self._images_gone(call, outcome)
            case Lost(late=late, worker=worker, reason=reason):
                self._count("late" if late else "lost", worker, reason)
                if not call.keys:  # else its twin is still at it
                    self._close(call)
                    status = Status.TIMED_OUT if late else Status.FAILED
                    for task in call.tasks:
                        self._take(task, _nothing(task.request, self.label, status, reason), 0.0, worker)
            case Done(outputs=(handle,), worker=worker, seconds=seconds):
                results = [self._own(result) for result in self._events.get(handle)]
                failed = all(status is not Status.OK for result in results for status in result.statuses)
                if failed:
                    self._count("failed", worker, results[0].details[0])
                    if call.keys:
                        return
                else:
                    self._failures_in_a_row[worker] = 0
                    self._durations.append(seconds)
                self._close(call)
                for task, result in zip(call.tasks, results, strict=True):
                    self._take(task, result, seconds / len(call.tasks), worker)

    def _own(self, result: RewardResult) -> RewardResult:
        """The result, or its refusal where it was made with other weights, settings or libraries than the first."""
        if Status.OK in result.statuses:
            self.provenance = self.provenance or result.provenance
        if not self.provenance or result.provenance == self.provenance:
            return result
        reason = f"scored by {result.provenance!r}, not by {self.provenance!r}"
        width = result.values.shape[1:]
        return replace(
            result,
            values=np.full((len(result.values), *width), np.nan, np.float32),
            statuses=(Status.INVALID,) * len(result.values),
            details=(reason,) * len(result.values),
        )

    def _take(self, task: _Task, result: RewardResult, seconds: float, worker: str) -> None:
        """Keep what is new in a result; finish the task, or have it scored again elsewhere."""
        if task.over:
            return
        task.seconds += seconds
        task.result = result if task.result is None else _best(task.result, result)
        missing = [index for index, status in enumerate(task.result.statuses) if status is not Status.OK]
        if not missing or task.attempts >= self._config.attempts:
            task.over = True
            del self._tasks[task.request.task_id]
            task.told(task.result, task.seconds)
            return
        task.avoid.add(worker)
        log.debug("task %d: %s", task.request.task_id, task.result.details[missing[0]])
        # Timing only: it cannot touch a result.
        pause = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2 ** (task.attempts - 1)) * random.uniform(0.5, 1.5)
        self._events.after(pause, lambda: self._call((task,)))

    def _images_gone(self, call: _Call, lost: Lost) -> None:
        """Of tasks called together it is not known whose images are lost, so all are drawn again."""
        for task in call.tasks:
            if not task.over:
                task.over = True
                del self._tasks[task.request.task_id]
                task.gone(lost)

    def _count(self, what: str, worker: str, reason: str) -> None:
        self.counts[what] += 1
        how = {"late": "was late", "lost": "was lost"}.get(what, what)
        log.warning("%s: a call to %s %s (%s)", self.label, worker, how, reason)
        self._failures_in_a_row[worker] += 1
        excess = self._failures_in_a_row[worker] - REST_AFTER_FAILURES
        if excess >= 0:
            self._pool.rest(worker, min(LONGEST_REST_S, FIRST_REST_S * 2 ** min(excess, 10)))

    def _close(self, call: _Call) -> None:
        """Let go of a call and of its twin."""
        if call in self._calls:
            self._calls.remove(call)
        keys, call.keys = call.keys, []
        for key in keys:
            self._events.withdraw(self._pool, key)

    def _hedge_the_slow(self) -> None:
        """Give calls that take unusually long to a second worker."""
        self._looking = bool(self._calls)
        if self._looking:
            self._events.after(HEDGE_LOOK_S, self._hedge_the_slow)
        if len(self._durations) < HEDGE_AFTER_CALLS or len(self._pool.workers()) < 2:
            return
        assert self._config.hedge_percentile is not None
        limit = max(HEDGE_MIN_S, float(np.percentile(self._durations, self._config.hedge_percentile)))
        running = self._pool.running()
        for call in self._calls:
            worker, seconds = running.get(call.keys[0], ("", 0.0)) if len(call.keys) == 1 else ("", 0.0)
            if seconds > limit:
                self.counts["hedged"] += 1
                self._submit(call, {worker})


def _nothing(request: RewardRequest, label: str, status: Status, reason: str) -> RewardResult:
    size = len(request.prompts)
    values = np.full(size, np.nan, np.float32)
    return RewardResult(request.task_id, label, "", values, (status,) * size, (reason,) * size)


def _best(old: RewardResult, new: RewardResult) -> RewardResult:
    """Each sample's first score, else its newest failure."""
    if Status.OK not in new.statuses:
        old, new = new, old  # the shape of the values is that of the one with a score
    keep = [
        index
        for index, status in enumerate(old.statuses)
        if status is Status.OK or new.statuses[index] is not Status.OK
    ]
    values = new.values.copy()
    for index in keep:
        values[index] = old.values[index] if old.statuses[index] is Status.OK else np.nan
    return replace(
        new,
        values=values,
        statuses=tuple(old.statuses[i] if i in keep else s for i, s in enumerate(new.statuses)),
        details=tuple(old.details[i] if i in keep else d for i, d in enumerate(new.details)),
    )
