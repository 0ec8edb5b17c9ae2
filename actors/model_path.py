"""Where a model lies, and whether it is one we can train: answered before anything is started."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path

SUPPORTED = "StableDiffusionPipeline"


def resolve_model(path: str) -> str:
    """The folder of a bundled or local model, or the hub id as it is.

    Raises:
        ValueError: the folder is missing or holds no supported pipeline; the message names the cure.
    """
    bundled = resources.files("actors") / "bundled" / path
    if path.isidentifier() and bundled.is_dir():
        return _checked(Path(str(bundled)))
    folder = Path(path).expanduser()
    if folder.is_dir():
        return _checked(folder)
    looks_like_hub_id = path.count("/") == 1 and path[0] not in "./~"
    if looks_like_hub_id:
        return path
    raise ValueError(
        f"model.path: no folder {path}; give `emoji`, a folder in diffusers format or a hub id like org/name"
    )


def _checked(folder: Path) -> str:
    index = folder / "model_index.json"
    try:
        class_name = json.loads(index.read_text("utf-8")).get("_class_name")
    except FileNotFoundError as error:
        raise ValueError(
            f"model.path: {folder} has no model_index.json; it must be a pipeline folder of diffusers"
        ) from error
    except (json.JSONDecodeError, UnicodeDecodeError, AttributeError) as error:
        raise ValueError(f"model.path: {index} is damaged; fetch the model again") from error
    if class_name != SUPPORTED:
        raise ValueError(
            f"model.path: {folder} is a {class_name}; supported is {SUPPORTED} (Stable Diffusion 1.x, 2.x)"
        )
    return str(folder)
