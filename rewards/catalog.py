"""All rewards by name, in one table."""

from __future__ import annotations

from collections.abc import Callable

from rewards.config import RewardsConfig
from rewards.jpeg import JpegSize
from rewards.reward import Reward

CATALOG: dict[str, Callable[[RewardsConfig], Reward]] = {
    "compressibility": lambda config: JpegSize("compressibility", -1.0, config.jpeg_quality),
    "incompressibility": lambda config: JpegSize("incompressibility", 1.0, config.jpeg_quality),
}


def build_reward(config: RewardsConfig) -> Reward:
    """The reward that the configuration names."""
    return CATALOG[config.name](config)
