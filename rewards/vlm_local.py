"""A vision-language model of transformers in this process, greedy, so that the same image gets the same answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import transformers
from jaxtyping import Int
from PIL import Image
from torch import Tensor
from transformers import AutoModelForImageTextToText, AutoProcessor

from rewards.clip_model import described, pictures
from rewards.config import RewardConfig
from rewards.model_files import asking, device_of, load_model, loaded, model_folder, sha256, weight_files
from rewards.reward import Images
from rewards.vlm import Answer, answer_of

KEY = "vlm.model"
CAPTION_ONLY = ("blip", "git", "vision-encoder-decoder")
"""Kinds of model that take a text for the beginning of the caption, not for a question."""


class LocalVlm:
    """Any model of `AutoModelForImageTextToText`; questions go through the processor's chat template if it has one."""

    def __init__(self, model: Any, processor: Any, max_new_tokens: int, threads: int, weights: str) -> None:
        self._model, self._processor = model, processor
        self._max_new_tokens, self._threads = max_new_tokens, threads
        kind = model.config.model_type
        self.captions_only: bool = kind in CAPTION_ONLY
        tokenizer = processor.tokenizer
        tokenizer.padding_side = "left"  # else what is generated would follow the padding
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token
        self._template: bool = bool(getattr(processor, "chat_template", None) or tokenizer.chat_template)
        self.provenance = (
            f"{kind} weights sha256 {weights[:16]}, {str(model.dtype).removeprefix('torch.')} on {model.device.type}, "
            f"greedy, at most {max_new_tokens} tokens, {described(processor.image_processor)}, "
            f"torch {torch.__version__}, transformers {transformers.__version__}"
        )

    def answers(self, images: Images, questions: Sequence[str]) -> list[Answer]:
        """All at once; an empty question asks for a description."""
        inputs = self._inputs(pictures(images), questions)
        inputs = {name: self._placed(value) for name, value in inputs.items()}
        with asking(self._threads):
            tokens = self._model.generate(
                **inputs, max_new_tokens=self._max_new_tokens, do_sample=False, num_beams=1, use_cache=True
            )
        texts = self._processor.tokenizer.batch_decode(said(tokens, inputs.get("input_ids")), skip_special_tokens=True)
        return [answer_of(text) for text in texts]

    def _inputs(self, images: Sequence[Image.Image], questions: Sequence[str]) -> Any:
        if self.captions_only:
            return self._processor(images=list(images), return_tensors="pt")
        if not self._template:
            texts = {"text": list(questions)} if any(questions) else {}
            return self._processor(images=list(images), padding=True, return_tensors="pt", **texts)
        texts = [self._chat(question) for question in questions]
        # A template that writes the first token itself must not get a second one.
        bos = self._processor.tokenizer.bos_token
        extra = {"add_special_tokens": False} if bos and texts[0].startswith(bos) else {}
        each = [[image] for image in images]
        return self._processor(text=texts, images=each, padding=True, return_tensors="pt", **extra)

    def _chat(self, question: str) -> str:
        content: list[dict[str, str]] = [{"type": "image"}]
        if question:
            content.append({"type": "text", "text": question})
        return self._processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)

    def _placed(self, value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        return value.to(self._model.device, self._model.dtype if value.is_floating_point() else None)


def said(tokens: Int[Tensor, "batch all"], asked: Int[Tensor, "batch asked"] | None) -> Int[Tensor, "batch new"]:
    """What was generated, without the question, which some models repeat and some do not."""
    if asked is not None and torch.equal(tokens[:, : asked.shape[1]], asked):
        return tokens[:, asked.shape[1] :]
    return tokens


def load_vlm(config: RewardConfig) -> LocalVlm:
    """The model and processor that `vlm.model` names.

    Raises:
        ValueError: there is no such model, or not all of it; one line.
    """
    device = device_of(config.device)
    folder = model_folder(KEY, config.vlm.model, bundled="captioner")
    model = load_model(KEY, folder, AutoModelForImageTextToText, config.vlm.dtype, device)
    # Pillow's resizing, so that answers do not depend on whether torchvision is installed.
    processor = loaded(KEY, folder, AutoProcessor, backend="pil", local_files_only=True, trust_remote_code=False)
    if not hasattr(processor, "tokenizer") or not hasattr(processor, "image_processor"):
        raise ValueError(f"rewards.{KEY}: {folder} has no image processor with a tokenizer; give a complete model")
    weights = sha256(*weight_files(folder))
    return LocalVlm(model, processor, config.vlm.max_new_tokens, config.threads, weights)
