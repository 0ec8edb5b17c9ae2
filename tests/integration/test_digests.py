"""The same run comes out bit for bit, whatever number of workers draws and scores it, on Ray and in one process."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.tiny_run import assert_all_counted_once, folder_of, results, run_tiny, tiny_config

pytestmark = pytest.mark.slow

FLEETS = [(1, 2), (2, 1), (3, 2)]
"""Samplers and reward workers."""


@pytest.mark.ray
@pytest.mark.parametrize("lag", [0, 1, 2])
def test_any_fleet_trains_the_same_weights(ray_session: None, tiny_model: Path, tmp_path: Path, lag: int) -> None:
    alone = tiny_config(tiny_model, tmp_path, run={"name": "alone"}, schedule={"lag": lag})
    digest = run_tiny(alone)["lora_digest"]
    expected = results(folder_of(alone))
    assert [row["staleness"] for row in expected] == [min(lag, n) for n in range(4)]
    assert all(row["grad_norm"] > 0 for row in expected)
    for samplers, rewards in FLEETS:
        fleet = tiny_config(
            tiny_model,
            tmp_path,
            run={"name": f"{samplers}x{rewards}"},
            schedule={"lag": lag},
            samplers={"num": samplers},
            rewards={"num": rewards},
            cluster={"kind": "ray"},
        )
        summary = run_tiny(fleet)
        assert summary["lora_digest"] == digest
        assert results(folder_of(fleet)) == expected
        assert_all_counted_once(summary, 32)


def test_other_lags_and_seeds_train_other_weights(tiny_model: Path, tmp_path: Path) -> None:
    digests = {
        run_tiny(tiny_config(tiny_model, tmp_path, run={"name": f"{lag}-{seed}", "seed": seed}, schedule={"lag": lag}))[
            "lora_digest"
        ]
        for lag, seed in [(0, 0), (1, 0), (2, 0), (1, 1)]
    }
    assert len(digests) == 4
