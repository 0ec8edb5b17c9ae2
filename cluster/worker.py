"""Workers on Ray: the actor around a plain object, and what the driver knows of it."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from cluster.placement import needs, show
from cluster.pool import ClusterError, WorkerSpec, invoke
from cluster.queueing import Call, QueuedPool, Worker


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


class RemoteWorker(Worker):
    """A named worker through all its lives; each life is an actor process of its own."""

    def __init__(self, spec: WorkerSpec, name: str, namespace: str) -> None:
        super().__init__(name)
        self.was_ever_built = False
        self.failed_builds = 0
        self.lives_without_result = 0
        self._spec = spec
        self._namespace = namespace
        self._life = 0
        self._begin()

    def send(self, call: Call) -> None:
        remote = self._actor.call.options(num_returns=call.outputs + 1)
        call.refs = remote.remote(call.method, call.outputs, *call.args)

    def restart(self) -> None:
        """Give up this process, dead or unreachable, and begin a new one."""
        self.end()
        self._begin()

    def take_out(self, reason: str) -> float:
        """Be without a process for a time; gives how many seconds."""
        self.end()
        return self.duty.take_out(time.monotonic(), reason)

    def bring_back(self) -> None:
        self.duty.bring_back()
        self._begin()

    def end(self) -> None:
        self.calls = []
        self.is_built = False
        ray.kill(self._actor)

    def describe(self) -> str:
        """One line on its state, for a person; never waits."""
        return f"{self.name}: {', '.join(filter(None, [self.duty.describe(time.monotonic()), self._process()]))}"

    def _process(self) -> str:
        if self.duty.is_out:
            return ""
        if not _arrived(self._where):
            environment = " and for its runtime_env" if self._spec.runtime_env else ""
            return f"for {self._age():.0f} s waiting for a place that has {show(needs(self._spec))}{environment}"
        try:
            where = ray.get(self._where, timeout=1)
        except RayError as error:
            return one_line(error)
        if not self.is_built:
            return f"for {self._age():.0f} s being built, {where}"
        now = time.monotonic()
        calls = [
            f"{call.key!r} waits" if call.started_at is None else f"{call.key!r} for {now - call.started_at:.1f} s"
            for call in self.calls
        ]
        return f"{', '.join(calls) or 'idle'}, {where}"

    def _begin(self) -> None:
        self._life += 1
        # The name of a dead actor stays taken for a moment, so each life has one of its own.
        name = self.name if self._life == 1 else f"{self.name}.{self._life}"
        options: dict[str, Any] = {
            "name": name,
            "namespace": self._namespace,
            "num_cpus": self._spec.num_cpus,
            "num_gpus": self._spec.num_gpus,
            "resources": dict(self._spec.resources),
            "max_restarts": 0,
            "max_task_retries": 0,
        }
        if self._spec.runtime_env is not None:
            options["runtime_env"] = dict(self._spec.runtime_env)
        try:
            self._actor: Any = ray.remote(Host).options(**options).remote(self.name)
        except (TypeError, ValueError) as error:
            if self._spec.runtime_env is None:
                raise
            raise ClusterError(f"Ray refuses the runtime_env of {self._spec.pool}: {one_line(error)}") from error
        self._where = self._actor.where.remote()
        self.built = self._actor.build.remote(self._spec.build)
        self._begun_at = time.monotonic()

    def _age(self) -> float:
        return time.monotonic() - self._begun_at


RemotePool = QueuedPool[RemoteWorker]


def own_exception(error: RayTaskError) -> BaseException:
    """The exception that the worker raised; raise it from ``error``, whose text is the traceback over there."""
    return error.cause


def one_line(error: BaseException) -> str:
    """An error of Ray's without its list of ids, as one line."""
    text = [line.strip() for line in str(error).splitlines() if not line.startswith("\t")]
    return " ".join(" ".join(text).split())[:400]


def _arrived(ref: Any) -> bool:
    return bool(ray.wait([ref], timeout=0, fetch_local=False)[0])
