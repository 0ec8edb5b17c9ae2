"""`python -m rewards.service.serve` as a whole, asked without this project's client."""

from __future__ import annotations

import itertools
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import Any

import grpc
import numpy as np
import pytest
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from pydantic import BaseModel

from rewards.config import GrpcConfig, RewardConfig
from rewards.service import reward_pb2 as pb
from rewards.service.client import build
from rewards.service.serve import Arguments, main, read_arguments
from tests.rewards.service.servers import Served, asked, config, locally, pictures, raw, request, serving
from tests.rewards.service.test_images import header, picture, png


@pytest.fixture(scope="module")
def served():
    with serving("--max-message-mb", "4") as server:
        yield server


def slow(*flags: str) -> AbstractContextManager[Served]:
    return serving("--reward", "slow", *flags, module="tests.rewards.service.slow")


def slowly(seconds: float, **keys: Any) -> pb.ScoreRequest:
    return request([raw(pictures(1)[0], prompt=str(seconds))], reward="slow", **keys)


def values(response: pb.ScoreResponse) -> list[float | None]:
    return [result.value if result.status == pb.STATUS_OK else None for result in response.results]


def health_of(server: Served, service: str = "") -> str:
    with grpc.insecure_channel(server.address) as channel:
        answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(service=service), timeout=5)
    return health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)


def test_scores_are_those_of_the_reward_without_a_server(served: Served) -> None:
    images = pictures(5)
    samples = [raw(image) for image in images[:3]]
    samples += [pb.Sample(png=png(picture_of(image)), prompt="x" * 10_000) for image in images[3:]]
    response = served.stub.Score(request(samples, task_id=7), timeout=20)
    assert (response.protocol, response.reward, response.task_id) == (1, "compressibility", 7)
    np.testing.assert_array_equal(np.array(values(response), np.float32), locally(images))
    described = served.stub.Describe(pb.DescribeRequest(protocol=1), timeout=5)
    assert (described.reward, described.provenance, described.features) == (
        response.reward,
        response.provenance,
        False,
    )
    assert served.first_line == f"serving compressibility on {served.address}, provenance {described.provenance}\n"


def picture_of(image: np.ndarray) -> Any:
    from PIL import Image

    return Image.fromarray(image.transpose(1, 2, 0))


def test_bad_samples_cost_only_themselves(served: Served) -> None:
    images = pictures(3)
    good = [raw(image) for image in images]
    bad = [
        pb.Sample(png=header(60_000, 60_000)),
        pb.Sample(png=png(picture())[:100]),
        pb.Sample(png=png(picture("P"))),
        pb.Sample(raw=pb.RawImage()),
        raw(images[0], metadata="{"),
    ]
    mixed = [sample for pair in itertools.zip_longest(bad, good) for sample in pair if sample is not None]
    response = served.stub.Score(request([*mixed, raw(pictures(1, size=8)[0])]), timeout=20)
    got = values(response)
    assert [got[place] for place in (1, 3, 5)] == locally(images).tolist()
    assert got[8] == locally(pictures(1, size=8)).tolist()[0], "of another size"
    for place in (0, 2, 4, 6, 7):
        assert response.results[place].status == pb.STATUS_INVALID
        assert response.results[place].WhichOneof("answer") is None
        assert response.results[place].detail


@pytest.mark.parametrize(
    ("wrong", "code", "text"),
    [
        (request([raw(pictures(1)[0])], protocol=2), "FAILED_PRECONDITION", "the server speaks protocol 1 and the cli"),
        (request([raw(pictures(1)[0])], reward="vqa"), "FAILED_PRECONDITION", "reward is 'compressibility', not 'vqa'"),
        (request([]), "INVALID_ARGUMENT", "0 samples"),
        (request([pb.Sample()] * 4097), "INVALID_ARGUMENT", "4097 samples"),
        (request([pb.Sample(png=bytes(4 << 20))]), "RESOURCE_EXHAUSTED", "larger than max"),
    ],
    ids=["protocol", "reward", "none", "many", "oversized"],
)
def test_a_wrong_request_gets_a_code_and_a_reason(served: Served, wrong: pb.ScoreRequest, code: str, text: str) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        served.stub.Score(wrong, timeout=10)
    assert caught.value.code().name == code
    assert text in caught.value.details()
    assert values(served.stub.Score(request([raw(pictures(1)[0])]), timeout=10)) == locally(pictures(1)).tolist()


