"""Whether a worker is at its post: arithmetic on times, in seconds of ``time.monotonic``."""

from __future__ import annotations

FIRST_PAUSE_S = 5.0
LONGEST_PAUSE_S = 300.0


class Duty:
    """A worker at its post, resting since its caller said so, or out since it keeps failing.

    One that rests has a process, and may be woken early. One that is out has none until it is brought back.
    """

    def __init__(self) -> None:
        self.rests_until = 0.0
        self.out_until: float | None = None
        self._reason = ""
        self._pause_s = FIRST_PAUSE_S

    @property
    def is_out(self) -> bool:
        return self.out_until is not None

    def is_awake(self, now: float) -> bool:
        return not self.is_out and self.rests_until <= now

    def take_out(self, now: float, reason: str) -> float:
        """Out from now on; gives for how many seconds: each time twice as many, until it has succeeded."""
        pause = self._pause_s
        self.out_until, self._reason = now + pause, reason
        self._pause_s = min(2 * pause, LONGEST_PAUSE_S)
        return pause

    def bring_back(self) -> None:
        self.out_until = None

    def succeeded(self) -> None:
        self._pause_s = FIRST_PAUSE_S

    def describe(self, now: float) -> str:
        """Why it is not at its post, and for how much longer; empty where it is."""
        if self.out_until is not None:
            return f"out for another {max(0.0, self.out_until - now):.0f} s: {self._reason}"
        if not self.is_awake(now):
            return f"resting for another {self.rests_until - now:.0f} s as its caller asked"
        return ""
