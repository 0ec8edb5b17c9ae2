"""What an installation gets: pinned dependencies, and a wheel with everything that a run needs."""

from __future__ import annotations

import configparser
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[1]
REQUIREMENTS = [
    line for line in (PROJECT / "requirements.lock").read_text().splitlines() if line and not line.startswith("#")
]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-index", "--no-build-isolation"]
    subprocess.run([*command, str(PROJECT), "-w", str(out)], check=True, timeout=120)
    (path,) = out.iterdir()
    return zipfile.ZipFile(path)


def test_every_dependency_has_one_exact_version_wherever_it_is_installed() -> None:
    assert len(REQUIREMENTS) > 50
    for line in REQUIREMENTS:
        assert re.fullmatch(r"[a-z0-9._-]+==[0-9a-z.]+( ; .+)?", line), line


def test_torch_is_the_plain_release_without_cuda() -> None:
    assert [line for line in REQUIREMENTS if re.match(r"torch\b", line)] == ["torch==2.13.0"]
    assert [line for line in REQUIREMENTS if re.match(r"nvidia|cuda|triton", line)] == []


def test_every_direct_dependency_is_pinned() -> None:
    text = (PROJECT / "pyproject.toml").read_text("utf-8")
    block = text.partition("\ndependencies = [")[2].partition("\n]\n")[0]
    direct = re.findall(r'^  "([a-z0-9-]+)', block, re.MULTILINE)
    assert "torch" in direct
    pinned = {line.partition("==")[0] for line in REQUIREMENTS}
    assert set(direct) - pinned <= {"tomli"}, "tomli is for Python 3.10"


def test_the_wheel_carries_what_a_run_needs_and_no_more(wheel: zipfile.ZipFile) -> None:
    names = set(wheel.namelist())
    # What git does not ignore is what belongs to the project.
    for folder, pattern in [
        ("learner/presets", "*.toml"),
        ("actors/prompt_sets", "*.*"),
        ("actors/bundled/emoji", "**/*.*"),
        ("actors/bundled/pictures", "**/*.*"),
        ("rewards/bundled/captioner", "*.*"),
        ("rewards/bundled/clip", "*.*"),
        ("rewards/service", "*.proto"),
    ]:
        files = [path.relative_to(PROJECT).as_posix() for path in (PROJECT / folder).glob(pattern)]
        assert files, f"nothing in {folder}"
        assert set(files) <= names
    for package in ("actors", "cluster", "learner", "rewards"):
        assert f"{package}/config.py" in names
    assert any(name.endswith("/licenses/LICENSE") for name in names)
    assert {name.partition("/")[0] for name in names if ".dist-info" not in name} == {
        *("actors", "cluster", "learner", "rewards")
    }


def test_the_wheel_has_the_command(wheel: zipfile.ZipFile) -> None:
    (entry,) = (name for name in wheel.namelist() if name.endswith("entry_points.txt"))
    entries = configparser.ConfigParser()
    entries.read_string(wheel.read(entry).decode())
    assert entries["console_scripts"]["ddpo-train"] == "learner.main:main"


@pytest.mark.parametrize("ignore", [".gitignore", ".rayignore"])
def test_neither_git_nor_a_job_takes_the_environment_or_the_runs_along(ignore: str) -> None:
    lines = (PROJECT / ignore).read_text().splitlines()
    assert {".venv/", "runs/"} <= set(lines)
