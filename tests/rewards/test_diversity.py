"""Diversity against double loops, closed forms and a real small CLIP."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from rewards.config import ClipConfig, RewardConfig
from rewards.diversity import Diversity, combine, unit_embeddings
from rewards.reward import RewardRequest, Status
from rewards.worker import build_worker
from tests.rewards.tiny_models import save_clip


def unit(count: int, size: int = 6, seed: int = 0) -> np.ndarray:
    points = np.random.default_rng(seed).normal(size=(count, size))
    return (points / np.linalg.norm(points, axis=1, keepdims=True)).astype(np.float32)


def by_loops(features: np.ndarray, prompts: list[str]) -> list[float]:
    values = []
    for i, one in enumerate(features):
        others = [1 - float(one @ two) for j, two in enumerate(features) if j != i and prompts[j] == prompts[i]]
        values.append(sum(others) / len(others) if others else float("nan"))
    return values


def test_it_is_the_mean_distance_to_the_others_of_the_same_prompt() -> None:
    features, prompts = unit(9), ["a", "b", "a", "c", "b", "a", "b", "b", "a"]
    values = combine(features, prompts)
    assert values.dtype == np.float32
    np.testing.assert_allclose(values, by_loops(features, prompts), atol=1e-6)
    assert np.isnan(values[3]), "the only one of its prompt has a value"
    assert np.isnan(values).sum() == 1


def test_closed_forms() -> None:
    east, north = np.array([1, 0], np.float32), np.array([0, 1], np.float32)
    assert combine(np.stack([east, east, east]), ["a"] * 3).tolist() == [0, 0, 0]
    assert combine(np.stack([east, north]), ["a"] * 2).tolist() == [1, 1]
    assert combine(np.stack([east, -east]), ["a"] * 2).tolist() == [2, 2]
    assert combine(np.stack([east, east, north]), ["a"] * 3).tolist() == [0.5, 0.5, 1]
    with np.errstate(all="raise"):
        assert np.isnan(combine(np.stack([east, north]), ["a", "b"])).all()
        assert np.isnan(combine(east[None], ["a"])).all()


def test_the_order_of_the_samples_does_not_matter() -> None:
    features, prompts = unit(12), ["a", "b", "c"] * 4
    order = np.random.default_rng(1).permutation(12)
    np.testing.assert_allclose(
        combine(features[order], [prompts[i] for i in order]), combine(features, prompts)[order], atol=1e-6
    )


def test_combining_imports_numpy_only() -> None:
    code = (
        "import sys, rewards.diversity, rewards.distribution_match; print({'torch', 'transformers'} & set(sys.modules))"
    )
    end = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert end.stdout.strip() == "set()"


class Zeros:
    provenance = "nothing"

    def image_embeddings(self, images: np.ndarray) -> np.ndarray:
        return np.arange(len(images), dtype=np.float32)[:, None].repeat(4, 1)


def test_an_embedding_of_zeros_is_no_feature() -> None:
    pictures = np.zeros((3, 3, 4, 4), np.uint8)
    features = unit_embeddings(Zeros(), pictures)
    np.testing.assert_array_equal(features, [[np.nan] * 4, [0.5] * 4, [0.5] * 4])
    assert np.isnan(Diversity(Zeros())(pictures, ("",) * 3, ({},) * 3).values[0]).all()


def test_with_a_real_model_it_tells_copies_from_different_pictures(tmp_path: Path) -> None:
    config = RewardConfig(name="diversity", clip=ClipConfig(model=str(save_clip(tmp_path, projection=8))), device="cpu")
    worker = build_worker(config)
    noise = np.random.default_rng(0)
    picture = noise.integers(0, 256, (1, 3, 32, 32)).astype(np.uint8)
    pictures = np.concatenate([picture, picture, np.zeros_like(picture), np.full_like(picture, 255)])
    request = RewardRequest(1, ("copy", "copy", "b", "b"), ({},) * 4)
    (result,) = worker.run((request,), pictures)
    assert result.statuses == (Status.OK,) * 4
    np.testing.assert_allclose(np.linalg.norm(result.values, axis=1), 1, atol=1e-6)
    values = combine(result.values, list(request.prompts))
    np.testing.assert_allclose(values[:2], 0, atol=1e-5)
    assert (values[2:] > 1e-3).all()
    assert result.provenance.startswith("diversity: ")
    (alone,) = worker.run((RewardRequest(1, ("copy",), ({},)),), pictures[:1])
    np.testing.assert_allclose(alone.values[0], result.values[0], atol=1e-5)


def test_a_model_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"clip\.model") as caught:
        build_worker(RewardConfig(name="diversity", clip=ClipConfig(model=str(tmp_path / "nowhere"))))
    assert "\n" not in str(caught.value)
