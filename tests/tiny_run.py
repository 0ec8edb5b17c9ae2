"""Runs on the tiny model: a few rounds in a second, and every one of them trains."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import tomli_w

from learner.config import RunConfig
from learner.wiring import train

TINY: dict[str, dict[str, Any]] = {
    "run": {"name": "tiny", "rounds": 4},
    "model": {},
    "denoising": {"steps": 4},
    "prompts": {"limit": 2},  # so that every prompt has rewards to compare
    "samplers": {"batch_size": 4},
    "schedule": {"samples_per_round": 8, "lag": 0},
    "learner": {"optimizer_steps": 2, "minibatch": 6, "learning_rate": 1e-2, "prompt_min_count": 4},
    "evaluation": {"samples": 4},
    "checkpoint": {"every": 2},
    "log": {"images": 0},
    "cluster": {"kind": "local"},
}

TIMING = ("seconds", "images_per_s")
IN_FLIGHT = ("pending", "sampling", "scoring", "scored", "reissued_tasks")


def tiny_config(model: Path, runs: Path, **sections: dict[str, Any]) -> RunConfig:
    """`TINY` with changes, section by section."""
    merged = {name: {**TINY.get(name, {}), **sections.get(name, {})} for name in {*TINY, *sections}}
    merged["model"]["path"] = str(model)
    merged["run"]["dir"] = str(runs)
    return RunConfig.model_validate(merged)


def folder_of(config: RunConfig) -> Path:
    return Path(config.run.dir) / config.run.name


def run_tiny(config: RunConfig, resume: bool = False) -> dict[str, Any]:
    """The summary of a whole run."""
    return train(config, folder_of(config), resume)


def write_preset(config: RunConfig, path: Path) -> str:
    """The configuration as a preset file."""
    path.write_text(tomli_w.dumps(config.model_dump(mode="json", exclude_none=True)))
    return str(path)


def rows(folder: Path) -> list[dict[str, Any]]:
    """Lines of `metrics.jsonl`; none if there is no file yet."""
    path = folder / "metrics.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def results(folder: Path) -> list[dict[str, Any]]:
    """What of each row may depend on nothing but the configuration: not on time, nor on what was under way or lost."""
    timed = (*TIMING, *IN_FLIGHT)
    return [
        {name: value for name, value in row.items() if not name.endswith(timed) and "_calls_" not in name}
        for row in rows(folder)
    ]


def assert_all_counted_once(summary: dict[str, Any], samples: int) -> None:
    """Every sample of the run was issued once and trained once."""
    counts = summary["ledger"]
    assert counts["issued"] == counts["trained"] == samples
    assert counts["dropped"] == sum(counts[state] for state in ("pending", "sampling", "scoring", "scored")) == 0
