"""Functions of a user's own as rewards, written into real modules."""

from __future__ import annotations

import hashlib
import itertools
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from rewards.config import RewardConfig
from rewards.reward import RewardRequest, RewardResult, Status
from rewards.worker import build_reward, build_worker

OK, FAILED, INVALID = Status.OK, Status.FAILED, Status.INVALID
NAMES = (f"users_module_{number}" for number in itertools.count())

Write = Callable[[str], str]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Writes a module on the path; returns its name, which no other test uses."""
    monkeypatch.syspath_prepend(tmp_path)

    def write(source: str) -> str:
        name = next(NAMES)
        (tmp_path / f"{name}.py").write_text(f"import numpy as np\n{source}\n")
        return name

    return write


def images() -> np.ndarray:
    return np.arange(3, dtype=np.uint8).reshape(3, 1, 1, 1).repeat(3, 1).repeat(4, 2).repeat(4, 3)


def scored(name: str, one_by_one: bool = False) -> RewardResult:
    request = RewardRequest(7, ("a", "bb", "ccc"), ({"n": 4}, {"n": 5}, {}), one_by_one)
    (result,) = build_worker(RewardConfig(name=name)).run((request,), images())
    return result


def test_a_function_of_images_prompts_and_metadata(write: Write) -> None:
    module = write(
        "def f(images, prompts, metadata):\n"
        "    assert images.dtype == np.uint8 and images.shape == (3, 3, 4, 4)\n"
        "    assert type(prompts) is list and all(type(m) is dict for m in metadata)\n"
        "    return [int(i.max()) + 10 * len(p) + 100 * m.get('n', 0) for i, p, m in zip(images, prompts, metadata)]"
    )
    result = scored(f"python:{module}:f")
    assert result.values.tolist() == [410, 521, 32]
    assert result.statuses == (OK,) * 3
    assert result.reward == f"python:{module}:f"


def test_its_provenance_names_it_with_the_digest_of_its_source(write: Write, tmp_path: Path) -> None:
    module = write("def f(images, prompts): return [0] * len(images)")
    digest = hashlib.sha256((tmp_path / f"{module}.py").read_bytes()).hexdigest()
    provenance = build_reward(RewardConfig(name=f"python:{module}:f")).provenance
    assert provenance == f"python:{module}:f: source sha256 {digest}"


@pytest.mark.parametrize(
    "source",
    [
        "def f(images, prompts): return [len(p) for p in prompts]",
        "def f(images, prompts, weight=1): return [weight * len(p) for p in prompts]",
        "def f(images, prompts, metadata=None): return [len(p) + 0 * len(m) for p, m in zip(prompts, metadata)]",
        "def f(*everything): images, prompts, metadata = everything; return [len(p) for p in prompts]",
        "def f(a, b, c, d=None): return [len(p) + 0 * len(m) for p, m in zip(b, c)]",
        "f = lambda images, prompts: [len(p) for p in prompts]",
        "class F:\n    def __call__(self, images, prompts): return [len(p) for p in prompts]\nf = F()",
        "import functools\ndef g(images, prompts, metadata, by): return [by * len(p) for p in prompts]\n"
        "f = functools.partial(g, by=1)",
        "def f(images, prompts): return (len(p) for p in prompts).__class__ and [len(p) for p in prompts]",
        "def f(images, prompts): return np.array([len(p) for p in prompts])",
        "def f(images, prompts): return tuple(np.float16(len(p)) for p in prompts)",
        "import torch\ndef f(images, prompts): return torch.tensor([len(p) for p in prompts])",
        "import torch\ndef f(images, prompts): return [torch.tensor(len(p)) for p in prompts]",
        "from fractions import Fraction\ndef f(images, prompts): return [Fraction(len(p)) for p in prompts]",
        "def f(images, prompts): images += 1; prompts.sort(); return [len(p) for p in prompts]",
    ],
)
def test_functions_of_all_sorts(write: Write, source: str) -> None:
    result = scored(f"python:{write(source)}:f")
    assert result.details == ("",) * 3
    assert result.values.tolist() == [1, 2, 3]


def test_truths_are_numbers(write: Write) -> None:
    module = write("def f(images, prompts): return [len(p) > 1 for p in prompts]")
    assert scored(f"python:{module}:f").values.tolist() == [0, 1, 1]


@pytest.mark.parametrize(
    ("body", "statuses", "detail"),
    [
        ("return [1.0, float('nan'), 2]", (OK, INVALID, OK), "value nan"),
        ("return [1.0, 1e300, 2]", (OK, INVALID, OK), "value inf"),
        ("return [1.0, None, 2]", (OK, FAILED, OK), "the function returned None"),
        ("return [1.0, 2.0]", (INVALID,) * 3, "(2,) values for 3 images"),
        ("return [[1.0]] * 3", (INVALID,) * 3, "(3, 1) values for 3 images"),
        ("return 1.0", (FAILED,) * 3, "TypeError: the function returned float, not a list"),
        ("return None", (FAILED,) * 3, "TypeError: the function returned NoneType, not a list"),
        ("return (1.0 for _ in prompts)", (FAILED,) * 3, "TypeError: the function returned generator, not a list"),
        ("return ['1.0'] * 3", (FAILED,) * 3, "TypeError: the function returned an array of <U3, not a list"),
        ("return [1.0, None, '3']", (FAILED,) * 3, "TypeError: the function returned '3', not a number"),
        ("return [1j] * 3", (FAILED,) * 3, "TypeError: the function returned an array of complex128"),
        ("raise KeyError('colour')", (FAILED,) * 3, "KeyError: 'colour'"),
    ],
)
def test_what_is_no_number_is_a_failure_with_its_reason(
    write: Write, body: str, statuses: tuple[Status, ...], detail: str
) -> None:
    result = scored(f"python:{write(f'def f(images, prompts): {body}')}:f")
    assert result.statuses == statuses
    for status, value, text in zip(result.statuses, result.values, result.details, strict=True):
        assert np.isnan(value) == (status is not OK)
        assert status is OK or text.startswith(detail)


def test_one_by_one_a_bad_image_is_alone_and_what_the_function_wrote_into_the_batch_is_gone(write: Write) -> None:
    module = write(
        "def f(images, prompts, metadata):\n"
        "    images += 10\n"
        "    for m in metadata: m['n'] = m.get('n', 0) + 1000\n"
        "    if 'bb' in prompts: raise RuntimeError('no bb')\n"
        "    return [float(i.max()) + m['n'] for i, m in zip(images, metadata)]"
    )
    result = scored(f"python:{module}:f", one_by_one=True)
    assert result.statuses == (OK, FAILED, OK)
    assert result.details[1] == "RuntimeError: no bb"
    assert result.values[[0, 2]].tolist() == [1014, 1012]


@pytest.mark.parametrize(
    ("source", "line"),
    [
        ("def score_foxes(images, prompts): ...", ".py defines it nowhere"),
        ("def ff(images, prompts): ...", "has no f; did you mean ff?"),
        ("f = 3", "that is a int, not a function"),
        ("class f: pass", "that is a class; name a function"),
        ("async def f(images, prompts): ...", "that is async or a generator"),
        ("class F:\n    async def __call__(self, images, prompts): ...\nf = F()", "that is async or a generator"),
        ("def f(images, prompts): yield 1", "that is async or a generator"),
        ("def f(images): ...", "its arguments are (images); a reward is called as (images, prompts) or "),
        ("def f(images, prompts, metadata, more): ...", "its arguments are (images, prompts, metadata, more); "),
        ("def f(images, prompts, *, key): ...", "its arguments are (images, prompts, *, key); "),
        ("import nowhere_at_all", "imports nowhere_at_all, which is not there; install it where rewards run"),
        ("def f(:", "ended with SyntaxError: "),
        ("raise SystemExit(3)", "ended with SystemExit: 3; `python -c 'import "),
        ("raise OSError('one\\ntwo')", "ended with OSError: one; "),
        ("1 / 0", "ended with ZeroDivisionError: division by zero; "),
    ],
)
def test_what_cannot_be_a_reward_is_one_line_with_the_cure(write: Write, source: str, line: str) -> None:
    name = f"python:{write(source)}:f"
    with pytest.raises(ValueError) as caught:
        build_reward(RewardConfig(name=name))
    message = str(caught.value)
    assert message.startswith(f"reward {name}: ")
    assert line in message
    assert "\n" not in message


@pytest.mark.parametrize("module", ["nowhere_at_all", "nowhere_at_all.inside", "json.nowhere"])
def test_a_module_that_is_not_there(module: str) -> None:
    with pytest.raises(ValueError, match=r"no module .*; put .*\.py into the folder that you run or submit from"):
        build_reward(RewardConfig(name=f"python:{module}:f"))


@pytest.mark.parametrize("name", ["python:", "python:module", "python::f", "python:module:", "python:module:f()"])
def test_names_that_name_no_function(name: str) -> None:
    with pytest.raises(ValueError, match="no such reward"):
        RewardConfig(name=name)


def test_the_current_folder_is_a_place_for_it_under_an_installed_command(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("def f(images, prompts): return [5] * len(images)\n")
    code = (
        "import sys; sys.path[:] = [p for p in sys.path if p]; import numpy as np\n"
        "from rewards.config import RewardConfig; from rewards.worker import build_reward\n"
        "reward = build_reward(RewardConfig(name='python:mine:f'))\n"
        "print(reward(np.zeros((2, 3, 4, 4), np.uint8), ('', ''), ({}, {})).values.tolist())"
    )
    end = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert end.stdout.strip() == "[5.0, 5.0]", end.stderr
