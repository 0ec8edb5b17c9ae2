"""`python -m rewards.rescore RUN --reward X`: what another reward says of the samples that a past run saved."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
from pydantic import Field
from pydantic_settings import CliPositionalArg

from rewards.catalog import entry, found
from rewards.config import RewardConfig
from rewards.flags import FLAGS, hush_libraries, parse
from rewards.rescore_report import HEADER, Rescored, overall, row, save_plot
from rewards.reward import RewardRequest, RewardResult, Status
from rewards.saved_samples import SavedGrid, saved_grids
from rewards.worker import RewardWorker, build_worker

USER_ERROR = 2
REWARD_ERROR = 1
INTERRUPTED = 130


class Arguments(RewardConfig):
    """RUN --reward NAME [--key VALUE ...]: score a run's saved samples by another reward and plot both.

    Writes RUN/rescores/NAME.jsonl and NAME.png. The reward runs in this process, so keys that are about its workers
    (num, attempts, timeout_s, …) say nothing here. A reward of a whole round is worked out over each saved grid.
    """

    model_config = FLAGS

    run: CliPositionalArg[Path]
    """Folder of the run, like runs/NAME."""
    name: str = Field(validation_alias="reward")
    """A reward of the catalogue (`rewards/catalog.py`), or `python:module:function` for one of your own."""


def main(argv: list[str] | None = None) -> int:
    """Exit code 0; 2 when something the user gave is wrong, 1 when the reward scored no sample at all."""
    try:
        run, config = read_command(sys.argv[1:] if argv is None else argv)
        records = rescore(run, config)
    except KeyboardInterrupt:
        print("interrupted; nothing was kept", file=sys.stderr)
        return INTERRUPTED
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return USER_ERROR
    if all(record.value is None for record in records):
        print(f"error: {config.called} scored no sample: {records[0].detail}", file=sys.stderr)
        return REWARD_ERROR
    return 0


def read_command(argv: Sequence[str]) -> tuple[Path, RewardConfig]:
    """The run's folder and the reward; `--batch_size` is as good as `--batch-size`.

    Raises:
        ValueError: an unknown key or an impossible value; one line each.
    """
    arguments = parse(Arguments, argv)
    config = RewardConfig.model_validate(arguments.model_dump(exclude={"run"}))
    return arguments.run.expanduser(), config


def rescore(run: Path, config: RewardConfig) -> list[Rescored]:
    """Score all saved samples, print the table as it grows, write the files.

    Raises:
        ValueError: the run's files or the reward cannot be used; one line.
    """
    grids = saved_grids(run)
    hush_libraries()
    worker = build_worker(config)
    folder = run / "rescores"
    folder.mkdir(exist_ok=True)
    path = folder / f"{file_name(config.called)}.jsonl"
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    records: list[Rescored] = []
    print(HEADER)
    try:
        with partial.open("w", encoding="utf-8") as file:
            for number, grid in enumerate(grids):
                of_grid = score_grid(worker, config, grid, number)
                file.writelines(json.dumps(asdict(record)) + "\n" for record in of_grid)
                print(row(of_grid), flush=True)
                records += of_grid
        partial.rename(path)
    finally:
        partial.unlink(missing_ok=True)
    print(overall(records))
    print(path)
    print(save_plot(records, config.called, path.with_suffix(".png")))
    return records


def score_grid(worker: RewardWorker, config: RewardConfig, grid: SavedGrid, number: int) -> list[Rescored]:
    """What the reward says of each sample of a grid."""
    samples = grid.sidecar.samples
    prompts, metadata = tuple(s.prompt for s in samples), tuple(s.metadata for s in samples)
    (result,) = worker.run((RewardRequest(number, prompts, metadata, one_by_one=True),), grid.images())
    statuses, details = list(result.statuses), list(result.details)
    values = _combined(config, result, prompts)
    for index, status in enumerate(statuses):
        if status is Status.OK and not np.isfinite(values[index]):
            statuses[index], details[index] = Status.INVALID, "has no value in this round"
    return [
        Rescored(
            version=grid.sidecar.version,
            kind=grid.kind,
            index=index,
            prompt=sample.prompt,
            reward=sample.reward,
            rewards=dict(sample.rewards),
            value=float(values[index]) if statuses[index] is Status.OK else None,
            status=statuses[index].value,
            detail=details[index],
            provenance=result.provenance,
        )
        for index, sample in enumerate(samples)
    ]


def file_name(called: str) -> str:
    """What a reward is called, as one name on any file system."""
    return re.sub(r"[^\w.-]+", "-", called).lstrip(".") or "reward"


def _combined(config: RewardConfig, result: RewardResult, prompts: Sequence[str]) -> np.ndarray:
    """Values [N]; those of a reward of a whole round from the features of all that have some."""
    place = entry(config.name).combine
    if not place:
        return result.values
    values = np.full(len(prompts), np.nan, np.float32)
    valid = [index for index, status in enumerate(result.statuses) if status is Status.OK]
    if valid:
        values[valid] = found(place)(result.values[valid], [prompts[index] for index in valid])
    return values


if __name__ == "__main__":
    sys.exit(main())
