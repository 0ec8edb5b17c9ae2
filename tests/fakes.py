"""A cluster whose calls end as a test says: in any order, as done or as lost."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cluster.pool import Done, Handle, Lost, Outcome, WorkerSpec


@dataclass(frozen=True)
class Call:
    pool: str
    key: Hashable
    method: str
    args: tuple[Any, ...]
    avoid: frozenset[str] = frozenset()


Outputs = Callable[[Call], tuple[Any, ...]]
"""What a call returns."""

Fate = Callable[[Call], Lost | None]
"""How a call is lost, if it is."""


def never_lost(call: Call) -> None:
    del call


@dataclass
class ScriptedPool:
    name: str
    calls: list[Call]
    waiting: list[Call]
    size: int = 1
    started: dict[Hashable, tuple[str, float]] = field(default_factory=dict)
    """What `running` says of calls in flight; for a test to fill."""
    rests: list[tuple[str, float]] = field(default_factory=list)
    """All that were ever asked for."""
    withdrawn: list[Hashable] = field(default_factory=list)

    def submit(self, key: Hashable, method: str, *args: Any, outputs: int = 1, avoid: Collection[str] = ()) -> None:
        assert key not in self.in_flight(), f"{self.name} {key} is in flight already"
        call = Call(self.name, key, method, args, frozenset(avoid))
        self.calls.append(call)
        self.waiting.append(call)

    def in_flight(self) -> Sequence[Hashable]:
        return [call.key for call in self.waiting if call.pool == self.name]

    def running(self) -> Mapping[Hashable, tuple[str, float]]:
        return {key: at for key, at in self.started.items() if key in self.in_flight()}

    def withdraw(self, key: Hashable) -> None:
        self.withdrawn.append(key)
        self.waiting[:] = [call for call in self.waiting if (call.pool, call.key) != (self.name, key)]

    def rest(self, worker: str, seconds: float) -> None:
        self.rests.append((worker, seconds))

    def workers(self) -> Sequence[str]:
        return [f"{self.name}-{i:02d}" for i in range(self.size)]


@dataclass
class ScriptedCluster:
    """`wait` ends one call, drawn at random (by seed) from all that are in flight."""

    outputs: Outputs
    fate: Fate = never_lost
    seed: int = 0
    silent: bool = False
    """Nothing ever ends."""
    calls: list[Call] = field(default_factory=list)
    """All that were ever submitted."""
    waiting: list[Call] = field(default_factory=list)
    after: Callable[[], None] = lambda: None
    """Run before each wait, that is after what the outcome before it led to."""

    def __post_init__(self) -> None:
        self._chance = random.Random(self.seed)

    def start(self, spec: WorkerSpec) -> ScriptedPool:
        return ScriptedPool(spec.pool, self.calls, self.waiting, spec.num)

    def ready(self, timeout_s: float) -> None: ...

    def wait(self, timeout_s: float) -> list[Outcome]:
        self.after()
        if self.silent or not self.waiting:
            return []
        call = self.waiting.pop(self._chance.randrange(len(self.waiting)))
        lost = self.fate(call)
        return [lost or Done(call.pool, call.key, self.outputs(call), f"{call.pool}-00", 0.5)]

    def put(self, value: Any) -> Handle:
        return value

    def get(self, handle: Handle, timeout_s: float) -> Any:
        return handle

    def diagnosis(self) -> str:
        return "the node burns"

    def close(self) -> None: ...
