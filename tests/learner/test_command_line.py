"""From words to a configuration, and the one line that a mistake is answered with."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from learner.command_line import presets, read_command
from learner.config import RunConfig

SHIPPED = [
    "alignment",
    "compressibility",
    "incompressibility",
    "sd15-aesthetic",
    "sd15-alignment",
    "sd15-compressibility",
    "sd15-incompressibility",
    "style",
]
REWARDS = {"style": "clip_score"}


def refusal(*words: str) -> str:
    with pytest.raises(ValueError) as raised:
        read_command(list(words))
    return str(raised.value)


def preset_file(folder: Path, text: str) -> str:
    path = folder / "mine.toml"
    path.write_text(text)
    return str(path)


def test_these_presets_are_shipped() -> None:
    assert presets() == SHIPPED


@pytest.mark.parametrize("preset", SHIPPED)
def test_a_preset_names_its_own_reward(preset: str) -> None:
    assert read_command([preset]).config.rewards.name == REWARDS.get(preset, preset.removeprefix("sd15-"))


def test_without_a_word_it_is_compressibility_under_a_name_with_the_time() -> None:
    command = read_command([])
    assert command.config.rewards.name == "compressibility"
    assert command.config.run.name.startswith("compressibility-20")
    assert (command.resume, command.check) == (False, False)


def test_flags_come_over_the_preset_and_the_preset_over_defaults() -> None:
    preset, default = read_command(["incompressibility"]).config, RunConfig()
    flags = ["--run.rounds", "7", "--samplers.num", "3", "--rewards.jpeg.quality", "50", "--run.seed=5"]
    changed = read_command(["incompressibility", *flags, "--check"])
    assert changed.check
    assert preset.learner.learning_rate != default.learner.learning_rate
    assert changed.config.learner == preset.learner
    assert changed.config.denoising == preset.denoising
    run, samplers, rewards = changed.config.run, changed.config.samplers, changed.config.rewards
    assert (run.rounds, run.seed, samplers.num, rewards.jpeg.quality) == (7, 5, 3, 50)
    assert samplers.batch_size == preset.samplers.batch_size
    assert rewards.name == "incompressibility"


def test_no_environment_variable_sets_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    before = read_command(["--run.name", "a"])
    for name in ("run", "log", "resume", "check", "RUN", "CHECK", "run__rounds", "run.rounds"):
        monkeypatch.setenv(name, "1")
    assert read_command(["--run.name", "a"]) == before


def test_a_preset_may_be_a_file(tmp_path: Path) -> None:
    path = preset_file(tmp_path, "[run]\nrounds = 3\n[schedule]\nlag = 2\n")
    config = read_command([path, "--run.rounds", "4"]).config
    assert (config.run.rounds, config.schedule.lag) == (4, 2)
    assert config.run.name.startswith("mine-20")


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["nonsense"], f"no preset 'nonsense' (shipped: {', '.join(SHIPPED)}) and no such file"),
        (["--run.round", "3"], "unrecognized arguments: --run.round 3"),
        (["--sampler.num", "3"], "unrecognized arguments: --sampler.num 3"),
        (["--run.rounds", "0"], "run.rounds: Input should be greater than or equal to 1 (got '0')"),
        (["--run.rounds", "many"], "run.rounds: Input should be a valid integer"),
        (["--denoising.eta", "0"], "denoising.eta: Input should be greater than 0"),
        (["--schedule.lag", "-1"], "schedule.lag: Input should be greater than or equal to 0"),
        (["--checkpoint.keep", "1"], "checkpoint.keep: Input should be greater than or equal to 2"),
        (["--rewards.name", "beauty"], "rewards.name: no such reward; there are compressibility, incompressibility"),
        (["--cluster.kind", "slurm"], "cluster.kind: Input should be 'ray' or 'local'"),
        (["--run.name", "a/b"], "must be a plain folder name"),
        (["--prompts.template", "a cat"], "prompts.template 'a cat' needs {} where the entry goes"),
        (["--samplers.batch-size", "7"], "must be a multiple of samplers.batch_size (7)"),
        (["--learner.optimizer-steps", "65"], "learner.optimizer_steps (65) exceeds the 64 samples of a round"),
        (["--learner.prompt-buffer", "2"], "can never be reached with learner.prompt_buffer (2)"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_is_named_in_one_line(words: list[str], line: str) -> None:
    message = refusal(*words)
    assert line in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("[run]\nround = 3\n", "run.round: no such key; --help lists all"),
        ("[learner.optimizer]\nname = 'x'\n", "learner.optimizer: no such key"),
        ("[extra]\na = 1\n", "extra: no such key"),
        ("rounds = 3\n", "rounds: no such key"),
        ("run = 3\n", "run: "),
        ("[run\n", "mine.toml is not TOML: "),
    ],
    ids=["key", "subsection", "section", "top", "type", "syntax"],
)
def test_a_mistake_in_a_file_is_named_with_its_path(tmp_path: Path, text: str, line: str) -> None:
    message = refusal(preset_file(tmp_path, text))
    assert line in message
    assert "\n" not in message


def test_a_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_bytes(b"\xff\xfe\x00")
    assert "is not TOML" in refusal(str(path))


def test_every_mistake_has_a_line_of_its_own() -> None:
    assert len(refusal("--run.rounds", "0", "--schedule.lag", "-1").splitlines()) == 2


LIGHT = """
import sys
{}
heavy = {{"torch", "ray", "diffusers", "transformers", "numpy"}} & set(sys.modules)
assert not heavy, heavy
"""


def test_help_is_instant_and_loads_nothing_heavy() -> None:
    asking = """
from learner.main import main
try:
    main(["--help"])
except SystemExit as ending:
    assert not ending.code
"""
    began = time.process_time(), time.monotonic()
    done = subprocess.run([sys.executable, "-c", LIGHT.format(asking)], capture_output=True, text=True, check=True)
    assert time.monotonic() - began[1] < 2
    for word in ("--run.name", "--schedule.lag", "--cluster.kind", "--resume", "--check"):
        assert word in done.stdout
    assert "Folder of the run; empty means" in " ".join(done.stdout.split()), "help without a meaning"


@pytest.mark.parametrize("module", ["actors.config", "rewards.config", "cluster.config", "learner.config"])
def test_configuration_loads_nothing_heavy(module: str) -> None:
    subprocess.run([sys.executable, "-c", LIGHT.format(f"import {module}")], check=True)
