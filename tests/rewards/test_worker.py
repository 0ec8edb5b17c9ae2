"""Rewards that misbehave: their failures come back as values, and cost no sample but their own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rewards.config import RewardConfig
from rewards.reward import RewardRequest, RewardResult, Scores, Status
from rewards.worker import RewardWorker, build_worker

OK, FAILED, TIMED_OUT, INVALID = Status.OK, Status.FAILED, Status.TIMED_OUT, Status.INVALID


def scores(
    values: Any, notes: tuple[str, ...] = (), failures: Mapping[int, tuple[Status, str]] | None = None
) -> Scores:
    """Past the annotations, which the tests check and a user's run does not."""
    made = object.__new__(Scores)
    for name, value in (("values", values), ("notes", notes), ("failures", failures or {})):
        object.__setattr__(made, name, value)
    return made


@dataclass
class Judged:
    """A reward made of a function of the images' first pixels; it keeps what it was asked."""

    judge: Callable[[np.ndarray], Any]
    name: str = "judged"
    provenance: str = "by a test"
    asked: list[list[tuple[int, str, Any]]] = field(default_factory=list)

    def __call__(self, images: np.ndarray, prompts: Sequence[str], metadata: Sequence[Mapping[str, Any]]) -> Scores:
        assert len(images) == len(prompts) == len(metadata)
        pixels = images[:, 0, 0, 0].astype(np.float64)
        self.asked.append(list(zip(images[:, 0, 0, 0].tolist(), prompts, metadata, strict=True)))
        answer = self.judge(pixels)
        return answer if isinstance(answer, Scores) else scores(answer)


def request(count: int = 3, task_id: int = 7, one_by_one: bool = False) -> RewardRequest:
    prompts = tuple(f"{task_id}.{i}" for i in range(count))
    return RewardRequest(task_id, prompts, tuple({"place": i} for i in range(count)), one_by_one)


def images(count: int = 3, first: int = 0, size: int = 4) -> np.ndarray:
    pixels = np.arange(first, first + count, dtype=np.uint8).reshape(count, 1, 1, 1)
    return pixels.repeat(3, 1).repeat(size, 2).repeat(size, 3)


def scored(judge: Callable[[np.ndarray], Any], one_by_one: bool = False, **how: Any) -> RewardResult:
    (result,) = RewardWorker(Judged(judge), **how).run((request(one_by_one=one_by_one),), images())
    return result


def run(reward: Judged, tasks: Mapping[int, int], **how: Any) -> tuple[RewardResult, ...]:
    """Score tasks of these ids and sizes in one call."""
    firsts = np.cumsum([0, *tasks.values()])
    batches = [images(count, int(first)) for count, first in zip(tasks.values(), firsts, strict=False)]
    requests = tuple(request(count, task) for task, count in tasks.items())
    return RewardWorker(reward, **how).run(requests, *batches)


def listed(result: RewardResult) -> list[Any]:
    return np.where(np.isnan(result.values), None, result.values).tolist()


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
        (fails_on_one, [None] * 3, (FAILED,) * 3, "RuntimeError: I do not like it"),
        (lambda p: np.where(p == 1, np.nan, p), [0, None, 2], (OK, INVALID, OK), "value nan"),
        (lambda p: np.where(p == 1, np.inf, p), [0, None, 2], (OK, INVALID, OK), "value inf"),
        (lambda p: np.where(p == 1, 1e300, p), [0, None, 2], (OK, INVALID, OK), "value inf"),
        (lambda p: p[:2], [None] * 3, (INVALID,) * 3, "(2,) values for 3 images"),
        (lambda p: 1.0, [None] * 3, (INVALID,) * 3, "() values for 3 images"),
        (lambda p: p[:, None], [None] * 3, (INVALID,) * 3, "(3, 1) values for 3 images"),
        (lambda p: scores(p, notes=("a",)), [None] * 3, (INVALID,) * 3, "1 notes for 3 images"),
        (lambda p: ["good"] * len(p), [None] * 3, (FAILED,) * 3, "ValueError: could not convert string to float"),
        (lambda p: [1 // 0], [None] * 3, (FAILED,) * 3, "ZeroDivisionError"),
        (lambda p: p.astype(int).tolist(), [0, 1, 2], (OK,) * 3, ""),
        (lambda p: scores(p, failures={1: (TIMED_OUT, "late")}), [0, None, 2], (OK, TIMED_OUT, OK), "late"),
    ],
    ids=[
        *("raises", "nan", "inf", "overflow", "short", "scalar", "column", "few notes", "words", "bug", "integers"),
        "own failure",
    ],
)
@pytest.mark.filterwarnings("ignore:overflow encountered")
def test_a_failure_is_a_status_with_a_reason_and_never_a_number(
    judge: Callable[[np.ndarray], Any], values: list[float | None], statuses: tuple[Status, ...], detail: str
) -> None:
    result = scored(judge)
    assert listed(result) == values
    assert result.statuses == statuses
    for status, text in zip(result.statuses, result.details, strict=True):
        assert (text == "") if status is OK else text.startswith(detail)


