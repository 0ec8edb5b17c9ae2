"""Models of a few thousand random weights and of the real classes, made in a second."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    BlipConfig,
    BlipForConditionalGeneration,
    BlipProcessor,
    CLIPConfig,
    CLIPModel,
    CLIPTokenizer,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)
from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from actors.bundled.text import build_tokenizer

WORDS = [
    "a",
    "an",
    "the",
    "cat",
    "dog",
    "fox",
    "zebra",
    "what",
    "is",
    "in",
    "this",
    "image",
    "how",
    "many",
    "animals",
    "are",
    "there",
    "one",
    "two",
    "three",
    "red",
    "blue",
]
CHAT = (
    "{% for message in messages %}USER: {% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image> {% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endfor %}"
    "{% if add_generation_prompt %} ASSISTANT:{% endif %}"
)
VISION: dict[str, Any] = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 32,
    "patch_size": 16,
}


def pictures(count: int = 3, size: int = 40, seed: int = 0) -> np.ndarray:
    """Unlike one another, with smooth parts and noise."""
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 256, (count, 3, 4, 4)).repeat(size // 4, axis=2).repeat(size // 4, axis=3)
    return (coarse + random.normal(0, 8, coarse.shape)).clip(0, 255).astype(np.uint8)


def save_clip(folder: Path, projection: int = 768, processor: bool = True) -> Path:
    """A `CLIPModel` of 32 px with the embedding width of ViT-L/14."""
    build_tokenizer(["a cat", "a dog", "a fox"], [], folder)
    tokenizer: CLIPTokenizer = CLIPTokenizer.from_pretrained(folder)
    text = {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "vocab_size": len(tokenizer),
        "max_position_embeddings": 24,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    torch.manual_seed(0)
    model = CLIPModel(CLIPConfig(text_config=text, vision_config=VISION, projection_dim=projection))
    _spread(model)
    model.save_pretrained(folder)
    if processor:
        # Other numbers than CLIP's own, so that a preprocessing which is not the folder's shows.
        CLIPImageProcessorPil(
            size={"shortest_edge": 32},
            crop_size={"height": 32, "width": 32},
            image_mean=[0.4, 0.5, 0.6],
            image_std=[0.2, 0.3, 0.4],
        ).save_pretrained(folder)
    else:
        for file in folder.iterdir():
            if file.name not in ("config.json", "model.safetensors"):
                file.unlink()
    return folder


def save_llava(folder: Path) -> Path:
    """A `LlavaForConditionalGeneration` with a chat template; its tokenizer pads on the right, as many are shipped."""
    tokens = ["<pad>", "<s>", "</s>", "<unk>", "<image>", "USER:", "ASSISTANT:", "?", *WORDS]
    backend = Tokenizer(models.WordLevel({token: place for place, token in enumerate(tokens)}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    backend.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        extra_special_tokens=["<image>"],
        padding_side="right",
        model_max_length=64,
    )
    text = LlamaConfig(
        vocab_size=len(tokens),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=64,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    torch.manual_seed(0)
    model = LlavaForConditionalGeneration(
        LlavaConfig(vision_config=CLIPVisionConfig(**VISION), text_config=text, image_token_id=4)
    )
    _spread(model)
    model.lm_head.weight.data[[0, 1, 3, 4]] = 0  # no special token but the end is ever the likeliest
    model.generation_config.eos_token_id = 2
    model.generation_config.pad_token_id = 0
    model.save_pretrained(folder)
    images = CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    LlavaProcessor(
        images,
        tokenizer,
        patch_size=16,
        vision_feature_select_strategy="default",
        chat_template=CHAT,
        num_additional_image_tokens=1,
    ).save_pretrained(folder)
    return folder


def save_blip(folder: Path) -> Path:
    """A `BlipForConditionalGeneration`, which captions and cannot be asked."""
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[DEC]", *WORDS]
    backend = Tokenizer(models.WordLevel({token: place for place, token in enumerate(tokens)}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="[PAD]", bos_token="[DEC]", eos_token="[SEP]", unk_token="[UNK]"
    )
    text = {
        "vocab_size": len(tokens),
        "hidden_size": 16,
        "encoder_hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "max_position_embeddings": 24,
        "pad_token_id": 0,
        "bos_token_id": 4,
        "eos_token_id": 3,
        "sep_token_id": 3,
    }
    torch.manual_seed(0)
    config = BlipConfig(text_config=text, vision_config=VISION, projection_dim=16, image_text_hidden_size=16)
    model = BlipForConditionalGeneration(config)
    _spread(model)
    model.save_pretrained(folder)
    BlipProcessor(BlipImageProcessorPil(size={"height": 32, "width": 32}), tokenizer).save_pretrained(folder)
    return folder


def _spread(model: torch.nn.Module) -> None:
    """Weights far enough apart that answers depend on the picture."""
    for name, parameter in model.named_parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.3)
        elif "logit_scale" in name:
            torch.nn.init.constant_(parameter, 3.0)
