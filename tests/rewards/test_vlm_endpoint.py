"""The endpoint's client against a real HTTP server that misbehaves in the ways servers do."""

from __future__ import annotations

import json
import logging
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from rewards import vlm_endpoint
from rewards.config import RewardConfig
from rewards.reward import Status
from rewards.vlm import Answer, NoAnswer, build_vlm
from tests.rewards.chat_server import Server
from tests.rewards.tiny_models import pictures

KEY = "sk-very-secret-0123456789"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(vlm_endpoint, "BACKOFF_S", 0.02)
    server = Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.over.set()
    server.shutdown()
    thread.join()
    server.server_close()


def settings(server: Server, timeout_s: float = 20.0, **vlm: Any) -> RewardConfig:
    vlm = {"endpoint": f"http://127.0.0.1:{server.server_port}/v1/", "model": "seer", "max_new_tokens": 9, **vlm}
    return RewardConfig.model_validate({"name": "alignment", "timeout_s": timeout_s, "vlm": vlm})


def asked(server: Server, *questions: str, timeout_s: float = 20.0) -> list[Answer]:
    return build_vlm(settings(server, timeout_s)).answers(pictures(len(questions)), list(questions))


def failure(server: Server, question: str, timeout_s: float = 20.0) -> tuple[Status, str]:
    (answer,) = asked(server, question, timeout_s=timeout_s)
    assert isinstance(answer, NoAnswer), answer
    assert "\n" not in answer.reason
    return answer.status, answer.reason


def test_the_server_sees_the_very_pixels_and_the_answers_come_in_order(server: Server) -> None:
    answers = asked(server, "see", "what is it?", "see", "see")
    images = pictures(4)
    seen = [f"PNG RGB {images[i][:, 0, 0].tolist()}" for i in range(4)]
    assert answers == [seen[0], "what is it?", seen[2], seen[3]]
    body = server.asked[0]
    assert {name: body[name] for name in ("model", "temperature", "max_tokens")} == {
        "model": "seer",
        "temperature": 0,
        "max_tokens": 9,
    }


def test_an_empty_question_sends_the_image_alone(server: Server) -> None:
    asked(server, "")
    assert [part["type"] for part in server.asked[0]["messages"][0]["content"]] == ["image_url"]


def test_requests_run_beside_each_other_but_not_without_bound(server: Server) -> None:
    start = time.monotonic()
    assert asked(server, *["slow"] * 16) == ["slow"] * 16
    assert time.monotonic() - start < 2.4
    assert 4 <= server.most_at_once <= vlm_endpoint.AT_ONCE


@pytest.mark.parametrize("kind", ["hang", "trickle", "headers"])
def test_a_server_that_hangs_costs_only_its_own_sample(server: Server, kind: str) -> None:
    start = time.monotonic()
    answers = asked(server, "hello", kind, "there", timeout_s=1.0)
    assert time.monotonic() - start < 2.0
    assert answers[::2] == ["hello", "there"]
    assert answers[1] == NoAnswer(Status.TIMED_OUT, "no answer within 0.9 s")


def test_nobody_goes_on_reading_an_answer_that_comes_too_late(server: Server) -> None:
    asked(server, "trickle", timeout_s=0.5)
    end = time.monotonic() + 3
    while server.at_once and time.monotonic() < end:
        time.sleep(0.02)
    assert not server.at_once


def test_many_that_hang_all_end_in_time(server: Server) -> None:
    start = time.monotonic()
    answers = asked(server, *["hang"] * 20, timeout_s=1.0)
    assert time.monotonic() - start < 2.0
    assert {answer.status for answer in answers if isinstance(answer, NoAnswer)} == {Status.TIMED_OUT}
    assert not [answer for answer in answers if isinstance(answer, str)]


@pytest.mark.parametrize("kind", ["die", "reset"])
def test_a_broken_connection_is_tried_again_and_then_a_failure(server: Server, kind: str) -> None:
    status, reason = failure(server, kind)
    assert status is Status.FAILED
    assert "(4 attempts)" in reason
    assert server.counts[kind] == 4


def test_a_server_that_is_not_there(server: Server) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        config = settings(server, endpoint=f"http://127.0.0.1:{free.getsockname()[1]}/v1")
    (answer,) = build_vlm(config).answers(pictures(1), ["hello"])
    assert isinstance(answer, NoAnswer)
    assert answer.status is Status.FAILED
    assert "Connection refused" in answer.reason


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("<html><body>Welcome</body></html>", "no chat completion but '<html>"),
        ("", "no chat completion but ''"),
        ("[]", "no chat completion"),
        ("3", "no chat completion"),
        ("{}", "no chat completion"),
        ('{"choices": []}', "no chat completion"),
        ('{"choices": [{"message": null}]}', "no chat completion"),
        ('{"choices": [{"message": "hi"}]}', "no chat completion"),
        ('{"choices": [{"message": {"content": null}}]}', "the answer is no text but None"),
        ('{"choices": [{"message": {"content": 7}}]}', "the answer is no text but 7"),
        ('{"choices": [{"message": {"content": null, "refusal": "never"}}]}', "the model refused: never"),
        ("[" * 100_000, "no chat completion"),
    ],
)
def test_a_bad_answer_is_a_failure_and_not_tried_again(server: Server, text: str, words: str) -> None:
    status, reason = failure(server, f"raw {text}")
    assert status is Status.FAILED
    assert words in reason
    assert len(reason) <= 200
    assert len(server.asked) == 1


