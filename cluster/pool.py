"""What the rest of the system knows of a cluster: named pools of plain objects, calls to them, and how calls end."""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
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
    late: bool = False
    """True: it ran longer than its pool's ``call_timeout_s``, and its worker was killed for it."""


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
    call_timeout_s: float | None = None
    """Longest that a call may run in its worker, the transfer of its arguments included; not the time that it is
    queued or waits behind another call. The process of a call over it is killed, as it may hang in native code, and
    started anew, and the call ends as ``Lost(late=True)``. None: for ever. Not enforced in one process."""
    runtime_env: Mapping[str, Any] | None = None
    """Ray's runtime environment of its processes, such as ``{"env_vars": {…}}``. Ignored in one process."""
    survives: bool = False
    """True: a worker that fails again and again does not end the run. It is taken out for a time and then tried again,
    with pauses that double, while the others go on; where all are out, the calls of the pool wait. A pool of which
    no worker could ever be built is an error all the same."""


@runtime_checkable
class Pool(Protocol):
    """Workers of one kind behind one queue: a call goes to whichever of them is free first."""

    name: str

    def submit(self, key: Hashable, method: str, *args: Any, outputs: int = 1, avoid: Collection[str] = ()) -> None:
        """Queue ``worker.method(*args)``.

        ``key`` is returned with the outcome and must not be in flight already. Handles among ``args`` arrive
        as their values. A method of ``outputs`` > 1 returns a tuple of that length.

        Workers named in ``avoid`` do not get this call as long as there is another that is built and at its post,
        be it busy. It waits for that one, and lets calls behind it pass. A preference only: where all others are being
        built, rest or are out, or all are to be avoided, an avoided one gets it.
        """
        ...

    def in_flight(self) -> Sequence[Hashable]:
        """Keys submitted whose outcome has not been returned yet and is still wanted, oldest first."""
        ...

    def running(self) -> Mapping[Hashable, tuple[str, float]]:
        """Of the calls in flight, those that a worker is at: by which worker, and for how many seconds.

        A call that waits at a worker behind another is not among them. As the last ``wait`` saw it. Empty in one
        process, where calls run within ``wait``.
        """
        ...

    def withdraw(self, key: Hashable) -> None:
        """The outcome of this call is not wanted any more: ``wait`` will not return it.

        A queued call is removed. One that a worker has been given goes on there to its end, however it ends, and
        its key cannot be submitted again until a later ``wait`` has found it ended; what it raises is only logged.
        A key that is not in flight is ignored: its outcome has been returned already.
        """
        ...

    def rest(self, worker: str, seconds: float) -> None:
        """Give this worker no new calls for so long from now; what it has been given goes on.

        Ignored where no other worker would be at its post, for unknown names, and in one process. The rest ends
        early when all others drop out.
        """
        ...

    def workers(self) -> Sequence[str]:
        """The names of all its workers, whatever state they are in."""
        ...


@runtime_checkable
class Cluster(Protocol):
    """Where pools live. Every wait has a deadline; a bug in a worker is raised here as its own exception."""

    def start(self, spec: WorkerSpec) -> Pool:
        """Begin to start a pool; returns before its workers are ready (several pools start side by side).

        Raises:
            ResourcesUnavailable: no node can ever hold such a worker, or all of them together do not fit.
            ClusterError: its ``runtime_env`` is not a valid one.
        """
        ...

    def ready(self, timeout_s: float) -> None:
        """Wait until every worker of every pool has been built. What building one raised is raised here.

        Of a pool that ``survives``, workers that cannot be built are left out, as long as one of them can.

        Raises:
            WorkersNotReady: not within ``timeout_s``; says which are missing and what they wait for.
            ClusterError: a worker keeps dying while it is being built, or its ``runtime_env`` cannot be set up.
        """
        ...

    def wait(self, timeout_s: float) -> list[Outcome]:
        """Outcomes of any pool that have come in, after waiting at most ``timeout_s`` seconds for the first.

        Returns at once, empty, where nothing is in flight. Calls over their time are ended here. Outcomes that came
        in beside an exception are kept for the next call, and the call that raised is no longer in flight.

        Raises:
            ClusterError: a worker keeps dying without ever finishing its construction or a call, and its pool
                does not survive that.
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
