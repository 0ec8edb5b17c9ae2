"""Several rewards become one number, and no failure becomes any."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from learner.mixing import Mix, Spread, Term, joined
from rewards.reward import RewardResult, Status

OK, FAILED = Status.OK, Status.FAILED
PROMPTS = ("a cat", "a dog", "a cat", "a fox")


def result(task_id: int, values: Sequence[float | Sequence[float] | None]) -> RewardResult:
    width = next((len(v) for v in values if isinstance(v, Sequence)), None)
    nothing = np.nan if width is None else [np.nan] * width
    statuses = tuple(FAILED if value is None else OK for value in values)
    numbers = np.array([nothing if value is None else value for value in values], np.float32)
    return RewardResult(task_id, "r", "p", numbers, statuses, tuple("no" if v is None else "" for v in values))


def total(mix: Mix, evaluated: int | None = None, **values: Sequence[float | None]) -> list[float]:
    judged = {t.label: mix.judge(t, [result(0, values[t.label])], PROMPTS, evaluated) for t in mix.terms}
    return mix.total(judged).tolist()


def test_one_reward_is_itself_bit_for_bit() -> None:
    values = [0.1, -2.5661833, 1e-30, 3e38]
    assert total(Mix((Term("a"),)), a=values) == np.array(values, np.float32).tolist()


def test_a_sum_is_weighted_and_scaled() -> None:
    mix = Mix((Term("a", 2.0, 4.0), Term("b", -1.0), Term("c", 0.0)))
    assert total(mix, a=[4, 8, 0, 1], b=[1, 0, 2, 0.5], c=[9, 9, 9, 9]) == [1, 4, -2, 0]


def test_a_sample_without_one_of_its_rewards_has_none_and_says_why() -> None:
    mix = Mix((Term("a"), Term("b")))
    judged = {
        "a": mix.judge(mix.terms[0], [result(0, [1, None]), result(1, [1, 1])], PROMPTS),
        "b": mix.judge(mix.terms[1], [result(0, [1, 1]), result(1, [1, None])], PROMPTS),
    }
    np.testing.assert_array_equal(mix.total(judged), [2, np.nan, 2, np.nan])
    assert judged["a"].reasons == {1: "a: failed"}
    assert judged["b"].reasons == {3: "b: failed"}
    assert judged["a"].details == ("", "no", "", "")


def test_a_reward_that_is_only_looked_at_takes_no_sample_away() -> None:
    mix = Mix((Term("a"), Term("b", 0.0)))
    assert total(mix, a=[1, 2, 3, 4], b=[None, 1, None, 1]) == [1, 2, 3, 4]


def test_the_running_scale_is_the_deviation_of_all_values_so_far() -> None:
    mix, chance = Mix((Term("a", 1.0, "running"),)), np.random.default_rng(0)
    seen: list[float] = []
    for _ in range(5):
        values = (chance.normal(size=4) * 7 + 100).astype(np.float32)
        seen += values.tolist()
        np.testing.assert_allclose(total(mix, a=values.tolist()), values / np.std(seen), rtol=1e-6)
    before = mix.record()
    total(mix, 3, a=[0, 1000, 0, 0])
    assert mix.record() == before, "an evaluation changes nothing"
    resumed = Mix(mix.terms)
    resumed.resume(before)
    assert total(resumed, a=[1, 2, 3, 4]) == total(mix, a=[1, 2, 3, 4])


def test_the_running_scale_leaves_out_what_failed_and_starts_at_one() -> None:
    spread = Spread()
    spread.take_in(np.array([np.nan, np.nan]))
    assert spread.scale == 1.0
    spread.take_in(np.array([3.0, np.nan]))
    assert spread.scale == 1.0, "one value has no spread"
    spread.take_in(np.array([5.0]))
    assert spread.scale == 1.0 == np.std([3.0, 5.0])
    spread.take_in(np.array([11.0]))
    assert spread.scale == pytest.approx(np.std([3.0, 5.0, 11.0]))


def test_a_reward_of_the_whole_round_sees_the_valid_samples_of_all_tasks_in_order() -> None:
    seen: list[tuple[list[list[float]], list[str]]] = []

    def combine(features: np.ndarray, prompts: Sequence[str]) -> np.ndarray:
        seen.append((features.tolist(), list(prompts)))
        return np.array([10, np.nan, 30], np.float32)

    values, reasons = joined([result(0, [[1, 2], None]), result(1, [[3, 4], [5, 6]])], PROMPTS, combine)
    assert seen == [([[1, 2], [3, 4], [5, 6]], ["a cat", "a cat", "a fox"])]
    np.testing.assert_array_equal(values, [10, np.nan, np.nan, 30])
    assert reasons == {1: "failed", 2: "has no value in this round"}


def test_a_round_whose_every_feature_failed_has_no_values() -> None:
    values, reasons = joined(
        [result(0, [None, None]), result(1, [None, None])], PROMPTS, lambda features, prompts: 1 / 0
    )
    assert np.isnan(values).all()
    assert len(reasons) == 4


def test_results_that_are_not_one_per_sample_are_a_bug() -> None:
    with pytest.raises(ValueError, match="2 rewards for 4 samples"):
        joined([result(0, [1, 2])], PROMPTS, None)


def test_evaluations_share_the_scale_of_the_first_so_that_they_compare() -> None:
    mix, values = Mix((Term("a", 1.0, "running"),)), [1.0, 2.0, 3.0, 4.0]
    first = total(mix, 0, a=values)
    assert first == (np.array(values) / np.std(values)).astype(np.float32).tolist()
    total(mix, a=[-100, 100, 0, 50])
    assert total(mix, 7, a=values) == first
    resumed = Mix(mix.terms)
    resumed.resume(mix.record())
    assert total(resumed, 9, a=values) == first
