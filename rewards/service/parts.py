"""The samples of a request as parts of one image size each, and their results as messages."""

from __future__ import annotations

import numpy as np

from rewards.reward import Images, Metadata, RewardRequest, RewardResult, Status
from rewards.service import reward_pb2
from rewards.service.images import decode, parse_metadata
from rewards.service.protocol import TO_WIRE

Part = tuple[RewardRequest, Images]
"""Samples of one size; a request may bring several."""


def unpacked(
    request: reward_pb2.ScoreRequest, room: int
) -> tuple[list[Part], list[list[int]], dict[int, reward_pb2.Result]]:
    """What is to be scored, part by part by the images' size; the places of each part's samples in the request; and by
    place the results of those that cannot be scored.

    Args:
        room: bytes that all images together may take when they are decoded.
    """
    refused: dict[int, reward_pb2.Result] = {}
    by_size: dict[tuple[int, ...], list[tuple[int, np.ndarray, Metadata]]] = {}
    for place, sample in enumerate(request.samples):
        try:
            metadata = parse_metadata(sample.metadata)
            image = decode(sample, room)
        except ValueError as error:
            refused[place] = reward_pb2.Result(status=reward_pb2.STATUS_INVALID, detail=str(error))
            continue
        room -= image.nbytes
        by_size.setdefault(image.shape, []).append((place, image, metadata))
    parts: list[Part] = []
    for samples in by_size.values():
        prompts = tuple(request.samples[place].prompt for place, _, _ in samples)
        of_prompts = tuple(metadata for _, _, metadata in samples)
        images = np.stack([image for _, image, _ in samples])
        parts.append((RewardRequest(request.task_id, prompts, of_prompts, request.one_by_one), images))
    return parts, [[place for place, _, _ in samples] for samples in by_size.values()], refused


def to_wire(result: RewardResult) -> list[reward_pb2.Result]:
    """One result per sample; numbers only where the status is ok."""
    wires: list[reward_pb2.Result] = []
    for value, status, detail in zip(result.values, result.statuses, result.details, strict=True):
        wire = reward_pb2.Result(status=TO_WIRE[status], detail=detail)
        if status is Status.OK and result.values.ndim == 1:
            wire.value = float(value)
        elif status is Status.OK:
            wire.features.values.extend(value.tolist())
        wires.append(wire)
    return wires
