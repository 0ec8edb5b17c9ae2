"""Pools on Ray: one actor process per worker; results are return values that the driver owns."""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Callable
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayTaskError

from cluster.placement import shortage
from cluster.pool import Handle, ObjectLost, Outcome, ResourcesUnavailable, WorkersNotReady, WorkerSpec
from cluster.supervision import GONE, Supervisor
from cluster.survey import alive_nodes, may_grow, survey
from cluster.worker import RemotePool, RemoteWorker, one_line, own_exception

_log = logging.getLogger(__name__)


class RayCluster:
    """The contract of :class:`cluster.pool.Cluster` on a Ray that this process is connected to."""

    def __init__(self, *, fixed_size: bool = False, on_close: Callable[[], None] = lambda: None) -> None:
        """
        Args:
            fixed_size: no node can ever join, as on a Ray of our own; otherwise Ray is asked.
            on_close: run after the workers have been ended.
        """
        self._namespace = f"ddpo-{uuid.uuid4().hex[:8]}"
        self._fixed_size = fixed_size
        self._on_close = on_close
        self._supervisor = Supervisor()
        self._pools = self._supervisor.pools

    def start(self, spec: WorkerSpec) -> RemotePool:
        if spec.pool in self._pools:
            raise ValueError(f"there is a pool {spec.pool!r} already")
        self._check_room(spec)
        workers = [RemoteWorker(spec, f"{spec.pool}-{i:02d}", self._namespace) for i in range(spec.num)]
        self._pools[spec.pool] = RemotePool(spec, workers)
        return self._pools[spec.pool]

    def ready(self, timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        while missing := self._supervisor.missing():
            if time.monotonic() >= deadline:
                states = "\n".join(worker.describe() for worker in missing)
                raise WorkersNotReady(
                    f"{len(missing)} workers were not ready after {timeout_s:g} s:\n{states}\n{survey()}"
                )
            self._supervisor.settle(deadline)

    def wait(self, timeout_s: float) -> list[Outcome]:
        deadline = time.monotonic() + timeout_s
        outcomes = self._supervisor.outcomes
        while not outcomes:
            is_awaited = any(pool.in_flight() for pool in self._pools.values())
            self._hand_out()
            self._supervisor.settle(deadline if is_awaited else 0.0)
            if not is_awaited or time.monotonic() >= deadline:
                break
        self._hand_out()
        ended = [(self._pools[outcome.pool].calls.pop(outcome.key), outcome) for outcome in outcomes]
        outcomes.clear()
        return [outcome for call, outcome in ended if not call.withdrawn]

    def put(self, value: Any) -> Handle:
        return ray.put(value)

    def get(self, handle: Handle, timeout_s: float) -> Any:
        try:
            return ray.get(handle, timeout=timeout_s)
        except RayTaskError as error:
            raise own_exception(error) from error
        except GetTimeoutError as error:
            raise ObjectLost(f"an object did not arrive within {timeout_s:g} s") from error
        except GONE as error:
            raise ObjectLost(one_line(error)) from error

    def diagnosis(self) -> str:
        lines = [survey()]
        for pool in self._pools.values():
            in_flight = len(pool.in_flight())
            withdrawn = f"; {len(pool.calls) - in_flight} withdrawn" if len(pool.calls) > in_flight else ""
            lines.append(f"{pool.name}: {in_flight} calls in flight, {len(pool.queue)} of them queued{withdrawn}")
            lines += [f"  {worker.describe()}" for worker in pool.members]
        return "\n".join(lines)

    def close(self) -> None:
        pools = list(self._pools.values())
        self._pools.clear()
        self._supervisor.outcomes.clear()
        for pool in pools:
            for worker in pool.members:
                worker.end()
        on_close, self._on_close = self._on_close, lambda: None
        on_close()

    def _check_room(self, spec: WorkerSpec) -> None:
        lack = shortage([*(pool.spec for pool in self._pools.values()), spec], alive_nodes())
        if lack is None:
            return
        if self._fixed_size or not may_grow():
            raise ResourcesUnavailable(lack)
        _log.warning("%s; waiting for nodes to join", lack)

    def _hand_out(self) -> None:
        for pool in self._pools.values():
            pool.hand_out()
