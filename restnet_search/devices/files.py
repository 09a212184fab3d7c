"""The files that go to a device and come back."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

__all__ = ["MANIFEST", "RESULTS", "SCRIPT", "content_digest"]

MANIFEST, SCRIPT, RESULTS = "bench.json", "measure.py", "results.json"


def content_digest(content: Mapping[str, Any]) -> str:
    """Names what a JSON object holds beside its own digest; the script on the device says it alike."""
    rest = {key: value for key, value in content.items() if key != "digest"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
