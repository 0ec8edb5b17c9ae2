"""Rewards as a user might write them: one that works, and the same in bad company."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import numpy as np

FAULTS = "DDPO_TEST_FAULTS"
"""Environment variable: a folder in which calls are counted, over all processes; unset, nothing goes wrong."""
PERIOD = 20
RAISING, HANGING = (3, 8, 12, 17), (15,)
"""A fifth of the calls raise, a twentieth hang."""
DYING_EVERY = 7


def brightness(images: np.ndarray, prompts: list[str], metadata: list[dict[str, Any]]) -> np.ndarray:
    """Mean pixel value; calls fail, hang and kill their process if the environment says so."""
    if FAULTS in os.environ:
        misbehave(count_call(Path(os.environ[FAULTS])))
    return images.astype(np.float64).mean(axis=(1, 2, 3))


def slow_brightness(images: np.ndarray, prompts: list[str], metadata: list[dict[str, Any]]) -> np.ndarray:
    """The same after as many seconds for each image as the environment says: a big model on a device of its own."""
    time.sleep(float(os.environ["DDPO_TEST_SECONDS"]) * len(images))
    return images.astype(np.float64).mean(axis=(1, 2, 3))


def count_call(folder: Path) -> int:
    """How many calls there were before this one; every process counts in the same folder."""
    number = len(list(folder.iterdir()))
    while True:
        try:
            (folder / f"{number:06d}").touch(exist_ok=False)
        except FileExistsError:
            number += 1
        else:
            return number


def misbehave(number: int) -> None:
    if number % DYING_EVERY == DYING_EVERY - 1:
        os._exit(9)
    if number % PERIOD in RAISING:
        raise RuntimeError(f"call {number} does not work")
    if number % PERIOD in HANGING:
        time.sleep(3600)
