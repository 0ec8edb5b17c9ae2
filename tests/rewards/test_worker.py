"""Rewards that misbehave: their failures come back as values, and cost no sample but their own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from rewards.reward import RewardRequest, RewardResult, Status
from rewards.worker import RewardWorker

REQUEST = RewardRequest(7, ("a cat", "a dog", "a fox"))
OK, FAILED, INVALID = Status.OK, Status.FAILED, Status.INVALID


@dataclass
class Judged:
    """A reward made of a function of the images' first pixels."""

    judge: Callable[[np.ndarray], Any]
    name: str = "judged"
    provenance: str = "by a test"

    def __call__(self, images: np.ndarray, prompts: Sequence[str]) -> Any:
        assert len(images) == len(prompts)
        return self.judge(images[:, 0, 0, 0].astype(np.float64))


def images() -> np.ndarray:
    return np.arange(3, dtype=np.uint8).reshape(3, 1, 1, 1).repeat(3, 1).repeat(4, 2).repeat(4, 3)


def scored(judge: Callable[[np.ndarray], Any]) -> RewardResult:
    return RewardWorker(Judged(judge)).run(images(), REQUEST)


def test_a_reward_that_works() -> None:
    result = scored(lambda pixels: pixels * 10)
    assert (result.task_id, result.reward, result.provenance) == (7, "judged", "by a test")
    assert result.values.dtype == np.float32
    assert result.values.tolist() == [0, 10, 20]
    assert result.statuses == (OK, OK, OK)
    assert result.details == ("", "", "")


def fails_on_one(pixels: np.ndarray) -> np.ndarray:
    if 1 in pixels:
        raise RuntimeError("I do not like it")
    return pixels


@pytest.mark.parametrize(
    ("judge", "values", "statuses", "detail"),
    [
        (fails_on_one, [0, None, 2], (OK, FAILED, OK), "RuntimeError: I do not like it"),
        (lambda p: np.where(p == 1, np.nan, p), [0, None, 2], (OK, INVALID, OK), "value nan"),
        (lambda p: np.where(p == 1, np.inf, p), [0, None, 2], (OK, INVALID, OK), "value inf"),
        (lambda p: np.where(p == 1, 1e300, p), [0, None, 2], (OK, INVALID, OK), "value inf"),
        (lambda p: p[:2], [None] * 3, (INVALID,) * 3, "(2,) values for 3 images"),
        (lambda p: 1.0, [None] * 3, (INVALID,) * 3, "() values for 3 images"),
        (lambda p: p[:, None], [None] * 3, (INVALID,) * 3, "(3, 1) values for 3 images"),
        (lambda p: ["good"] * len(p), [None] * 3, (FAILED,) * 3, "ValueError: could not convert string to float"),
        (lambda p: [1 // 0], [None] * 3, (FAILED,) * 3, "ZeroDivisionError"),
        (lambda p: p.astype(int).tolist(), [0, 1, 2], (OK,) * 3, ""),
    ],
    ids=["raises", "nan", "inf", "overflow", "short", "scalar", "column", "words", "bug", "integers"],
)
@pytest.mark.filterwarnings("ignore:overflow encountered")
def test_a_failure_is_a_status_with_a_reason_and_never_a_number(
    judge: Callable[[np.ndarray], Any], values: list[float | None], statuses: tuple[Status, ...], detail: str
) -> None:
    result = scored(judge)
    assert [None if np.isnan(value) else value for value in result.values] == values
    assert result.statuses == statuses
    for status, text in zip(result.statuses, result.details, strict=True):
        assert (text == "") if status is OK else text.startswith(detail)


@pytest.mark.parametrize(
    "wrong", [images()[:2], images().astype(np.float32), images()[0]], ids=["too few", "float", "one image"]
)
def test_what_are_no_images_is_a_bug_and_no_failed_reward(wrong: np.ndarray) -> None:
    # Past the annotations, which the tests check and a user's run does not.
    run = getattr(RewardWorker.run, "__wrapped__", RewardWorker.run)
    with pytest.raises(TypeError, match="task 7: "):
        run(RewardWorker(Judged(lambda pixels: pixels)), wrong, REQUEST)


@pytest.mark.parametrize(
    ("values", "statuses", "details"),
    [
        ([1.0], (FAILED,), ("",)),
        ([0.0], (FAILED,), ("",)),
        ([np.nan], (OK,), ("",)),
        ([np.inf], (OK,), ("",)),
        ([np.inf], (INVALID,), ("",)),
        ([1.0, 2.0], (OK,), ("",)),
        ([1.0], (OK,), ("", "")),
    ],
)
def test_a_result_that_contradicts_itself_cannot_be_made(
    values: list[float], statuses: tuple[Status, ...], details: tuple[str, ...]
) -> None:
    with pytest.raises(ValueError, match="reward r: "):
        RewardResult(1, "r", "p", np.array(values, np.float32), statuses, details)
