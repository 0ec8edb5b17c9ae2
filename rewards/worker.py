"""Scoring the images of one task after another; what can be expected to fail comes back as a value."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from rewards.catalog import build_reward
from rewards.config import RewardsConfig
from rewards.reward import Images, Reward, RewardRequest, RewardResult, Status


class RewardWorker:
    """Runs one reward. A sample that it cannot score gets a status and a reason, never a number."""

    def __init__(self, reward: Reward) -> None:
        self._reward = reward

    def run(self, images: Images, request: RewardRequest) -> RewardResult:
        """Score a task's images.

        Raises:
            TypeError: these are no images; that is no failure of the reward.
        """
        if images.dtype != np.uint8 or images.ndim != 4 or len(images) != len(request.prompts):
            raise TypeError(f"task {request.task_id}: {images.dtype}{images.shape} for {len(request.prompts)} prompts")
        try:
            scored = [self._checked(images, request.prompts)]
        except Exception:  # noqa: BLE001 - a reward is the user's code; whatever it raises is its failure, not the run's
            scored = [self._alone(images[i : i + 1], request.prompts[i : i + 1]) for i in range(len(images))]
        values = np.concatenate([values for values, _ in scored])
        reasons = [reason for _, reasons in scored for reason in reasons]
        return RewardResult(
            request.task_id,
            self._reward.name,
            self._reward.provenance,
            values,
            tuple(status for status, _ in reasons),
            tuple(detail for _, detail in reasons),
        )

    def _alone(
        self, image: Images, prompt: tuple[str, ...]
    ) -> tuple[Float[np.ndarray, " batch"], list[tuple[Status, str]]]:
        """One sample by itself, so that it does not take its neighbours along."""
        try:
            return self._checked(image, prompt)
        except Exception as error:  # noqa: BLE001 - as above
            return np.full(1, np.nan, np.float32), [(Status.FAILED, f"{type(error).__name__}: {error}")]

    def _checked(
        self, images: Images, prompts: tuple[str, ...]
    ) -> tuple[Float[np.ndarray, " batch"], list[tuple[Status, str]]]:
        values = np.asarray(self._reward(images, prompts), dtype=np.float32)
        if values.shape != (len(images),):
            detail = f"{values.shape} values for {len(images)} images"
            return np.full(len(images), np.nan, np.float32), [(Status.INVALID, detail)] * len(images)
        finite = np.isfinite(values)
        reasons = [
            (Status.OK, "") if ok else (Status.INVALID, f"value {v}") for v, ok in zip(values, finite, strict=True)
        ]
        return np.where(finite, values, np.float32(np.nan)), reasons


def build_worker(config: RewardsConfig) -> RewardWorker:
    """A worker for the reward that the configuration names; importing this loads neither torch nor diffusers."""
    return RewardWorker(build_reward(config))
