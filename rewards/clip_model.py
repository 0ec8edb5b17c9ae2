"""A CLIP-class model of transformers: embeddings of images and texts in one space."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from jaxtyping import Float
from PIL import Image
from transformers import AutoImageProcessor, AutoTokenizer, CLIPModel

from rewards.config import RewardConfig
from rewards.model_files import asking, device_of, load_model, loaded, model_folder, sha256, weight_files
from rewards.reward import Images

DEFAULT_MODEL = "openai/clip-vit-large-patch14"
TEXTS = 4096
"""Texts whose embeddings are kept; prompts repeat."""


class ClipEncoder:
    """Embeddings as the model projects them, not yet of length 1, float32."""

    def __init__(self, model: Any, image_processor: Any, tokenizer: Any, weights: str, threads: int) -> None:
        self._model, self._image_processor, self._tokenizer = model, image_processor, tokenizer
        self._threads = threads
        self.width: int = model.config.projection_dim
        """Numbers of an embedding."""
        self.scale = float(model.logit_scale.detach().double().exp())
        """What the model multiplies cosines with."""
        self.provenance = (
            f"CLIP weights sha256 {weights[:16]}, {described(image_processor)}, float32 on {model.device.type}, "
            f"torch {torch.__version__}, transformers {transformers.__version__}"
        )
        self.text_embedding = lru_cache(TEXTS)(self._text_embedding)
        """Embedding [feature] of a text, cut off where the model's context ends."""

    @property
    def device(self) -> torch.device:
        return self._model.device

    def image_embeddings(self, images: Images) -> Float[np.ndarray, "batch feature"]:
        """After the model's own preprocessing, which takes the pixels as they are, 0 to 255."""
        inputs = self._image_processor(images=pictures(images), return_tensors="pt")
        with asking(self._threads):
            seen = self._model.vision_model(inputs["pixel_values"].to(self.device)).pooler_output
            return self._model.visual_projection(seen).cpu().numpy()

    def text_embeddings(self, texts: Sequence[str]) -> Float[np.ndarray, "batch feature"]:
        """One at a time: what else is in a batch, and so in the cache, must not change a text's last bits."""
        return np.stack([self.text_embedding(text) for text in texts])

    def _text_embedding(self, text: str) -> Float[np.ndarray, " feature"]:
        longest = min(self._tokenizer.model_max_length, self._model.config.text_config.max_position_embeddings)
        inputs = self._tokenizer(text, truncation=True, max_length=longest, return_tensors="pt").to(self.device)
        with asking(self._threads):
            said = self._model.text_model(inputs["input_ids"], inputs["attention_mask"]).pooler_output
            return self._model.text_projection(said)[0].cpu().numpy()


def load_clip(name: str, config: RewardConfig, processor: str = "") -> ClipEncoder:
    """The model that `clip.model` names, on the device that the configuration names.

    Args:
        name: hub id, folder or `bundled`.
        processor: hub id of the preprocessing where the model's folder has none of its own.

    Raises:
        ValueError: there is no such model, or not all of it; one line.
    """
    key = "clip.model"
    device = device_of(config.device)
    folder = model_folder(key, name, bundled="clip")
    model = load_model(key, folder, CLIPModel, "float32", device)
    preprocessing = folder
    if processor and not _has_processor(folder):
        preprocessing = model_folder(key, processor, weights=False)
    # The published scores were made with Pillow's resizing; torchvision's, where it is installed, differs a little.
    image_processor = loaded(key, preprocessing, AutoImageProcessor, backend="pil", local_files_only=True)
    tokenizer = loaded(key, preprocessing, AutoTokenizer, local_files_only=True)
    return ClipEncoder(model, image_processor, tokenizer, sha256(*weight_files(folder)), config.threads)


def pictures(images: Images) -> list[Image.Image]:
    """As Pillow has them, which leaves no doubt about the order of axes or the range of values."""
    return [Image.fromarray(image) for image in images.transpose(0, 2, 3, 1)]


def described(image_processor: Any) -> str:
    """A processor's class and the settings that change pixels."""
    skipped = ("image_processor_type", "processor_class", "feature_extractor_type")
    settings = {name: value for name, value in image_processor.to_dict().items() if name not in skipped}
    return f"{type(image_processor).__name__} {json.dumps(settings, sort_keys=True, default=str)}"


def _has_processor(folder: Path) -> bool:
    images = (folder / "preprocessor_config.json", folder / "processor_config.json")
    tokens = (folder / "tokenizer.json", folder / "vocab.json")
    return any(path.exists() for path in images) and any(path.exists() for path in tokens)
