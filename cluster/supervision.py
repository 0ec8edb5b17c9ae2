"""What becomes of calls that end and of workers that fail, on Ray."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

import ray
from ray.exceptions import (
    NodeDiedError,
    ObjectLostError,
    OutOfMemoryError,
    RayActorError,
    RaySystemError,
    RayTaskError,
    RuntimeEnvSetupError,
)

from cluster.pool import ClusterError, Done, Lost, Outcome
from cluster.queueing import Call
from cluster.worker import RemotePool, RemoteWorker, one_line, own_exception

# Three deaths in a row while being built are no accident (out of memory, a crash in a library).
_BUILD_ATTEMPTS = 3
# Preemptions and kills end calls by ones and twos. Only a call that itself kills its worker ends ten lives in a row.
_LIVES_WITHOUT_RESULT = 10
# For what is in this process already.
_LOCAL_GET_S = 60.0

# Ray's errors for a value whose node, owner or maker died.
GONE = (ObjectLostError, RayActorError, NodeDiedError)
# Its errors for a worker whose process or node died. The last is for one killed by Ray, before memory ran out.
_DIED = (RayActorError, NodeDiedError, OutOfMemoryError)

_IMPORT_CURE = (
    "install what is missing on every node, or submit the program from its folder with "
    "`ray job submit --working-dir . -- …`"
)
_ENVIRONMENT_CURE = (
    "Ray remembers that this runtime_env failed, so when its cause is gone change the runtime_env too (one more "
    "variable in env_vars will do) or restart Ray"
)

_log = logging.getLogger(__name__)


class Supervisor:
    """Takes in what has ended in its pools, starts dead workers anew, and knows when that is no use."""

    def __init__(self) -> None:
        self.pools: dict[str, RemotePool] = {}
        self.outcomes: list[Outcome] = []
        """Those of withdrawn calls are among them; their keys are in use until they are taken from here."""

    def missing(self) -> list[RemoteWorker]:
        """Workers that still have to be built before the pools are ready."""
        return [
            worker
            for pool in self.pools.values()
            for worker in pool.members
            if not worker.is_built and not (worker.duty.is_out and _was_ever_built(pool))
        ]

    def settle(self, deadline: float) -> None:
        """Wait for something to end until the deadline, then take in all that has ended or whose time is up."""
        self._bring_back()
        watched: dict[Any, Callable[[], None]] = {}
        for pool in self.pools.values():
            for worker in pool.members:
                if not worker.is_built and not worker.duty.is_out:
                    watched[worker.built] = lambda p=pool, w=worker: self._settle_build(p, w)
                for call in worker.calls:
                    watched[call.refs[0]] = lambda p=pool, w=worker, c=call: self._settle_call(p, w, c)
        for ref in _ended(list(watched), min([deadline, *(pool.due_at() for pool in self.pools.values())])):
            watched[ref]()
        self._end_late_calls()

    def _settle_build(self, pool: RemotePool, worker: RemoteWorker) -> None:
        try:
            ray.get(worker.built, timeout=_LOCAL_GET_S)
        except (RayTaskError, RuntimeEnvSetupError, *_DIED) as error:
            worker.failed_builds += 1
            if failure := _why_it_cannot_be_built(worker, error):
                self._give_up(pool, worker, failure, error)
            else:
                self._replace(pool, worker, one_line(error))
        else:
            worker.is_built = worker.was_ever_built = True
            worker.failed_builds = 0

    def _settle_call(self, pool: RemotePool, worker: RemoteWorker, call: Call) -> None:
        if call not in worker.calls:
            return  # lost together with an earlier one
        now = time.monotonic()
        try:
            seconds: float = ray.get(call.refs[0], timeout=_LOCAL_GET_S)
        except RayTaskError as error:
            worker.drop(call, now)
            if isinstance(error.cause, GONE):
                self.outcomes.append(Lost(pool.name, call.key, worker.name, one_line(error.cause), arguments_gone=True))
                return
            del pool.calls[call.key]
            if not call.withdrawn:
                raise own_exception(error) from error
            _log.warning("withdrawn call %r of %s raised %s", call.key, worker.name, _sentence(own_exception(error)))
        except _DIED as error:
            self._replace(pool, worker, one_line(error))
        except ObjectLostError as error:
            worker.drop(call, now)
            self.outcomes.append(Lost(pool.name, call.key, worker.name, one_line(error), arguments_gone=True))
        else:
            worker.drop(call, now)
            worker.lives_without_result = 0
            worker.duty.succeeded()
            self.outcomes.append(Done(pool.name, call.key, tuple(call.refs[1:]), worker.name, seconds))

    def _end_late_calls(self) -> None:
        for pool in self.pools.values():
            for worker in pool.overdue():
                self._replace(pool, worker, f"did not answer within {pool.spec.call_timeout_s:g} s", late=True)

    def _replace(self, pool: RemotePool, worker: RemoteWorker, reason: str, late: bool = False) -> None:
        """Count the call that a worker was at as lost, have those behind it run elsewhere, and start it anew.

        Not left to Ray's own restarts: those have no bound, repeat a constructor that cannot succeed, and answer
        calls meanwhile with errors every two seconds.
        """
        calls, worker.calls = worker.calls, []
        self.outcomes += [Lost(pool.name, call.key, worker.name, reason, late=late) for call in calls[:1]]
        pool.put_back(calls[1:])
        worker.lives_without_result += bool(calls)
        if worker.lives_without_result >= _LIVES_WITHOUT_RESULT:
            deaths = f"died {worker.lives_without_result} times in a row without finishing a call"
            self._give_up(pool, worker, ClusterError(f"{worker.name} {deaths}: {reason}"))
            return
        _log.warning("%s %s; starting it anew", worker.name, reason if late else f"died ({reason})")
        worker.restart()

    def _give_up(
        self, pool: RemotePool, worker: RemoteWorker, failure: BaseException, cause: BaseException | None = None
    ) -> None:
        """Raise the failure, or in a pool that survives it take the worker out for a time."""
        if pool.spec.survives:
            pause = worker.take_out(_sentence(failure))
            _log.warning("%s is out for %g s: %s", worker.name, pause, _sentence(failure))
            if _was_ever_built(pool) or not all(other.duty.is_out for other in pool.members):
                return
        raise failure from cause

    def _bring_back(self) -> None:
        now = time.monotonic()
        for pool in self.pools.values():
            for worker in pool.members:
                if worker.duty.out_until is not None and worker.duty.out_until <= now:
                    worker.bring_back()


def _why_it_cannot_be_built(worker: RemoteWorker, error: BaseException) -> BaseException | None:
    """What to raise, or None where another attempt may help."""
    if isinstance(error, RuntimeEnvSetupError):
        what = str(error).strip().splitlines()[-1].strip()
        return ClusterError(
            f"{worker.name} cannot be started: its runtime_env cannot be set up: {what}; {_ENVIRONMENT_CURE}"
        )
    if isinstance(error, RayTaskError):
        if isinstance(error.cause, RaySystemError):  # the function that builds did not even unpickle over there
            what = str(error.cause).splitlines()[0]
            return ClusterError(f"{worker.name} cannot be started: {what}; {_IMPORT_CURE}")
        return own_exception(error)
    if "failed to import" in str(error):  # Ray's words for an actor class; no use in trying again
        return ClusterError(f"{worker.name} cannot be started: its process cannot import this package; {_IMPORT_CURE}")
    if worker.failed_builds >= _BUILD_ATTEMPTS:
        return ClusterError(
            f"{worker.name} died {worker.failed_builds} times while it was being built: {one_line(error)}"
        )
    return None


def _was_ever_built(pool: RemotePool) -> bool:
    return any(worker.was_ever_built for worker in pool.members)


def _sentence(error: BaseException) -> str:
    kind = "" if isinstance(error, ClusterError) else f"{type(error).__name__}: "
    return kind + one_line(error)


def _ended(refs: list[Any], until: float) -> list[Any]:
    """Those of the refs whose values are there, after waiting until then for the first."""
    left = max(0.0, until - time.monotonic())
    if not refs:
        time.sleep(left)
        return []
    ended, _ = ray.wait(refs, num_returns=1, timeout=left, fetch_local=False)
    if ended:
        ended, _ = ray.wait(refs, num_returns=len(refs), timeout=0, fetch_local=False)
    return ended
