"""Workers on Ray: the actor around a plain object, what the driver knows of it, and the queue of a pool of them."""

from __future__ import annotations

import os
import socket
import time
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from cluster.placement import needs, show
from cluster.pool import WorkerSpec, invoke

# A second call waits at the worker, its arguments already fetched, so that a worker does not idle while the driver is
# busy. More would only bind calls to a worker that others could have taken, and lose more of them with it.
_CALLS_PER_WORKER = 2


class Host:
    """The actor.

    The object is built in a call, not in the constructor: what a call raises arrives as itself, what the
    constructor of an actor raises arrives as the death of an actor, with the cause as text.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._object: Any = None

    def __repr__(self) -> str:
        return self._name

    def where(self) -> str:
        return f"pid {os.getpid()} on {socket.gethostname()} ({ray.util.get_node_ip_address()})"

    def build(self, make: Callable[[], Any]) -> None:
        self._object = make()

    def call(self, method: str, outputs: int, *args: Any) -> tuple[Any, ...]:
        """The seconds it took, then the outputs.

        The driver waits for and reads only the seconds, a few bytes; an output stays where it was made until
        somebody needs it.
        """
        began = time.monotonic()
        results = invoke(self._object, method, args, outputs)
        return (time.monotonic() - began, *results)


@dataclass(eq=False, slots=True)
class Call:
    """A call of a pool. ``refs``, once it has been handed to a worker: its seconds, then its outputs."""

    key: Hashable
    method: str
    args: tuple[Any, ...]
    outputs: int
    refs: list[Any] = field(default_factory=list)
    handed_at: float = 0.0


class RemoteWorker:
    """A named worker through all its lives; each life is an actor process of its own."""

    def __init__(self, spec: WorkerSpec, name: str, namespace: str) -> None:
        self.name = name
        self.calls: list[Call] = []
        self.failed_builds = 0
        self.lives_without_result = 0
        self._spec = spec
        self._namespace = namespace
        self._life = 0
        self._begin()

    def take(self, call: Call) -> None:
        remote = self._actor.call.options(num_returns=call.outputs + 1)
        call.refs = remote.remote(call.method, call.outputs, *call.args)
        call.handed_at = time.monotonic()
        self.calls.append(call)

    def restart(self) -> None:
        """Give up this process, dead or unreachable, and begin a new one."""
        self.end()
        self._begin()

    def end(self) -> None:
        self.calls = []
        ray.kill(self._actor)

    def describe(self) -> str:
        """One line on its state, for a person; never waits."""
        if not _arrived(self._where):
            return f"{self.name}: for {self._age():.0f} s waiting for a place that has {show(needs(self._spec))}"
        try:
            where = ray.get(self._where, timeout=1)
        except RayError as error:
            return f"{self.name}: {one_line(error)}"
        if not self.is_built:
            return f"{self.name}: for {self._age():.0f} s being built, {where}"
        now = time.monotonic()
        calls = ", ".join(f"{call.key!r} for {now - call.handed_at:.1f} s" for call in self.calls)
        return f"{self.name}: {calls or 'idle'}, {where}"

    def _begin(self) -> None:
        self._life += 1
        # The name of a dead actor stays taken for a moment, so each life has one of its own.
        name = self.name if self._life == 1 else f"{self.name}.{self._life}"
        self._actor: Any = (
            ray.remote(Host)
            .options(
                name=name,
                namespace=self._namespace,
                num_cpus=self._spec.num_cpus,
                num_gpus=self._spec.num_gpus,
                resources=dict(self._spec.resources),
                max_restarts=0,
                max_task_retries=0,
            )
            .remote(self.name)
        )
        self._where = self._actor.where.remote()
        self.built = self._actor.build.remote(self._spec.build)
        self.is_built = False
        self._begun_at = time.monotonic()

    def _age(self) -> float:
        return time.monotonic() - self._begun_at


class RemotePool:
    """A queue, and the actors that take calls from it."""

    def __init__(self, spec: WorkerSpec, workers: Sequence[RemoteWorker]) -> None:
        self.name = spec.pool
        self.spec = spec
        self.workers = workers
        self.queue: deque[Call] = deque()
        self.calls: dict[Hashable, Call] = {}

    def submit(self, key: Hashable, method: str, *args: Any, outputs: int = 1) -> None:
        if key in self.calls:
            raise ValueError(f"{self.name} call {key!r} is in flight already")
        self.calls[key] = Call(key, method, args, outputs)
        self.queue.append(self.calls[key])

    def in_flight(self) -> Sequence[Hashable]:
        return list(self.calls)

    def hand_out(self) -> None:
        """Give queued calls to the workers with the fewest, as far as their places go."""
        while self.queue:
            open_workers = [w for w in self.workers if w.is_built and len(w.calls) < _CALLS_PER_WORKER]
            if not open_workers:
                return
            min(open_workers, key=lambda w: len(w.calls)).take(self.queue.popleft())


def own_exception(error: RayTaskError) -> BaseException:
    """The exception that the worker raised; raise it from ``error``, whose text is the traceback over there."""
    return error.cause


def one_line(error: BaseException) -> str:
    """An error of Ray's without its list of ids, as one line."""
    text = [line.strip() for line in str(error).splitlines() if not line.startswith("\t")]
    return " ".join(" ".join(text).split())[:400]


def _arrived(ref: Any) -> bool:
    return bool(ray.wait([ref], timeout=0, fetch_local=False)[0])
