"""The queue of a pool: which worker gets which call, and when a call has taken too long. No Ray."""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from cluster.duty import Duty
from cluster.pool import WorkerSpec

# A second call waits at the worker, its arguments already fetched, so that a worker does not idle while the driver is
# busy. More would only bind calls to a worker that others could have taken, and lose more of them with it.
CALLS_PER_WORKER = 2


@dataclass(eq=False, slots=True)
class Call:
    """A call of a pool. ``refs``, once it has been handed to a worker: its seconds, then its outputs."""

    key: Hashable
    method: str
    args: tuple[Any, ...]
    outputs: int
    avoid: frozenset[str] = frozenset()
    refs: list[Any] = field(default_factory=list)
    started_at: float | None = None
    """When it became the first of its worker's calls."""
    withdrawn: bool = False


class Worker(ABC):
    """What its pool knows of a worker. It runs its calls in their order, so it is at the first of them."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.calls: list[Call] = []
        self.is_built = False
        self.duty = Duty()

    def take(self, call: Call, now: float) -> None:
        self.send(call)
        self.calls.append(call)
        self._begin_first(now)

    def drop(self, call: Call, now: float) -> None:
        """The call has ended."""
        self.calls.remove(call)
        self._begin_first(now)

    def busy_for(self, now: float) -> float:
        """How long it has been at its call; 0 where it has none."""
        return now - self.calls[0].started_at if self.calls and self.calls[0].started_at is not None else 0.0

    @abstractmethod
    def send(self, call: Call) -> None:
        """Have it run after those that it has already; sets the call's ``refs``."""

    def _begin_first(self, now: float) -> None:
        if self.calls and self.calls[0].started_at is None:
            self.calls[0].started_at = now


W = TypeVar("W", bound=Worker)


class QueuedPool(Generic[W]):
    """The contract of :class:`cluster.pool.Pool`, whatever its workers run on."""

    def __init__(self, spec: WorkerSpec, members: Sequence[W], clock: Callable[[], float] = time.monotonic) -> None:
        self.name = spec.pool
        self.spec = spec
        self.members = members
        self.queue: deque[Call] = deque()
        self.calls: dict[Hashable, Call] = {}
        """All whose outcome has neither been returned nor swallowed."""
        self._clock = clock

    def submit(self, key: Hashable, method: str, *args: Any, outputs: int = 1, avoid: Collection[str] = ()) -> None:
        if key in self.calls:
            state = "was withdrawn but still runs" if self.calls[key].withdrawn else "is in flight already"
            raise ValueError(f"{self.name} call {key!r} {state}")
        self.calls[key] = Call(key, method, args, outputs, frozenset(avoid))
        self.queue.append(self.calls[key])

    def in_flight(self) -> Sequence[Hashable]:
        return [call.key for call in self.calls.values() if not call.withdrawn]

    def running(self) -> Mapping[Hashable, tuple[str, float]]:
        now = self._clock()
        return {
            member.calls[0].key: (member.name, member.busy_for(now))
            for member in self.members
            if member.calls and not member.calls[0].withdrawn
        }

    def withdraw(self, key: Hashable) -> None:
        if key not in self.calls:
            return
        call = self.calls[key]
        call.withdrawn = True
        if call in self.queue:
            self.queue.remove(call)
            del self.calls[key]

    def rest(self, worker: str, seconds: float) -> None:
        now = self._clock()
        if any(member.is_built and member.duty.is_awake(now) for member in self.members if member.name != worker):
            for member in self.members:
                if member.name == worker:
                    member.duty.rests_until = now + seconds

    def workers(self) -> Sequence[str]:
        return [member.name for member in self.members]

    def hand_out(self) -> None:
        """Give queued calls to the workers with the fewest, as far as their places go."""
        now = self._clock()
        at_post = self._at_post(now)
        for call in list(self.queue):
            if not any(map(_has_place, at_post)):
                return
            preferred = [member for member in at_post if member.name not in call.avoid] or at_post
            if takers := list(filter(_has_place, preferred)):
                self.queue.remove(call)
                min(takers, key=lambda member: len(member.calls)).take(call, now)

    def put_back(self, calls: Sequence[Call]) -> None:
        """Calls that never ran, and whose worker is no more: they are next, in this order."""
        for call in reversed(calls):
            call.refs, call.started_at = [], None
            if call.withdrawn:
                del self.calls[call.key]
            else:
                self.queue.appendleft(call)

    def overdue(self) -> list[W]:
        """Workers that have been at a call for longer than a call may take."""
        now = self._clock()
        return [member for member in self.members if member.calls and member.busy_for(now) >= self._limit_s]

    def due_at(self) -> float:
        """When there is something to do though nothing ends: time is up for a call, or a rest or pause is over."""
        now = self._clock()
        times = [now - member.busy_for(now) + self._limit_s for member in self.members if member.calls]
        times += [member.duty.out_until for member in self.members if member.duty.out_until is not None]
        if self.queue:
            times += [member.duty.rests_until for member in self.members if member.duty.rests_until > now]
        return min(times, default=math.inf)

    def _at_post(self, now: float) -> list[W]:
        # One that is still being built may never be, so nothing waits for it.
        built = [member for member in self.members if member.is_built and not member.duty.is_out]
        return [member for member in built if member.duty.is_awake(now)] or built

    @property
    def _limit_s(self) -> float:
        return math.inf if self.spec.call_timeout_s is None else self.spec.call_timeout_s


def _has_place(member: Worker) -> bool:
    return member.is_built and len(member.calls) < CALLS_PER_WORKER
