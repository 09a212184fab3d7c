"""Mutations of valid inputs: of plain data by its structure, of files by their bytes."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st

__all__ = ["BAD_TEXTS", "altered_bytes", "altered_data"]


def _nested(depth: int, kind: type) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value] if kind is list else {"a": value}
    return value


BAD_TEXTS = [
    "",
    " ",
    "\0",
    "a\0b",
    "../../x",
    "/etc/passwd",
    "..",
    "~",
    "C:\\x",
    "a/b",
    "x" * 300,
    "x" * 5000,
    "=cmd|' /C calc'!A0",
    "+1",
    "@x",
    "lar[/red]ge",
    "[bold]",
    "\x1b]0;title\x07",
    "\u202egnp",
    "a\u200bb",
    "a\nb",
    "a\r\nb",
    '"',
    "'",
    "'''",
    '"""',
    "`rm`",
    "$(rm)",
    "$x^2$",
    "{0}",
    "{x}",
    "%s",
    "%n",
    "|",
    "a|b",
    "<b>x</b>",
    "# x",
    "- x",
    ": ",
    "a: b",
    "&a",
    "*a",
    "!!python/object:os.system",
    "yes",
    "no",
    "null",
    "nan",
    "1:30",
    "0x10",
    "1_000",
    "\uff12\uff10",
    "\u0661",
    "1e400",
    "-0",
    "٣GFLOPs",
    "2GFLOPs",
    "64MB@int8",
    "NUL",
    "con.txt",
    "\u2028",
    "\x85",
    "\ufeff",
    "\U0001f600",
    "os:system",
    "file.py:evil",
]
_BAD_VALUES = [
    None,
    True,
    False,
    0,
    -1,
    1,
    2,
    7,
    10**6,
    10**12,
    2**63,
    10**29,
    10**39,
    -(10**29),
    0.0,
    -0.0,
    0.5,
    1.5,
    -1.5,
    1e-300,
    1e300,
    math.nan,
    math.inf,
    -math.inf,
    [],
    {},
    [[]],
    [None],
    {"": None},
    {"a": []},
    [1, 2, 3],
    [1.0],
    ["a"],
    {"kind": "x"},
    _nested(50, list),
    _nested(300, list),
    _nested(300, dict),
    list(range(300)),
]

bad_values = st.sampled_from([*_BAD_VALUES, *BAD_TEXTS])


def _places(data: Any) -> list[list[Any]]:
    """Return the path to every value below the top, the top's own (empty) last."""
    found: list[list[Any]] = []
    pending: list[tuple[list[Any], Any]] = [([], data)]
    while pending:
        path, value = pending.pop()
        found.append(path)
        items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        pending += [([*path, key], item) for key, item in items]
    return found


@st.composite
def altered_data(draw: st.DrawFn, data: Any) -> Any:
    """Draw plain data with one to three values replaced, removed, doubled, renamed, exchanged or wrapped."""
    data = copy.deepcopy(data)
    for _ in range(draw(st.sampled_from([1, 1, 1, 2, 3]))):
        places = _places(data)
        path = places[draw(st.integers(0, len(places) - 1))]
        if not path:
            if draw(st.integers(0, 9)) == 0:
                return draw(bad_values)
            continue
        parent = data
        for key in path[:-1]:
            parent = parent[key]
        _change(draw, parent, path[-1])
    return data


def _change(draw: st.DrawFn, parent: Any, key: Any) -> None:
    kind = draw(
        st.sampled_from(["replace", "replace", "replace", "nudge", "remove", "double", "rename", "exchange", "wrap"])
    )
    value = parent[key]
    if kind == "nudge" and isinstance(value, int | float) and not isinstance(value, bool):
        parent[key] = draw(st.sampled_from([-value, value + 1, value * 1000, value / 3, str(value), value * 1.0]))
    elif kind == "nudge" and isinstance(value, str):
        parent[key] = draw(
            st.sampled_from([value + draw(st.sampled_from(BAD_TEXTS)), value[1:], value.upper(), value * 2])
        )
    elif kind == "remove":
        del parent[key]
    elif kind == "double" and isinstance(parent, list):
        parent.insert(key, copy.deepcopy(value))
    elif kind == "rename" and isinstance(parent, dict):
        parent[draw(st.sampled_from(BAD_TEXTS) | st.just(f"{key}x"))] = parent.pop(key)
    elif kind == "exchange":
        keys = list(parent) if isinstance(parent, dict) else range(len(parent))
        other = keys[draw(st.integers(0, len(keys) - 1))]
        parent[key], parent[other] = parent[other], value
    elif kind == "wrap":
        parent[key] = draw(st.sampled_from([[value], {"a": value}, {str(key): value}]))
    else:
        parent[key] = copy.deepcopy(draw(bad_values))


_WHOLE: list[Callable[[bytes], bytes]] = [
    lambda _: b"",
    lambda _: b"\xff\xfe",
    lambda _: b"\0" * 4096,
    lambda _: b"[" * 20_000,
    lambda _: b'{"a":' * 2_000,
    lambda _: b"null",
    lambda _: b"5",
    lambda raw: raw + raw,
    lambda raw: raw[::-1],
    lambda raw: b"\xef\xbb\xbf" + raw,
    lambda raw: raw.replace(b"\n", b"\r\n"),
    lambda raw: raw.upper(),
    lambda _: b"PK\x05\x06" + b"\0" * 18,
    lambda _: b"\x89PNG\r\n",
]


@st.composite
def altered_bytes(draw: st.DrawFn, raw: bytes) -> bytes:
    """Draw a file's bytes with bits flipped, cut off, with something in between, doubled, or all others."""
    kind = draw(st.sampled_from(["flip", "flip", "flip", "cut", "insert", "remove", "double", "fill", "whole"]))
    at = draw(st.integers(0, max(0, len(raw) - 1)) | st.integers(0, min(400, max(0, len(raw) - 1))))
    if kind == "flip":
        changed = bytearray(raw)
        for place in [at, *draw(st.lists(st.integers(0, max(0, len(raw) - 1)), max_size=3))]:
            if changed:
                changed[place] ^= 1 << draw(st.integers(0, 7))
        return bytes(changed)
    if kind == "cut":
        return raw[:at]
    if kind == "whole":
        return draw(st.sampled_from(_WHOLE))(raw)
    size = draw(st.sampled_from([1, 2, 4, 8, 64, 1024]))
    piece = raw[at : at + size]
    if kind == "insert":
        return raw[:at] + draw(st.binary(min_size=1, max_size=16)) + raw[at:]
    if kind == "remove":
        return raw[:at] + raw[at + size :]
    if kind == "double":
        return raw[:at] + piece + piece + raw[at + size :]
    return raw[:at] + draw(st.sampled_from([b"\0", b"\xff", b"9", b"["])) * size + raw[at + size :]
