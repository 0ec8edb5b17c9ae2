"""Pools in this process: the same contract as on Ray, one call after the other, no Ray needed.

What takes processes of their own is accepted and does nothing: no call can be ended when its time is up, there is
no other worker to prefer, and no environment but this one.
"""

from __future__ import annotations

import pickle
import time
from collections import deque
from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cluster.pool import Done, Handle, Outcome, WorkerSpec, invoke


@dataclass(frozen=True, slots=True, eq=False)
class _Call:
    pool: LocalPool
    key: Hashable
    method: str
    args: tuple[Any, ...]
    outputs: int


class LocalPool:
    """One object for the whole pool: its calls run one after the other, more objects would only take more memory."""

    def __init__(self, spec: WorkerSpec, queue: deque[_Call]) -> None:
        self.name = spec.pool
        self._spec = spec
        self._queue = queue
        self._built: list[Any] = []

    def submit(self, key: Hashable, method: str, *args: Any, outputs: int = 1, avoid: Collection[str] = ()) -> None:
        del avoid  # there is no other
        if key in self.in_flight():
            raise ValueError(f"{self.name} call {key!r} is in flight already")
        self._queue.append(_Call(self, key, method, tuple(_as_travelled(arg) for arg in args), outputs))

    def in_flight(self) -> Sequence[Hashable]:
        return [call.key for call in self._queue if call.pool is self]

    def running(self) -> Mapping[Hashable, tuple[str, float]]:
        return {}  # calls run within `wait`

    def withdraw(self, key: Hashable) -> None:
        for call in [call for call in self._queue if call.pool is self and call.key == key]:
            self._queue.remove(call)

    def rest(self, worker: str, seconds: float) -> None: ...

    def workers(self) -> Sequence[str]:
        return [f"{self.name}-00"]

    def worker(self) -> Any:
        """The object behind this pool, built when first asked for."""
        if not self._built:
            self._built.append(self._spec.build())
        return self._built[0]


class LocalCluster:
    """All pools in this process; ``wait`` runs the oldest call of all of them, and what it raises passes through."""

    def __init__(self) -> None:
        self._pools: dict[str, LocalPool] = {}
        self._queue: deque[_Call] = deque()

    def start(self, spec: WorkerSpec) -> LocalPool:
        if spec.pool in self._pools:
            raise ValueError(f"there is a pool {spec.pool!r} already")
        self._pools[spec.pool] = LocalPool(spec, self._queue)
        return self._pools[spec.pool]

    def ready(self, timeout_s: float) -> None:
        del timeout_s  # nothing in this process could end a constructor that takes longer
        for pool in self._pools.values():
            pool.worker()

    def wait(self, timeout_s: float) -> list[Outcome]:
        del timeout_s
        if not self._queue:
            return []
        call = self._queue.popleft()
        worker = call.pool.worker()
        began = time.monotonic()
        outputs = invoke(worker, call.method, call.args, call.outputs)
        seconds = time.monotonic() - began
        return [
            Done(
                pool=call.pool.name,
                key=call.key,
                outputs=tuple(_as_travelled(output) for output in outputs),
                worker=f"{call.pool.name}-00",
                seconds=seconds,
            )
        ]

    def put(self, value: Any) -> Handle:
        return _as_travelled(value)

    def get(self, handle: Handle, timeout_s: float) -> Any:
        del timeout_s
        return handle

    def diagnosis(self) -> str:
        pools = ", ".join(self._pools) or "none"
        return f"pools in this process: {pools}; calls queued: {[(c.pool.name, c.key) for c in self._queue]}"

    def close(self) -> None:
        self._queue.clear()
        self._pools.clear()


def _as_travelled(value: Any) -> Any:
    """The value as a process at the other end of Ray would see it: a copy, its NumPy arrays read-only.

    What does not pickle, or is written to in place, thus fails without a cluster too. Arrays that have
    travelled already are not copied again.
    """
    buffers: list[pickle.PickleBuffer] = []
    data = pickle.dumps(value, protocol=5, buffer_callback=buffers.append)
    frozen = [raw if raw.readonly else memoryview(bytes(raw)) for raw in (buffer.raw() for buffer in buffers)]
    return pickle.loads(data, buffers=frozen)
