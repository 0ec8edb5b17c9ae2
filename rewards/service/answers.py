"""From what a server says to scores. It may say anything; what does not add up never becomes a number."""

from __future__ import annotations

import numpy as np

from rewards.reward import Scores, Status
from rewards.service import reward_pb2
from rewards.service.protocol import FROM_WIRE, PROTOCOL, other_protocol

LONGEST_DETAIL = 500
"""Characters that are kept of a server's reason or note."""


class WrongAnswer(ValueError):
    """An answer that cannot be trusted as a whole."""


def read_scores(
    response: reward_pb2.ScoreResponse, request: reward_pb2.ScoreRequest, provenance: str, features: bool
) -> Scores:
    """The scores of the samples of `request`.

    Args:
        provenance: of the reward that was agreed on at the start.
        features: whether numbers are rows of features.

    Raises:
        WrongAnswer: it is not the answer to this request, or not by this reward.
    """
    if response.protocol != PROTOCOL:
        raise WrongAnswer(other_protocol(response.protocol, PROTOCOL))
    if response.task_id != request.task_id:
        raise WrongAnswer(f"an answer to request {response.task_id} instead of {request.task_id}")
    if (response.reward, response.provenance) != (request.reward, provenance):
        raise WrongAnswer(f"its reward is now {response.reward} ({response.provenance}), and was {provenance}")
    if len(response.results) != len(request.samples):
        raise WrongAnswer(f"{len(response.results)} results for {len(request.samples)} images")
    rows: dict[int, list[float]] = {}
    notes = [""] * len(response.results)
    failures: dict[int, tuple[Status, str]] = {}
    for place, result in enumerate(response.results):
        detail = result.detail[:LONGEST_DETAIL]
        status = FROM_WIRE.get(result.status)
        row = _numbers(result, features)
        if status is not Status.OK:
            failures[place] = (status, detail) if status else (Status.INVALID, f"status {result.status} of the server")
        elif not row or not np.isfinite(row).all():
            failures[place] = (Status.INVALID, f"the server calls {row} a score")
        else:
            rows[place], notes[place] = row, detail
    widths = {len(row) for row in rows.values()}
    if len(widths) > 1:
        raise WrongAnswer(f"features of different lengths: {sorted(widths)}")
    values = np.full((len(notes), max(widths, default=1)), np.nan, np.float32)
    for place, row in rows.items():
        values[place] = row
    return Scores(values if features else values[:, 0], tuple(notes) if any(notes) else (), failures)


def _numbers(result: reward_pb2.Result, features: bool) -> list[float]:
    """Empty where there is no number of the right kind."""
    if result.WhichOneof("answer") != ("features" if features else "value"):
        return []
    return list(result.features.values) if features else [result.value]


def all_failed(count: int, features: bool, status: Status, reason: str) -> Scores:
    """No score for any of `count` images."""
    values = np.full((count, 1) if features else count, np.nan, np.float32)
    return Scores(values, (), dict.fromkeys(range(count), (status, reason)))
