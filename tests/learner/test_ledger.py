import json
import random

import pytest

from learner.ledger import Ledger, LedgerError, State


def test_a_sample_goes_through_its_life_and_is_counted_once():
    ledger = Ledger()
    ledger.issue(0, 4)
    ledger.move(0, State.SAMPLING)
    ledger.move(0, State.SCORING)
    ledger.move(0, State.SCORED)
    ledger.drop(0, {2: "reward failed"})
    assert ledger.alive(0) == [0, 1, 3]
    ledger.train(0)
    counts = ledger.counts()
    assert (counts["issued"], counts["trained"], counts["dropped"]) == (4, 3, 1)
    assert ledger.dropped == {"reward failed": 1}
    assert ledger.in_flight == 0
    ledger.check()


def test_nothing_is_trained_twice_or_out_of_turn():
    ledger = Ledger()
    ledger.issue(0, 2)
    with pytest.raises(LedgerError, match="issued twice"):
        ledger.issue(0, 2)
    with pytest.raises(LedgerError, match="cannot go from pending to trained"):
        ledger.train(0)
    ledger.move(0, State.SAMPLING)
    ledger.move(0, State.SCORING)
    ledger.move(0, State.SCORED)
    ledger.train(0)
    with pytest.raises(LedgerError, match="not in flight"):
        ledger.train(0)


def test_a_lost_task_starts_again_and_what_was_dropped_stays_dropped():
    ledger = Ledger()
    ledger.issue(5, 3)
    ledger.move(5, State.SAMPLING)
    ledger.reissue(5)
    ledger.move(5, State.SAMPLING)
    ledger.move(5, State.SCORING)
    ledger.move(5, State.SCORED)
    ledger.drop(5, {0: "reward invalid"})
    ledger.reissue(5)
    assert ledger.alive(5) == [1, 2]
    assert ledger.counts()["reissued_tasks"] == 2
    ledger.check()


def test_a_resumed_ledger_has_the_same_counts_with_everything_in_flight_pending():
    ledger = Ledger()
    for task_id in range(3):
        ledger.issue(task_id, 2)
        ledger.move(task_id, State.SAMPLING)
        ledger.move(task_id, State.SCORING)
    ledger.move(0, State.SCORED)
    ledger.train(0)
    ledger.move(1, State.SCORED)
    ledger.drop(1, {1: "reward timed_out"})
    resumed = Ledger.resume(json.loads(json.dumps(ledger.record())))
    resumed.check()
    assert resumed.counts() == {
        "issued": 6, "pending": 3, "sampling": 0, "scoring": 0, "scored": 0,
        "trained": 2, "dropped": 1, "reissued_tasks": 0,
    }  # fmt: skip


def test_the_identity_holds_after_every_step_of_random_lives():
    chance = random.Random(0)
    ledger, scored = Ledger(), []
    for task_id in range(300):
        ledger.issue(task_id, chance.randint(1, 8))
        ledger.move(task_id, State.SAMPLING)
        while chance.random() < 0.3:
            ledger.reissue(task_id)
            ledger.move(task_id, State.SAMPLING)
        ledger.move(task_id, State.SCORING)
        ledger.move(task_id, State.SCORED)
        ledger.drop(task_id, {i: "reward failed" for i in ledger.alive(task_id) if chance.random() < 0.2})
        scored.append(task_id)
        if chance.random() < 0.5:
            ledger.train(scored.pop(chance.randrange(len(scored))))
        ledger.check()
    assert ledger.issued == ledger.trained + ledger.dropped.total() + ledger.in_flight


def test_an_identity_that_does_not_hold_is_found():
    ledger = Ledger()
    ledger.issue(0, 2)
    ledger.issued += 1
    with pytest.raises(LedgerError, match="off by 1"):
        ledger.check()
