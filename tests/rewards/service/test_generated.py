"""The generated files are what the proto says, and run with the oldest protobuf and grpcio that are promised."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[3] / "rewards" / "service"
PROTO = FOLDER / "reward.proto"
NAMES = ("reward_pb2.py", "reward_pb2.pyi", "reward_pb2_grpc.py")


def substance(text: str) -> list[str]:
    """What does not depend on the generator's release: the descriptor, the fields' types, the routes."""
    kept = [
        r"AddSerializedFile\(.*\)",
        r"^ {4}\w+: .*",
        r"^class \w+",
        r"'/ddpo\.reward\.v1\.\w+/\w+'",
        r"reward__pb2\.\w+",
    ]
    return [found for pattern in kept for found in re.findall(pattern, text, re.MULTILINE)]


@pytest.mark.skipif(importlib.util.find_spec("grpc_tools") is None, reason="needs grpcio-tools")
@pytest.mark.parametrize("name", NAMES)
def test_they_are_what_the_proto_generates(name: str, tmp_path: Path) -> None:
    kinds = [f"--{kind}_out={tmp_path}" for kind in ("python", "pyi", "grpc_python")]
    command = [sys.executable, "-m", "grpc_tools.protoc", "-I", ".", *kinds, "rewards/service/reward.proto"]
    subprocess.run(command, check=True, timeout=60, cwd=FOLDER.parents[1])
    generated = substance((tmp_path / "rewards" / "service" / name).read_text())
    assert generated
    assert substance((FOLDER / name).read_text()) == generated


def test_they_are_as_old_as_the_proto_promises() -> None:
    promised = re.search(r"protobuf >= ([\d.]+), grpcio >= ([\d.]+)\)", PROTO.read_text())
    assert promised
    protobuf, grpcio = promised.groups()
    assert f"# Protobuf Python Version: {protobuf}\n" in (FOLDER / NAMES[0]).read_text()
    assert f"GRPC_GENERATED_VERSION = '{grpcio}.0'" in (FOLDER / NAMES[2]).read_text()
    assert f"grpcio-tools=={grpcio}.0" in PROTO.read_text()
