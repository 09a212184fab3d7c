"""The files that go to a device and come back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from restnet_search.plain.json_text import canonical_digest

__all__ = ["BENCH_MANIFEST", "RESULTS", "SCRIPT", "content_digest"]

BENCH_MANIFEST, SCRIPT, RESULTS = "bench.json", "measure.py", "results.json"


def content_digest(content: Mapping[str, Any]) -> str:
    """Return the digest of what a JSON object holds beside its own; the script on the device computes it alike."""
    return canonical_digest({key: value for key, value in content.items() if key != "digest"})
