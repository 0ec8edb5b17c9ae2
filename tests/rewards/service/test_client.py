"""The client against servers that are well, ill, gone, full, or lying: a number comes only from a right answer."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import numpy as np
import pytest

from rewards.catalog import CATALOG, Entry
from rewards.reward import RewardRequest, Scores, Status
from rewards.service import reward_pb2 as pb
from rewards.service.client import RemoteReward, build
from rewards.worker import build_worker
from tests.rewards.service.servers import (
    PROVENANCE,
    Served,
    asked,
    config,
    free_port,
    good_answer,
    locally,
    misbehaving,
    pictures,
    serving,
)


@pytest.fixture
def slow_reward(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CATALOG, "slow", Entry("tests.rewards.service.slow:build"))


def slow() -> Any:
    return serving("--reward", "slow", module="tests.rewards.service.slow")


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    with serving() as server:
        yield server


def failures(scores: Scores) -> set[tuple[Status, str]]:
    """Those of all samples; none has a number."""
    assert sorted(scores.failures) == list(range(len(scores.values)))
    assert np.isnan(scores.values).all()
    return set(scores.failures.values())


def the_failure(scores: Scores) -> tuple[Status, str]:
    (one,) = failures(scores)
    return one


def test_a_worker_gets_from_servers_what_it_gets_here(served: Served) -> None:
    images, prompts = pictures(3), ("", "x" * 10_000, "ein Bär\N{BEAR FACE}")
    request = RewardRequest(5, prompts, ({}, {"questions": ["a bear?"]}, {"n": 1.5}))
    here = build_worker(config(name="compressibility", kind="worker")).run((request,), images)[0]
    there = build_worker(config(served.address)).run((request,), images)[0]
    assert (there.task_id, there.reward, there.provenance) == (here.task_id, here.reward, here.provenance)
    assert (there.statuses, there.details) == (here.statuses, here.details)
    np.testing.assert_array_equal(there.values, here.values)


def test_a_server_that_hangs_costs_its_time_and_no_more() -> None:
    over = threading.Event()
    with misbehaving(lambda request, _: over.wait(20) and good_answer(request)) as (address, _):
        reward = build(config(address, timeout_s=1.0))
        began = time.monotonic()
        status, reason = the_failure(asked(reward, pictures()))
        assert time.monotonic() - began < 1.0
        over.set()
    assert status is Status.TIMED_OUT
    assert reason.startswith(f"{address}: DEADLINE_EXCEEDED")


def test_a_server_that_hung_is_asked_last_from_then_on() -> None:
    over = threading.Event()
    with (
        misbehaving(lambda request, _: over.wait(20) and good_answer(request)) as (hung, a),
        misbehaving() as (well, b),
    ):
        reward = build(config(hung, well, timeout_s=1.0))
        lost: list[bool] = []
        for _ in range(8):
            lost.append(bool(asked(reward, pictures()).failures))
            time.sleep(0.2)  # for longer than it rests after one failure
        over.set()
    assert (a.calls, b.calls, sum(lost)) == (1, 7, 1)


@pytest.mark.usefixtures("slow_reward")
def test_when_a_server_is_killed_in_a_call_another_one_takes_over() -> None:
    images = pictures(2)
    with slow() as first, slow() as second, ThreadPoolExecutor() as threads:
        reward = build(config(first.address, second.address, name="slow"))
        calls = [threads.submit(reward, images, ["1.0", ""], [{}, {}]) for _ in range(2)]
        time.sleep(0.5)
        first.kill()
        for call in calls:
            assert not call.result().failures
            assert call.result().values.tolist() == images[:, 0, 0, 0].tolist()
        assert not asked_soon(reward, images).failures, "later calls pass it by"


def asked_soon(reward: RemoteReward, images: np.ndarray) -> Scores:
    return reward(images, [""] * len(images), [{}] * len(images))


def test_a_restarted_server_is_found_again_by_the_call_that_lost_it() -> None:
    images, port = pictures(2), str(free_port())
    with serving("--port", port) as server:
        reward = build(config(server.address, timeout_s=30))
        assert asked(reward, images).values.tolist() == locally(images).tolist()
        server.kill()
        with ThreadPoolExecutor() as threads:
            call = threads.submit(asked, reward, images)
            time.sleep(1)
            assert not call.done()
            with serving("--port", port):
                assert call.result(20).values.tolist() == locally(images).tolist()


def test_servers_that_stay_away_are_a_failure_and_no_exception() -> None:
    with serving() as server:
        reward = build(config(server.address, timeout_s=2.0))
    began = time.monotonic()
    status, reason = the_failure(asked(reward, pictures()))
    assert 0.5 < time.monotonic() - began < 2, "it was not worth another try, or one too many"
    assert (status, reason.startswith(f"{server.address}: UNAVAILABLE")) == (Status.FAILED, True)


def ok(value: float, **keys: Any) -> pb.Result:
    return pb.Result(status=pb.STATUS_OK, value=value, **keys)


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"results": [ok(1)] * 2}, "2 results for 3 images"),
        ({"results": [ok(1)] * 4}, "4 results for 3 images"),
        ({"results": []}, "0 results for 3 images"),
        ({"protocol": 2}, "the server speaks protocol 2 and the client 1"),
        ({"task_id": 10**9}, "an answer to request 1000000000"),
        ({"provenance": "other weights"}, f"its reward is now compressibility (other weights), and was {PROVENANCE}"),
        ({"reward": "vqa"}, "its reward is now vqa"),
    ],
    ids=["short", "long", "empty", "protocol", "task", "provenance", "reward"],
)
def test_a_wrong_answer_counts_for_nothing(wrong: dict[str, Any], reason: str) -> None:
    with misbehaving(lambda request, _: good_answer(request, **wrong)) as (bad, _):
        began = time.monotonic()
        status, told = the_failure(asked(build(config(bad)), pictures()))
        assert (status, told.startswith(f"{bad}: {reason}")) == (Status.FAILED, True), told
        assert time.monotonic() - began < 5, "the same answer is not asked for again and again"
        with misbehaving() as (good, _):
            reward = build(config(bad, good))
            for _ in range(4):
                assert asked(reward, pictures()).values.tolist() == [0, 1, 2], "the other server is asked"


@pytest.mark.parametrize(
    ("result", "status", "reason"),
    [
        (ok(float("nan")), Status.INVALID, "the server calls [nan] a score"),
        (ok(float("inf")), Status.INVALID, "the server calls [inf] a score"),
        (pb.Result(status=pb.STATUS_OK), Status.INVALID, "the server calls [] a score"),
        (pb.Result(status=pb.STATUS_OK, features=pb.Features(values=[1])), Status.INVALID, "the server calls [] a sc"),
        (pb.Result(value=1), Status.INVALID, "status 0 of the server"),
        (pb.Result(status=77, value=1), Status.INVALID, "status 77 of the server"),  # type: ignore[arg-type]
        (pb.Result(status=pb.STATUS_FAILED, value=1, detail="why"), Status.FAILED, "why"),
        (pb.Result(status=pb.STATUS_TIMED_OUT, detail="x" * 9999), Status.TIMED_OUT, "x" * 500),
    ],
    ids=["nan", "inf", "no number", "features", "no status", "new status", "number of a failure", "long"],
)
def test_a_wrong_result_costs_its_own_sample(result: pb.Result, status: Status, reason: str) -> None:
    with misbehaving(lambda request, _: good_answer(request, results=[ok(5, detail="a cat"), result, ok(7)])) as (
        at,
        _,
    ):
        scores = asked(build(config(at)), pictures())
    assert scores.values[[0, 2]].tolist() == [5, 7]
    assert np.isnan(scores.values[1])
    ((place, (got, told)),) = scores.failures.items()
    assert (place, got) == (1, status)
    assert told.startswith(reason)
    assert len(told) <= 500
    assert scores.notes == ("a cat", "", "")


def test_bytes_that_are_no_message_are_a_failure(served: Served) -> None:
    described = pb.DescribeResponse(protocol=1, reward="compressibility", provenance=PROVENANCE).SerializeToString()
    handlers = {
        "Describe": grpc.unary_unary_rpc_method_handler(lambda *_: described),
        "Score": grpc.unary_unary_rpc_method_handler(lambda *_: b"\xff\xfe garbage"),
    }
    server = grpc.server(ThreadPoolExecutor(2))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("ddpo.reward.v1.RewardService", handlers),))
    address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    status, reason = the_failure(asked(build(config(address)), pictures()))
    server.stop(None)
    assert status is Status.FAILED
    assert reason.startswith(f"{address}: ")


def test_a_server_with_a_bug_is_a_failure() -> None:
    with misbehaving(lambda *_: 1 // 0) as (address, _):
        status, reason = the_failure(asked(build(config(address)), pictures()))
    assert (status, "ZeroDivision" in reason or "division" in reason) == (Status.FAILED, True)


def full(pause: str, times: int) -> Callable[[pb.ScoreRequest, grpc.ServicerContext], pb.ScoreResponse]:
    left = iter(range(times))

    def answer(request: pb.ScoreRequest, context: grpc.ServicerContext) -> pb.ScoreResponse:
        if next(left, None) is not None:
            context.set_trailing_metadata((("retry-after-ms", pause),))
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "full")
        return good_answer(request)

    return answer


def test_a_full_server_is_left_alone_for_as_long_as_it_asks() -> None:
    with misbehaving(full("400", times=2)) as (address, servicer):
        reward = build(config(address))
        began = time.monotonic()
        assert asked(reward, pictures()).values.tolist() == [0, 1, 2]
        assert 0.8 <= time.monotonic() - began < 4
        assert servicer.calls == 3


@pytest.mark.parametrize("pause", ["999999", "-5", "soon"])
def test_no_pause_that_a_server_asks_for_outlasts_the_call(pause: str) -> None:
    with misbehaving(full(pause, times=10**6)) as (address, servicer):
        reward = build(config(address, timeout_s=1.0))
        began = time.monotonic()
        status, reason = the_failure(asked(reward, pictures()))
        assert time.monotonic() - began < 1.0
        assert servicer.calls < 15, "with growing pauses"
    assert (status, reason) == (Status.FAILED, f"{address}: RESOURCE_EXHAUSTED: full")


def test_calls_go_to_the_server_with_the_fewest_and_in_turn_among_equals() -> None:
    free = threading.Event()
    free.set()
    with (
        misbehaving(lambda request, _: free.wait(20) and good_answer(request)) as (first, a),
        misbehaving() as (other, b),
    ):
        reward = build(config(first, other))
        for _ in range(6):
            asked(reward, pictures())
        assert (a.calls, b.calls) == (3, 3)
        free.clear()
        with ThreadPoolExecutor() as threads:
            stuck = [threads.submit(asked, reward, pictures())]
            while a.calls == 3:
                stuck.append(threads.submit(asked, reward, pictures()))
                time.sleep(0.05)
            before = b.calls
            for _ in range(5):
                assert not asked(reward, pictures()).failures
            assert (a.calls, b.calls) == (4, before + 5)
            free.set()
            assert not any(call.result(10).failures for call in stuck)


@pytest.mark.parametrize(
    ("described", "line"),
    [
        ({"reward": "vqa"}, "serves 'vqa', and the reward here is 'compressibility'"),
        ({"protocol": 2}, "the server speaks protocol 2 and the client 1; install the same release"),
        ({"features": True}, "answers features; install the same release"),
    ],
)
def test_another_server_than_expected_is_an_error_at_once(described: dict[str, Any], line: str) -> None:
    with misbehaving(**described) as (address, _), pytest.raises(ValueError) as caught:
        build(config(address))
    assert str(caught.value).startswith(f"reward server {address}")
    assert line in str(caught.value)
    assert "\n" not in str(caught.value)


def test_servers_that_differ_from_each_other_are_an_error() -> None:
    with misbehaving() as (one, _), misbehaving(provenance="other weights") as (two, _):
        with pytest.raises(ValueError) as caught:
            build(config(one, two))
        assert (
            str(caught.value) == (f"the reward servers differ: {one} is {PROVENANCE!r}, {two} is 'other weights'")
            or str(caught.value) == f"the reward servers differ: {two} is 'other weights', {one} is {PROVENANCE!r}"
        )


def test_a_port_of_something_else_is_an_error() -> None:
    server = grpc.server(ThreadPoolExecutor(1))
    address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    with pytest.raises(ValueError, match="this is no reward server"):
        build(config(address))
    server.stop(None)


def test_no_server_is_an_error_that_says_how_to_start_one() -> None:
    address = f"127.0.0.1:{free_port()}"
    with pytest.raises(ValueError) as caught:
        build(config(address, timeout_s=1.0))
    assert f"no server answers within 0.5 s ({address}: UNAVAILABLE" in str(caught.value)
    assert "python -m rewards.service.serve --reward compressibility --port" in str(caught.value)


def test_one_server_that_is_not_there_does_not_keep_the_others_waiting(served: Served) -> None:
    reward = build(config(f"127.0.0.1:{free_port()}", served.address, timeout_s=60))
    for _ in range(3):
        assert asked(reward, pictures()).values.tolist() == locally(pictures()).tolist()


@pytest.mark.parametrize("endpoint", ["localhost", "http://localhost:1", ":50051", "host:port"])
def test_an_endpoint_is_host_and_port(endpoint: str) -> None:
    with pytest.raises(ValueError, match=r"is not HOST:PORT"):
        build(config(endpoint))


def test_a_message_that_is_too_large_for_either_side_is_a_failure_with_the_cure() -> None:
    large = np.zeros((3, 3, 640, 640), np.uint8)
    with serving("--max-message-mb", "2") as server:
        for limit, reason in ((1, "grpc.max_message_mb = 1; lower batch_size"), (64, "larger than max")):
            reward = build(config(server.address, grpc={"max_message_mb": limit}, timeout_s=60))
            began = time.monotonic()
            status, told = the_failure(asked(reward, large))
            assert (status, reason in told) == (Status.FAILED, True), told
            assert time.monotonic() - began < 10


@pytest.fixture
def featured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CATALOG, "featured", Entry("nowhere:build", combine="nowhere:combine"))


def feature(*numbers: float) -> pb.Result:
    return pb.Result(status=pb.STATUS_OK, features=pb.Features(values=numbers))


@pytest.mark.usefixtures("featured")
def test_a_reward_of_a_whole_round_gives_rows_of_features() -> None:
    results = [feature(1, 2), pb.Result(status=pb.STATUS_FAILED, detail="no"), feature(3, float("nan"))]
    with misbehaving(lambda request, _: good_answer(request, results=results), reward="featured", features=True) as (
        address,
        servicer,
    ):
        reward = build(config(address, name="featured"))
        scores = asked(reward, pictures())
        assert scores.values.shape == (3, 2)
        assert scores.values[0].tolist() == [1, 2]
        assert scores.failures == {
            1: (Status.FAILED, "no"),
            2: (Status.INVALID, "the server calls [3.0, nan] a score"),
        }
        servicer.answer = lambda request, _: good_answer(request, results=[feature(1, 2), feature(1), feature(1)])
        status, reason = the_failure(asked(reward, pictures()))
        assert (status, "features of different lengths: [1, 2]" in reason) == (Status.FAILED, True)
