"""Plain objects for the tests of the cluster to run elsewhere."""

from __future__ import annotations

import os
import time
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

    def die(self) -> None:
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
