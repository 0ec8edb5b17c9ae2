"""What the rest of the system knows of a cluster: named pools of plain objects, calls to them, and how calls end."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

Handle = Any
"""A value that may live elsewhere: on Ray an ``ObjectRef``, in one process the value itself."""


@dataclass(frozen=True, slots=True)
class Done:
    """A call that returned."""

    pool: str
    key: Hashable
    outputs: tuple[Handle, ...]
    """One handle per output that the call was submitted with; pass them on to other calls unfetched."""
    worker: str
    seconds: float
    """How long the method itself ran in its worker: no queueing, no transfer."""


@dataclass(frozen=True, slots=True)
class Lost:
    """A call whose worker process or node died; it may or may not have run, and may be submitted again."""

    pool: str
    key: Hashable
    worker: str
    reason: str
    arguments_gone: bool = False
    """True: a handle among its arguments died with the node that held it, and the worker is well. The same
    arguments can only be lost again; what made them has to run again first."""


Outcome = Done | Lost


@dataclass(frozen=True, slots=True)
class WorkerSpec:
    """One kind of worker: how an instance is made, and what each needs of its node."""

    pool: str
    """Name of the pool, singular: ``sampler``; its workers are ``sampler-00``, ``sampler-01``, …"""
    build: Callable[[], Any]
    """Makes the plain object. Importable by name (a function, or a ``partial`` of one), never from ``__main__``."""
    num: int
    num_cpus: float = 0.0
    """CPUs that Ray reserves for each worker; 0 lets it run anywhere."""
    num_gpus: float = 0.0
    resources: tuple[tuple[str, float], ...] = ()
    """Custom Ray resources, as (name, amount)."""


@runtime_checkable
class Pool(Protocol):
    """Workers of one kind behind one queue: a call goes to whichever of them is free first."""

    name: str

    def submit(self, key: Hashable, method: str, *args: Any, outputs: int = 1) -> None:
        """Queue ``worker.method(*args)``.

        ``key`` is returned with the outcome and must not be in flight already. Handles among ``args`` arrive
        as their values. A method of ``outputs`` > 1 returns a tuple of that length.
        """
        ...

    def in_flight(self) -> Sequence[Hashable]:
        """Keys submitted whose outcome has not been returned yet, oldest first."""
        ...


@runtime_checkable
class Cluster(Protocol):
    """Where pools live. Every wait has a deadline; a bug in a worker is raised here as its own exception."""

    def start(self, spec: WorkerSpec) -> Pool:
        """Begin to start a pool; returns before its workers are ready (several pools start side by side).

        Raises:
            ResourcesUnavailable: no node can ever hold such a worker, or all of them together do not fit.
        """
        ...

    def ready(self, timeout_s: float) -> None:
        """Wait until every worker of every pool has been built. What building one raised is raised here.

        Raises:
            WorkersNotReady: not within ``timeout_s``; says which are missing and what they wait for.
            ClusterError: a worker keeps dying while it is being built.
        """
        ...

    def wait(self, timeout_s: float) -> list[Outcome]:
        """Outcomes of any pool that have come in, after waiting at most ``timeout_s`` seconds for the first.

        Returns at once, empty, where nothing is in flight. Outcomes that came in beside an exception are kept
        for the next call, and the call that raised is no longer in flight.

        Raises:
            ClusterError: a worker keeps dying without ever finishing its construction or a call.
        """
        ...

    def put(self, value: Any) -> Handle:
        """A handle to a value, to be passed to any number of calls; the caller owns what it refers to."""
        ...

    def get(self, handle: Handle, timeout_s: float) -> Any:
        """The value behind a handle. NumPy arrays come back read-only.

        Raises:
            ObjectLost: the node that held it died, or it did not arrive in time.
        """
        ...

    def diagnosis(self) -> str:
        """A few lines for a person: nodes, resources, workers and their states, what is in flight and since when."""
        ...

    def close(self) -> None:
        """End all workers, and the cluster too where :func:`cluster.session.open_cluster` started it."""
        ...


def invoke(target: Any, method: str, args: Sequence[Any], outputs: int) -> tuple[Any, ...]:
    """What every kind of cluster does for a call, so that all of them check its outputs alike.

    Raises:
        TypeError: the method did not return as many outputs as the call was submitted with.
    """
    result = getattr(target, method)(*args)
    if outputs == 1:
        return (result,)
    if not isinstance(result, tuple) or len(result) != outputs:
        raise TypeError(f"{type(target).__name__}.{method} was to return a tuple of {outputs}, not {type(result)}")
    return tuple(result)


class ClusterError(RuntimeError):
    """Something about the machines, not about the program; the message names the cure."""


class ResourcesUnavailable(ClusterError):
    """The cluster can never place what was asked for."""


class WorkersNotReady(ClusterError):
    """Workers did not come up in time."""


class ObjectLost(ClusterError):
    """A value is gone with the node that held it."""
