"""The event loop: outcomes go to who asked, and no wait lasts for ever."""

from __future__ import annotations

import time

import pytest

from cluster.pool import Lost, Outcome, WorkerSpec
from learner.events import CallLost, Events, Stalled
from tests.fakes import ScriptedCluster


def test_a_call_is_answered_while_others_end_around_it() -> None:
    cluster = ScriptedCluster(lambda call: (f"{call.method} {call.args}",), seed=3)
    events, pool = Events(cluster, 1.0), cluster.start(WorkerSpec("sampler", object, 1))
    others: list[Outcome] = []
    for key in range(20):
        events.submit(pool, key, "run", key, then=others.append)
    assert events.call(pool, "mine", "update", 7) == ("update (7,)",)
    events.until(lambda: len(others) == 20, "the others")
    assert sorted(str(outcome.key) for outcome in others) == sorted(map(str, range(20)))


def test_the_same_key_may_be_in_two_pools() -> None:
    cluster = ScriptedCluster(lambda call: (call.pool,))
    events = Events(cluster, 1.0)
    seen: dict[str, Outcome] = {}
    for name in ("sampler", "reward"):
        pool = cluster.start(WorkerSpec(name, object, 1))
        events.submit(pool, 0, "run", then=lambda outcome, name=name: seen.update({name: outcome}))
    events.until(lambda: len(seen) == 2, "both")
    assert {name: outcome.pool for name, outcome in seen.items()} == {"sampler": "sampler", "reward": "reward"}


def test_a_call_that_is_lost_raises_who_died_of_what() -> None:
    cluster = ScriptedCluster(lambda call: (), lambda call: Lost(call.pool, call.key, "learner-00", "killed"))
    with pytest.raises(CallLost, match="learner-00 died in update: killed"):
        Events(cluster, 1.0).call(cluster.start(WorkerSpec("learner", object, 1)), 0, "update")


def test_an_outcome_may_withdraw_the_one_beside_it(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = ScriptedCluster(lambda call: ())
    events, pool = Events(cluster, 1.0), cluster.start(WorkerSpec("reward", object, 2))
    seen: list[Outcome] = []

    def first(outcome: Outcome) -> None:
        seen.append(outcome)
        events.withdraw(pool, "twin")

    events.submit(pool, "call", "run", then=first)
    events.submit(pool, "twin", "run", then=seen.append)
    monkeypatch.setattr(
        cluster, "wait", lambda timeout_s: [Lost("reward", key, "w", "dead") for key in ("call", "twin")]
    )
    events.until(lambda: bool(seen), "one")
    assert [outcome.key for outcome in seen] == ["call"]


def test_what_a_call_works_on_may_be_lost_while_its_worker_is_well() -> None:
    cluster = ScriptedCluster(
        lambda call: (), lambda call: Lost("learner", call.key, "learner-00", "node 7 died", True)
    )
    with pytest.raises(CallLost, match=r"what learner.update works on was lost with a node \(node 7 died\); --resume"):
        Events(cluster, 1.0).call(cluster.start(WorkerSpec("learner", object, 1)), 0, "update")


def test_timers_act_once_in_their_order_also_with_nothing_in_flight() -> None:
    events, acted = Events(ScriptedCluster(lambda call: ()), 5.0), list[str]()
    began = time.monotonic()
    events.after(0.2, lambda: acted.append("late"))
    events.after(0.05, lambda: acted.append("early"))
    events.until(lambda: len(acted) == 2, "timers")
    assert acted == ["early", "late"]
    assert 0.2 <= time.monotonic() - began < 2


def test_silence_ends_with_the_diagnosis() -> None:
    cluster = ScriptedCluster(lambda call: (), silent=True)
    began = time.monotonic()
    with pytest.raises(Stalled, match=r"no progress for 0 s while waiting for learner.update\nthe node burns"):
        Events(cluster, 0.2).call(cluster.start(WorkerSpec("learner", object, 1)), 0, "update")
    assert 0.2 <= time.monotonic() - began < 2


def test_slow_progress_is_no_silence() -> None:
    cluster = ScriptedCluster(lambda call: ())
    cluster.after = lambda: time.sleep(0.05)
    events, pool = Events(cluster, 0.15), cluster.start(WorkerSpec("sampler", object, 1))
    seen: list[Outcome] = []
    for key in range(8):
        events.submit(pool, key, "run", then=seen.append)
    events.until(lambda: len(seen) == 8, "all")
