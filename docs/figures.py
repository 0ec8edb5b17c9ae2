"""Draw the README's pictures from runs, and print its table: `python docs/figures.py OUT.png runs/A runs/B runs/C`.

Left the mean reward of each round, one line a run; right the fixed evaluation before and after the first run.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from PIL import Image

SHOWN_ROWS = 4


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def evaluation_grid(run: Path, which: int) -> Image.Image:
    """The first rows of the first (0) or last (-1) evaluation's grid."""
    sheet = Image.open(sorted((run / "samples").glob("evaluation-*.png"))[which])
    rows = round((sheet.height + 1) / ((sheet.width + 1) / 8))
    return sheet.crop((0, 0, sheet.width, sheet.height * min(SHOWN_ROWS, rows) // rows))


def draw(out: Path, runs: list[Path]) -> None:
    figure, (curve, before, after) = plt.subplots(1, 3, figsize=(14, 3.4), width_ratios=[1.1, 1.4, 1.4])
    for run in runs:
        rounds = lines(run / "metrics.jsonl")
        samples, total = [], 0
        for record in rounds:
            total += record["num_samples"]
            samples.append(total)
        (drawn,) = curve.plot(samples, [r["reward_mean"] for r in rounds], label=run.name, linewidth=1.2)
        evaluations = lines(run / "evaluation.jsonl")
        places = [0 if e["version"] == 0 else samples[e["version"] - 1] for e in evaluations]
        curve.plot(places, [e["mean"] for e in evaluations], "o", color=drawn.get_color(), markersize=4)
    curve.set_xlabel("reward queries (samples trained on)")
    curve.set_ylabel("mean reward")
    curve.legend(fontsize=7, title="dots: fixed evaluation", title_fontsize=7)
    curve.grid(alpha=0.3)
    for axes, which, title in ((before, 0, "version 0"), (after, -1, "last version")):
        axes.imshow(evaluation_grid(runs[0], which))
        axes.set_title(f"{title}, same prompts and seeds", fontsize=9)
        axes.axis("off")
    figure.tight_layout()
    figure.savefig(out, dpi=110)


def table_row(run: Path) -> str:
    """Evaluation before and after, as a line of Markdown."""
    summary = json.loads((run / "summary.json").read_text("utf-8"))
    first, last = abs(summary["eval_reward_first"]), abs(summary["eval_reward_last"])
    errors = abs(summary["eval_change_standard_errors"])
    samples = summary["ledger"]["trained"]
    return (
        f"| `{run.name}` | {first:.3f} | {last:.3f} | {(last - first) / first:+.1%} | {errors:.1f} "
        f"| {samples} | {summary['seconds']:.0f} |"
    )


if __name__ == "__main__":
    runs = [Path(run) for run in sys.argv[2:]]
    draw(Path(sys.argv[1]), runs)
    print("| run | before | after | change | standard errors | samples | seconds |\n|---|---|---|---|---|---|---|")
    print("\n".join(table_row(run) for run in runs))
