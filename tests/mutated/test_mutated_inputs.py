"""Whatever is done to an input, it is read, or refused with one clear error: no traceback, no hang, no write outside.

Run it for longer with another profile and seed:
``pytest tests/mutated --hypothesis-profile=long --hypothesis-seed=1``.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from restnet_search.errors import BudgetError, RestnetError
from restnet_search.plain.json_text import canonical_digest
from restnet_search.units import DeviceBudget, format_quantity, parse_budget, parse_quantity
from tests.mutated.inputs import BINARY, STRUCTURED, Input
from tests.mutated.mutations import BAD_TEXTS, altered_bytes, altered_data
from tests.mutated.watch import watched

_TIMES = settings().max_examples / 100  # of the profile that pytest was started with


def _settings(examples: int) -> settings:
    return settings(
        max_examples=max(1, round(examples * _TIMES)),
        deadline=None,
        suppress_health_check=[check for check in HealthCheck if isinstance(check, HealthCheck)],
    )


def _check(one: Input, folder: Path, files: Mapping[str, bytes], content: bytes) -> None:
    for left in folder.iterdir():
        shutil.rmtree(left) if left.is_dir() else left.unlink()
    for name, raw in {**files, one.name: content}.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(raw)
    with watched(folder):
        try:
            one.read(folder)
        except RestnetError as error:
            _is_clear(str(error))


def _is_clear(message: str, *, longest: int = 20_000) -> None:
    assert message.strip() and "unforeseen" not in message and "Traceback" not in message
    assert len(message) < longest


@pytest.mark.parametrize("kind", STRUCTURED)
def test_data_of_another_structure_is_read_or_refused(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = STRUCTURED[kind]
    files = one.make()
    monkeypatch.chdir(tmp_path)
    is_yaml = one.name.endswith(".yaml")
    valid = yaml.safe_load(files[one.name]) if is_yaml else json.loads(files[one.name])
    _check_valid(one, tmp_path, files)

    @_settings(one.examples)
    @given(st.data())
    def changed(data: st.DataObject) -> None:
        plain = data.draw(altered_data(valid))
        if one.signed and isinstance(plain, dict) and data.draw(st.booleans()):
            plain = _signed(plain, one.signed)
        _check(one, tmp_path, files, _as_yaml(plain) if is_yaml else json.dumps(plain).encode())

    changed()


@pytest.mark.parametrize("kind", BINARY)
def test_bytes_that_differ_are_read_or_refused(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = BINARY[kind]
    files = one.make()
    monkeypatch.chdir(tmp_path)
    _check_valid(one, tmp_path, files)

    @_settings(one.examples)
    @given(altered_bytes(files[one.name]))
    def changed(raw: bytes) -> None:
        _check(one, tmp_path, files, raw)

    changed()


@_settings(400)
@given(
    st.lists(
        st.sampled_from(
            [
                *BAD_TEXTS,
                "2",
                ".5",
                "1e3",
                "G",
                "M",
                "FLOPs",
                "params",
                "MB",
                "ms",
                "@",
                "int8",
                ",",
                "=",
                "pi",
                " ",
                "-",
            ]
        )
        | st.text(max_size=3),
        min_size=1,
        max_size=6,
    ).map("".join)
)
def test_any_budget_is_read_as_it_is_written_or_refused(text: str) -> None:
    for read in (parse_budget, parse_quantity):
        try:
            found = read(text)
        except BudgetError as error:
            _is_clear(str(error), longest=600)
        else:
            if isinstance(found, DeviceBudget):
                assert dict(parse_budget(found.text).limits) == pytest.approx(dict(found.limits), rel=1e-5)
            else:
                assert parse_quantity(format_quantity(found)).kind == found.kind


def test_there_are_at_least_two_thousand() -> None:
    assert 400 + sum(one.examples for one in (*STRUCTURED.values(), *BINARY.values())) >= 2000


def _check_valid(one: Input, folder: Path, files: Mapping[str, bytes]) -> None:
    """What the mutations start from is accepted; else they would prove nothing."""
    for name, raw in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(raw)
    with watched(folder):
        one.read(folder)


def _signed(plain: dict[str, Any], key: str) -> dict[str, Any]:
    rest = {name: value for name, value in plain.items() if name != key}
    try:
        return rest | {key: canonical_digest(rest)}
    except (ValueError, RecursionError):
        return plain


def _as_yaml(plain: Any) -> bytes:
    try:
        return yaml.safe_dump(plain, sort_keys=False).encode()
    except (yaml.YAMLError, RecursionError, UnicodeError):
        return json.dumps(plain).encode()
