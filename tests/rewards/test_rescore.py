"""Rescoring a run's saved samples: real grids, real rewards, and files that a user may have broken."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from learner.config import RunConfig
from learner.run_folder import RunFolder
from rewards import diversity
from rewards.config import RewardConfig
from rewards.reference_pictures import read_picture
from rewards.rescore import file_name, main, read_command
from rewards.rescore_report import Rescored, correlation, pairs, row
from rewards.saved_samples import saved_grids
from rewards.worker import build_reward

WIDTH, HEIGHT = 20, 16
CONTRASTS = np.linspace(10, 120, 11).reshape(-1, 1, 1, 1)


def pictures(count: int, seed: int) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(size=(count, 3, HEIGHT, WIDTH)) * CONTRASTS[:count]
    return (noise + 128).clip(0, 255).astype(np.uint8)


def save_grid(samples: Path, name: str, images: np.ndarray, columns: int = 8, gap: int = 1) -> None:
    """As the learner saves them, pasted picture by picture."""
    across, rows = min(columns, len(images)), -(-len(images) // columns)
    sheet = Image.new("RGB", (across * (WIDTH + gap) - gap, rows * (HEIGHT + gap) - gap), "white")
    for place, image in enumerate(images):
        corner = (place % columns * (WIDTH + gap), place // columns * (HEIGHT + gap))
        sheet.paste(Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0))), corner)
    samples.mkdir(parents=True, exist_ok=True)
    sheet.save(samples / f"{name}.png")
    old = build_reward(RewardConfig())(images, ("",) * len(images), ({},) * len(images)).values.tolist()
    record = {
        "version": int(name.rpartition("-")[2]),
        "columns": columns,
        "width": WIDTH,
        "height": HEIGHT,
        "gap": gap,
        "samples": [
            {
                "prompt": f"a {i % 2}",
                "metadata": {"n": i},
                "reward": v,
                "rewards": {"compressibility": v},
                "details": {},
            }
            for i, v in enumerate(old)
        ],
    }
    (samples / f"{name}.json").write_text(json.dumps(record))


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Two rounds and an evaluation, of 11, 3 and 4 samples."""
    folder = tmp_path / "runs" / "mine"
    save_grid(folder / "samples", "round-000002", pictures(3, 2))
    save_grid(folder / "samples", "round-000010", pictures(11, 10))
    save_grid(folder / "samples", "evaluation-000002", pictures(4, 5), gap=3)
    (folder / "config.toml").write_text('[run]\nname = "mine"\n')
    return folder


def lines(run: Path, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "rescores" / f"{name}.jsonl").read_text().splitlines()]


def test_the_images_are_cut_out_as_they_were_pasted_in(run: Path) -> None:
    grids = saved_grids(run)
    assert [(grid.kind, grid.sidecar.version) for grid in grids] == [("round", 2), ("evaluation", 2), ("round", 10)]
    for grid, expected in zip(grids, (pictures(3, 2), pictures(4, 5), pictures(11, 10)), strict=True):
        np.testing.assert_array_equal(grid.images(), expected)


def test_what_the_learner_saves_is_read(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run", RunConfig(), None)
    for version, count in ((3, 11), (4, 2)):
        samples = [
            {"prompt": "a fox", "metadata": {"n": i}, "reward": None, "rewards": {"x": 0.5}, "details": {"x": "saw it"}}
            for i in range(count)
        ]
        folder.images(f"round-{version:06d}", version, pictures(count, version), samples)
    folder.close()
    grids = saved_grids(tmp_path / "run")
    assert [grid.sidecar.version for grid in grids] == [3, 4]
    np.testing.assert_array_equal(grids[0].images(), pictures(11, 3))
    np.testing.assert_array_equal(grids[1].images(), pictures(2, 4))
    assert grids[0].sidecar.samples[10].model_dump() == {
        "prompt": "a fox",
        "metadata": {"n": 10},
        "reward": None,
        "rewards": {"x": 0.5},
    }


def test_incompressibility_is_minus_compressibility(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(run), "--reward", "incompressibility"]) == 0
    records = lines(run, "incompressibility")
    assert [(r["version"], r["kind"], r["index"]) for r in records] == [
        *((2, "round", i) for i in range(3)),
        *((2, "evaluation", i) for i in range(4)),
        *((10, "round", i) for i in range(11)),
    ]
    assert all(r["value"] == -r["reward"] == -r["rewards"]["compressibility"] for r in records)
    assert all(0 < r["value"] < 5 for r in records)
    assert {(r["status"], r["detail"]) for r in records} == {("ok", "")}
    assert records[1]["prompt"] == "a 1"
    assert records[0]["provenance"].startswith("incompressibility: jpeg quality 95")
    table = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert table[0] == ["version", "kind", "n", "failed", "mean", "old", "mean", "new", "correlation"]
    mean = float(np.mean([r["value"] for r in records if (r["version"], r["kind"]) == (10, "round")]))
    assert table[3] == ["10", "round", "11", "0", f"{-mean:.4f}", f"{mean:.4f}", "-1.0000"]
    assert table[4][:3] == ["all", "18", "0"]
    assert read_picture(run / "rescores" / "incompressibility.png").std() > 0
    assert sorted(path.name for path in (run / "rescores").iterdir()) == [
        "incompressibility.jsonl",
        "incompressibility.png",
    ]