def test_what_the_reward_saw_is_the_detail_of_what_has_a_value() -> None:
    notes, failures = ("a cat", "a dog", "a fox"), {2: (FAILED, "the answer was empty")}
    result = scored(lambda pixels: scores(pixels, notes, failures))
    assert result.details == ("a cat", "a dog", "the answer was empty")


def test_one_by_one_a_bad_image_costs_no_other_its_score() -> None:
    result = scored(fails_on_one, one_by_one=True)
    assert listed(result) == [0, None, 2]
    assert result.statuses == (OK, FAILED, OK)
    assert result.details == ("", "RuntimeError: I do not like it", "")


def test_a_batch_that_works_is_not_scored_one_by_one() -> None:
    reward = Judged(lambda pixels: pixels)
    RewardWorker(reward).run((request(one_by_one=True),), images())
    assert len(reward.asked) == 1


def test_merged_tasks_are_scored_as_one_and_answered_apart() -> None:
    reward = Judged(lambda pixels: scores(pixels, tuple(f"saw {p:.0f}" for p in pixels)))
    results = run(reward, {7: 3, 9: 1, 8: 2})
    assert [[pixel for pixel, _, _ in call] for call in reward.asked] == [[0, 1, 2, 3, 4, 5]]
    assert [(prompt, of["place"]) for _, prompt, of in reward.asked[0]] == [
        *(("7.0", 0), ("7.1", 1), ("7.2", 2)),
        ("9.0", 0),
        *(("8.0", 0), ("8.1", 1)),
    ]
    assert [result.task_id for result in results] == [7, 9, 8]
    assert [result.values.tolist() for result in results] == [[0, 1, 2], [3], [4, 5]]
    assert [result.details for result in results] == [("saw 0", "saw 1", "saw 2"), ("saw 3",), ("saw 4", "saw 5")]


def test_batches_are_of_the_size_asked_for_and_a_failing_one_costs_only_itself() -> None:
    reward = Judged(fails_on_one)
    first, second = run(reward, {7: 3, 8: 2}, batch_size=2)
    assert [[pixel for pixel, _, _ in call] for call in reward.asked] == [[0, 1], [2, 3], [4]]
    assert (listed(first), listed(second)) == ([None, None, 2], [3, 4])


def test_features_keep_their_width_also_where_there_are_none() -> None:
    reward = Judged(lambda p: scores(np.stack([p, np.where(p == 1, np.nan, p)], axis=1), failures={0: (FAILED, "no")}))
    first, second = run(reward, {7: 1, 8: 2}, features=True)
    assert (first.values.shape, second.values.shape) == ((1, 2), (2, 2))
    assert np.isnan(first.values).all()
    assert np.isnan(second.values[0]).all(), "half a value was kept"
    assert second.values[1].tolist() == [2, 2]
    assert (first.statuses, second.statuses) == ((FAILED,), (INVALID, OK))


def test_numbers_where_features_are_due_are_no_features() -> None:
    assert scored(lambda pixels: pixels, features=True).details == ("(3,) values for 3 images",) * 3


def test_pictures_without_pixels_are_invalid_and_the_reward_is_not_asked() -> None:
    reward = Judged(lambda pixels: pixels)
    (result,) = RewardWorker(reward).run((request(2),), images(2, size=0))
    assert result.statuses == (INVALID, INVALID)
    assert result.details == ("an image of 0x0 pixels",) * 2
    assert not reward.asked


@pytest.mark.parametrize(
    "wrong", [images()[:2], images().astype(np.float32), images()[0]], ids=["too few", "float", "one image"]
)
def test_what_are_no_images_is_a_bug_and_no_failed_reward(wrong: np.ndarray) -> None:
    # Past the annotations, which the tests check and a user's run does not.
    run = getattr(RewardWorker.run, "__wrapped__", RewardWorker.run)
    with pytest.raises(TypeError, match="task 7: "):
        run(RewardWorker(Judged(lambda pixels: pixels)), (request(),), wrong)


def test_a_request_has_metadata_for_every_prompt() -> None:
    with pytest.raises(ValueError, match="task 7: 2 prompts, 1 metadata"):
        RewardRequest(7, ("a", "b"), ({},))


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
        ([[1.0, np.nan]], (OK,), ("",)),
        ([[1.0, 2.0]], (FAILED,), ("",)),
    ],
)
def test_a_result_that_contradicts_itself_cannot_be_made(
    values: list[Any], statuses: tuple[Status, ...], details: tuple[str, ...]
) -> None:
    with pytest.raises(ValueError, match="reward r: "):
        RewardResult(1, "r", "p", np.array(values, np.float32), statuses, details)


def test_the_configuration_chooses_the_reward_its_batches_and_its_cache(tmp_path: Path) -> None:
    worker = build_worker(RewardConfig(name="incompressibility", batch_size=1, cache=str(tmp_path)))
    (first,), (again,) = (worker.run((request(),), images(size=16)) for _ in range(2))
    assert first.reward == "incompressibility"
    assert first.statuses == (OK,) * 3
    np.testing.assert_array_equal(first.values, again.values)
    assert list(tmp_path.glob("*.sqlite"))
