"""A model that looks at images and says what it is asked: in the worker, or behind an endpoint."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from rewards.config import RewardConfig
from rewards.reward import Images, Status


@dataclass(frozen=True, slots=True)
class NoAnswer:
    """Why an image got none."""

    status: Status
    reason: str


Answer = str | NoAnswer
"""Without spaces around it; never empty."""

SILENT = NoAnswer(Status.INVALID, "the captioner said nothing")


@runtime_checkable
class Vlm(Protocol):
    """Answers one question about each image; an answer may not depend on the image's neighbours."""

    @property
    def provenance(self) -> str: ...

    @property
    def captions_only(self) -> bool:
        """Whether it describes images and cannot be asked anything."""
        ...

    def answers(self, images: Images, questions: Sequence[str]) -> list[Answer]: ...


def answer_of(text: str) -> Answer:
    """Of what the model wrote."""
    return text.strip() or SILENT


def build_vlm(config: RewardConfig) -> Vlm:
    """The model that `vlm` names.

    Raises:
        ValueError: there is none; one line.
    """
    if config.vlm.endpoint:
        from rewards.vlm_endpoint import EndpointVlm

        return EndpointVlm(config)
    from rewards.vlm_local import load_vlm

    return load_vlm(config)
