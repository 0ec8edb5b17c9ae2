"""A whole run in which reward calls fail, hang and die: it ends, and with the weights of the undisturbed run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from learner.intake import RoundFailed
from tests.tiny_run import assert_all_counted_once, folder_of, results, rows, run_tiny, tiny_config
from tests.user_rewards import DYING_EVERY, FAULTS, HANGING, PERIOD, RAISING

pytestmark = pytest.mark.slow

ROUNDS = 10
REWARD = {"name": "python:tests.user_rewards:brightness", "label": "r"}


@pytest.mark.ray
def test_failing_hanging_and_dying_calls_change_nothing(ray_session: None, tiny_model: Path, tmp_path: Path) -> None:
    faults = tmp_path / "faults"
    faults.mkdir()
    undisturbed = tiny_config(
        tiny_model, tmp_path, run={"name": "undisturbed", "rounds": ROUNDS}, schedule={"lag": 1}, rewards=REWARD
    )
    disturbed = tiny_config(
        tiny_model,
        tmp_path,
        run={"name": "disturbed", "rounds": ROUNDS},
        schedule={"lag": 1},
        rewards={
            **REWARD,
            "num": 2,
            "timeout_s": 2.0,
            "attempts": 12,
            "runtime_env": {"env_vars": {FAULTS: str(faults)}},
        },
        cluster={"kind": "ray"},
    )
    expected, summary = run_tiny(undisturbed), run_tiny(disturbed)
    assert summary["lora_digest"] == expected["lora_digest"]
    assert summary["rewards"] == expected["rewards"], "the same provenance"
    assert results(folder_of(disturbed)) == results(folder_of(undisturbed))
    assert_all_counted_once(summary, 8 * ROUNDS)
    calls = len(list(faults.iterdir()))
    seen = rows(folder_of(disturbed))[-1]
    dead = [number for number in range(calls) if number % DYING_EVERY == DYING_EVERY - 1]
    raised = [n for n in range(calls) if n % PERIOD in RAISING and n not in dead]
    hung = [n for n in range(calls) if n % PERIOD in HANGING and n not in dead]
    assert dead
    assert raised
    assert hung
    # Calls of the last evaluation come after the last row; a call that waited behind a dying one is lost with it.
    assert len(raised) - 2 <= seen["reward/r_calls_failed"] <= len(raised)
    assert len(hung) - 1 <= seen["reward/r_calls_late"] <= len(hung)
    assert len(dead) - 1 <= seen["reward/r_calls_lost"] <= 2 * len(dead)


def test_a_reward_that_never_works_stops_the_run_with_a_checkpoint_to_go_on_from(
    tiny_model: Path, tmp_path: Path
) -> None:
    reward = {**REWARD, "attempts": 2, "min_valid_fraction": 0.6}
    changes: dict[str, dict[str, Any]] = {"schedule": {"lag": 1}, "checkpoint": {"every": 100}}
    broken = tiny_config(tiny_model, tmp_path, run={"name": "broken"}, rewards=reward, **changes)
    whole = tiny_config(tiny_model, tmp_path, run={"name": "whole"}, rewards=reward, **changes)
    digest = run_tiny(whole)["lora_digest"]
    with pytest.MonkeyPatch.context() as patch:
        calls: list[int] = []

        def stops_working(images: Any, prompts: Any, metadata: Any) -> Any:
            calls.append(len(images))
            if len(calls) > 4:  # the evaluation, round 0, and the first task of round 1
                raise RuntimeError("the server is gone")
            return images.astype(float).mean(axis=(1, 2, 3))

        patch.setattr("tests.user_rewards.brightness", stops_working)
        with pytest.raises(RoundFailed, match=r"only 4 of 8 samples of round 1 .*the server is gone.*--resume"):
            run_tiny(
                broken.model_copy(update={"rewards": broken.rewards.model_copy(update={"min_valid_fraction": 0.6})})
            )
    summary = run_tiny(broken, resume=True)
    assert summary["lora_digest"] == digest
    assert_all_counted_once(summary, 32)
