"""How well an image fits its prompt to a CLIP-class model: CLIPScore, and PickScore, trained on people's choices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from rewards.clip_model import DEFAULT_MODEL, ClipEncoder, load_clip
from rewards.config import RewardConfig
from rewards.reward import Images, Metadata, Scores, Status

PICKSCORE_MODEL = "yuvalkirstain/PickScore_v1"
PICKSCORE_PROCESSOR = "laion/CLIP-ViT-H-14-laion2B-s32B-b79K"
"""Preprocessing and tokenizer that PickScore was published with."""


@dataclass(frozen=True, slots=True)
class TextImageScore:
    """A factor times the cosine between the embeddings of an image and of a text about its prompt.

    `clip_score`: factor 100 and no lower limit, so -100 to 100, in practice about 10 to 40. CLIPScore as published
    (arXiv 2104.08718) is 2.5 max(cos, 0), torchmetrics' 100 max(cos, 0) with the limit on the mean; as a reward the
    limit would hide which of two misses is the nearer one.

    `pickscore`: the factor is the model's own, the exponential of `logit_scale` (100 for PickScore_v1), as in its model
    card (arXiv 2305.01569); in practice about 15 to 25.

    Prompts longer than the model's context are cut off, as in both publications.
    """

    name: str
    clip: ClipEncoder
    factor: float
    template: str

    @property
    def provenance(self) -> str:
        return f"{self.name}: {self.factor:.8g} x cosine to {self.template!r}, {self.clip.provenance}"

    def __call__(self, images: Images, prompts: Sequence[str], metadata: Sequence[Metadata]) -> Scores:
        values = self.factor * cosines(self.clip.image_embeddings(images), self._texts(prompts))
        return Scores(values.astype(np.float32), failures=blank_prompts(prompts, self.template))

    def _texts(self, prompts: Sequence[str]) -> np.ndarray:
        return self.clip.text_embeddings([self.template.replace("{}", prompt) for prompt in prompts])


def cosines(images: np.ndarray, texts: np.ndarray) -> np.ndarray:
    """Of rows [batch, feature] with rows, float64 [batch]; NaN, which counts as invalid, where one is all zeros."""
    one, two = images.astype(np.float64), texts.astype(np.float64)
    with np.errstate(invalid="ignore"):
        return (one * two).sum(axis=1) / (np.linalg.norm(one, axis=1) * np.linalg.norm(two, axis=1))


def blank_prompts(prompts: Sequence[str], template: str) -> Mapping[int, tuple[Status, str]]:
    """The failures of samples whose prompt says nothing, where the template asks for it."""
    reason = "the prompt is empty, so there is nothing to compare the image with"
    blank = [index for index, prompt in enumerate(prompts) if "{}" in template and not prompt.strip()]
    return dict.fromkeys(blank, (Status.INVALID, reason))


def build_clip_score(config: RewardConfig) -> TextImageScore:
    """Raises:
    ValueError: there is no such model; one line.
    """
    clip = load_clip(config.clip.model or DEFAULT_MODEL, config)
    return TextImageScore("clip_score", clip, 100.0, config.clip.template)


def build_pickscore(config: RewardConfig) -> TextImageScore:
    """Raises:
    ValueError: there is no such model; one line.
    """
    clip = load_clip(config.clip.model or PICKSCORE_MODEL, config, processor=PICKSCORE_PROCESSOR)
    return TextImageScore("pickscore", clip, clip.scale, config.clip.template)
