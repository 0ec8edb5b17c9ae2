"""A server whose reward `slow` takes as many seconds as the first prompt says; run like `rewards.service.serve`."""

from __future__ import annotations

import runpy
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rewards.catalog import CATALOG, Entry
from rewards.config import RewardConfig
from rewards.reward import Images, Metadata, Scores


@dataclass
class Slow:
    """The first pixel of each image, after a while."""

    name: str = "slow"
    provenance: str = "slow"

    def __call__(self, images: Images, prompts: Sequence[str], metadata: Sequence[Metadata]) -> Scores:
        time.sleep(float(prompts[0] or 0))
        return Scores(images[:, 0, 0, 0].astype(np.float32))


def build(config: RewardConfig) -> Slow:
    return Slow()


if __name__ == "__main__":
    CATALOG["slow"] = Entry("tests.rewards.service.slow:build")
    runpy.run_module("rewards.service.serve", run_name="__main__", alter_sys=True)
