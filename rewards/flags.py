"""From the words of a command line to a checked model; every command of this project reads its words so."""

from __future__ import annotations

import contextlib
import io
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_settings import CliApp, SettingsConfigDict, SettingsError

FLAGS = SettingsConfigDict(
    frozen=True,
    extra="forbid",
    use_attribute_docstrings=True,
    # No variable's name can begin so: CliApp would else take keys from variables called `run`, `log`, `check`, …
    env_prefix="=",
)
"""What a model whose keys are flags is configured by."""

Arguments = TypeVar("Arguments", bound=BaseModel)


def parse(arguments: type[Arguments], words: Sequence[str], **sections: Any) -> Arguments:
    """Flags over `sections`; `--batch_size` is as good as `--batch-size`.

    Raises:
        ValueError: an unknown key or an impossible value, one line each.
    """
    words = [re.sub(r"^--[^=]*", lambda flag: flag[0].replace("_", "-"), word) for word in words]
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            return CliApp.run(arguments, cli_args=words, **sections)
    except ValidationError as error:
        raise ValueError(mistakes(error)) from error
    except SettingsError as error:
        raise ValueError(str(error)) from error
    except SystemExit as ending:
        if not ending.code:
            raise
        raise ValueError(complaint.getvalue().strip().splitlines()[-1].partition("error: ")[2]) from ending


def mistakes(error: ValidationError, renamed: Mapping[str, str] | None = None) -> str:
    """Every mistake on a line of its own, with the key's path; `renamed` maps a model's keys to their flags."""
    lines: list[str] = []
    for mistake in error.errors():
        key = ".".join(str(part) for part in mistake["loc"])
        key = (renamed or {}).get(key, key)
        if mistake["type"] == "extra_forbidden":
            lines.append(f"{key}: no such key; --help lists all")
        else:
            message = mistake["msg"].removeprefix("Value error, ")
            lines.append(f"{key}: {message} (got {mistake['input']!r})" if key else message)
    return "\n".join(lines)


def hush_libraries() -> None:
    """No progress bars and advice of the libraries between our own lines; to be called before they are imported."""
    os.environ.setdefault("TQDM_DISABLE", "1")
    for name in ("TRANSFORMERS_VERBOSITY", "DIFFUSERS_VERBOSITY", "GRPC_VERBOSITY"):
        os.environ.setdefault(name, "error")
