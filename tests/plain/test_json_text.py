"""JSON is read within limits, each key once, and what carries a digest is what was written."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import restnet_search
from restnet_search.plain.json_text import digested_text, parse_json, read_json, with_digest, without_digest

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=20,
)


@given(st.dictionaries(TEXT, PLAIN, max_size=4))
def test_what_is_written_with_its_digest_is_read_back(plain: dict[str, Any]) -> None:
    plain.pop("digest", None)
    assert without_digest(parse_json(digested_text(plain))) == plain


def test_the_digest_is_the_sha_256_of_the_sorted_values() -> None:
    text = '{"a":[1,2.5,"\\u00e4"],"b":null}'
    written = json.loads(digested_text({"b": None, "a": [1, 2.5, "ä"]}))
    assert written["digest"] == hashlib.sha256(text.encode()).hexdigest()


@pytest.mark.parametrize("change", [{"a": 2}, {"b": 0}, {"a": "1"}, {"a": 1.0}, {"digest": None}])
def test_a_change_is_told_from_what_was_written(change: dict[str, Any]) -> None:
    written = with_digest({"a": 1})
    assert without_digest(written) == {"a": 1}
    with pytest.raises(ValueError, match=r"changed after it was written.*removing the key digest"):
        without_digest(written | change)
    assert without_digest({key: value for key, value in (written | change).items() if key != "digest"})


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (b"[" * 100_000 + b"]" * 100_000, "nested"),
        (b"[" * 150 + b"]" * 150, "nested more than 100 deep"),
        (b'{"a":' * 150 + b"1" + b"}" * 150, "nested more than 100 deep"),
        (b'{"a": 1, "a": 2}', "'a' is there twice"),
        (b'{"a": NaN}', "not finite"),
        (b"[1e999]", "not finite"),
        (b"[-Infinity]", "not finite"),
        (b"1" * 400, "more than 40 digits"),
        (b"9" * 5000, ""),
        (b'["\\ud800"]', "half a character"),
        (b'{"\\udfff": 1}', "half a character"),
        (b"\xff", ""),
        (b"", ""),
        (b'{"a": 1', ""),
    ],
)
def test_what_would_break_a_later_reader_is_refused(text: bytes, why: str) -> None:
    with pytest.raises(ValueError, match=re.escape(why) if why else None):
        parse_json(text)


def test_of_an_endless_file_the_limit_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("restnet_search.plain.json_text._MOST_BYTES", 1000)
    with pytest.raises(ValueError, match="larger than"):
        read_json(Path("/dev/zero"))


def test_half_characters_of_file_names_are_question_marks_in_what_is_written() -> None:
    assert without_digest(parse_json(digested_text({"file": "a\udcff.jpg"}))) == {"file": "a?.jpg"}


def test_nothing_else_in_the_package_parses_json_or_yaml() -> None:
    package = Path(restnet_search.__file__).parent
    homes = {"json_text.py": "json", "on_device.py": "json", "inference_examples.py": "json", "plain_yaml.py": "yaml"}
    homes["feature_files.py"] = "json"  # the header of a file of ours, behind its checksum
    parses = re.compile(r"\b(json\.loads?|yaml\.(safe_)?load(_all)?)\(")
    found = {path.name for path in package.rglob("*.py") if parses.search(path.read_text(encoding="utf-8"))}
    assert found <= homes.keys()
