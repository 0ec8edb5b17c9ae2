"""Pools on Ray: one actor process per worker; results are return values that the driver owns."""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Callable
from typing import Any

import ray
from ray.exceptions import (
    GetTimeoutError,
    NodeDiedError,
    ObjectLostError,
    RayActorError,
    RaySystemError,
    RayTaskError,
)

from cluster.placement import shortage
from cluster.pool import (
    ClusterError,
    Done,
    Handle,
    Lost,
    ObjectLost,
    Outcome,
    ResourcesUnavailable,
    WorkersNotReady,
    WorkerSpec,
)
from cluster.survey import alive_nodes, may_grow, survey
from cluster.worker import Call, RemotePool, RemoteWorker, one_line, own_exception

# Three deaths in a row while being built are no accident (out of memory, a crash in a library).
_BUILD_ATTEMPTS = 3
# Preemptions and kills end calls by ones and twos. Only a call that itself kills its worker ends ten lives in a row.
_LIVES_WITHOUT_RESULT = 10
# For what is in this process already.
_LOCAL_GET_S = 60.0

# Ray's errors for a value whose node, owner or maker died.
_GONE = (ObjectLostError, RayActorError, NodeDiedError)

_IMPORT_CURE = (
    "install what is missing on every node, or submit the program from its folder with "
    "`ray job submit --working-dir . -- …`"
)

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
        self._pools: dict[str, RemotePool] = {}
        self._outcomes: list[Outcome] = []

    def start(self, spec: WorkerSpec) -> RemotePool:
        if spec.pool in self._pools:
            raise ValueError(f"there is a pool {spec.pool!r} already")
        self._check_room(spec)
        workers = [RemoteWorker(spec, f"{spec.pool}-{i:02d}", self._namespace) for i in range(spec.num)]
        self._pools[spec.pool] = RemotePool(spec, workers)
        return self._pools[spec.pool]

    def ready(self, timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        while missing := [w for pool in self._pools.values() for w in pool.workers if not w.is_built]:
            if time.monotonic() >= deadline:
                states = "\n".join(worker.describe() for worker in missing)
                raise WorkersNotReady(
                    f"{len(missing)} workers were not ready after {timeout_s:g} s:\n{states}\n{survey()}"
                )
            self._settle(deadline)

    def wait(self, timeout_s: float) -> list[Outcome]:
        deadline = time.monotonic() + timeout_s
        while not self._outcomes and any(pool.calls for pool in self._pools.values()):
            self._hand_out()
            self._settle(deadline)
            if time.monotonic() >= deadline:
                break
        self._hand_out()
        outcomes, self._outcomes = self._outcomes, []
        for outcome in outcomes:
            del self._pools[outcome.pool].calls[outcome.key]
        return outcomes

    def put(self, value: Any) -> Handle:
        return ray.put(value)

    def get(self, handle: Handle, timeout_s: float) -> Any:
        try:
            return ray.get(handle, timeout=timeout_s)
        except RayTaskError as error:
            raise own_exception(error) from error
        except GetTimeoutError as error:
            raise ObjectLost(f"an object did not arrive within {timeout_s:g} s") from error
        except _GONE as error:
            raise ObjectLost(one_line(error)) from error

    def diagnosis(self) -> str:
        lines = [survey()]
        for pool in self._pools.values():
            lines.append(f"{pool.name}: {len(pool.calls)} calls in flight, {len(pool.queue)} of them queued")
            lines += [f"  {worker.describe()}" for worker in pool.workers]
        return "\n".join(lines)

    def close(self) -> None:
        pools, self._pools = self._pools, {}
        self._outcomes.clear()
        for pool in pools.values():
            for worker in pool.workers:
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

    def _settle(self, deadline: float) -> None:
        """Wait for something to end until the deadline, then take in all that has ended."""
        watched: dict[Any, Callable[[], None]] = {}
        for pool in self._pools.values():
            for worker in pool.workers:
                if not worker.is_built:
                    watched[worker.built] = lambda p=pool, w=worker: self._settle_build(p, w)
                for call in worker.calls:
                    watched[call.refs[0]] = lambda p=pool, w=worker, c=call: self._settle_call(p, w, c)
        refs = list(watched)
        left = max(0.0, deadline - time.monotonic())
        ended, _ = ray.wait(refs, num_returns=1, timeout=left, fetch_local=False)
        if ended:
            ended, _ = ray.wait(refs, num_returns=len(refs), timeout=0, fetch_local=False)
        for ref in ended:
            watched[ref]()

    def _settle_build(self, pool: RemotePool, worker: RemoteWorker) -> None:
        try:
            ray.get(worker.built, timeout=_LOCAL_GET_S)
            worker.is_built = True
            worker.failed_builds = 0
        except RayTaskError as error:
            if isinstance(error.cause, RaySystemError):  # the function that builds did not even unpickle over there
                what = str(error.cause).splitlines()[0]
                raise ClusterError(f"{worker.name} cannot be started: {what}; {_IMPORT_CURE}") from error
            raise own_exception(error) from error
        except (RayActorError, NodeDiedError) as error:
            worker.failed_builds += 1
            if "failed to import" in str(error):  # Ray's words for an actor class; no use in trying again
                raise ClusterError(
                    f"{worker.name} cannot be started: its process cannot import this package; {_IMPORT_CURE}"
                ) from error
            if worker.failed_builds >= _BUILD_ATTEMPTS:
                raise ClusterError(
                    f"{worker.name} died {worker.failed_builds} times while it was being built: {one_line(error)}"
                ) from error
            self._replace(pool, worker, one_line(error))

    def _settle_call(self, pool: RemotePool, worker: RemoteWorker, call: Call) -> None:
        if call not in worker.calls:
            return  # lost together with an earlier one
        try:
            seconds: float = ray.get(call.refs[0], timeout=_LOCAL_GET_S)
        except RayTaskError as error:
            worker.calls.remove(call)
            if not isinstance(error.cause, _GONE):
                del pool.calls[call.key]
                raise own_exception(error) from error
            self._outcomes.append(Lost(pool.name, call.key, worker.name, one_line(error.cause), arguments_gone=True))
        except (RayActorError, NodeDiedError) as error:
            self._replace(pool, worker, one_line(error))
        except ObjectLostError as error:
            worker.calls.remove(call)
            self._outcomes.append(Lost(pool.name, call.key, worker.name, one_line(error), arguments_gone=True))
        else:
            worker.calls.remove(call)
            worker.lives_without_result = 0
            self._outcomes.append(Done(pool.name, call.key, tuple(call.refs[1:]), worker.name, seconds))

    def _replace(self, pool: RemotePool, worker: RemoteWorker, reason: str) -> None:
        """Count a worker's calls as lost and start it anew.

        Not left to Ray's own restarts: those have no bound, repeat a constructor that cannot succeed, and answer
        calls meanwhile with errors every two seconds.
        """
        _log.warning("%s died (%s); starting it anew", worker.name, reason)
        calls, worker.calls = worker.calls, []
        self._outcomes += [Lost(pool.name, call.key, worker.name, reason) for call in calls]
        worker.lives_without_result += bool(calls)
        if worker.lives_without_result >= _LIVES_WITHOUT_RESULT:
            raise ClusterError(
                f"{worker.name} died {worker.lives_without_result} times in a row without finishing a call: {reason}"
            )
        worker.restart()
