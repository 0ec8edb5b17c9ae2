import json
import logging
from pathlib import Path

import pytest

from actors.prompt_files import read_prompt_file


def test_a_line_of_json_is_a_prompt_and_its_metadata(tmp_path):
    file = tmp_path / "prompts.JSONL"
    asked = {"questions": ["How many cats?"], "answers": ["two"], "weight": 0.5, "tags": {"hard": None}}
    line = json.dumps({"prompt": " two cats, größer ", **asked}, ensure_ascii=False)
    described = '{"prompt": "a fox", "note": "first\u2028second\\nthird"}'
    file.write_bytes(f"\ufeff{line}\r\n\n{described}\n{line}".encode())
    prompts, metadata = read_prompt_file(file)
    assert prompts == ["two cats, größer", "a fox", "two cats, größer"]
    assert metadata == {"two cats, größer": asked, "a fox": {"note": "first\u2028second\nthird"}}


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("two cats", r"not JSON \(Expecting value, column 1\); write one object a line"),
        ('{"prompt": "two cats"', "not JSON"),
        ("# a comment", "not JSON"),
        ('{"prompt": "a", "weight": NaN}', "not JSON .*not JSON compliant"),
        ('{"prompt": "a", "weight": 1e999}', "not JSON .*not JSON compliant"),
        ('{"prompt": "half a \\ud83d"}', "not JSON .*surrogates not allowed"),
        ("[" * 100_000, r"not JSON \("),
        ('["two cats"]', 'no object with a "prompt"; write one a line, like'),
        ("null", 'no object with a "prompt"'),
        ('{"text": "two cats"}', 'no object with a "prompt"'),
        ('{"prompt": 3}', '"prompt" is no text or empty'),
        ('{"prompt": null}', '"prompt" is no text or empty'),
        ('{"prompt": " "}', '"prompt" is no text or empty'),
        ('{"prompt": "a\\u0000b"}', r"control character U\+0000 at place 2 of the prompt; remove it"),
        ('{"prompt": "a cat\\nand a dog"}', r"control character U\+000A at place 6"),
        ('{"prompt": "a\\u2028b"}', r"control character U\+2028"),
        ('{"prompt": "a", "questions": ["?", "!"], "answers": ["1"]}', "2 questions and 1 answers; give each"),
        ('{"prompt": "a", "questions": "?", "answers": "1"}', '"questions" is no list of texts'),
        ('{"prompt": "a", "questions": ["?"], "answers": [1]}', '"answers" is no list of texts'),
        ('{"prompt": "a", "answers": null}', '"answers" is no list of texts'),
        ('{"prompt": "a fox", "seen": false}', "the prompt of line 1 again, with other metadata; make"),
        (json.dumps({"prompt": "x" * 100_001}), r"a prompt of 100001 characters; shorten it \(at most 100000\)"),
    ],
)
def test_a_bad_line_of_json_is_named_with_its_cure(tmp_path: Path, line: str, complaint: str):
    file = tmp_path / "prompts.jsonl"
    file.write_text(f'{{"prompt": "a fox", "seen": true}}\n\n{line}\n', "utf-8")
    with pytest.raises(ValueError, match=rf"^prompts\.source: \S+prompts\.jsonl, line 3: {complaint}") as error:
        read_prompt_file(file)
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("two\0cats", r"control character U\+0000 at place 4"),
        ("two\x0ccats", r"control character U\+000C"),
        ("two\x1b[1mcats", r"control character U\+001B"),
        ("two\x85cats", r"control character U\+0085"),
        ('{"prompt": "two cats"}', r"JSON in a text file; .* name the file \.jsonl"),
        ('  "prompt" : "two cats",', "JSON in a text file"),
        ("x" * 100_001, "a prompt of 100001 characters"),
    ],
)
def test_a_bad_line_of_text_is_named_with_its_cure(tmp_path: Path, line: str, complaint: str):
    file = tmp_path / "prompts.txt"
    file.write_text(f"a fox\n# {line}\n{line}\n", "utf-8")
    with pytest.raises(ValueError, match=rf"^prompts\.source: \S+prompts\.txt, line 3: {complaint}"):
        read_prompt_file(file)


@pytest.mark.parametrize("name", ["prompts.txt", "prompts.jsonl"])
def test_a_file_in_another_encoding_is_refused(tmp_path: Path, name: str):
    file = tmp_path / name
    file.write_bytes('{"prompt": "größe"}'.encode("latin-1"))
    with pytest.raises(ValueError, match=r"not UTF-8 text \(byte 14\); save it as UTF-8"):
        read_prompt_file(file)


def test_long_prompts_are_taken_with_one_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    file = tmp_path / "prompts.txt"
    file.write_text("\n".join(["x" * 9_999, "y" * 10_000, "z" * 100_000]))
    with caplog.at_level(logging.WARNING):
        prompts, _ = read_prompt_file(file)
    assert [len(prompt) for prompt in prompts] == [9_999, 10_000, 100_000]
    (record,) = caplog.records
    assert "line 2: 10000 characters or more (in 2 prompts)" in record.getMessage()
    assert "ignores the rest" in record.getMessage()
