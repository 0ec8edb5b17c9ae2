"""From words on the command line to a checked configuration."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from datetime import datetime
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic_settings import CliImplicitFlag

from learner.config import RunConfig
from rewards.flags import FLAGS, parse

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

DEFAULT_PRESET = "compressibility"

MAY_CHANGE = {
    *("run.name", "run.rounds", "run.dir", "samplers.num", "checkpoint.every", "checkpoint.keep", "evaluation.every"),
    # Where and how patiently images are scored, not by what.
    *(f"rewards.{key}" for key in ("num", "num_cpus", "num_gpus", "runtime_env", "timeout_s", "attempts")),
    *(f"rewards.{key}" for key in ("hedge_percentile", "kind", "endpoints", "grpc", "cache", "min_valid_fraction")),
}
"""Keys that a resumed run may be given anew, besides the sections below: they change no result of a round.

A run's folder may have been moved or copied, so its name may be another than the saved one.
"""
MAY_CHANGE_SECTIONS = {"cluster", "log"}


class Arguments(RunConfig):
    """[PRESET] [--section.key VALUE ...]: fine-tune a text-to-image diffusion model with DDPO.

    PRESET is the name of a shipped preset (default: compressibility) or a TOML file, and comes first.
    """

    model_config = FLAGS

    resume: CliImplicitFlag[bool] = False
    """Go on with the run `run.name` from its newest whole checkpoint, under its own configuration."""
    check: CliImplicitFlag[bool] = False
    """Check the configuration, print the plan and end without starting anything."""


@dataclass(frozen=True, slots=True)
class Command:
    """What the user wants."""

    config: RunConfig
    resume: bool
    check: bool


def read_command(argv: list[str]) -> Command:
    """Preset first, flags over it.

    Raises:
        ValueError: an unknown preset, key or an impossible value; one line each, with the key's path.
    """
    words = list(argv)
    preset = words.pop(0) if words and not words[0].startswith("-") else DEFAULT_PRESET
    arguments = parse(Arguments, words, **load_preset(preset))
    if arguments.resume:
        arguments = _resumed(words, arguments)
    config = RunConfig.model_validate(arguments.model_dump(exclude={"resume", "check"}))
    if not config.run.name:
        name = f"{Path(preset).stem}-{datetime.now():%Y%m%d-%H%M%S}"
        config = config.model_copy(update={"run": config.run.model_copy(update={"name": name})})
    return Command(config, arguments.resume, arguments.check)


def presets() -> list[str]:
    return sorted(p.name.removesuffix(".toml") for p in (resources.files("learner") / "presets").iterdir())


def load_preset(preset: str) -> dict[str, Any]:
    """Sections of a shipped preset by name, or of a TOML file."""
    shipped = resources.files("learner") / "presets" / f"{preset}.toml"
    if preset in presets():
        return tomllib.loads(shipped.read_text("utf-8"))
    return _read_toml(Path(preset), f"no preset {preset!r} (shipped: {', '.join(presets())}) and no such file")


def _read_toml(path: Path, if_missing: str) -> dict[str, Any]:
    try:
        return tomllib.loads(path.expanduser().read_text("utf-8"))
    except (FileNotFoundError, IsADirectoryError) as error:
        raise ValueError(if_missing) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not TOML: {error}") from error


def _resumed(words: list[str], given: Arguments) -> Arguments:
    """The run's own saved configuration with this command's flags over it."""
    name = given.run.name or _newest_run(Path(given.run.dir).expanduser())
    path = Path(given.run.dir).expanduser() / name / "config.toml"
    saved = _read_toml(path, f"--resume: no run at {path.parent}; give its --run.name (and --run.dir)")
    resumed = parse(Arguments, words, **{**saved, "run": {**saved["run"], "name": name}})
    before, after = _flat(saved), _flat(resumed.model_dump(mode="json", exclude_none=True, exclude={"resume", "check"}))
    for key in sorted(before.keys() | after.keys()):
        free = key in MAY_CHANGE or key.partition(".")[0] in MAY_CHANGE_SECTIONS
        if before.get(key) != after.get(key) and not free:
            raise ValueError(
                f"--resume: {key} was {before.get(key)!r} in this run and cannot become {after.get(key)!r}; "
                "start a new run"
            )
    return resumed


def _newest_run(base: Path) -> str:
    runs = sorted(base.glob("*/config.toml"), key=lambda path: path.stat().st_mtime)
    if not runs:
        raise ValueError(f"--resume: no run under {base}; give --run.dir and --run.name")
    return runs[-1].parent.name


def _flat(sections: dict[str, Any]) -> dict[str, Any]:
    return {f"{section}.{key}": value for section, keys in sections.items() for key, value in keys.items()}
