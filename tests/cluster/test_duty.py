"""Rests and pauses, on a clock of the test's own."""

from __future__ import annotations

from cluster.duty import Duty


def test_pauses_double_up_to_five_minutes_and_start_over_after_a_success() -> None:
    duty = Duty()
    assert [duty.take_out(0.0, "it died") for _ in range(9)] == [5, 10, 20, 40, 80, 160, 300, 300, 300]
    duty.succeeded()
    assert duty.take_out(0.0, "it died") == 5


def test_one_that_is_out_stays_out_until_it_is_brought_back() -> None:
    duty = Duty()
    duty.take_out(100.0, "it died")
    assert duty.out_until == 105.0
    assert not duty.is_awake(1000.0)
    duty.bring_back()
    assert duty.is_awake(100.0)


def test_a_rest_ends_by_itself() -> None:
    duty = Duty()
    duty.rests_until = 130.0
    assert [duty.is_awake(now) for now in (100.0, 129.9, 130.0)] == [False, False, True]


def test_a_person_reads_why_and_for_how_long() -> None:
    duty = Duty()
    assert duty.describe(100.0) == ""
    duty.rests_until = 130.0
    assert duty.describe(100.0) == "resting for another 30 s as its caller asked"
    duty.take_out(100.0, "no model in /nowhere")
    assert duty.describe(102.0) == "out for another 3 s: no model in /nowhere"
