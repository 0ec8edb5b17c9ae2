"""How much people would like an image: the LAION aesthetic predictor, the paper's aesthetic quality."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.nn import functional

from rewards.aesthetic_head import AestheticHead, load_head
from rewards.clip_model import DEFAULT_MODEL, ClipEncoder, load_clip
from rewards.config import RewardConfig
from rewards.model_files import asking
from rewards.reward import Images, Metadata, Scores


@dataclass(frozen=True, slots=True)
class Aesthetic:
    """Predicted rating of each image by people, nominally 1 to 10 (arXiv 2305.13301, section 5.1).

    The MLP `sac+logos+ava1-l14-linearMSE` of christophschuhmann/improved-aesthetic-predictor on the CLIP ViT-L/14
    embedding, made to length 1, after CLIP's own preprocessing. It is linear, so nothing keeps it inside 1 to 10;
    pictures of Stable Diffusion lie about 5 to 7. With other weights it is another score on another scale.
    """

    clip: ClipEncoder
    head: AestheticHead
    threads: int
    name: str = "aesthetic"

    @property
    def provenance(self) -> str:
        return f"aesthetic: head sha256 {self.head.digest[:16]}, {self.clip.provenance}"

    def __call__(self, images: Images, prompts: Sequence[str], metadata: Sequence[Metadata]) -> Scores:
        embeddings = torch.from_numpy(self.clip.image_embeddings(images)).to(self.clip.device)
        with asking(self.threads):
            # Without the floor that `normalize` has by default a zero embedding stays NaN, which counts as invalid.
            values = self.head(functional.normalize(embeddings, dim=1, eps=0.0))
        return Scores(values.cpu().numpy())


def build(config: RewardConfig) -> Aesthetic:
    """Raises:
    ValueError: model or head is not there, or they do not fit each other; one line.
    """
    clip = load_clip(config.clip.model or DEFAULT_MODEL, config)
    return Aesthetic(clip, load_head(config.aesthetic.head, clip.width, str(clip.device)), config.threads)
