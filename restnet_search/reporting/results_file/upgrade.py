"""``results.json`` of earlier versions, brought into today's form. Pure functions over plain JSON values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from restnet_search.search.run.records import nested_figures

__all__ = ["upgraded"]


def upgraded(data: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the values of schema version 1 as those of version 2; any other version as it is.

    Values of the wrong type stay where they are: the codec names them.
    """
    return _from_1(data) if data.get("schema_version") == 1 else data


def _from_1(data: Mapping[str, Any]) -> dict[str, Any]:
    """Version 2 spells ``license``, says in one object where latency was measured, what a network costs and how it was
    trained, and keeps beside the hybrids, by id, what the report derives of them.
    """
    new = {**data, "schema_version": 2}
    hybrids = [hybrid for hybrid in _objects(data.get("hybrids")) if isinstance(hybrid.get("id"), str)]
    new["dominated"] = [hybrid["id"] for hybrid in hybrids if hybrid.get("dominated")]
    new["non_commercial"] = {hybrid["id"]: names for hybrid in hybrids if (names := hybrid.get("non_commercial"))}
    if isinstance(search := data.get("search"), Mapping) and isinstance(latency := search.get("latency"), Mapping):
        new["search"] = {**search, "latency": _latency(latency)}
    for key, change in (("anchors", _anchor), ("hybrids", _hybrid), ("controls", _hybrid)):
        if isinstance(data.get(key), list):
            new[key] = [change(one) if isinstance(one, Mapping) else one for one in data[key]]
    return new


def _objects(value: Any) -> list[Mapping[str, Any]]:
    return [one for one in value if isinstance(one, Mapping)] if isinstance(value, list) else []


def _latency(note: Mapping[str, Any]) -> dict[str, Any]:
    place = ("runtime", "threads", "batch", "machine")
    kept = {key: value for key, value in note.items() if key not in place}
    return kept | {"on": {key: note[key] for key in place if key in note}}


def _anchor(anchor: Mapping[str, Any]) -> dict[str, Any]:
    kept = nested_figures({key: value for key, value in anchor.items() if key != "licence"})
    return kept | ({"license": anchor["licence"]} if "licence" in anchor else {})


def _hybrid(hybrid: Mapping[str, Any]) -> dict[str, Any]:
    return nested_figures({key: value for key, value in hybrid.items() if key not in ("dominated", "non_commercial")})