def test_describing_to_another_protocol_is_refused(served: Served) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        served.stub.Describe(pb.DescribeRequest(protocol=9), timeout=5)
    assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert "install the same release" in caught.value.details()


def test_health_and_reflection(served: Served) -> None:
    assert health_of(served) == health_of(served, "ddpo.reward.v1.RewardService") == "SERVING"
    with grpc.insecure_channel(served.address) as channel:
        database = ProtoReflectionDescriptorDatabase(channel)
        assert "ddpo.reward.v1.RewardService" in database.get_services()
        service: Any = DescriptorPool(database).FindServiceByName("ddpo.reward.v1.RewardService")
    assert [method.name for method in service.methods] == ["Describe", "Score"]


def test_an_address_of_ip_version_6() -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has none")
    with serving("--host", "::1") as server:
        assert server.address.startswith("[::1]:")
        assert asked(build(config(server.address)), pictures()).values.tolist() == locally(pictures()).tolist()


def test_a_port_is_served_by_one(served: Served, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--port", served.address.rpartition(":")[2]]) == 2
    assert "cannot listen on 127.0.0.1:" in capsys.readouterr().err


def test_sigterm_finishes_what_runs_and_refuses_what_comes() -> None:
    with slow() as server, ThreadPoolExecutor() as threads:
        stub = server.stub
        running = threads.submit(stub.Score, slowly(2), timeout=20)
        waiting = threads.submit(stub.Score, slowly(0.1), timeout=20)
        time.sleep(0.5)
        server.terminate()
        time.sleep(0.5)
        assert health_of(server) == "NOT_SERVING"
        with pytest.raises(grpc.RpcError) as caught:
            stub.Score(slowly(0), timeout=5)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert "shutting down" in caught.value.details()
        assert values(running.result()) == values(waiting.result()) == [float(pictures(1)[0, 0, 0, 0])]
        assert server.process.wait(5) == 0


def test_a_call_that_hangs_does_not_outlive_the_drain() -> None:
    with slow("--drain-s", "0.5", "--timeout-s", "0.5") as server, ThreadPoolExecutor() as threads:
        hanging = threads.submit(server.stub.Score, slowly(60), timeout=30)
        with pytest.raises(grpc.RpcError) as caught:
            hanging.result()
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED, "the server's own limit"
        time.sleep(0.5)
        assert health_of(server) == "NOT_SERVING", "whoever supervises it should replace it"
        began = time.monotonic()
        server.terminate()
        assert server.process.wait(10) == 0
        assert time.monotonic() - began < 5


def test_what_is_not_done_after_the_drain_is_cut_off() -> None:
    with slow("--drain-s", "0.3") as server, ThreadPoolExecutor() as threads:
        call = threads.submit(server.stub.Score, slowly(60), timeout=30)
        time.sleep(0.5)
        server.terminate()
        assert server.process.wait(10) == 0
        with pytest.raises(grpc.RpcError):
            call.result()


def test_a_call_that_was_called_off_is_not_scored() -> None:
    with slow() as server:
        first = server.stub.Score.future(slowly(1), timeout=20)
        time.sleep(0.3)
        off = server.stub.Score.future(slowly(15), timeout=30)
        time.sleep(0.2)
        off.cancel()
        assert values(server.stub.Score(slowly(0), timeout=10))[0] is not None
        assert values(first.result())[0] is not None


def test_a_full_server_says_when_to_come_again_and_scores_nothing_late() -> None:
    with slow("--max-queue", "2") as server, ThreadPoolExecutor(8) as threads:
        stub = server.stub
        first = threads.submit(stub.Score, slowly(1.5), timeout=20)
        time.sleep(0.3)
        late = threads.submit(stub.Score, slowly(5), timeout=0.5)
        last = threads.submit(stub.Score, slowly(0), timeout=20)
        time.sleep(0.2)
        with pytest.raises(grpc.RpcError) as caught:
            stub.Score(slowly(0), timeout=5)
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        (pause,) = (value for key, value in caught.value.trailing_metadata() if key == "retry-after-ms")
        assert 50 <= int(pause) <= 5000
        assert health_of(server) == "SERVING", "full is not ill"
        with pytest.raises(grpc.RpcError) as caught:
            late.result()
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert values(first.result())[0] is not None
        began = time.monotonic()
        assert values(last.result())[0] is not None
        assert time.monotonic() - began < 3, "the call that nobody waits for was scored"


@pytest.mark.parametrize("merge", [(), ("--merge-count", "4", "--merge-ms", "300")], ids=["alone", "merged"])
def test_merged_or_not_everyone_gets_his_own(merge: tuple[str, ...]) -> None:
    everyone = [pictures(2 + place % 2, size=(16, 24)[place % 2], seed=place) for place in range(8)]
    with serving(*merge) as server, ThreadPoolExecutor(8) as threads:
        stub, together = server.stub, threading.Barrier(8)

        def ask(place: int) -> pb.ScoreResponse:
            together.wait(10)
            return stub.Score(request([raw(image) for image in everyone[place]], task_id=place), timeout=20)

        for place, response in enumerate(threads.map(ask, range(8))):
            assert response.task_id == place
            assert values(response) == locally(everyone[place]).tolist()


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        (["--reward", "beauty"], "reward: no such reward; there are compressibility, "),
        (["--host", "0.0.0.0"], "host 0.0.0.0 can be reached from elsewhere: give --tls-cert"),
        (["--host", "0.0.0.0", "--token-env", "T"], "host 0.0.0.0 can be reached from elsewhere"),
        (["--tls-cert", "x.pem"], "--tls-cert and --tls-key go together"),
        (["--client-ca", "x.pem"], "--client-ca needs --tls-cert"),
        (["--tls-cert", "x.pem", "--tls-key", "y.pem"], "x.pem and y.pem are no PEM certificate with its key"),
        (["--token-env", "NOT_THERE"], "the environment variable NOT_THERE is to hold"),
        (["--jpeg.quality", "0"], "jpeg.quality: Input should be greater"),
        (["--workres", "3"], "unrecognized arguments: --workres 3"),
        (["--reward", "distribution_match"], "distribution_match needs distribution.reference"),
    ],
)
def test_a_mistake_on_the_command_line_is_one_line(
    flags: list[str], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(flags) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {line}")
    assert error.count("\n") == 1


def test_variables_named_like_flags_set_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOST", "0.0.0.0")
    monkeypatch.setenv("PORT", "1")
    arguments, config = read_arguments(["--jpeg.quality", "40", "--batch-size", "3"])
    assert (arguments.host, arguments.port) == ("127.0.0.1", 50051)
    assert (config.jpeg.quality, config.batch_size, config.kind) == (40, 3, "worker")


def test_the_flags_hold_every_section_that_a_reward_reads() -> None:
    sections = {
        name
        for name, field in RewardConfig.model_fields.items()
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
    }
    assert {name for name in sections if RewardConfig.model_fields[name].annotation is not GrpcConfig} <= set(
        Arguments.model_fields
    )


def test_it_says_its_flags_without_loading_a_model_or_grpc() -> None:
    code = (
        "import sys\nfrom rewards.service.serve import main\n"
        "try: main(['--help'])\nexcept SystemExit: print(sorted({'torch', 'grpc', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.endswith("[]\n")
    assert "--merge-count" in done.stdout


def test_garbage_on_the_port_does_not_end_the_server(served: Served) -> None:
    host, _, port = served.address.rpartition(":")
    for garbage in (b"GET / HTTP/1.1\r\n\r\n", bytes(range(256)) * 100):
        with socket.create_connection((host, int(port)), timeout=5) as connection:
            connection.sendall(garbage)
    assert values(served.stub.Score(request([raw(pictures(1)[0])]), timeout=10)) == locally(pictures(1)).tolist()
