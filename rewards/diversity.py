"""How unlike an image is to what else the round drew for its prompt: keeps a policy from collapsing to one picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

from rewards.config import RewardConfig
from rewards.reward import Images, Metadata, Scores

DEFAULT_MODEL = "openai/clip-vit-large-patch14"


@runtime_checkable
class ImageEncoder(Protocol):
    """What rewards of a whole round need of a CLIP-class model."""

    @property
    def provenance(self) -> str: ...

    def image_embeddings(self, images: Images) -> Float[np.ndarray, "batch feature"]: ...


@dataclass(frozen=True, slots=True)
class Diversity:
    """Gives each image's embedding; `combine` turns those of a round into values."""

    encoder: ImageEncoder
    name: str = "diversity"

    @property
    def provenance(self) -> str:
        return f"diversity: mean of 1 - cosine to the round's others of the same prompt, {self.encoder.provenance}"

    def __call__(self, images: Images, prompts: Sequence[str], metadata: Sequence[Metadata]) -> Scores:
        return Scores(unit_embeddings(self.encoder, images))


def build(config: RewardConfig) -> Diversity:
    """Raises:
    ValueError: there is no such model.
    """
    from rewards.clip_model import load_clip

    return Diversity(load_clip(config.clip.model or DEFAULT_MODEL, config))


def unit_embeddings(encoder: ImageEncoder, images: Images) -> Float[np.ndarray, "batch feature"]:
    """Embeddings of length 1; NaN, which counts as invalid, where a model gives nothing but zeros."""
    embeddings = encoder.image_embeddings(images).astype(np.float64)
    with np.errstate(invalid="ignore"):
        return (embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)).astype(np.float32)


def combine(features: Float[np.ndarray, "sample feature"], prompts: Sequence[str]) -> Float[np.ndarray, " sample"]:
    """Mean of 1 − cosine to the other samples of the same prompt, from unit embeddings.

    0 where all are the same picture, 1 where they have nothing in common, at most 2; NaN for the only one of its
    prompt. The mean over the others is one product with their sum, so that no matrix of all pairs is made.
    """
    values = np.full(len(prompts), np.nan, np.float32)
    names = np.array(prompts, dtype=object)
    for prompt in dict.fromkeys(prompts):
        same = np.flatnonzero(names == prompt)
        if len(same) > 1:
            unit = features[same].astype(np.float64)
            others = unit.sum(axis=0) - unit
            values[same] = 1 - (unit * others).sum(axis=1) / (len(same) - 1)
    return values
