import itertools

import pytest

from learner.staleness import FixedSchedule, FreshestSchedule, issuable, needed_versions


@pytest.mark.parametrize(("lag", "per_round", "rounds"), list(itertools.product([0, 1, 2, 5], [1, 3], [1, 4, 9])))
@pytest.mark.parametrize("kind", [FixedSchedule, FreshestSchedule])
def test_every_task_is_issued_once_in_time_and_never_too_stale(kind, lag, per_round, rounds):
    schedule = kind(lag, per_round)
    issued, versions = 0, {}
    for newest in range(rounds):
        allowed = issuable(newest, issued, schedule, rounds)
        assert allowed.start == issued
        for task_id in allowed:
            versions[task_id] = schedule.version_for(task_id // per_round, newest)
            assert versions[task_id] in needed_versions(newest, lag)
        issued = allowed.stop
        assert issued - newest * per_round <= (lag + 1) * per_round, "more in flight than the bound"
        assert issued >= (newest + 1) * per_round, "the next round could never complete"
    assert issued == rounds * per_round
    for task_id, version in versions.items():
        staleness = task_id // per_round - version
        assert 0 <= staleness <= lag


def test_the_fixed_schedule_is_arithmetic():
    schedule = FixedSchedule(lag=2, tasks_per_round=4)
    assert [schedule.version_for(n, newest=99) for n in range(6)] == [0, 0, 0, 1, 2, 3]


def test_lag_zero_is_synchronous():
    assert list(issuable(3, 12, FixedSchedule(0, 4), 10)) == [12, 13, 14, 15]
    assert list(issuable(3, 16, FixedSchedule(0, 4), 10)) == []
