"""The benchmark of the reward service, small."""

from __future__ import annotations

import json

import numpy as np
import pytest

from benchmarks.reward_service import Answer, count, main
from rewards.reward import Scores, Status


@pytest.mark.parametrize("kill", [(), ("--kill",)], ids=["undisturbed", "killed"])
def test_no_sample_is_lost_or_counted_twice(kill: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--clients", "8", "--requests", "96", "--images", "2", "--size", "32", *kill]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    figures = json.loads(line)
    assert figures["samples"] == 192
    assert figures["samples_lost"] == figures["samples_double"] == figures["samples_wrong"] == 0
    assert figures["value"] > 0
    assert figures["p50_ms"] <= figures["p99_ms"]


def test_what_goes_wrong_is_counted() -> None:
    expected = {request: np.array([1, 2], np.float32) for request in range(5)}
    good = Scores(np.array([1, 2], np.float32))
    swapped = Scores(np.array([2, 1], np.float32))
    failed = Scores(np.array([1, np.nan], np.float32), failures={1: (Status.FAILED, "")})
    answers = [Answer(request, scores, 0.1) for request, scores in enumerate((good, good, swapped, failed))]
    counted = count([*answers, answers[1]], expected)
    assert counted == {"samples": 10, "samples_lost": 3, "samples_double": 2, "samples_wrong": 2}
