"""Where a reward's model lies, what weights it has, and how it is loaded; what cannot be used is said in one line."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download

HUB_ID = re.compile(r"[\w-][\w.-]*/[\w.-]+")
TEXT_FILES = ("*.json", "*.txt", "*.model", "*.jinja", "merges.txt", "vocab.*")
"""Configuration, tokenizer and processor of a model."""
WEIGHTS = ("*.safetensors", "*.bin")
"""The first kind that a folder has is what transformers loads; it reads `.bin` with `weights_only`."""
CHUNK = 1 << 20


def model_folder(key: str, name: str, bundled: str = "", weights: bool = True) -> Path:
    """The folder of a model; one of the hub is downloaded unless it is there already.

    Args:
        key: the option that names it.
        name: a folder, a hub id, or `bundled` where there is a bundled model.
        bundled: name of that model under `rewards/bundled`; empty where there is none.
        weights: whether weights are needed, or only the text files.

    Raises:
        ValueError: there is none; the message names the cure.
    """
    if name == "bundled" and bundled:
        return Path(str(resources.files("rewards"))) / "bundled" / bundled
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder
    what = "a folder, `bundled`" if bundled else "a folder"
    if not HUB_ID.fullmatch(name):
        raise ValueError(f"rewards.{key}: no folder {name or '(empty)'}; give {what} or a hub id like org/name")
    if not weights:
        return downloaded(key, name, TEXT_FILES, f"give {what}")
    fetched = downloaded(key, name, (*TEXT_FILES, WEIGHTS[0]), f"give {what}")
    return fetched if any(fetched.glob(WEIGHTS[0])) else downloaded(key, name, WEIGHTS[1:], f"give {what}")


def downloaded(key: str, hub_id: str, patterns: tuple[str, ...], cure: str) -> Path:
    """The folder with those files of a hub id.

    Raises:
        ValueError: it is not on the hub, or the hub cannot be reached and the files are not cached.
    """
    try:
        return Path(snapshot_download(hub_id, allow_patterns=list(patterns)))
    except Exception as error:  # whatever the libraries under it raise, the files are not there
        raise ValueError(
            f"rewards.{key}: {hub_id} is neither here nor fetched from the hub ({reason(error)}); {cure}, or fetch it "
            "once where the hub can be reached"
        ) from error


def weight_files(folder: Path) -> list[Path]:
    """The files that a model's weights are loaded from, in the order of their names."""
    for pattern in WEIGHTS:
        if found := sorted(folder.glob(pattern)):
            return found
    return []


def sha256(*paths: Path) -> str:
    """Of files one after another, as `cat FILES | sha256sum` prints it."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            while chunk := file.read(CHUNK):
                digest.update(chunk)
    return digest.hexdigest()


def load_model(key: str, folder: Path, auto_class: Any, dtype: str, device: str, unused: tuple[str, ...] = ()) -> Any:
    """A model of transformers with all its weights, ready to be asked.

    Args:
        auto_class: whose `from_pretrained` loads it.
        dtype: as transformers spells it; `auto` is that of the file.
        unused: first parts of the names of weights that may be missing, since nobody asks them.

    Raises:
        ValueError: it cannot be read, or weights are missing or of another shape, which transformers only warns of.
    """
    options = {"dtype": dtype, "local_files_only": True, "trust_remote_code": False, "ignore_mismatched_sizes": True}
    model, report = loaded(key, folder, auto_class, output_loading_info=True, **options)
    mismatched = sorted(report["mismatched_keys"])
    if mismatched:
        name, there, wanted = mismatched[0]
        raise ValueError(
            f"rewards.{key}: {folder} does not fit its configuration: {name} is {tuple(there)}, not {tuple(wanted)} "
            f"({len(mismatched)} such weights); fetch the model again"
        )
    missing = sorted(name for name in report["missing_keys"] if not name.startswith(unused or (" ",)))
    if missing:
        raise ValueError(
            f"rewards.{key}: {folder} has no weights for {missing[0]} ({len(missing)} such weights); give a complete "
            f"{type(model).__name__}"
        )
    return model.eval().requires_grad_(False).to(device)


def loaded(key: str, folder: Path, auto_class: Any, **options: Any) -> Any:
    """What `auto_class.from_pretrained` makes of a folder.

    Raises:
        ValueError: it makes nothing of it.
    """
    try:
        return auto_class.from_pretrained(folder, **options)
    except Exception as error:  # whatever transformers raises, this folder cannot be used
        raise ValueError(
            f"rewards.{key}: {folder} cannot be loaded as {auto_class.__name__} ({reason(error)}); give another model"
        ) from error


def reason(error: Exception) -> str:
    """The first sentence or so of an exception, in one line."""
    words = " ".join(str(error).split())
    return f"{type(error).__name__}: {words[:300]}"


def device_of(name: str) -> str:
    """`auto` is CUDA where there is one.

    Raises:
        ValueError: there is no such device.
    """
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"rewards.device: {name!r} is no device of torch; give auto, cpu or cuda") from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(f"rewards.device: torch sees {torch.cuda.device_count()} CUDA devices, not {name}; give auto")
    return name


@contextmanager
def asking(threads: int) -> Iterator[None]:
    """No gradients, and that many CPU threads, which torch keeps for each calling thread by itself."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with torch.inference_mode():
            yield
    finally:
        torch.set_num_threads(before)
