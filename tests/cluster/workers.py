"""Plain objects for the tests of the cluster to run elsewhere."""

from __future__ import annotations

import ctypes
import os
import time
from pathlib import Path
from typing import Any

import numpy as np


class Worker:
    def pid(self) -> int:
        return os.getpid()

    def double(self, array: np.ndarray) -> np.ndarray:
        return array * 2

    def ones(self, size: int) -> np.ndarray:
        return np.ones(size)

    def twice(self, value: Any) -> tuple[Any, Any]:
        return value, value

    def writes_to(self, array: np.ndarray) -> None:
        array[0] = 1

    def sleep(self, seconds: float) -> float:
        time.sleep(seconds)
        return seconds

    def die(self, after: float = 0.0) -> None:
        time.sleep(after)
        os._exit(1)

    def hang_in_native_code(self) -> None:
        ctypes.PyDLL(
            None
        ).pause()  # unlike CDLL keeps the interpreter's lock, so that no thread of Python's runs either

    def variable(self, name: str) -> str | None:
        return os.environ.get(name)

    def die_if_it_is(self, worker: str) -> None:
        if own_name() == worker:
            os._exit(1)

    def look_up(self, key: str) -> str:
        return {"known": "value"}[key]


def build() -> Worker:
    return Worker()


def build_from_a_missing_folder() -> Worker:
    raise FileNotFoundError("no model in /nowhere")


def build_and_die() -> Worker:
    os._exit(1)


def build_slowly() -> Worker:
    time.sleep(60)
    return Worker()


def build_unless_it_is(worker: str) -> Worker:
    if own_name() == worker:
        raise FileNotFoundError("no model in /nowhere")
    return Worker()


def build_while_there_is(path: Path) -> Worker:
    if not path.exists():
        raise FileNotFoundError(f"no model in {path.name}")
    return Worker()


def own_name() -> str:
    """The name of the worker that this process is; on Ray only. Later lives are called `sampler-00.2` and so on."""
    import ray

    return (ray.get_runtime_context().get_actor_name() or "").partition(".")[0]
