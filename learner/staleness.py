"""Which version draws which round, and how much may be in flight: arithmetic, no clock."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class FixedSchedule:
    """Round n consumes tasks n k … n k + k - 1 and is drawn by version max(0, n - lag), always."""

    lag: int
    tasks_per_round: int

    def version_for(self, round_index: int, newest: int) -> int:
        """The version that draws a round; `newest` (the learner's) is ignored."""
        return max(0, round_index - self.lag)


@dataclass(frozen=True, slots=True)
class FreshestSchedule:
    """As above, but each task is drawn by the newest version when it is issued: fresher, not reproducible."""

    lag: int
    tasks_per_round: int

    def version_for(self, round_index: int, newest: int) -> int:
        """The version that draws a round: the newest, whose staleness at consumption is at most the lag."""
        return newest


Schedule = FixedSchedule | FreshestSchedule


def issuable(newest: int, issued: int, schedule: Schedule, rounds: int) -> range:
    """Task ids that may start now, after `issued` tasks, when the learner has trained `newest` rounds.

    Rounds up to `newest + lag` have their version; so at most `(lag + 1) * tasks_per_round` tasks are in flight
    and no sample is ever staler than the lag.
    """
    last_round = min(newest + schedule.lag, rounds - 1)
    return range(issued, (last_round + 1) * schedule.tasks_per_round)


def needed_versions(newest: int, lag: int) -> range:
    """Versions that tasks not yet drawn may still ask for."""
    return range(max(0, newest - lag), newest + 1)
