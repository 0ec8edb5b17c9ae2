"""Measures the exported model: does a judge of real pictures see the animal that was prompted?"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline
from PIL import Image, ImageDraw
from torch import Tensor, nn

from actors.bundled.judge import accuracy, augmented, labels_of, new_judge, train_judge
from actors.bundled.pictures import animals, with_article
from actors.bundled.work import Pictures, load_pictures

HELD_OUT_STYLE = "noto"
"""All 45 animals are in it."""


def load_pipeline(folder: Path) -> StableDiffusionPipeline:
    """The model in float32, without progress bars."""
    pipeline = StableDiffusionPipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def sample(
    pipeline: StableDiffusionPipeline,
    prompts: list[str],
    each: int,
    steps: int,
    scale: float,
    seed: int,
) -> Tensor:
    """Images ``[len(prompts) * each, 3, 64, 64]`` in [-1, 1]; image ``i`` has seed ``seed + i``."""
    repeated = [prompt for prompt in prompts for _ in range(each)]
    found = []
    for first in range(0, len(repeated), 40):
        part = repeated[first : first + 40]
        random = [torch.Generator().manual_seed(seed + first + i) for i in range(len(part))]
        images = pipeline(
            part,
            num_inference_steps=steps,
            guidance_scale=scale,
            generator=random,
            output_type="pt",
        ).images
        found.append(images * 2 - 1)
    return torch.cat(found).float()


def get_judge(pictures: Pictures, path: Path, steps: int, seed: int) -> tuple[nn.Module, dict[str, float]]:
    """A judge of all styles, and how good judges are on pictures not seen; cached at ``path``."""
    if path.exists():
        saved = torch.load(path, weights_only=True)
        judge = new_judge(len(animals())).eval()
        judge.load_state_dict(saved["judge"])
        return judge, saved["figures"]
    labels = labels_of(pictures)
    held = torch.tensor([entry["style"] == HELD_OUT_STYLE for entry in pictures.entries])
    known, unseen = (torch.nonzero((labels >= 0) & part)[:, 0] for part in (~held, held))
    partial = train_judge(pictures, known, steps, seed)
    first, five = accuracy(partial, pictures.batch(unseen), labels[unseen])
    everything = torch.nonzero(labels >= 0)[:, 0]
    judge = train_judge(pictures, everything, steps, seed)
    random = torch.Generator().manual_seed(seed + 1)
    again = accuracy(judge, augmented(pictures.batch(everything), random), labels[everything])
    figures = {
        "held_out_style_top1": first,
        "held_out_style_top5": five,
        "augmented_real_top1": again[0],
    }
    torch.save({"judge": judge.state_dict(), "figures": figures}, path)
    return judge, figures


@torch.inference_mode()
def reconstructed(pipeline: StableDiffusionPipeline, images: Tensor) -> Tensor:
    """Images through the autoencoder and back: what a perfect UNet could reach."""
    return pipeline.vae.decoder(pipeline.vae.encoder(images)).clamp(-1, 1)


def contact_sheet(images: Tensor, names: list[str], each: int, path: Path) -> None:
    """Three columns of animals, ``each`` samples in a labelled row."""
    columns, side, label = 3, 64, 68
    per_column = -(-len(names) // columns)
    width = label + each * side + 8
    sheet = Image.new("RGB", (columns * width, per_column * side), "white")
    draw = ImageDraw.Draw(sheet)
    pixels = ((images.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()
    for place, name in enumerate(names):
        left, top = (place // per_column) * width, (place % per_column) * side
        draw.text((left + 4, top + 26), name, fill="black")
        for index in range(each):
            picture = Image.fromarray(pixels[place * each + index])
            sheet.paste(picture, (left + label + index * side, top))
    sheet.quantize(256, dither=Image.Dither.NONE).save(path, optimize=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="folder with pictures.npz")
    parser.add_argument("--model", type=Path, default=Path(__file__).parent / "emoji")
    parser.add_argument("--each", type=int, default=8, help="images per animal")
    parser.add_argument("--steps", type=int, default=20, help="DDIM steps, eta 0")
    parser.add_argument("--guidance", type=float, nargs="+", default=[3.0])
    parser.add_argument("--judge-steps", type=int, default=800)
    parser.add_argument("--sheet", type=Path, help="contact sheet of the last guidance scale")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    pictures = load_pictures(arguments.work)
    judge_file = arguments.work / "judge.pt"
    judge, figures = get_judge(pictures, judge_file, arguments.judge_steps, arguments.seed)
    pipeline = load_pipeline(arguments.model)
    rows = torch.nonzero(labels_of(pictures) >= 0)[:, 0]
    through = reconstructed(pipeline, pictures.batch(rows))
    figures["reconstructed_real_top1"] = accuracy(judge, through, labels_of(pictures)[rows])[0]
    print(json.dumps({"judge": figures}), flush=True)
    names = animals()
    wanted = torch.arange(len(names)).repeat_interleave(arguments.each)
    for scale in arguments.guidance:
        began = time.monotonic()
        prompts = [with_article(name) for name in names]
        images = sample(pipeline, prompts, arguments.each, arguments.steps, scale, arguments.seed)
        first, five = accuracy(judge, images, wanted)
        seen = judge(images).argmax(1).eq(wanted).view(len(names), -1).float().mean(1)
        weakest = {names[i]: round(seen[i].item(), 2) for i in seen.argsort()[:8].tolist()}
        print(json.dumps({"guidance": scale, "top1": first, "top5": five, "weakest": weakest,
                          "seconds": time.monotonic() - began}), flush=True)  # fmt: skip
    if arguments.sheet:
        contact_sheet(images, names, arguments.each, arguments.sheet)


if __name__ == "__main__":
    main()
