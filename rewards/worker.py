"""Scoring the images of one task after another; what can be expected to fail comes back as a value."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8

from rewards.catalog import entry, found
from rewards.config import RewardConfig
from rewards.reward import Images, Metadata, Reward, RewardRequest, RewardResult, Scores, Status

NOTHING = np.float32(np.nan)


class RewardWorker:
    """Runs one reward. A sample that it cannot score gets a status and a reason, never a number."""

    def __init__(self, reward: Reward, batch_size: int | None = None, features: bool = False) -> None:
        """`batch_size` images are scored at once, none is all of a call's; `features` for a reward of a whole round."""
        self._reward, self._batch_size, self._features = reward, batch_size, features

    def run(
        self, requests: tuple[RewardRequest, ...], *images: UInt8[np.ndarray, "_ 3 _ _"]
    ) -> tuple[RewardResult, ...]:
        """Score the images of tasks, one array per request; one result per task.

        Raises:
            TypeError: these are no images; that is no failure of the reward.
        """
        for request, batch in zip(requests, images, strict=True):
            if batch.dtype != np.uint8 or batch.ndim != 4 or len(batch) != len(request.prompts):
                raise TypeError(
                    f"task {request.task_id}: {batch.dtype}{batch.shape} for {len(request.prompts)} prompts"
                )
        together = np.concatenate(images)
        prompts = [prompt for request in requests for prompt in request.prompts]
        metadata = [of_prompt for request in requests for of_prompt in request.metadata]
        one_by_one = any(request.one_by_one for request in requests)
        size = self._batch_size or len(prompts)
        samples: list[_Sample] = []
        for start in range(0, len(prompts), size):
            part = slice(start, start + size)
            samples += self._score(together[part], prompts[part], metadata[part], one_by_one)
        width = next((sample.value.shape for sample in samples if sample.status is Status.OK), ())
        results: list[RewardResult] = []
        for request in requests:
            mine, samples = samples[: len(request.prompts)], samples[len(request.prompts) :]
            results.append(self._result(request.task_id, mine, width))
        return tuple(results)

    def _score(
        self, images: Images, prompts: Sequence[str], metadata: Sequence[Metadata], one_by_one: bool
    ) -> list[_Sample]:
        if 0 in images.shape[1:]:
            return [_Sample(Status.INVALID, f"an image of {images.shape[3]}x{images.shape[2]} pixels")] * len(images)
        try:
            return _checked(self._reward(images, prompts, metadata), len(images), 2 if self._features else 1)
        except Exception as error:  # noqa: BLE001 - a reward is the user's code; whatever it raises is its failure, not the run's
            if not one_by_one or len(images) == 1:
                return [_Sample(Status.FAILED, f"{type(error).__name__}: {error}")] * len(images)
        alone = [slice(i, i + 1) for i in range(len(images))]
        return [sample for i in alone for sample in self._score(images[i], prompts[i], metadata[i], one_by_one)]

    def _result(self, task_id: int, samples: Sequence[_Sample], width: tuple[int, ...]) -> RewardResult:
        nothing = np.full(width, np.nan, np.float32)
        values = [sample.value if sample.status is Status.OK else nothing for sample in samples]
        return RewardResult(
            task_id,
            self._reward.name,
            self._reward.provenance,
            np.stack(values).astype(np.float32),
            tuple(sample.status for sample in samples),
            tuple(sample.detail for sample in samples),
        )


@dataclass(frozen=True, slots=True, eq=False)
class _Sample:
    status: Status
    detail: str
    value: np.ndarray | np.float32 = NOTHING


def _checked(scores: Scores, count: int, ndim: int) -> list[_Sample]:
    values = np.asarray(scores.values, dtype=np.float32)
    if values.ndim != ndim or len(values) != count:
        detail = f"{values.shape} values for {count} images"
        return [_Sample(Status.INVALID, detail)] * count
    if len(scores.notes) not in (0, count):
        detail = f"{len(scores.notes)} notes for {count} images"
        return [_Sample(Status.INVALID, detail)] * count
    samples: list[_Sample] = []
    for index, value in enumerate(values):
        if index in scores.failures:
            samples.append(_Sample(*scores.failures[index]))
        elif not np.isfinite(value).all():
            samples.append(_Sample(Status.INVALID, f"value {value}"))
        else:
            samples.append(_Sample(Status.OK, scores.notes[index] if scores.notes else "", value))
    return samples


def build_worker(config: RewardConfig) -> RewardWorker:
    """A worker for the reward that the configuration names; only what that reward needs is imported."""
    return RewardWorker(build_reward(config), config.batch_size, bool(entry(config.name).combine))


def build_reward(config: RewardConfig) -> Reward:
    """The reward itself, or its client where it runs on servers, behind the cache if there is one.

    Raises:
        ValueError: the configuration names something that is not there.
    """
    place = "rewards.service.client:build" if config.kind == "grpc" else entry(config.name).build
    reward: Reward = found(place)(config)
    return found("rewards.cache:cached")(reward, config.cache) if config.cache else reward
