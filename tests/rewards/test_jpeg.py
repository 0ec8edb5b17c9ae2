"""The JPEG rewards against Pillow."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import PIL
import pytest
from PIL import Image

from rewards.catalog import CATALOG, build_reward
from rewards.config import RewardsConfig


def pictures() -> np.ndarray:
    """Noise of growing contrast, and one plain surface."""
    noise = np.random.default_rng(0).normal(size=(3, 3, 32, 32)) * np.array([15, 40, 90]).reshape(3, 1, 1, 1)
    noisy = (noise + 128).clip(0, 255).astype(np.uint8)
    return np.concatenate([noisy, np.full((1, 3, 32, 32), 200, np.uint8)])


@pytest.mark.parametrize("quality", [95, 30])
def test_the_reward_is_the_size_of_the_file_that_pillow_writes(tmp_path: Path, quality: int) -> None:
    sizes = []
    for place, image in enumerate(pictures()):
        path = tmp_path / f"{place}.jpg"
        Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0))).save(path, quality=quality)
        sizes.append(path.stat().st_size / 1000)
    assert sizes[3] < sizes[0] < sizes[1] < sizes[2]
    for name, sign in (("incompressibility", 1), ("compressibility", -1)):
        reward = build_reward(RewardsConfig.model_validate({"name": name, "jpeg_quality": quality}))
        values = reward(pictures(), ("a cat",) * 4)
        assert values.dtype == np.float32
        np.testing.assert_array_equal(values, np.array(sizes, np.float32) * np.float32(sign))


def test_neighbours_do_not_matter() -> None:
    reward = build_reward(RewardsConfig())
    together = reward(pictures(), ("",) * 4)
    alone = np.concatenate([reward(pictures()[i : i + 1], ("",)) for i in range(4)])
    np.testing.assert_array_equal(together, alone)


def test_its_origin_names_all_that_the_size_depends_on() -> None:
    origin = build_reward(RewardsConfig(jpeg_quality=80)).provenance
    assert origin.startswith(f"compressibility: jpeg quality 80, 4:2:0, kB, Pillow {PIL.__version__}, libjpeg")
    assert origin[-1].isdigit(), "without the encoder's version"
    assert origin != build_reward(RewardsConfig(jpeg_quality=81)).provenance


def test_the_table_holds_the_names_that_the_configuration_allows() -> None:
    allowed = RewardsConfig.model_json_schema()["properties"]["name"]["enum"]
    assert sorted(CATALOG) == sorted(allowed)
    for name in allowed:
        assert build_reward(RewardsConfig(name=name)).name == name
