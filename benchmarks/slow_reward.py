"""What a slow reward costs: `python -m benchmarks.slow_reward` prints one JSON line.

The bundled model is trained with a reward that costs nothing and with one that takes as long as drawing the images, as
a big model on a device of its own would; the runs in turn. All denoising steps are trained on, as in the paper, so
training takes about twice as long as drawing (`--window 2 6` trains on half of them, as the presets do). Bound: rounds
at most a tenth longer. With lag 1 a round takes as long as the slower of training, and drawing with the scoring of its
last task; where both are alike, lag 2 hides the scoring too.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

SECONDS = "DDPO_SECONDS_PER_IMAGE"
WARM_UP_ROUNDS = 2
BOUND = 1.10


def brightness(images: np.ndarray, prompts: list[str], metadata: list[dict[str, Any]]) -> np.ndarray:
    """Mean pixel value, after the time that the environment asks for."""
    time.sleep(float(os.environ.get(SECONDS, "0")) * len(images))
    return images.astype(np.float64).mean(axis=(1, 2, 3))


def rounds_of(runs: Path, name: str, arguments: argparse.Namespace, seconds_per_image: float) -> list[dict[str, Any]]:
    """Rows of `metrics.jsonl` of one run, those of the warm-up left out."""
    variables = json.dumps({"env_vars": {SECONDS: str(seconds_per_image)}})
    rounds = arguments.rounds
    command = [
        *(sys.executable, "-m", "learner.main", "compressibility"),
        *("--rewards.name", "python:benchmarks.slow_reward:brightness", "--rewards.runtime-env", variables),
        *("--run.name", name, "--run.dir", str(runs), "--run.rounds", str(rounds), "--log.images", "0"),
        *("--schedule.lag", str(arguments.lag), "--learner.step-window", json.dumps(arguments.window)),
        *("--evaluation.samples", "16", "--checkpoint.every", str(rounds), "--no-cluster.dashboard"),
    ]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, timeout=1800)
    rows = [json.loads(line) for line in (runs / name / "metrics.jsonl").read_text("utf-8").splitlines()]
    return rows[WARM_UP_ROUNDS:]


def median(rows: list[dict[str, Any]], key: str) -> float:
    return statistics.median(row[key] for row in rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--lag", type=int, default=1)
    parser.add_argument("--window", type=int, nargs=2, default=[0, 8], help="denoising steps that are trained on")
    arguments = parser.parse_args()
    fast: list[dict[str, Any]] = []
    slow: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as runs:
        for repeat in range(arguments.repeats):
            fast += rounds_of(Path(runs), f"fast-{repeat}", arguments, 0.0)
            samples = fast[0]["num_samples"]
            slow += rounds_of(Path(runs), f"slow-{repeat}", arguments, median(fast, "sampling_seconds") / samples)
    ratio = median(slow, "round_seconds") / median(fast, "round_seconds")
    record = {
        "benchmark": "slow_reward",
        "value": round(ratio, 4),
        "unit": "round with a reward as slow as sampling / round with a reward of no time",
        "bound": BOUND,
        "ratio": round(ratio / BOUND, 4),
        "round_seconds": [round(median(rows, "round_seconds"), 3) for rows in (fast, slow)],
        "sampling_seconds": [round(median(rows, "sampling_seconds"), 3) for rows in (fast, slow)],
        "scoring_seconds": [round(median(rows, "scoring_seconds"), 3) for rows in (fast, slow)],
        "lag": arguments.lag,
        "window": arguments.window,
        "rounds": len(slow),
        "machine": f"{platform.machine()}, {os.cpu_count()} CPUs",
        "python": platform.python_version(),
    }
    print(json.dumps(record))


if __name__ == "__main__":
    main()
