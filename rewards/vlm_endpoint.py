"""A vision-language model behind an OpenAI-compatible server; a bad answer is a failure of its image and no number."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime

import requests
import urllib3
from PIL import Image

from rewards.chat import base_url, read_completion, read_error, read_key, request_body
from rewards.clip_model import pictures
from rewards.config import RewardConfig
from rewards.reward import Images, Status
from rewards.vlm import Answer, NoAnswer

SHARE_OF_TIMEOUT = 0.9
"""Of `timeout_s`, so that the answers, or why there are none, are there before the worker is given up."""
AT_ONCE = 8
"""Requests under way."""
ATTEMPTS = 4
"""For one image."""
BACKOFF_S = 0.5
"""Before the second attempt; twice as long before each further one, and up to a half more by chance."""
CONNECT_S = 10.0
AGAIN = (408, 425, 429, 500, 502, 503, 504)
LARGEST = 1 << 20
"""Bytes of an answer; more is no chat completion."""


@dataclass(frozen=True, slots=True)
class _Again:
    """An attempt that may be repeated."""

    reason: str
    after: float | None = None
    """Seconds that the server asks to wait."""


class EndpointVlm:
    """Speaks the chat completions of OpenAI, which vLLM, SGLang, llama.cpp and Ollama speak too.

    All requests of a call end within its share of `timeout_s`. The key goes into the header and nowhere else.
    """

    captions_only = False

    def __init__(self, config: RewardConfig) -> None:
        """Raises:
        ValueError: the endpoint is no URL, or the key cannot be a header.
        """
        vlm = config.vlm
        self._url = base_url(vlm.endpoint) + "/chat/completions"
        self._model, self._max_new_tokens = vlm.model, vlm.max_new_tokens
        self._patience = SHARE_OF_TIMEOUT * config.timeout_s
        self._key = read_key(vlm.api_key_env)
        self.provenance = (
            f"{vlm.model} at {base_url(vlm.endpoint)}, PNG, temperature 0, at most {vlm.max_new_tokens} tokens"
        )

    def answers(self, images: Images, questions: Sequence[str]) -> list[Answer]:
        """Requests run beside each other; what has no answer when the time is over has none."""
        deadline = time.monotonic() + self._patience
        pool = ThreadPoolExecutor(min(AT_ONCE, len(questions)), thread_name_prefix="vlm")
        try:
            asked = [
                pool.submit(self._answer, image, question, deadline)
                for image, question in zip(pictures(images), questions, strict=True)
            ]
            wait(asked, timeout=deadline - time.monotonic())
            return [self._result(future) for future in asked]
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def _result(self, future: Future[Answer]) -> Answer:
        return future.result() if future.done() else self._late()

    def _late(self, last: str = "") -> NoAnswer:
        what = f"no answer within {self._patience:g} s"
        return NoAnswer(Status.TIMED_OUT, f"{what}; the last one was: {last}" if last else what)

    def _answer(self, image: Image.Image, question: str, deadline: float) -> Answer:
        body = request_body(self._model, image, question, self._max_new_tokens)
        last = ""
        for attempt in range(ATTEMPTS):
            try:
                answer = self._ask(body, deadline)
            except requests.ConnectTimeout:
                answer = _Again(f"no connection within {CONNECT_S:g} s")
            except (requests.Timeout, urllib3.exceptions.TimeoutError):
                return self._late(last)
            except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
                answer = _Again(self._scrubbed(_root(error)))
            if not isinstance(answer, _Again):
                return answer
            last = answer.reason
            pause = BACKOFF_S * 2**attempt * (1 + random.random() / 2)
            if answer.after is not None:
                pause = answer.after + random.random() / 2
            if attempt + 1 == ATTEMPTS:
                break
            if time.monotonic() + pause >= deadline:
                return self._late(last)
            time.sleep(pause)
        return NoAnswer(Status.FAILED, f"{last} ({ATTEMPTS} attempts)")

    def _ask(self, body: bytes, deadline: float) -> Answer | _Again:
        left = max(deadline - time.monotonic(), 0.001)
        # No redirects: the key is for this server only. A session each, since they are not made for threads.
        with requests.Session() as session:
            response = session.post(
                self._url,
                data=body,
                headers={"Content-Type": "application/json"},
                auth=self._authorised,
                timeout=(min(left, CONNECT_S), left),
                allow_redirects=False,
                stream=True,
            )
            text = _text(response, deadline)
        if response.status_code == 200:
            answer = read_completion(text)
            return NoAnswer(answer.status, self._scrubbed(answer.reason)) if isinstance(answer, NoAnswer) else answer
        reason = self._scrubbed(f"HTTP {response.status_code} {response.reason or ''}: {read_error(text)}")
        if response.status_code in AGAIN:
            return _Again(reason, _seconds(response.headers.get("Retry-After", "")))
        return NoAnswer(Status.FAILED, reason)

    def _authorised(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        """An `auth` of our own, even without a key, keeps requests from sending what a ~/.netrc has for the host."""
        if self._key:
            request.headers["Authorization"] = f"Bearer {self._key}"
        return request

    def _scrubbed(self, reason: str) -> str:
        """One short line; servers repeat the key, so it is taken out before anything is cut off."""
        if self._key:
            reason = reason.replace(self._key, "(key)")
        return " ".join(reason.split())[:200]


def _root(error: BaseException) -> str:
    """What an exception began with; requests and urllib3 wrap it in long ones of their own."""
    while (inner := error.__cause__ or error.__context__) is not None:
        error = inner
    return f"{type(error).__name__}: {error}"


def _text(response: requests.Response, deadline: float) -> str:
    """The body, as far as it comes in time: a server that sends a byte a second must not hold us for ever.

    Raises:
        requests.Timeout: it does not.
    """
    body = bytearray()
    while piece := response.raw.read1(1 << 16, decode_content=True):
        body += piece
        if len(body) > LARGEST:
            break
        if time.monotonic() > deadline:
            raise requests.Timeout
    return body.decode("utf-8", "replace")


def _seconds(header: str) -> float | None:
    """Of a Retry-After, which is a number of seconds or a date; None where it is neither."""
    try:
        if header.strip().isdecimal():
            return float(header)
        return max((parsedate_to_datetime(header) - datetime.now(timezone.utc)).total_seconds(), 0.0)
    except (ValueError, TypeError):
        return None