def test_an_empty_answer_is_invalid(server: Server) -> None:
    text = '{"choices": [{"message": {"content": " \\n"}}]}'
    assert failure(server, f"raw {text}") == (Status.INVALID, "the captioner said nothing")


def test_an_endless_answer_is_not_read_to_its_end(server: Server) -> None:
    status, reason = failure(server, "endless", timeout_s=5)
    assert (status, len(reason)) == (Status.FAILED, 200)


@pytest.mark.parametrize(("code", "attempts"), [(401, 1), (400, 1), (404, 1), (500, 4), (503, 4)])
def test_an_error_of_the_server(server: Server, monkeypatch: pytest.MonkeyPatch, code: int, attempts: int) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    status, reason = failure(server, f"status {code}")
    assert status is Status.FAILED
    assert f"HTTP {code}" in reason
    assert "sorry, Bearer (key) is wrong" in reason
    assert len(server.asked) == attempts


def test_a_redirect_is_not_followed(server: Server) -> None:
    status, reason = failure(server, "redirect")
    assert status is Status.FAILED
    assert "HTTP 307" in reason
    assert len(server.asked) == 1


def test_a_busy_server_is_asked_again(server: Server) -> None:
    assert asked(server, "busy 503 3 -", "busy 429 2 -") == ["at last"] * 2


@pytest.mark.parametrize(("after", "least"), [("1", 1.0), ("date", 0.9)])
def test_retry_after_is_honoured_as_seconds_and_as_a_date(server: Server, after: str, least: float) -> None:
    assert asked(server, f"busy 429 1 {after}") == ["at last"]
    assert least <= server.times[1] - server.times[0] < 4


def test_a_retry_after_beyond_the_deadline_is_not_waited_for(server: Server) -> None:
    start = time.monotonic()
    status, reason = failure(server, "busy 429 9 3600")
    assert time.monotonic() - start < 5
    assert status is Status.TIMED_OUT
    assert "HTTP 429" in reason


def test_the_key_goes_into_the_header_and_nowhere_else(
    server: Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("MY_KEY", KEY + "\n")
    caplog.set_level(logging.DEBUG)
    vlm = build_vlm(settings(server, api_key_env="MY_KEY"))
    answers = vlm.answers(pictures(3), ["hello", f"raw {KEY}", "status 401"])
    assert [headers["Authorization"] for headers in server.headers] == [f"Bearer {KEY}"] * 3
    assert KEY not in repr(answers) + vlm.provenance + repr(vlm) + str(vlm) + caplog.text
    assert KEY not in json.dumps([body for body in server.asked if "raw" not in json.dumps(body)])


def test_without_a_key_nothing_is_sent_not_even_what_a_netrc_holds(
    server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password hidden\n")
    (tmp_path / "netrc").chmod(0o600)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    assert asked(server, "hello") == ["hello"]
    assert "Authorization" not in server.headers[0]


@pytest.mark.parametrize("key", ["two words", "line\nbreak", "schlüssel"])
def test_a_key_that_cannot_be_sent_is_not_shown(server: Server, monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", key)
    with pytest.raises(ValueError, match=r"rewards.vlm.api_key_env: what OPENAI_API_KEY holds is no key") as caught:
        build_vlm(settings(server))
    assert key not in str(caught.value)


@pytest.mark.parametrize(
    ("endpoint", "words"),
    [
        ("localhost:8000", "no URL"),
        ("ftp://host/v1", "no URL"),
        ("http://", "no URL"),
        ("http://host:port/v1", "no URL"),
        ("http://host/v1?key=1", "no URL"),
        ("http://me:secret@host/v1", "no name or password in the URL"),
    ],
)
def test_an_endpoint_that_is_none(server: Server, endpoint: str, words: str) -> None:
    with pytest.raises(ValueError, match=f"rewards.vlm.endpoint: {words}") as caught:
        build_vlm(settings(server, endpoint=endpoint))
    assert "secret" not in str(caught.value)


def test_provenance_names_server_model_and_settings(server: Server) -> None:
    origin = build_vlm(settings(server)).provenance
    assert origin == f"seer at http://127.0.0.1:{server.server_port}/v1, PNG, temperature 0, at most 9 tokens"
