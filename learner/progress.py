"""What a person sees of a run: a bar on a terminal, plain lines anywhere else."""

from __future__ import annotations

import sys
from typing import Any, Protocol, runtime_checkable

from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from learner.update import UpdateReport


@runtime_checkable
class Progress(Protocol):
    """Told of what happens; `close` ends the display."""

    def say(self, line: str) -> None: ...
    def round_trained(self, report: UpdateReport, record: dict[str, Any]) -> None: ...
    def evaluated(self, version: int, mean: float) -> None: ...
    def close(self) -> None: ...


class Lines:
    """One plain line per event, for job logs and pipes."""

    def __init__(self, rounds: int) -> None:
        self._rounds = rounds

    def say(self, line: str) -> None:
        print(line, flush=True)

    def round_trained(self, report: UpdateReport, record: dict[str, Any]) -> None:
        self.say(f"round {report.version}/{self._rounds}  {_facts(report, record)}")

    def evaluated(self, version: int, mean: float) -> None:
        self.say(f"evaluation of version {version}: mean reward {mean:.4f}")

    def close(self) -> None:
        pass


class Terminal:
    """A bar over the rounds."""

    def __init__(self, rounds: int, done: int) -> None:
        self._bar = Bar(
            TextColumn("round {task.completed}/{task.total}"),
            BarColumn(),
            TextColumn("{task.fields[facts]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=Console(file=sys.stdout),
        )
        self._task = self._bar.add_task("rounds", total=rounds, completed=done, facts="starting")
        self._bar.start()

    def say(self, line: str) -> None:
        self._bar.console.print(line, highlight=False)

    def round_trained(self, report: UpdateReport, record: dict[str, Any]) -> None:
        self._bar.update(self._task, completed=report.version, facts=_facts(report, record))

    def evaluated(self, version: int, mean: float) -> None:
        self.say(f"evaluation of version {version}: mean reward {mean:.4f}")

    def close(self) -> None:
        self._bar.stop()


def progress(rounds: int, done: int) -> Progress:
    """A bar if somebody watches, lines if not."""
    return Terminal(rounds, done) if sys.stdout.isatty() else Lines(rounds)


def _facts(report: UpdateReport, record: dict[str, Any]) -> str:
    return (
        f"reward {record['reward_mean']:.4f} ± {record['reward_std']:.4f}  {record['images_per_s']:.1f} images/s  "
        f"lag {report.staleness}  clipped {report.clip_fraction:.0%}"
    )
