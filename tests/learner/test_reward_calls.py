"""One reward's workers fail in every way they can; each sample ends with its score or with a reason, once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from cluster.pool import Lost, WorkerSpec
from learner.events import Events
from learner.reward_calls import RewardCalls
from rewards.config import RewardConfig
from rewards.reward import RewardResult, Status
from tests.fakes import Call, ScriptedCluster

OK, FAILED, INVALID, TIMED_OUT = Status.OK, Status.FAILED, Status.INVALID, Status.TIMED_OUT
PROMPTS = ("a cat", "a dog")


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("learner.reward_calls.FIRST_PAUSE_S", 0.0)


Behaviour = Callable[[int, int, bool], Any]
"""From (task id, how many calls it has had before, one by one?): values with None for a failure, or a `Lost`."""


@dataclass
class Bench:
    """Reward workers that behave as told, and what the caller made of it."""

    behaviour: Behaviour
    config: RewardConfig
    provenance: Callable[[int], str] = lambda call: "p"
    told: dict[int, list[RewardResult]] = field(default_factory=dict)
    gone: list[int] = field(default_factory=list)
    calls: dict[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.cluster = ScriptedCluster(self._answer, self._fate)
        self.pool = self.cluster.start(WorkerSpec("reward", object, 2))
        self.events = Events(self.cluster, 5.0)
        self.rewards = RewardCalls(self.events, self.pool, self.config, lambda prompts: ({},) * len(prompts))

    def score(self, *task_ids: int) -> None:
        for task_id in task_ids:
            self.rewards.score(
                task_id,
                PROMPTS,
                f"images {task_id}",
                lambda result, seconds, task_id=task_id: self.told.setdefault(task_id, []).append(result),
                lambda lost, task_id=task_id: self.gone.append(task_id),
            )

    def run(self, *task_ids: int) -> None:
        self.score(*task_ids)
        self.events.until(lambda: len(self.told) + len(self.gone) == len(task_ids), "scores")

    def _does(self, call: Call) -> list[tuple[int, Any]]:
        return [
            (r.task_id, self.behaviour(r.task_id, self.calls.get(r.task_id, 0), r.one_by_one)) for r in call.args[0]
        ]

    def _fate(self, call: Call) -> Lost | None:
        for task_id, does in self._does(call):
            if isinstance(does, Lost):
                self.calls[task_id] = self.calls.get(task_id, 0) + 1
                return Lost("reward", call.key, "reward-00", does.reason, does.arguments_gone, does.late)
        return None

    def _answer(self, call: Call) -> tuple[Any, ...]:
        results = []
        for task_id, values in self._does(call):
            number = self.calls.get(task_id, 0)
            self.calls[task_id] = number + 1
            statuses = tuple(FAILED if value is None else OK for value in values)
            array = np.array([np.nan if value is None else value for value in values], np.float32)
            details = tuple("broken" if value is None else "" for value in values)
            results.append(RewardResult(task_id, "r", self.provenance(number), array, statuses, details))
        return (tuple(results),)

    def result(self, task_id: int = 0) -> tuple[list[float | None], tuple[Status, ...]]:
        (result,) = self.told[task_id]
        return [None if np.isnan(value) else float(value) for value in result.values], result.statuses


def lost(reason: str = "killed", late: bool = False, gone: bool = False) -> Lost:
    return Lost("reward", 0, "reward-00", reason, gone, late)


def test_what_works_is_asked_once() -> None:
    bench = Bench(lambda task, number, singly: [1, 2], RewardConfig())
    bench.run(0, 1)
    assert bench.result(0) == bench.result(1) == ([1, 2], (OK, OK))
    assert bench.calls == {0: 1, 1: 1}
    assert bench.rewards.provenance == "p"


@pytest.mark.parametrize(
    "failure", [[None, None], lost(), lost("too slow", late=True)], ids=["raises", "dies", "hangs"]
)
@pytest.mark.parametrize("times", [1, 3])
def test_a_call_that_fails_is_made_again_and_scores_the_same(failure: Any, times: int) -> None:
    bench = Bench(lambda task, number, singly: failure if number < times else [1, 2], RewardConfig(attempts=4))
    bench.run(0)
    assert bench.result() == ([1, 2], (OK, OK))
    assert bench.calls == {0: times + 1}
    assert bench.rewards.counts.total() == times


@pytest.mark.parametrize(
    ("failure", "status", "reason"),
    [([None, None], FAILED, "broken"), (lost("oom"), FAILED, "oom"), (lost("60 s", late=True), TIMED_OUT, "60 s")],
)
def test_what_always_fails_ends_with_a_reason_and_no_number(failure: Any, status: Status, reason: str) -> None:
    bench = Bench(lambda task, number, singly: failure, RewardConfig(attempts=3))
    bench.run(0)
    assert bench.result() == ([None, None], (status, status))
    assert bench.told[0][0].details == (reason, reason)
    assert bench.calls == {0: 3}


def test_only_the_last_attempt_goes_image_by_image() -> None:
    seen: list[bool] = []

    def behaviour(task: int, number: int, singly: bool) -> list[float | None]:
        seen.append(singly)
        return [None, 2] if singly else [None, None]

    bench = Bench(behaviour, RewardConfig(attempts=3))
    bench.run(0)
    assert bench.result() == ([None, 2], (FAILED, OK))
    assert sorted(set(seen[:-2])) == [False]
    assert seen[-1]


def test_a_sample_keeps_its_first_score() -> None:
    answers: list[list[float | None]] = [[1, None], [7, None], [None, 5]]
    bench = Bench(lambda task, number, singly: answers[number], RewardConfig(attempts=4))
    bench.run(0)
    assert bench.result() == ([1, 5], (OK, OK))


def test_a_worker_that_scores_by_other_weights_is_not_believed() -> None:
    provenance = ["first", "second", "first"]
    answers: list[list[float | None]] = [[1, None], [9, 9], [1, 2]]
    bench = Bench(lambda task, n, singly: answers[n], RewardConfig(attempts=3), lambda number: provenance[number])
    bench.run(0)
    assert bench.result() == ([1, 2], (OK, OK))
    always = Bench(lambda task, n, singly: answers[n], RewardConfig(attempts=2), lambda number: provenance[number])
    always.run(0)
    assert always.result() == ([1, None], (OK, INVALID))
    assert always.told[0][0].details[1] == "scored by 'second', not by 'first'"


def test_images_that_are_lost_are_asked_for_and_not_scored_again() -> None:
    bench = Bench(lambda task, number, singly: lost(gone=True), RewardConfig())
    bench.run(0)
    assert bench.gone == [0]
    assert bench.calls == {0: 1}
    assert not bench.told


def test_a_task_that_is_forgotten_is_not_heard_of() -> None:
    bench = Bench(lambda task, number, singly: [1, 2], RewardConfig())
    bench.score(0, 1)
    bench.rewards.forget(0)
    bench.events.until(lambda: 1 in bench.told, "scores")
    bench.score(0)  # drawn again
    bench.events.until(lambda: 0 in bench.told, "scores")
    assert [len(results) for results in bench.told.values()] == [1, 1]


def test_tasks_are_merged_only_where_that_is_asked_for() -> None:
    def sizes(merge: int, tasks: int) -> list[int]:
        bench = Bench(lambda task, number, singly: [task, 0.5], RewardConfig(merge_tasks=merge, merge_seconds=0.05))
        bench.run(*range(tasks))
        for task in range(tasks):
            assert bench.result(task) == ([task, 0.5], (OK, OK))
        return [len(call.args[0]) for call in bench.cluster.calls]

    assert sizes(1, 5) == [1] * 5
    assert sizes(2, 5) == [2, 2, 1]
    assert sizes(8, 3) == [3]


@pytest.mark.parametrize("slow_wins", [False, True])
def test_a_straggler_is_hedged_and_counted_once(monkeypatch: pytest.MonkeyPatch, slow_wins: bool) -> None:
    monkeypatch.setattr("learner.reward_calls.HEDGE_LOOK_S", 0.0)
    bench = Bench(lambda task, number, singly: [task, 1], RewardConfig(hedge_percentile=90))
    bench.run(*range(10))  # enough durations for a percentile
    bench.score(99)
    (first,) = bench.cluster.waiting
    bench.pool.started[first.key] = ("reward-00", 60.0)
    bench.rewards._hedge_the_slow()
    assert len(bench.cluster.waiting) == 2
    bench.rewards._hedge_the_slow()
    twins = list(bench.cluster.waiting)
    assert len(twins) == 2, "only once"
    bench.cluster.waiting.remove(twins[slow_wins])  # the winner is left
    bench.events.until(lambda: 99 in bench.told, "scores")
    assert bench.result(99) == ([99, 1], (OK, OK))
    assert bench.rewards.counts["hedged"] == 1
    assert not bench.pool.in_flight()


def test_a_worker_that_keeps_failing_is_left_alone_and_others_are_preferred() -> None:
    bench = Bench(lambda task, number, singly: [None, None], RewardConfig(attempts=5))
    bench.run(0)
    assert [call.avoid for call in bench.cluster.calls] == [frozenset(), *[frozenset({"reward-00"})] * 4]
    assert bench.pool.rests == [("reward-00", 5.0), ("reward-00", 10.0), ("reward-00", 20.0)]


def test_the_seconds_are_those_in_the_workers() -> None:
    seconds: list[float] = []
    bench = Bench(lambda task, number, singly: [None, 1] if number == 0 else [1, 1], RewardConfig())
    bench.rewards.score(0, PROMPTS, "images", lambda result, spent: seconds.append(spent), lambda lost: None)
    bench.events.until(lambda: bool(seconds), "scores")
    assert seconds == [1.0], "two calls of 0.5 s"
