"""What the UNet sees: latents and caption tokens, animals favoured, captions sometimes dropped."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor
from transformers import CLIPTokenizer

from actors.bundled.text import token_ids
from actors.bundled.work import Pictures

ANIMAL_SHARE = 0.7
EMPTY_SHARE = 0.1
"""Share of empty prompts: what classifier-free guidance steers away from."""
BARE_SHARE = 0.1
"""Share of captions without their article: "fox" should mean "a fox"."""


def row_weights(pictures: Pictures) -> Tensor:
    """Probability of each picture ``[N]``: all animals alike, however many pictures each has."""
    names = [entry["animal"] for entry in pictures.entries]
    count = {name: names.count(name) for name in set(names)}
    kinds = len(count) - 1
    return torch.tensor([ANIMAL_SHARE / (kinds * count[n]) if n else (1 - ANIMAL_SHARE) / count[n] for n in names])


class Batches:
    """Draws training batches from the caches; everything that can be made once is made here."""

    def __init__(self, pictures: Pictures, latents: Tensor, tokenizer: Path) -> None:
        """Latents ``[2, N, 8, 8, 8]``: as drawn, and mirrored."""
        tokens = CLIPTokenizer.from_pretrained(tokenizer)
        captions = [entry["caption"] for entry in pictures.entries]
        bare = [caption.removeprefix("an ").removeprefix("a ") for caption in captions]
        self._latents = latents
        self._weights = row_weights(pictures)
        self._tokens = torch.stack([token_ids(tokens, captions), token_ids(tokens, bare)])
        self._empty = token_ids(tokens, [""])[0]

    def draw(self, size: int, random: torch.Generator) -> tuple[Tensor, Tensor]:
        """Latents float32 ``[B, 8, 8, 8]`` and token ids int64 ``[B, 24]``."""
        rows = torch.multinomial(self._weights, size, replacement=True, generator=random)
        mirrored = torch.randint(2, (size,), generator=random)
        fate = torch.rand(size, generator=random)
        bare = (fate > 1 - BARE_SHARE).long()
        tokens = self._tokens[bare, rows].clone()
        tokens[fate < EMPTY_SHARE] = self._empty
        return self._latents[mirrored, rows], tokens
