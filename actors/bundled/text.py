"""The text side of the model: a byte-level BPE tokenizer from captions, a small CLIP encoder."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

MAX_TOKENS = 24
HIDDEN = 128
MERGES = 1800
START, END = "<|startoftext|>", "<|endoftext|>"


def learn_merges(words: Counter[str]) -> list[tuple[str, str]]:
    """The byte-pair merges that the words (with their weights) ask for, most frequent first."""
    tokenizer = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    # 512 = every byte, inside a word and at its end; the trainer itself only knows those it sees.
    trainer = trainers.BpeTrainer(
        vocab_size=512 + MERGES, end_of_word_suffix="</w>", show_progress=False, min_frequency=2
    )
    lines = (" ".join([word] * min(count, 100)) for word, count in sorted(words.items()))
    tokenizer.train_from_iterator(lines, trainer)
    merges = json.loads(tokenizer.to_str())["model"]["merges"]
    return [tuple(pair) if isinstance(pair, list) else tuple(pair.split(" ")) for pair in merges]


def build_tokenizer(captions: list[str], emphasised: list[str], folder: Path) -> None:
    """Writes a CLIP tokenizer whose alphabet is all 256 bytes, so that no word is unknown."""
    words: Counter[str] = Counter()
    for caption in captions:
        words.update(re.findall(r"[a-z]+", caption.lower()))
    words.update(dict.fromkeys(emphasised, 100))
    merges = learn_merges(words)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    pieces = [*alphabet, *(byte + "</w>" for byte in alphabet)]
    pieces += [left + right for left, right in merges]
    vocabulary = {piece: index for index, piece in enumerate(dict.fromkeys([*pieces, START, END]))}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False), encoding="utf-8")
    lines = ["#version: 0.2", *(f"{left} {right}" for left, right in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    special = {"bos_token": START, "eos_token": END, "unk_token": END, "pad_token": END}
    settings = {"tokenizer_class": "CLIPTokenizer", "model_max_length": MAX_TOKENS,
                "do_lower_case": True, "add_prefix_space": False, **special}  # fmt: skip
    # The settings come last: where they are, the tokenizer is whole.
    (folder / "special_tokens_map.json").write_text(json.dumps(special, indent=2), encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2), encoding="utf-8")


def new_text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """Two layers of 128: captions are a few words."""
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=HIDDEN,
            intermediate_size=4 * HIDDEN,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=MAX_TOKENS,
            projection_dim=HIDDEN,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def token_ids(tokenizer: CLIPTokenizer, captions: list[str]) -> Tensor:
    """Int64 ``[N, 24]``, padded as StableDiffusionPipeline pads."""
    encoded = tokenizer(captions, padding="max_length", max_length=MAX_TOKENS, truncation=True, return_tensors="pt")
    return encoded.input_ids.to(torch.int64)
