"""Rounds come out complete, in order and counted once, whatever order calls end in and however many are lost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from actors.prompts import PromptSource
from cluster.pool import Lost, WorkerSpec
from learner.drawing import MAX_LOSSES
from learner.events import CallLost, Events
from learner.intake import Intake, RoundFailed
from learner.ledger import Ledger
from learner.mixing import Mix, Term
from learner.panel import Panel
from learner.reward_calls import RewardCalls
from learner.staleness import FixedSchedule, FreshestSchedule, Schedule
from rewards.config import RewardConfig
from rewards.reward import RewardResult, Status
from tests.fakes import Call, Fate, ScriptedCluster, never_lost

BATCH, PER_ROUND, ROUNDS = 4, 3, 5
ATTEMPTS = 3


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("learner.reward_calls.FIRST_PAUSE_S", 0.0)


def rewards_of(task_id: int) -> np.ndarray:
    return np.arange(BATCH, dtype=np.float32) + task_id * BATCH


def answers(broken: Callable[[int, int], Status] = lambda task_id, index: Status.OK) -> Callable[[Call], Any]:
    """Images and trajectory by name, and for each sample its own number as the reward, unless it is broken."""

    def answer(call: Call) -> tuple[Any, ...]:
        if call.pool == "sampler":
            return f"images {call.key}", f"trajectory {call.key} of {call.args[1]}"
        (request,), images = call.args
        task_id = request.task_id
        assert images == f"images {task_id}"
        statuses = tuple(broken(task_id, index) for index in range(BATCH))
        ok = [status is Status.OK for status in statuses]
        values = np.where(ok, rewards_of(task_id), np.float32(np.nan))
        details = tuple("" if fine else "no" for fine in ok)
        return ((RewardResult(task_id, "r", "p", values, statuses, details),),)

    return answer


def intake_on(
    cluster: ScriptedCluster,
    schedule: Schedule,
    ledger: Ledger | None = None,
    queue: dict[int, int] | None = None,
    first_round: int = 0,
) -> Intake:
    samplers, pool = (cluster.start(WorkerSpec(name, object, 1)) for name in ("sampler", "reward"))
    prompts, ledger = PromptSource(("a cat", "a dog", "a fox"), 1, 0), ledger or Ledger()
    cluster.after = ledger.check
    events = Events(cluster, 1.0)
    config = RewardConfig(label="r", attempts=ATTEMPTS)
    panel = Panel([RewardCalls(events, pool, config, lambda prompts: ({},) * len(prompts))])
    mix = Mix((Term("r"),))
    return Intake(events, samplers, panel, mix, 0.1, prompts, schedule, BATCH, ROUNDS, ledger, queue, first_round)


def train(intake: Intake, lag: int) -> list[Any]:
    """The loop without a learner: every version is a word."""
    done = []
    intake.publish({0: "version 0"})
    for version in range(1, ROUNDS + 1):
        done.append(intake.next_round())
        intake.finish_round()
        assert len(intake.tasks_in_flight()) <= lag * PER_ROUND
        intake.publish({version: f"version {version}"})
        assert len(intake.tasks_in_flight()) <= (lag + 1) * PER_ROUND
    return done


def sampled(cluster: ScriptedCluster) -> list[Call]:
    return [call for call in cluster.calls if call.pool == "sampler"]


def task_of(call: Call) -> Any:
    return call.key if call.pool == "sampler" else call.args[0][0].task_id


def randomly_lost(seed: int) -> Fate:
    """A third of all calls, each task at most twice at each pool."""
    chance, losses = np.random.default_rng(seed), Counter[tuple[str, Any]]()

    def fate(call: Call) -> Lost | None:
        task = call.pool, task_of(call)
        if losses[task] >= 2 or chance.random() > 1 / 3:
            return None
        losses[task] += 1
        gone = call.pool == "reward" and chance.random() < 0.5
        return Lost(call.pool, call.key, f"{call.pool}-00", "killed", arguments_gone=gone)

    return fate


@pytest.mark.parametrize("lag", [0, 1, 2])
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("lossy", [False, True])
def test_rounds_are_complete_and_ordered_in_any_order_of_events(lag: int, seed: int, lossy: bool) -> None:
    cluster = ScriptedCluster(answers(), randomly_lost(seed) if lossy else never_lost, seed)
    intake = intake_on(cluster, FixedSchedule(lag, PER_ROUND))
    for index, scored in enumerate(train(intake, lag)):
        ids = range(index * PER_ROUND, (index + 1) * PER_ROUND)
        version = max(0, index - lag)
        assert scored.index == index
        assert scored.images == tuple(f"images {task_id}" for task_id in ids)
        assert scored.trajectories == tuple(f"trajectory {task_id} of version {version}" for task_id in ids)
        np.testing.assert_array_equal(scored.rewards, np.concatenate([rewards_of(task_id) for task_id in ids]))
        assert scored.sampling_seconds == scored.scoring_seconds == 0.5 * PER_ROUND
    counts = intake.ledger.counts()
    assert counts["issued"] == counts["trained"] == ROUNDS * PER_ROUND * BATCH
    assert (counts["reissued_tasks"] > 0) == lossy
    assert intake.tasks_in_flight() == {}
    assert len(sampled(cluster)) == ROUNDS * PER_ROUND + counts["reissued_tasks"]


def test_a_task_done_again_is_the_same_task() -> None:
    cluster = ScriptedCluster(answers(), randomly_lost(1), 1)
    train(intake_on(cluster, FixedSchedule(1, PER_ROUND)), 1)
    by_task: dict[Any, set[Any]] = {}
    for call in sampled(cluster):
        by_task.setdefault(call.key, set()).add(call.args)
    assert len(sampled(cluster)) > len(by_task)
    assert all(len(arguments) == 1 for arguments in by_task.values())
    assert len({arguments for same in by_task.values() for arguments in same}) == ROUNDS * PER_ROUND


@pytest.mark.parametrize(
    ("schedule", "versions"),
    [(FixedSchedule(2, PER_ROUND), [0, 0, 0, 1, 2]), (FreshestSchedule(2, PER_ROUND), [0, 0, 0, 1, 2])],
)
def test_every_task_asks_for_the_version_of_its_schedule(schedule: Schedule, versions: list[int]) -> None:
    cluster = ScriptedCluster(answers())
    train(intake_on(cluster, schedule), schedule.lag)
    asked = {call.args[0].task_id: call.args[0].version for call in sampled(cluster)}
    assert [asked[task_id] for task_id in sorted(asked)] == [v for v in versions for _ in range(PER_ROUND)]


@pytest.mark.parametrize(("kind", "versions"), [(FixedSchedule, [0, 1, 2]), (FreshestSchedule, [2, 2, 2])])
def test_schedules_differ_where_newer_versions_are_at_hand(kind: type, versions: list[int]) -> None:
    cluster = ScriptedCluster(answers())
    intake = intake_on(cluster, kind(2, PER_ROUND), first_round=2)
    intake.publish({0: "version 0", 1: "version 1", 2: "version 2"})
    asked = [call.args[1] for call in sampled(cluster)]
    assert asked == [f"version {version}" for version in versions for _ in range(PER_ROUND)]


def test_a_resumed_queue_is_drawn_by_the_versions_that_it_names() -> None:
    cluster, ledger = ScriptedCluster(answers()), Ledger()
    for task_id in range(6, 12):
        ledger.issue(task_id, BATCH)
    queue = {**dict.fromkeys(range(6, 9), 1), **dict.fromkeys(range(9, 12), 2)}
    intake = intake_on(cluster, FixedSchedule(1, PER_ROUND), ledger, queue, first_round=2)
    intake.publish({1: "version 1", 2: "version 2"})
    assert {call.key: call.args[1] for call in sampled(cluster)} == {t: f"version {v}" for t, v in queue.items()}
    assert intake.next_round().index == 2


@pytest.mark.parametrize(("pool", "gone"), [("sampler", False), ("reward", True)])
def test_a_task_that_kills_its_samplers_or_loses_its_images_ends_the_run(pool: str, gone: bool) -> None:
    def fate(call: Call) -> Lost | None:
        fatal = (call.pool, task_of(call)) == (pool, 1)
        return Lost(pool, call.key, f"{pool}-07", "out of memory", gone) if fatal else None

    cluster = ScriptedCluster(answers(), fate)
    with pytest.raises(CallLost, match=f"task 1 was lost {MAX_LOSSES} times, last on {pool}-07: out of memory"):
        train(intake_on(cluster, FixedSchedule(0, PER_ROUND)), 0)
    assert sum((call.pool, task_of(call)) == (pool, 1) for call in cluster.calls) == MAX_LOSSES
    assert len(sampled(cluster)) == PER_ROUND + MAX_LOSSES - 1


def test_a_task_that_kills_its_reward_workers_is_dropped_and_the_rest_is_trained() -> None:
    def fate(call: Call) -> Lost | None:
        fatal = (call.pool, task_of(call)) == ("reward", 1)
        return Lost("reward", call.key, "reward-07", "out of memory") if fatal else None

    cluster = ScriptedCluster(answers(), fate)
    intake = intake_on(cluster, FixedSchedule(0, PER_ROUND))
    train(intake, 0)
    assert sum((call.pool, task_of(call)) == ("reward", 1) for call in cluster.calls) == ATTEMPTS
    assert intake.ledger.dropped == {"r: failed": BATCH}
    assert intake.ledger.trained == (ROUNDS * PER_ROUND - 1) * BATCH


def test_a_sample_without_a_reward_is_dropped_with_its_reason_and_never_a_number() -> None:
    broken = {(1, 2): Status.FAILED, (4, 0): Status.INVALID, (4, 3): Status.TIMED_OUT}
    cluster = ScriptedCluster(answers(lambda task_id, index: broken.get((task_id, index), Status.OK)))
    intake = intake_on(cluster, FixedSchedule(1, PER_ROUND))
    rewards = np.concatenate([scored.rewards for scored in train(intake, 1)])
    assert set(np.flatnonzero(np.isnan(rewards))) == {task_id * BATCH + index for task_id, index in broken}
    whole = np.isfinite(rewards)
    np.testing.assert_array_equal(rewards[whole], np.arange(ROUNDS * PER_ROUND * BATCH)[whole])
    assert intake.ledger.dropped == {"r: failed": 1, "r: invalid": 1, "r: timed_out": 1}
    assert intake.ledger.trained == ROUNDS * PER_ROUND * BATCH - 3


def test_a_round_with_too_few_rewards_ends_the_run_and_drops_nothing() -> None:
    def broken(task_id: int, index: int) -> Status:
        return Status.FAILED if PER_ROUND <= task_id < 2 * PER_ROUND and (task_id, index) != (4, 0) else Status.OK

    intake = intake_on(ScriptedCluster(answers(broken)), FixedSchedule(0, PER_ROUND))
    line = "only 1 of 12 samples of round 1 have a reward, .* asks for 0.1: 11 x r: failed, for example: no; .*--resume"
    with pytest.raises(RoundFailed, match=line):
        train(intake, 0)
    assert intake.ledger.trained == PER_ROUND * BATCH
    assert intake.ledger.in_flight == PER_ROUND * BATCH
    assert not intake.ledger.dropped


@pytest.mark.parametrize("invalid", [10, 11])
def test_a_round_goes_on_with_just_enough(invalid: int) -> None:
    def broken(task_id: int, index: int) -> Status:
        return Status.INVALID if task_id < PER_ROUND and task_id * BATCH + index < invalid else Status.OK

    intake = intake_on(ScriptedCluster(answers(broken)), FixedSchedule(0, PER_ROUND))
    if invalid == 10:  # 2 of 12 are more than a tenth
        train(intake, 0)
        assert intake.ledger.dropped == {"r: invalid": 10}
    else:
        with pytest.raises(RoundFailed):
            train(intake, 0)
