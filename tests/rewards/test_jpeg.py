"""The JPEG rewards against Pillow."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import PIL
import pytest
from PIL import Image

from rewards.config import JpegConfig, RewardConfig
from rewards.worker import build_reward


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
        reward = build_reward(RewardConfig(name=name, jpeg=JpegConfig(quality=quality)))
        assert reward.name == name
        values = reward(pictures(), ("a cat",) * 4, ({},) * 4).values
        assert values.dtype == np.float32
        np.testing.assert_array_equal(values, np.array(sizes, np.float32) * np.float32(sign))


def test_neighbours_do_not_matter() -> None:
    reward = build_reward(RewardConfig())
    together = reward(pictures(), ("",) * 4, ({},) * 4).values
    alone = np.concatenate([reward(pictures()[i : i + 1], ("",), ({},)).values for i in range(4)])
    np.testing.assert_array_equal(together, alone)


def test_its_origin_names_all_that_the_size_depends_on() -> None:
    origin = build_reward(RewardConfig(jpeg=JpegConfig(quality=80))).provenance
    assert origin.startswith(f"compressibility: jpeg quality 80, 4:2:0, kB, Pillow {PIL.__version__}, libjpeg")
    assert origin[-1].isdigit(), "without the encoder's version"
    assert origin != build_reward(RewardConfig(jpeg=JpegConfig(quality=81))).provenance
