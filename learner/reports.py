"""What a run tells: one record per round, evaluations, image grids, a summary, and a line or a bar for who watches."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

import numpy as np

from cluster.pool import Handle
from learner.evaluation import EvaluationReport
from learner.events import Events
from learner.intake import ScoredRound
from learner.ledger import Ledger
from learner.progress import Progress
from learner.run_folder import RunFolder
from learner.update import UpdateReport


class Reports:
    """Turns what happened into records, and hands them to the run's folder and to the screen."""

    def __init__(
        self,
        events: Events,
        folder: RunFolder,
        progress: Progress,
        log_images: int,
        log_every: int,
        images: int = 0,
        seconds: float = 0.0,
    ) -> None:
        """`images` and `seconds` are what a resumed run had drawn and spent before."""
        self._events, self._folder, self._progress = events, folder, progress
        self._log_images, self._log_every = log_images, log_every
        self.images = images
        self._began = time.monotonic() - seconds
        self._phases: defaultdict[str, float] = defaultdict(float)
        self._round_began = time.monotonic()
        self._round_phases: dict[str, float] = {}

    @property
    def seconds(self) -> float:
        """Wall-clock time of the run, resumes included, set-up left out."""
        return time.monotonic() - self._began

    @property
    def phases(self) -> dict[str, float]:
        """Wall-clock seconds by phase, since this process started."""
        return dict(self._phases)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Count the time spent inside under `name`."""
        began = time.monotonic()
        yield
        seconds = time.monotonic() - began
        self._phases[name] += seconds
        self._round_phases[name] = seconds

    def round_trained(self, scored: ScoredRound, report: UpdateReport, ledger: Ledger) -> None:
        rewards = scored.rewards[np.isfinite(scored.rewards)]
        now = time.monotonic()
        seconds, self._round_began = now - self._round_began, now
        self.images += len(scored.rewards)
        record: dict[str, Any] = {
            **asdict(report),
            "reward_mean": float(rewards.mean()),
            "reward_std": float(rewards.std()),
            "reward_min": float(rewards.min()),
            "reward_max": float(rewards.max()),
            "images_per_s": len(scored.rewards) / seconds,
            "round_seconds": seconds,
            "waiting_seconds": self._round_phases.get("waiting for samples", 0.0),
            "update_seconds": self._round_phases.get("update", 0.0),
            "sampling_seconds": scored.sampling_seconds,
            "scoring_seconds": scored.scoring_seconds,
            **{f"ledger/{name}": count for name, count in ledger.counts().items()},
        }
        self._folder.metrics(record)
        if self._log_images and report.version % self._log_every == 0:
            self._save_grid(f"round-{report.version:06d}", scored.images, self._log_images)
        self._progress.round_trained(report, record)

    def evaluated(self, evaluation: EvaluationReport) -> None:
        self.images += len(evaluation.rewards)
        self._folder.evaluation(evaluation.version, evaluation.rewards)
        self._save_grid(f"evaluation-{evaluation.version:06d}", evaluation.images, len(evaluation.rewards))
        self._progress.evaluated(evaluation.version, evaluation.mean)

    def _save_grid(self, name: str, batches: tuple[Handle, ...], count: int) -> None:
        """Only as many batches as the grid shows come to this process."""
        parts: list[np.ndarray] = []
        for handle in batches:
            if sum(map(len, parts)) >= count:
                break
            parts.append(self._events.get(handle))
        self._folder.images(name, np.concatenate(parts)[:count])
