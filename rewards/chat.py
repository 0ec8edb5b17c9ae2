"""The chat completions of OpenAI, as far as one question about one image needs them: request, answer, address, key."""

from __future__ import annotations

import base64
import io
import json
import os
import re
from typing import Any
from urllib.parse import urlsplit

from PIL import Image

from rewards.reward import Status
from rewards.vlm import Answer, NoAnswer, answer_of


def request_body(model: str, image: Image.Image, question: str, max_new_tokens: int) -> bytes:
    """JSON with the image as a PNG data URL, which loses nothing; an empty question sends the image alone."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    url = "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
    content: list[dict[str, Any]] = [{"type": "image_url", "image_url": {"url": url}}]
    if question:
        content.append({"type": "text", "text": question})
    messages = [{"role": "user", "content": content}]
    return json.dumps({"model": model, "messages": messages, "temperature": 0, "max_tokens": max_new_tokens}).encode()


def read_completion(text: str) -> Answer:
    """What the model said; anything that is no chat completion with a text is a failure."""
    try:
        message = json.loads(text)["choices"][0]["message"]
        answer, refusal = message["content"], message.get("refusal")
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return NoAnswer(Status.FAILED, f"no chat completion but {text!r}")
    if isinstance(answer, str):
        return answer_of(answer)
    if isinstance(refusal, str):
        return NoAnswer(Status.FAILED, f"the model refused: {refusal}")
    return NoAnswer(Status.FAILED, f"the answer is no text but {answer!r}")


def read_error(text: str) -> str:
    """The message of an error's body, or the body where it has none."""
    try:
        return str(json.loads(text)["error"]["message"])
    except (ValueError, LookupError, TypeError, RecursionError):
        return text


def base_url(endpoint: str) -> str:
    """The URL as requests go there.

    Raises:
        ValueError: it is none, or there is a password in it.
    """
    try:
        parts = urlsplit(endpoint)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        usable, parts = False, urlsplit("")
    if not usable or parts.query or parts.fragment:
        raise ValueError("rewards.vlm.endpoint: no URL of a server; give one like http://host:8000/v1")
    if parts.username is not None or parts.password is not None:
        raise ValueError("rewards.vlm.endpoint: no name or password in the URL; put the key into vlm.api_key_env")
    return endpoint.rstrip("/")


def read_key(variable: str) -> str:
    """Raises:
    ValueError: the key cannot be sent; it is not shown.
    """
    key = os.environ.get(variable, "").strip() if variable else ""
    if key and not re.fullmatch(r"[\x21-\x7e]+", key):
        raise ValueError(f"rewards.vlm.api_key_env: what {variable} holds is no key: it has spaces or other characters")
    return key