def test_flags_reach_the_reward_and_a_label_names_the_files(run: Path) -> None:
    words = [str(run), "--reward", "incompressibility", "--jpeg.quality", "30", "--label", "rough", "--batch-size", "2"]
    assert main(words) == 0
    rough = [r["value"] for r in lines(run, "rough")]
    assert all(new < -old["reward"] for new, old in zip(rough, lines(run, "rough"), strict=True))
    expected = build_reward(RewardConfig.model_validate({"name": "incompressibility", "jpeg": {"quality": 30}}))
    np.testing.assert_array_equal(np.float32(rough[:3]), expected(pictures(3, 2), ("",) * 3, ({},) * 3).values)


def test_both_spellings_of_a_flag_and_its_value_are_left_alone() -> None:
    for flag in (["--batch-size", "16"], ["--batch_size=16"]):
        _, config = read_command(["runs/x", "--reward", "diversity", "--clip.model", "some-org/a-model", *flag])
        assert (config.name, config.batch_size, config.clip.model) == ("diversity", 16, "some-org/a-model")


def test_variables_of_the_environment_are_no_flags(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LABEL", "RUN", "REWARD", "label", "reward", "device"):
        monkeypatch.setenv(name, "from the environment")
    path, config = read_command(["runs/x", "--reward", "compressibility"])
    assert (path, config) == (Path("runs/x"), RewardConfig())


def test_samples_without_a_value_are_null_with_a_reason(
    run: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "picky.py").write_text(
        "def f(images, prompts, metadata):\n"
        "    if any(m['n'] == 1 for m in metadata): raise RuntimeError('not this one')\n"
        "    return [None if m['n'] == 2 else m['n'] for m in metadata]\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert main([str(run), "--reward", "python:picky:f"]) == 0
    records = lines(run, "python-picky-f")
    assert [r["value"] for r in records[:7]] == [0, None, None, 0, None, None, 3]
    assert [r["detail"] for r in records[:3]] == ["", "RuntimeError: not this one", "the function returned None"]
    assert [r["status"] for r in records[:3]] == ["ok", "failed", "failed"]
    assert capsys.readouterr().out.splitlines()[1].split()[:4] == ["2", "round", "1", "2"]


def test_where_no_sample_has_a_value_the_exit_code_tells(
    run: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "broken.py").write_text("def f(images, prompts): raise RuntimeError('no')\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert main([str(run), "--reward", "python:broken:f"]) == 1
    assert capsys.readouterr().err == "error: python:broken:f scored no sample: RuntimeError: no\n"
    assert {r["value"] for r in lines(run, "python-broken-f")} == {None}


class MeanColour:
    name, provenance = "diversity", "by a test"

    def image_embeddings(self, images: np.ndarray) -> np.ndarray:
        return images.mean(axis=(2, 3)).astype(np.float32)


def test_a_reward_of_a_whole_round_is_combined_over_each_grid(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diversity, "build", lambda config: diversity.Diversity(MeanColour()))
    assert main([str(run), "--reward", "diversity"]) == 0
    records = lines(run, "diversity")
    features = diversity.unit_embeddings(MeanColour(), pictures(11, 10))
    expected = diversity.combine(features, [f"a {i % 2}" for i in range(11)])
    np.testing.assert_array_equal(np.float32([r["value"] for r in records[7:]]), expected)
    assert [r["value"] is None for r in records[:3]] == [False, True, False], "of prompt 1 there is one sample only"
    assert (records[1]["status"], records[1]["detail"]) == ("invalid", "has no value in this round")


def test_without_matplotlib_there_is_a_table_and_a_line_that_tells_how_to_get_it(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert main([str(run), "--reward", "incompressibility"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[-1] == "no plot: matplotlib is not installed; pip install 'ddpo-ray[plots]'"
    assert len(out) == 7
    assert not list(run.glob("rescores/*.png"))
    assert len(lines(run, "incompressibility")) == 18


def rewrite(**changes: Any) -> Callable[[Path], object]:
    def spoil(run: Path) -> None:
        path = run / f"{BAD}.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return spoil


def with_sample(**changes: Any) -> Callable[[Path], object]:
    return rewrite(samples=[{"prompt": "a", "metadata": {}, "reward": 1.0, "rewards": {}} | changes] * 3)


BAD = "samples/round-000002"
REMOVE = "remove round-000002.png and .json"


@pytest.mark.parametrize(
    ("spoil", "parts"),
    [
        (lambda run: (run / f"{BAD}.json").write_text('{"version": 2, '), [f"{BAD}.json is damaged", REMOVE]),
        (lambda run: (run / f"{BAD}.json").write_bytes(b"\xff\xfe\0"), [f"{BAD}.json is damaged", REMOVE]),
        (lambda run: (run / f"{BAD}.json").write_text("[]"), [f"{BAD}.json is damaged", REMOVE]),
        (rewrite(samples=[]), [f"{BAD}.json is damaged (samples: ", REMOVE]),
        (rewrite(columns=0), [f"{BAD}.json is damaged (columns: ", REMOVE]),
        (with_sample(prompt=None), [f"{BAD}.json is damaged (samples.0.prompt: ", REMOVE]),
        (with_sample(reward=float("nan")), [f"{BAD}.json is damaged (samples.0.reward: ", REMOVE]),
        (rewrite(width=WIDTH + 1), [f"{BAD}.png cannot be used (62x16 pixels, 65x16 by its JSON)", REMOVE]),
        (lambda run: (run / f"{BAD}.png").write_bytes(b"no picture"), [f"{BAD}.png cannot be used (", REMOVE]),
        (
            lambda run: (run / f"{BAD}.png").write_bytes((run / f"{BAD}.png").read_bytes()[:1500]),
            [f"{BAD}.png cannot be used (", "truncated", REMOVE],
        ),
        (lambda run: (run / f"{BAD}.png").unlink(), [f"{BAD}.png is missing", "remove round-000002.json"]),
        (lambda run: (run / "config.toml").unlink(), ["is no folder of a run", "runs/NAME"]),
        (lambda run: [p.unlink() for p in run.glob("samples/*.json")], ["has no JSON files", "with this release"]),
        (lambda run: (run / "rescores").write_text(""), ["rescores"]),
    ],
)
def test_what_is_broken_is_one_line_before_anything_is_scored(
    run: Path, spoil: Callable[[Path], object], parts: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    spoil(run)
    assert main([str(run), "--reward", "incompressibility"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1
    for part in parts:
        assert part in captured.err


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--reward", "beauty"], "reward: no such reward; there are compressibility, "),
        ([], "arguments are required: --reward"),
        (
            ["--reward", "compressibility", "--batch-size", "0"],
            "batch_size: Input should be greater than or equal to 1",
        ),
        (["--reward", "compressibility", "--jpg.quality", "3"], "jpg.quality"),
        (["--reward", "compressibility", "--name", "x"], "--name"),
        (["--reward", "python:nowhere_at_all:f"], "no module nowhere_at_all"),
        (["--reward", "distribution_match"], "needs distribution.reference"),
        (["--reward", "compressibility", "another"], "another"),
    ],
)
def test_what_is_wrong_with_the_words_is_one_line(
    run: Path, words: list[str], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(run), *words]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert line in captured.err
    assert captured.err.count("\n") == 1, captured.err


def test_a_folder_that_is_not_there_or_not_given(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "nowhere"), "--reward", "compressibility"]) == 2
    assert "nowhere is no folder of a run" in capsys.readouterr().err
    assert main(["--reward", "compressibility"]) == 2
    assert capsys.readouterr().err == "error: the following arguments are required: RUN\n"


def test_as_a_command_its_help_needs_no_model_and_no_run() -> None:
    command = [sys.executable, "-m", "rewards.rescore", "--help"]
    end = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert "--reward" in end.stdout
    assert "--clip.model" in end.stdout


def sample(reward: float | None, value: float | None) -> Rescored:
    return Rescored(1, "round", 0, "a", reward, {}, value, "ok", "", "p")


def test_correlation_is_pearsons_over_samples_with_both() -> None:
    records = [sample(1.0, 2.0), sample(2.0, 1.0), sample(None, 7.0), sample(4.0, None), sample(5.0, 9.0)]
    assert pairs(records).tolist() == [[1, 2], [2, 1], [5, 9]]
    # of the deviations from the means 8/3 and 4: Σdxdy = 17, Σdx² = 26/3, Σdy² = 38
    assert correlation(pairs(records)) == pytest.approx(17 / (26 / 3 * 38) ** 0.5)
    assert np.isnan(correlation(pairs([sample(1.0, 2.0)])))
    assert np.isnan(correlation(pairs([sample(1.0, 2.0), sample(1.0, 3.0)])))
    assert row([sample(1.0, None)]).split() == ["1", "round", "0", "1", "-", "-", "-"]


def test_file_names_stay_in_their_folder() -> None:
    assert file_name("python:my.module:f") == "python-my.module-f"
    assert file_name("../../x") == "-..-x"
    assert file_name("..") == "reward"
