"""Prompts from a user's own file: text with one prompt a line, or JSON Lines with metadata of each prompt."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

LONG = 10_000
"""Characters from which on a prompt is worth a warning: no text encoder in use reads so many."""
LONGEST = 100_000
"""Characters above which a prompt is taken for a mistake."""
EXAMPLE = '{"prompt": "two cats", "questions": ["How many cats?"], "answers": ["two"]}'

# Tab is the one control character that every tokenizer takes for a space.
_CONTROL = re.compile("[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029]")
_JSON_KEY = re.compile(r'"prompt"\s*:')

log = logging.getLogger(__name__)


def read_prompt_file(path: Path) -> tuple[list[str], dict[str, dict[str, Any]]]:
    """Prompts in the file's order, and the metadata of each by its text.

    Raises:
        OSError: no readable file.
        ValueError: one line with file, line number and cure.
    """
    try:
        # As the lines are numbered for the user, they end where an editor ends them; JSON may hold other separators.
        lines = path.read_text("utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"prompts.source: {path} is not UTF-8 text (byte {error.start}); save it as UTF-8") from error
    is_jsonl = path.suffix.lower() == ".jsonl"
    prompts: list[str] = []
    metadata: dict[str, dict[str, Any]] = {}
    first_line: dict[str, int] = {}
    long: list[str] = []
    for number, where, line in _numbered(path, lines):
        if line.startswith("#") and not is_jsonl:
            continue
        prompt, facts = _record(line, where) if is_jsonl else (_plain(line, where), {})
        _check(prompt, where)
        if facts != metadata.setdefault(prompt, facts):
            raise ValueError(
                f"{where}: the prompt of line {first_line[prompt]} again, with other metadata; "
                "make the prompts differ or the metadata agree"
            )
        first_line.setdefault(prompt, number)
        prompts.append(prompt)
        if len(prompt) >= LONG:
            long.append(where)
    if long:
        log.warning(
            "%s: %d characters or more (in %d prompts); the text encoder reads the first tokens and ignores the rest",
            *(long[0], LONG, len(long)),
        )
    return prompts, metadata


def _numbered(path: Path, lines: list[str]) -> Iterator[tuple[int, str, str]]:
    for number, line in enumerate(lines, start=1):
        if stripped := line.strip():
            yield number, f"prompts.source: {path}, line {number}", stripped


def _plain(line: str, where: str) -> str:
    if _JSON_KEY.search(line):
        raise ValueError(f"{where}: JSON in a text file; write one object a line and name the file .jsonl")
    return line


def _record(line: str, where: str) -> tuple[str, dict[str, Any]]:
    """Prompt and metadata of a line of JSON."""
    try:
        record = json.loads(line)
        # NaN, numbers beyond float64 and halves of characters pass the parser, yet could not be written down again.
        json.dumps(record, ensure_ascii=False, allow_nan=False).encode()
    except (ValueError, RecursionError) as error:
        reason = f"{error.msg}, column {error.colno}" if isinstance(error, json.JSONDecodeError) else error
        raise ValueError(f"{where}: not JSON ({reason}); write one object a line, like {EXAMPLE}") from error
    if not isinstance(record, dict) or "prompt" not in record:
        raise ValueError(f'{where}: no object with a "prompt"; write one a line, like {EXAMPLE}')
    prompt = record.pop("prompt")
    if not isinstance(prompt, str) or not prompt.strip():
        raise ValueError(f'{where}: "prompt" is no text or empty; write what the image is to show, like {EXAMPLE}')
    for key in ("questions", "answers"):
        texts = record.get(key, [])
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            raise ValueError(f'{where}: "{key}" is no list of texts; write it like {EXAMPLE}')
    if "questions" in record and "answers" in record and len(record["questions"]) != len(record["answers"]):
        counts = f"{len(record['questions'])} questions and {len(record['answers'])} answers"
        raise ValueError(f"{where}: {counts}; give each question its answer")
    return prompt.strip(), record


def _check(prompt: str, where: str) -> None:
    if len(prompt) > LONGEST:
        raise ValueError(f"{where}: a prompt of {len(prompt)} characters; shorten it (at most {LONGEST})")
    if found := _CONTROL.search(prompt):
        raise ValueError(
            f"{where}: control character U+{ord(found[0]):04X} at place {found.start() + 1} of the prompt; remove it"
        )
