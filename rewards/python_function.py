"""A function of the user's own as a reward: `python:module:function`.

It takes images (uint8 [batch, 3, height, width]), prompts (list of str) and, if it wants them, metadata (list of dict).
It returns a number for each image; None is no score. It gets copies, so it may write into them.
"""

from __future__ import annotations

import copy
import difflib
import hashlib
import inspect
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from rewards.config import RewardConfig
from rewards.reward import Images, Metadata, Scores, Status

Function = Callable[..., Any]


@dataclass(frozen=True, slots=True)
class PythonFunction:
    """The user's function behind the contract of a reward."""

    name: str
    function: Function
    takes_metadata: bool
    provenance: str

    def __call__(self, images: Images, prompts: Sequence[str], metadata: Sequence[Metadata]) -> Scores:
        """Raises:
        TypeError: the function returned something else than numbers.
        """
        arguments = (images.copy(), list(prompts), [copy.deepcopy(dict(of_prompt)) for of_prompt in metadata])
        return as_scores(self.function(*arguments[: 3 if self.takes_metadata else 2]))


def build(config: RewardConfig) -> PythonFunction:
    """Import the function.

    Raises:
        ValueError: it is not there, or no function that could be a reward; one line with the cure.
    """
    _, module_name, function_name = config.name.split(":")
    module = _imported(config.name, module_name)
    function = getattr(module, function_name, None)
    if function is None:
        close = difflib.get_close_matches(function_name, [name for name in vars(module) if name[0] != "_"])
        hint = (
            f"did you mean {' or '.join(close)}?" if close else f"{module.__file__ or module_name} defines it nowhere"
        )
        raise ValueError(f"reward {config.name}: {module_name} has no {function_name}; {hint}")
    return PythonFunction(
        config.name, function, _takes_metadata(config.name, function), _provenance(config.name, module)
    )


def as_scores(returned: Any) -> Scores:
    """Numbers of any kind as float32; None is a failure of its image. How many there must be is not checked here."""
    array = np.asarray(returned)
    if array.ndim not in (1, 2) or array.dtype.kind not in "biufO":
        what = f"an array of {array.dtype}" if array.ndim in (1, 2) else type(returned).__name__
        raise TypeError(f"the function returned {what}, not a list of one number per image")
    failures: dict[int, tuple[Status, str]] = {}
    if array.dtype.kind == "O":
        missing = [index for index, value in enumerate(array) if value is None]
        failures = dict.fromkeys(missing, (Status.FAILED, "the function returned None"))
        array = np.array([_number(value) for value in array], dtype=np.float64)
    with np.errstate(over="ignore"):  # becomes inf, which is invalid
        return Scores(array.astype(np.float32), failures=failures)


def _number(value: Any) -> float:
    if isinstance(value, str | bytes):
        raise TypeError(f"the function returned {value!r}, not a number")
    return np.nan if value is None else float(value)


def _imported(name: str, module_name: str) -> ModuleType:
    """The module; the current folder counts as a place for it even under an installed command, after all others."""
    if os.getcwd() not in sys.path and "" not in sys.path:
        sys.path.append(os.getcwd())
    try:
        return import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name and (module_name == error.name or module_name.startswith(f"{error.name}.")):
            raise ValueError(
                f"reward {name}: no module {error.name}; put {error.name.replace('.', '/')}.py into the folder that "
                "you run or submit from"
            ) from error
        raise ValueError(
            f"reward {name}: {module_name} imports {error.name}, which is not there; install it where rewards run "
            "(see rewards.runtime_env)"
        ) from error
    except (Exception, SystemExit) as error:  # the user's module may raise anything
        first_line = str(error).partition("\n")[0]
        raise ValueError(
            f"reward {name}: importing {module_name} ended with {type(error).__name__}: {first_line}; "
            f"`python -c 'import {module_name}'` shows where"
        ) from error


def _takes_metadata(name: str, function: Any) -> bool:
    """Whether to call it with three arguments rather than two.

    A third parameter with a default is the function's own affair, unless it is called metadata.
    """
    if not callable(function):
        raise ValueError(f"reward {name}: that is a {type(function).__name__}, not a function")
    if inspect.isclass(function):
        raise ValueError(f"reward {name}: that is a class; name a function, or an instance of it with __call__")
    call = function if inspect.isroutine(function) else type(function).__call__
    if inspect.iscoroutinefunction(call) or inspect.isasyncgenfunction(call) or inspect.isgeneratorfunction(call):
        raise ValueError(f"reward {name}: that is async or a generator; give a plain function that returns numbers")
    try:
        signature = inspect.signature(function)
    except ValueError:  # some functions in C have none
        return True
    positional = [
        parameter
        for parameter in signature.parameters.values()
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD, parameter.VAR_POSITIONAL)
    ]
    third = next((p for i, p in enumerate(positional) if i == 2 or p.kind is p.VAR_POSITIONAL), None)
    wants = third is not None and (third.default is third.empty or third.name == "metadata")
    try:
        signature.bind(*("images", "prompts", "metadata")[: 3 if wants else 2])
    except TypeError as error:
        raise ValueError(
            f"reward {name}: its arguments are {signature}; a reward is called as (images, prompts) or "
            "(images, prompts, metadata)"
        ) from error
    return wants


def _provenance(name: str, module: ModuleType) -> str:
    """With the digest of the module's own source; of what it imports nothing is known."""
    path = Path(module.__file__) if module.__file__ else None
    digest = hashlib.sha256(path.read_bytes()).hexdigest() if path is not None else "unknown"
    return f"{name}: source sha256 {digest}"
