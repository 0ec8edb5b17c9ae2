"""The rewards of a run, asked side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from actors.trajectory import SampleTask
from cluster.pool import Handle, Lost
from learner.reward_calls import RewardCalls
from rewards.reward import RewardResult


@dataclass(slots=True, eq=False)
class _Hearing:
    """A task whose images are being scored."""

    told: Callable[[dict[str, RewardResult], float], None]
    results: dict[str, RewardResult] = field(default_factory=dict)
    seconds: float = 0.0


class Panel:
    """Several rewards score each task at once; it is scored when all have answered."""

    def __init__(self, rewards: Sequence[RewardCalls]) -> None:
        self.rewards = tuple(rewards)

    def score(
        self,
        task: SampleTask,
        images: Handle,
        told: Callable[[dict[str, RewardResult], float], None],
        gone: Callable[[Lost], None],
    ) -> None:
        """`told` gets the results by label and the seconds spent in all workers; `gone` is told of lost images."""
        hearing = _Hearing(told)

        def lost(reason: Lost) -> None:
            for reward in self.rewards:
                reward.forget(task.task_id)
            gone(reason)

        for reward in self.rewards:
            reward.score(task.task_id, task.prompts, images, self._collector(hearing, reward.label), lost)

    def _collector(self, hearing: _Hearing, label: str) -> Callable[[RewardResult, float], None]:
        def collect(result: RewardResult, seconds: float) -> None:
            hearing.results[label] = result
            hearing.seconds += seconds
            if len(hearing.results) == len(self.rewards):
                hearing.told(hearing.results, hearing.seconds)

        return collect
