"""Draw with and without an adapter: `python -m learner.sample --adapter DIR --prompt "a fox" -n 16 --out grid.png`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from PIL import Image, ImageDraw

from learner.command_line import tomllib
from rewards.flags import hush_libraries


def main(argv: list[str] | None = None) -> int:
    """Exit code 2, with one line, when something given is wrong."""
    parser = argparse.ArgumentParser(prog="python -m learner.sample", description=__doc__)
    parser.add_argument("--adapter", type=Path, required=True, help="folder with pytorch_lora_weights.safetensors")
    parser.add_argument("--prompt", required=True, help="what to draw")
    parser.add_argument("-n", "--num", type=int, default=16, help="images of each; both sides use the same noise")
    parser.add_argument("--out", type=Path, default=Path("grid.png"), help="picture to write")
    parser.add_argument(
        "--model", help="model of the adapter; default: that of the run the adapter lies in, else emoji"
    )
    parser.add_argument("--steps", type=int, help="denoising steps; default: the run's, else 20")
    parser.add_argument("--guidance-scale", type=float, help="default: the run's, else 3")
    parser.add_argument("--seed", type=int, default=0, help="seed of the noise")
    arguments = parser.parse_args(argv)
    try:
        draw(arguments)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{arguments.out}: left without the adapter, right with it")
    return 0


def draw(arguments: argparse.Namespace) -> None:
    """Write the two grids side by side.

    Raises:
        ValueError: the adapter or the model is not there, or a number is impossible.
    """
    if not (arguments.adapter / "pytorch_lora_weights.safetensors").is_file():
        raise ValueError(
            f"--adapter: {arguments.adapter} has no pytorch_lora_weights.safetensors; a run's is in its adapter/"
        )
    if arguments.num < 1:
        raise ValueError("-n must be at least 1")
    hush_libraries()
    from actors.config import DenoisingConfig, ModelConfig
    from actors.policy import PolicyVersion
    from actors.pretrained import PretrainedPolicy
    from actors.prompts import Stream, stream_seed
    from actors.rollout import RolloutWorker
    from actors.trajectory import SampleTask
    from learner.run_folder import grid

    run = _run_of(arguments.adapter)
    denoising = {
        "steps": arguments.steps or run.get("denoising", {}).get("steps", 20),
        "guidance_scale": arguments.guidance_scale or run.get("denoising", {}).get("guidance_scale", 3.0),
    }
    model = ModelConfig(path=arguments.model or run.get("model", {}).get("path", "emoji"))
    policy = PretrainedPolicy(model, "auto", lora_seed=0)
    worker = RolloutWorker(policy, DenoisingConfig(**denoising), threads=2)
    seeds = tuple(stream_seed(arguments.seed, Stream.EVALUATION, index) for index in range(arguments.num))
    version = PolicyVersion(0)
    task = SampleTask(0, 0, (arguments.prompt,) * arguments.num, seeds, version)
    without, _ = worker.run(task, policy.snapshot(version))  # a fresh adapter changes nothing
    policy.load_adapter(arguments.adapter)
    with_adapter, _ = worker.run(task, policy.snapshot(version))
    columns = max(1, round(arguments.num**0.5))
    side_by_side(grid(without, columns), grid(with_adapter, columns)).save(arguments.out)


def side_by_side(left: Image.Image, right: Image.Image) -> Image.Image:
    """Two grids with a caption each."""
    gap, head = 8, 14
    sheet = Image.new("RGB", (left.width + gap + right.width, head + left.height), "white")
    sheet.paste(left, (0, head))
    sheet.paste(right, (left.width + gap, head))
    pen = ImageDraw.Draw(sheet)
    pen.text((0, 1), "base", fill="black")
    pen.text((left.width + gap, 1), "adapter", fill="black")
    return sheet


def _run_of(adapter: Path) -> dict[str, dict]:
    """The configuration of the run that an adapter lies in, if it lies in one."""
    config = adapter.resolve().parent / "config.toml"
    return tomllib.loads(config.read_text("utf-8")) if config.is_file() else {}


if __name__ == "__main__":
    sys.exit(main())
