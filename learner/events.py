"""The driver's event loop: calls to pools, each with what is to happen when it ends, and one deadline for all waits."""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable, Collection, Hashable
from typing import Any

from cluster.pool import Cluster, Done, Handle, Lost, Outcome, Pool

POLL_S = 0.5
"""Longest sleep without looking at the stall deadline."""


class Stalled(RuntimeError):
    """Nothing has come back for too long."""


class CallLost(RuntimeError):
    """A call whose loss cannot be made good by calling again."""


class Events:
    """Submits calls and hands each outcome to the one who asked, while somebody waits for something."""

    def __init__(self, cluster: Cluster, stall_timeout_s: float) -> None:
        self._cluster = cluster
        self._stall_timeout_s = stall_timeout_s
        self._then: dict[tuple[str, Hashable], Callable[[Outcome], None]] = {}
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._timers_set = 0

    def submit(
        self,
        pool: Pool,
        key: Hashable,
        method: str,
        *args: Any,
        then: Callable[[Outcome], None],
        outputs: int = 1,
        avoid: Collection[str] = (),
    ) -> None:
        """Call `method` in `pool`; `then` is called once, with the outcome, from within some `until`."""
        self._then[pool.name, key] = then
        pool.submit(key, method, *args, outputs=outputs, avoid=avoid)

    def withdraw(self, pool: Pool, key: Hashable) -> None:
        """Nobody wants to hear of this call any more."""
        self._then.pop((pool.name, key), None)
        pool.withdraw(key)

    def after(self, seconds: float, act: Callable[[], None]) -> None:
        """Have `act` called once, from within some `until`, when so many seconds have passed."""
        self._timers_set += 1
        heapq.heappush(self._timers, (time.monotonic() + seconds, self._timers_set, act))

    def until(self, condition: Callable[[], bool], waiting_for: str) -> None:
        """Handle outcomes as they come in until `condition` holds.

        Raises:
            Stalled: no outcome at all within the stall timeout; says what was awaited and who is late.
        """
        last_progress = time.monotonic()
        while not condition():
            began = time.monotonic()
            pause = self._act_on_time(began)
            outcomes = self._cluster.wait(pause)
            for outcome in outcomes:
                then = self._then.pop((outcome.pool, outcome.key), None)
                if then is not None:  # else withdrawn by what an outcome beside it led to
                    then(outcome)
            if outcomes:
                last_progress = time.monotonic()
            elif self._timers:  # with nothing in flight, the cluster does not wait
                time.sleep(max(0.0, began + pause - time.monotonic()))
            if time.monotonic() - last_progress > self._stall_timeout_s:
                raise Stalled(
                    f"no progress for {self._stall_timeout_s:.0f} s while waiting for {waiting_for}\n"
                    + self._cluster.diagnosis()
                )

    def _act_on_time(self, now: float) -> float:
        """Do what is due; returns how long may be slept till the next look."""
        while self._timers and self._timers[0][0] <= now:
            heapq.heappop(self._timers)[2]()
        return min(POLL_S, max(0.0, self._timers[0][0] - now)) if self._timers else POLL_S

    def call(self, pool: Pool, key: Hashable, method: str, *args: Any, outputs: int = 1) -> tuple[Handle, ...]:
        """Submit and wait, everything else going on meanwhile; returns the handles of the outputs.

        Raises:
            CallLost: the worker died.
        """
        seen: list[Outcome] = []
        self.submit(pool, key, method, *args, then=seen.append, outputs=outputs)
        self.until(lambda: bool(seen), f"{pool.name}.{method}")
        match seen[0]:
            case Done(outputs=handles):
                return handles
            case Lost(arguments_gone=True, reason=reason):
                raise CallLost(f"what {pool.name}.{method} works on was lost with a node ({reason}); --resume goes on")
            case Lost(worker=worker, reason=reason):
                raise CallLost(f"{worker} died in {method}: {reason}")

    def get(self, handle: Handle) -> Any:
        """The value behind a handle."""
        return self._cluster.get(handle, self._stall_timeout_s)
