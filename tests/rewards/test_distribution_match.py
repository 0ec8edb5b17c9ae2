"""The witness of the MMD against double loops, closed forms and distributions of which the answer is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rewards.config import ClipConfig, DistributionConfig, RewardConfig
from rewards.distribution_match import combine, kernel, match, median_distance
from rewards.reference_pictures import read_reference
from rewards.reward import RewardRequest, Status
from rewards.worker import build_worker
from tests.rewards.tiny_models import save_clip


def k(x: np.ndarray, y: np.ndarray) -> float:
    return float(np.exp(-sum((a - b) ** 2 for a, b in zip(x.tolist(), y.tolist(), strict=True)) / 2))


def by_loops(points: np.ndarray, reference: np.ndarray) -> list[float]:
    values = []
    for i, x in enumerate(points):
        to_reference = [k(x, y) for y in reference]
        to_others = [k(x, y) for j, y in enumerate(points) if j != i]
        values.append(sum(to_reference) / len(to_reference) - sum(to_others) / len(to_others))
    return values


def features(points: np.ndarray, reference: np.ndarray) -> np.ndarray:
    to_reference = kernel(points, reference).mean(axis=1, keepdims=True)
    return np.concatenate([points, to_reference], axis=1).astype(np.float32)


def gauss(mean: float, count: int = 200, seed: int = 0) -> np.ndarray:
    return (np.random.default_rng(seed).normal(size=(count, 3)) + mean).astype(np.float32)


def witness(points: np.ndarray, reference: np.ndarray) -> np.ndarray:
    return combine(features(points, reference), [""] * len(points))


def test_it_is_the_witness_by_definition() -> None:
    points, reference = gauss(0, 11), gauss(0.5, 7, seed=1)
    values = witness(points, reference)
    assert values.dtype == np.float32
    np.testing.assert_allclose(values, by_loops(points, reference), atol=1e-6)


def test_closed_forms() -> None:
    at = np.zeros((3, 2), np.float32)
    np.testing.assert_array_equal(witness(at, at), [0, 0, 0])
    far = np.full((1, 2), 100, np.float32)
    np.testing.assert_array_equal(witness(at, far), [-1, -1, -1])
    np.testing.assert_array_equal(witness(np.concatenate([at[:1], far]), at), [1, 0])
    np.testing.assert_allclose(
        witness(np.array([[0, 0], [100, 0]], np.float32), np.array([[1, 1]], np.float32))[0], np.exp(-1), atol=1e-7
    )


def test_one_sample_alone_has_no_value() -> None:
    assert np.isnan(witness(gauss(0, 1), gauss(0))).all()
    assert len(combine(np.zeros((0, 4), np.float32), [])) == 0


def test_the_order_of_the_samples_does_not_matter() -> None:
    points, order = gauss(0, 30), np.random.default_rng(1).permutation(30)
    np.testing.assert_allclose(witness(points[order], gauss(1)), witness(points, gauss(1))[order], atol=1e-6)


def test_it_is_negative_away_from_the_reference_and_zero_in_the_mean_where_the_two_agree() -> None:
    reference = gauss(0, 400, seed=1)
    same, shifted = witness(gauss(0, 400), reference), witness(gauss(2, 400), reference)
    assert abs(same.mean()) < 0.01
    # E k(x, y) of N(μ, 1) and N(0, 1) is Π (1/√3) exp(−μ²/6), by completing the square
    assert shifted.mean() == pytest.approx(3**-1.5 * (np.exp(-2) - 1), abs=0.02)
    points = gauss(2, 400)
    values = witness(points, reference)
    nearest_reference, own_middle = (np.linalg.norm(points - at, axis=1).argsort()[:40] for at in (0, 2))
    assert values[nearest_reference].mean() > values[own_middle].mean() + 0.2


def test_in_a_half_right_round_what_lies_in_the_reference_is_worth_more() -> None:
    values = witness(np.concatenate([gauss(0, 50), gauss(5, 50, seed=2)]), gauss(0, 100, seed=1))
    assert np.median(values[:50]) > 0.05
    assert values[50:].max() < 0


def test_the_bandwidth_is_the_median_over_pairs() -> None:
    assert median_distance(np.array([[0], [1], [3]], np.float32)) == 2  # of 1, 2, 3
    points = gauss(0, 9)
    pairs = [float(np.linalg.norm(points[i] - points[j])) for i in range(9) for j in range(i)]
    assert median_distance(points) == pytest.approx(float(np.median(pairs)), rel=1e-5)


class MeanColour:
    """An embedding that can be worked out by hand."""

    provenance = "mean colour"

    def image_embeddings(self, images: np.ndarray) -> np.ndarray:
        return images.mean(axis=(2, 3)).astype(np.float32)


def save_colours(folder: Path, *colours: tuple[int, int, int]) -> Path:
    for number, colour in enumerate(colours):
        Image.new("RGB", (4 + number % 2, 4), colour).save(folder / f"{number:03d}.png")
    return folder


RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def test_the_features_carry_the_kernel_to_the_reference(tmp_path: Path) -> None:
    reward = match(MeanColour(), read_reference(save_colours(tmp_path, RED, GREEN, BLUE)))
    assert reward.bandwidth == pytest.approx(2**0.5)
    pictures = np.array([RED, GREEN, (9, 9, 9)], np.uint8)[:, :, None, None].repeat(4, 2).repeat(4, 3)
    values = reward(pictures, ("",) * 3, ({},) * 3).values
    assert values.dtype == np.float32
    np.testing.assert_allclose(values[0], [0.5**0.5, 0, 0, (1 + 2 * np.exp(-0.5)) / 3], atol=1e-6)
    grey = np.exp(-(2 - 2 / 3**0.5) / 4)
    np.testing.assert_allclose(values[2], [6**-0.5, 6**-0.5, 6**-0.5, grey], atol=1e-6)
    of_round = combine(values, ["", "", ""])
    to_red, to_green = (1 + 2 * np.exp(-0.5)) / 3, (np.exp(-0.5) + grey) / 2
    np.testing.assert_allclose(of_round, [to_red - to_green] * 2 + [0], atol=1e-6)


def test_its_provenance_changes_with_the_pictures_and_the_model(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    one = match(MeanColour(), read_reference(save_colours(tmp_path / "a", RED, GREEN))).provenance
    two = match(MeanColour(), read_reference(save_colours(tmp_path / "b", RED, BLUE))).provenance
    assert "2 pictures sha256 " in one
    assert one.endswith("mean colour")
    assert one != two


def test_pictures_that_are_all_the_same_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="are the same to the model; give pictures that differ"):
        match(MeanColour(), read_reference(save_colours(tmp_path, RED, RED, RED)))


def test_with_a_real_model(tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    noise = np.random.default_rng(0)
    for number in range(6):
        picture = noise.integers(0, 256, (20, 24 + 4 * (number // 3), 3)).astype(np.uint8)
        Image.fromarray(picture).save(tmp_path / "pictures" / f"{number}.png")
    config = RewardConfig(
        name="distribution_match",
        device="cpu",
        clip=ClipConfig(model=str(save_clip(tmp_path / "clip", projection=8))),
        distribution=DistributionConfig(reference=str(tmp_path / "pictures")),
    )
    alike = noise.integers(0, 256, (6, 3, 20, 24)).astype(np.uint8)
    unlike = np.full_like(alike, 255) - (alike // 32)
    worker = build_worker(config)
    means = []
    for pictures in (alike, unlike):
        (result,) = worker.run((RewardRequest(1, ("",) * 6, ({},) * 6),), pictures)
        assert result.statuses == (Status.OK,) * 6
        means.append(combine(result.values, [""] * 6).mean())
    assert means[0] > means[1] + 0.03
    assert worker.run((RewardRequest(1, ("",), ({},)),), alike[:1])[0].values.shape == (1, 9)


def test_a_configuration_without_a_reference_is_refused() -> None:
    with pytest.raises(ValueError, match=r"needs distribution\.reference"):
        RewardConfig(name="distribution_match")
