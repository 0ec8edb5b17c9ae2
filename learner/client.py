"""The learner as the driver sees it: calls to the one worker of its pool, and handles to what it made."""

from __future__ import annotations

from collections.abc import Mapping

from cluster.pool import Handle, Pool
from learner.events import Events
from learner.intake import ScoredRound
from learner.staleness import needed_versions
from learner.state import LearnerState
from learner.update import UpdateReport


class LearnerClient:
    """Keeps the newest snapshot and state as handles; sampling and scoring go on during every call."""

    def __init__(self, events: Events, pool: Pool, lag: int, resume_from: LearnerState | None) -> None:
        """Restore the learner if there is a state to resume from."""
        self._events, self._pool = events, pool
        self.version = 0
        if resume_from is not None:
            self._call("restore", resume_from)
            self.version = resume_from.version
        self.published: Mapping[int, Handle] = {
            version: self._call("published", version)[0] for version in needed_versions(self.version, lag)
        }
        (self._state,) = self._call("state")

    @property
    def snapshot(self) -> Handle:
        """The newest version's weights."""
        return self.published[self.version]

    def update(self, scored: ScoredRound) -> UpdateReport:
        """Train on a round; afterwards `version`, `snapshot` and `state` are the new ones."""
        report, snapshot, self._state = self._call(
            "update", scored.rewards, scored.versions, *scored.trajectories, outputs=3
        )
        self.version += 1
        self.published = {self.version: snapshot}
        return self._events.get(report)

    def state(self) -> LearnerState:
        return self._events.get(self._state)

    def adapter_files(self) -> dict[str, bytes]:
        """The adapter as diffusers stores it: contents by file name."""
        (files,) = self._call("adapter_files")
        return self._events.get(files)

    def _call(self, method: str, *args: object, outputs: int = 1) -> tuple[Handle, ...]:
        return self._events.call(self._pool, method, method, *args, outputs=outputs)
