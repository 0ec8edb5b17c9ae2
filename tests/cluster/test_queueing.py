"""Which worker gets which call, without Ray: workers that only note what they were sent, and a clock to be set."""

from __future__ import annotations

import math

import pytest

from cluster.pool import WorkerSpec
from cluster.queueing import Call, QueuedPool, Worker


class Noting(Worker):
    def send(self, call: Call) -> None:
        call.refs = ["sent"]


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def pool_of(num: int, clock: Clock, timeout: float | None = None) -> QueuedPool[Noting]:
    members = [Noting(f"w-{i}") for i in range(num)]
    for member in members:
        member.is_built = True
    return QueuedPool(WorkerSpec("w", object, num, call_timeout_s=timeout), members, clock)


def submit(pool: QueuedPool[Noting], keys: str, *avoid: str) -> None:
    for key in keys:
        pool.submit(key, "run", avoid=avoid)
    pool.hand_out()


def held(pool: QueuedPool[Noting]) -> list[str]:
    """Keys of the calls at each worker, then of those queued."""
    return ["".join(str(call.key) for call in calls) for calls in [*(m.calls for m in pool.members), pool.queue]]


def end(pool: QueuedPool[Noting], key: str) -> None:
    (member,) = [member for member in pool.members if pool.calls[key] in member.calls]
    member.drop(pool.calls.pop(key), pool._clock())


def test_calls_spread_and_a_second_one_waits_at_each_worker(clock: Clock) -> None:
    pool = pool_of(2, clock)
    submit(pool, "abcdef")
    assert held(pool) == ["ac", "bd", "ef"]


def test_workers_that_are_not_built_get_nothing(clock: Clock) -> None:
    pool = pool_of(2, clock)
    pool.members[0].is_built = False
    submit(pool, "abc")
    assert held(pool) == ["", "ab", "c"]


def test_a_call_waits_for_a_worker_it_need_not_avoid_and_lets_others_pass(clock: Clock) -> None:
    pool = pool_of(2, clock)
    submit(pool, "abc", "w-0")
    submit(pool, "de")
    assert held(pool) == ["de", "ab", "c"]
    end(pool, "a")
    pool.hand_out()
    assert held(pool) == ["de", "bc", ""]


def test_a_worker_that_may_never_be_built_is_not_waited_for(clock: Clock) -> None:
    pool = pool_of(2, clock)
    pool.members[1].is_built = False
    pool.rest("w-0", 300)
    submit(pool, "a", "w-0")
    assert held(pool) == ["a", "", ""]


@pytest.mark.parametrize("state", ["avoided", "resting", "out"])
def test_an_avoided_worker_serves_where_there_is_no_other(clock: Clock, state: str) -> None:
    pool = pool_of(2, clock)
    if state == "resting":
        pool.rest("w-1", 60)
    if state == "out":
        pool.members[1].duty.take_out(clock.now, "it died")
    submit(pool, "a", "w-0", *(["w-1"] if state == "avoided" else []))
    assert held(pool) == ["a", "", ""]


def test_where_all_are_out_calls_wait(clock: Clock) -> None:
    pool = pool_of(2, clock)
    for member in pool.members:
        member.duty.take_out(clock.now, "it died")
    submit(pool, "a")
    assert held(pool) == ["", "", "a"]
    pool.members[1].duty.bring_back()
    pool.hand_out()
    assert held(pool) == ["", "a", ""]


def test_a_resting_worker_keeps_its_calls_and_gets_no_new_ones_until_it_wakes(clock: Clock) -> None:
    pool = pool_of(2, clock)
    submit(pool, "ab")
    pool.rest("w-0", 30)
    submit(pool, "cd")
    assert held(pool) == ["a", "bc", "d"]
    assert pool.due_at() == 1030.0
    clock.now = 1030.0
    submit(pool, "e")
    assert held(pool) == ["ad", "bc", "e"]
    assert pool.due_at() == math.inf


def test_the_last_one_awake_gets_no_rest(clock: Clock) -> None:
    pool = pool_of(2, clock)
    pool.rest("w-0", 30)
    pool.rest("w-1", 30)
    submit(pool, "abc")
    assert held(pool) == ["", "ab", "c"]


def test_resting_ones_are_woken_where_all_others_drop_out(clock: Clock) -> None:
    pool = pool_of(2, clock)
    pool.rest("w-0", 30)
    pool.members[1].duty.take_out(clock.now, "it died")
    submit(pool, "a")
    assert held(pool) == ["a", "", ""]


def test_the_clock_of_a_call_starts_when_it_is_its_workers_first(clock: Clock) -> None:
    pool = pool_of(1, clock, timeout=60)
    submit(pool, "ab")
    clock.now += 50
    assert pool.running() == {"a": ("w-0", 50.0)}
    assert pool.due_at() == 1060.0
    end(pool, "a")
    clock.now += 59
    assert pool.running() == {"b": ("w-0", 59.0)}
    assert pool.overdue() == []
    clock.now += 1
    assert pool.overdue() == pool.members


def test_a_second_call_that_ends_first_does_not_turn_back_the_clock_of_the_first(clock: Clock) -> None:
    pool = pool_of(1, clock)
    submit(pool, "ab")
    clock.now += 50
    end(pool, "b")
    assert pool.running() == {"a": ("w-0", 50.0)}


def test_without_a_limit_nothing_is_overdue(clock: Clock) -> None:
    pool = pool_of(1, clock)
    submit(pool, "a")
    clock.now += 1e9
    assert pool.overdue() == []
    assert pool.due_at() == math.inf


def test_the_end_of_a_pause_is_something_to_do(clock: Clock) -> None:
    pool = pool_of(2, clock)
    pool.members[0].duty.take_out(clock.now, "it died")
    assert pool.due_at() == 1005.0


def test_what_is_put_back_is_next_and_in_its_order(clock: Clock) -> None:
    pool = pool_of(1, clock)
    submit(pool, "abcd")
    calls, pool.members[0].calls = pool.members[0].calls, []
    pool.withdraw("c")
    pool.put_back(calls)
    assert held(pool) == ["", "abd"]
    clock.now += 50
    pool.hand_out()
    assert pool.running() == {"a": ("w-0", 0.0)}
    assert pool.calls["b"].started_at is None


def test_a_withdrawn_call_at_a_worker_keeps_its_key_until_it_is_put_back(clock: Clock) -> None:
    pool = pool_of(1, clock)
    submit(pool, "ab")
    pool.withdraw("b")
    assert pool.in_flight() == ["a"]
    with pytest.raises(ValueError, match="w call 'b' was withdrawn but still runs"):
        pool.submit("b", "run")
    pool.put_back([pool.calls["b"]])
    assert list(pool.queue) == []
    submit(pool, "b")


def test_a_withdrawn_call_is_not_among_the_running(clock: Clock) -> None:
    pool = pool_of(1, clock)
    submit(pool, "a")
    pool.withdraw("a")
    assert pool.running() == {}
