"""What a run tells: one record per round, evaluations, image grids, a summary, and a line or a bar for who watches."""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

import numpy as np

from cluster.pool import ObjectLost
from learner.evaluation import EvaluationReport
from learner.events import Events
from learner.intake import ScoredRound
from learner.ledger import Ledger
from learner.mixing import Judged
from learner.progress import Progress
from learner.reward_calls import RewardCalls
from learner.run_folder import RunFolder, mean_of, numbers
from learner.update import UpdateReport
from rewards.reward import Metadata

log = logging.getLogger(__name__)


class Reports:
    """Turns what happened into records, and hands them to the run's folder and to the screen."""

    def __init__(
        self,
        events: Events,
        folder: RunFolder,
        progress: Progress,
        rewards: Sequence[RewardCalls],
        metadata_of: Callable[[Sequence[str]], tuple[Metadata, ...]],
        log_images: int,
        log_every: int,
        images: int = 0,
        seconds: float = 0.0,
    ) -> None:
        """`images` and `seconds` are what a resumed run had drawn and spent before."""
        self._events, self._folder, self._progress = events, folder, progress
        self._rewards, self._metadata_of = rewards, metadata_of
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
            **self._per_reward(scored.judged),
            **{f"ledger/{name}": count for name, count in ledger.counts().items()},
        }
        self._folder.metrics(record)
        if self._log_images and report.version % self._log_every == 0:
            self._save_grid("round", report.version, scored, self._log_images)
        self._progress.round_trained(report, record)

    def is_evaluated(self, version: int) -> bool:
        """Whether this run has done that, now or before it was resumed."""
        return version in self._folder.evaluations()

    def evaluated(self, evaluation: EvaluationReport) -> None:
        self.images += len(evaluation.rewards)
        by_label = {label: judged.raw for label, judged in evaluation.judged.items()}
        self._folder.evaluation(evaluation.version, evaluation.rewards, by_label)
        self._save_grid("evaluation", evaluation.version, evaluation, len(evaluation.rewards))
        self._progress.evaluated(evaluation.version, evaluation.mean)

    def _per_reward(self, judged: Mapping[str, Judged]) -> dict[str, float | None]:
        """Mean and spread of each reward, raw and divided by its scale, and the failed calls so far."""
        record: dict[str, float | None] = {}
        for label, of_reward in judged.items():
            for name, values in (("", of_reward.raw), ("_normalised", of_reward.normalised)):
                found = values[np.isfinite(values)]
                record[f"reward/{label}{name}_mean"] = mean_of(values)
                record[f"reward/{label}{name}_std"] = float(found.std()) if len(found) else None
        for reward in self._rewards:
            record |= {f"reward/{reward.label}_calls_{what}": n for what, n in sorted(reward.counts.items())}
        return record

    def _save_grid(self, kind: str, version: int, shown: ScoredRound | EvaluationReport, count: int) -> None:
        """Only as many batches as the grid shows come to this process."""
        parts: list[np.ndarray] = []
        for handle in shown.images:
            if sum(map(len, parts)) >= count:
                break
            try:
                parts.append(self._events.get(handle))
            except ObjectLost as error:
                log.warning("no picture of %s %d: %s", kind, version, error)
                return
        rewards = numbers(shown.rewards)
        values = {label: numbers(judged.raw) for label, judged in shown.judged.items()}
        images = np.concatenate(parts)[:count]
        samples = [
            {
                "prompt": shown.prompts[place],
                "metadata": dict(self._metadata_of((shown.prompts[place],))[0]),
                "reward": rewards[place],
                "rewards": {label: of_reward[place] for label, of_reward in values.items()},
                "details": {label: j.details[place] for label, j in shown.judged.items() if j.details[place]},
            }
            for place in range(len(images))
        ]
        self._folder.images(f"{kind}-{version:06d}", version, images, samples)
