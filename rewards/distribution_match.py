"""Whether an image lies where a folder of pictures is dense and the round is not: a whole distribution as the target.

The value is the empirical witness function of the kernel MMD between reference and round (Gretton et al. 2012, A Kernel
Two-Sample Test, JMLR 13, 723-773) at the image itself: w_i = mean_j k(x_i, ref_j) − mean_{j≠i} k(x_i, x_j), with a
Gaussian kernel on embeddings; j = i is left out, since k(x_i, x_i) = 1 says nothing of the round. Values lie in
[−1, 1]; higher is where the reference is denser than the round. A round distributed like the reference has a mean of
about 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

from rewards.config import RewardConfig
from rewards.diversity import DEFAULT_MODEL, ImageEncoder, unit_embeddings
from rewards.reference_pictures import Reference, read_batches, read_reference
from rewards.reward import Images, Metadata, Scores

SAME = 1e-4
"""Distances of unit embeddings below this are rounding (1e-7 a component), not a difference."""

Points = Float[np.ndarray, "point feature"]


@dataclass(frozen=True, slots=True, eq=False)
class DistributionMatch:
    """Gives [embedding / bandwidth, mean kernel to the reference], so that `combine` needs no reference."""

    encoder: ImageEncoder
    reference: Points
    """Embeddings of the reference pictures divided by the bandwidth, float32."""
    bandwidth: float
    """σ in k(x, y) = exp(−|x − y|² / 2σ²)."""
    source: str
    """What the reference pictures are."""
    name: str = "distribution_match"

    @property
    def provenance(self) -> str:
        return (
            f"distribution_match: MMD witness, Gaussian of bandwidth {self.bandwidth:.6g} (median distance), "
            f"{self.source}, {self.encoder.provenance}"
        )

    def __call__(self, images: Images, prompts: Sequence[str], metadata: Sequence[Metadata]) -> Scores:
        points = scaled(unit_embeddings(self.encoder, images), self.bandwidth)
        to_reference = kernel(points, self.reference).mean(axis=1, keepdims=True).astype(np.float32)
        return Scores(np.concatenate([points, to_reference], axis=1))


def build(config: RewardConfig) -> DistributionMatch:
    """Embed the reference pictures once.

    Raises:
        ValueError: there is no such model or folder, or a picture that cannot be read; one line.
    """
    reference = read_reference(Path(config.distribution.reference).expanduser())
    from rewards.clip_model import load_clip

    return match(load_clip(config.clip.model or DEFAULT_MODEL, config), reference)


def match(encoder: ImageEncoder, reference: Reference) -> DistributionMatch:
    """The reward for a model and pictures."""
    embeddings = np.concatenate([unit_embeddings(encoder, batch) for batch in read_batches(reference)])
    if not np.isfinite(embeddings).all():
        raise ValueError(f"distribution.reference: the model of clip.model makes no embedding of {reference.folder}")
    bandwidth = median_distance(embeddings)
    if bandwidth < SAME:
        raise ValueError(
            f"distribution.reference: most pictures of {reference.folder} are the same to the model; "
            "give pictures that differ"
        )
    return DistributionMatch(encoder, scaled(embeddings, bandwidth), bandwidth, reference.described)


def combine(features: Float[np.ndarray, "sample feature"], prompts: Sequence[str]) -> Float[np.ndarray, " sample"]:
    """The witness of each sample against the rest of its round; all NaN where there is no rest."""
    count = len(prompts)
    if count < 2:
        return np.full(count, np.nan, np.float32)
    points, to_reference = features[:, :-1], features[:, -1].astype(np.float64)
    among = kernel(points, points)
    np.fill_diagonal(among, 0)
    return (to_reference - among.sum(axis=1) / (count - 1)).astype(np.float32)


def median_distance(points: Points) -> float:
    """Median over all pairs of different points."""
    squares = _squared_distances(points, points)
    return float(np.median(np.sqrt(squares[np.triu_indices(len(points), k=1)])))


def scaled(embeddings: Points, bandwidth: float) -> Points:
    """In units of the bandwidth, float32: what is sent is also what distances to the reference are taken from."""
    return (embeddings.astype(np.float64) / bandwidth).astype(np.float32)


def kernel(
    one: Float[np.ndarray, "one feature"], two: Float[np.ndarray, "two feature"]
) -> Float[np.ndarray, "one two"]:
    """exp(−|x − y|² / 2) of points in units of the bandwidth, float64."""
    return np.exp(-_squared_distances(one, two) / 2)


def _squared_distances(
    one: Float[np.ndarray, "one feature"], two: Float[np.ndarray, "two feature"]
) -> Float[np.ndarray, "one two"]:
    """By |a|² + |b|² − 2ab in float64; rounding could make it negative."""
    a, b = one.astype(np.float64), two.astype(np.float64)
    squares = (a * a).sum(axis=1)[:, None] + (b * b).sum(axis=1)[None, :] - 2 * a @ b.T
    return squares.clip(min=0)
