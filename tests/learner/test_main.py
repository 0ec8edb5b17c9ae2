"""Bad input to the whole program: exit code 2, one line that names the cure, nothing written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from learner.main import main
from tests.tiny_run import folder_of, tiny_config, write_preset


@pytest.fixture
def tiny(tiny_model: Path, tmp_path: Path) -> list[str]:
    """Words that would run if nothing were wrong."""
    return [write_preset(tiny_config(tiny_model, tmp_path / "runs"), tmp_path / "tiny.toml")]


UNREACHABLE = ["--cluster.kind", "ray", "--cluster.address", "127.0.0.1:1"]
"""A cluster that would be complained of if it were looked for before the mistake is found."""


def refused(words: list[str], capsys: pytest.CaptureFixture[str], runs: Path) -> str:
    """The one line."""
    before = sorted(runs.rglob("*"))
    capsys.readouterr()
    assert main(words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert sorted(runs.rglob("*")) == before, "something was written"
    return line


def test_an_unknown_preset(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["nonsense", "--run.dir", str(tmp_path)]
    assert "no preset 'nonsense' (shipped: alignment, compressibility, " in refused(words, capsys, tmp_path)


def test_a_missing_model(tiny: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = refused([*tiny, *UNREACHABLE, "--model.path", str(tmp_path / "nowhere")], capsys, tmp_path / "runs")
    assert f"no folder {tmp_path / 'nowhere'}; give `emoji`" in line


def test_a_folder_that_is_no_model(tiny: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    line = refused([*tiny, "--model.path", str(tmp_path / "empty")], capsys, tmp_path / "runs")
    assert "has no model_index.json" in line


@pytest.mark.parametrize("check", [[], ["--check"]])
def test_a_model_of_an_unsupported_class(
    tiny: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], check: list[str]
) -> None:
    (tmp_path / "flux").mkdir()
    (tmp_path / "flux" / "model_index.json").write_text(json.dumps({"_class_name": "FluxPipeline"}))
    line = refused([*tiny, "--model.path", str(tmp_path / "flux"), *check], capsys, tmp_path / "runs")
    assert "is a FluxPipeline; supported is StableDiffusionPipeline" in line


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "holds no prompt; write one a line"),
        (b"\n# a comment\n  \n", "holds no prompt; write one a line"),
        (b"a cat\na d\xf6g\n", "is not UTF-8 text (byte 9); save it as UTF-8"),
    ],
    ids=["empty", "comments", "latin-1"],
)
def test_a_prompt_file_without_a_prompt(
    tiny: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes, reason: str
) -> None:
    (tmp_path / "prompts.txt").write_bytes(content)
    line = refused([*tiny, "--prompts.source", str(tmp_path / "prompts.txt")], capsys, tmp_path / "runs")
    assert reason in line


def test_a_missing_prompt_file(tiny: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = refused([*tiny, *UNREACHABLE, "--prompts.source", "nowhere.txt"], capsys, tmp_path / "runs")
    assert "nowhere.txt is no readable file and no shipped set (shipped: animals45" in line


def test_a_run_that_exists(tiny: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*tiny, "--run.rounds", "1"]) == 0
    line = refused(tiny, capsys, tmp_path / "runs")
    assert f"{tmp_path / 'runs' / 'tiny'} exists; choose another --run.name, or go on with it by --resume" in line


def test_resume_of_nothing(tiny: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "--resume: no run at " in refused([*tiny, "--resume"], capsys, tmp_path / "runs")
    words = ["--resume", "--run.dir", str(tmp_path / "runs")]
    assert "--resume: no run under " in refused(words, capsys, tmp_path / "runs")


def test_resume_goes_on_with_the_newest_run_under_its_own_configuration(
    tiny: list[str], tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = tmp_path / "runs"
    config = tiny_config(tiny_model, runs, run={"rounds": 2})
    assert main([*tiny, "--run.rounds", "2"]) == 0
    line = refused(["--resume", "--run.dir", str(runs), "--schedule.lag", "1"], capsys, runs)
    assert "schedule.lag was 0 in this run and cannot become 1; start a new run" in line
    words = ["--resume", "--run.dir", str(runs), "--run.rounds", "3", "--samplers.num", "2", "--checkpoint.every", "1"]
    assert main(words) == 0
    assert "resumed at version 2" in capsys.readouterr().out
    assert json.loads((folder_of(config) / "summary.json").read_text())["version"] == 3


def test_resume_without_a_whole_checkpoint(tiny: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*tiny, "--run.rounds", "1"]) == 0
    for manifest in (tmp_path / "runs").rglob("manifest.json"):
        manifest.unlink()
    line = refused([*tiny, *UNREACHABLE, "--resume", "--run.rounds", "2"], capsys, tmp_path / "runs")
    assert "no whole checkpoint under " in line


@pytest.mark.ray
def test_gpus_that_no_node_has(
    ray_session: None, tiny: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = refused([*tiny, "--cluster.kind", "ray", "--samplers.num-gpus", "99"], capsys, tmp_path / "runs")
    assert "sampler needs GPU 99 each, 1 of them; the cluster has GPU 0" in line


def test_a_cluster_that_is_not_there(tiny: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = refused([*tiny, *UNREACHABLE], capsys, tmp_path / "runs")
    assert "no Ray cluster answers at 127.0.0.1:1" in line
    assert "start one there (`ray start --head`)" in line
