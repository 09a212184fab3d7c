"""timm's published weights: from its caches, or from the network if there is one; quick to say so if there is none."""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import huggingface_hub
import torch

from restnet_search.errors import AnchorError

__all__ = ["MissingWeights", "all_missing", "cached_file", "can_download", "no_weights"]

_PROBE_SECONDS = 5.0
_HUB_FILES = ("model.safetensors", "pytorch_model.bin")


def cached_file(cfg: Any) -> Path | None:
    """Return the file of a timm ``PretrainedCfg`` on this machine; None where there is none."""
    if cfg.custom_load:  # a foreign format that only timm's own loader reads
        return None
    if cfg.file and Path(cfg.file).is_file():
        return Path(cfg.file)
    if cfg.hf_hub_id:
        for name in (cfg.hf_hub_filename,) if cfg.hf_hub_filename else _HUB_FILES:
            cached = huggingface_hub.try_to_load_from_cache(cfg.hf_hub_id, name)
            if isinstance(cached, str):
                return Path(cached)
    elif cfg.url:
        path = Path(torch.hub.get_dir(), "checkpoints", Path(urlsplit(cfg.url).path).name)
        return path if path.is_file() else None
    return None


def can_download(url: str | None = None) -> bool:
    """Say if the host of `url` (default: the model hub) answers within seconds.

    Asked first because the hub's client retries for most of a minute where there is no network.
    """
    if url is None:
        if huggingface_hub.constants.HF_HUB_OFFLINE:
            return False
        url = huggingface_hub.constants.ENDPOINT
    parts = urlsplit(url)
    request = urllib.request.Request(f"{parts.scheme}://{parts.netloc}", method="HEAD")
    try:
        with urllib.request.urlopen(request, timeout=_PROBE_SECONDS):
            return True
    except urllib.error.HTTPError:
        return True  # it answered
    except (OSError, ValueError):
        return False


class MissingWeights(AnchorError):
    """Weights that cannot be had: which file to fetch, and how ``--weights`` uses it.

    Args:
        model: As the space names it.
        reason: Why there are none.
        wanted: Which file would do.
        how: How to get it and under which name ``--weights`` finds it.
    """

    def __init__(self, model: str, reason: str, *, wanted: str, how: str) -> None:
        self.model, self.reason, self.wanted, self.how = model, reason, wanted, how
        super().__init__(
            f"There are no pre-trained weights for {model}: {reason}.",
            expected=wanted,
            hint=f"{how} and pass --weights DIR; or say `pretrained: false` to start untrained and be fitted",
        )


def no_weights(model: str, cfg: Any, reason: str) -> MissingWeights:
    """Return the error for a model without weights; `cfg` is timm's ``PretrainedCfg`` if it has one."""
    if cfg is not None and cfg.hf_hub_id:
        file = cfg.hf_hub_filename or _HUB_FILES[0]
        wanted = f"{file} of the hub repository {cfg.hf_hub_id}{f' (or {cfg.url})' if cfg.url else ''}"
        how = (
            f"where there is a network, `hf download {cfg.hf_hub_id} {file}`, save it as DIR/{model}{Path(file).suffix}"
        )
    elif cfg is not None and cfg.url:
        wanted = str(cfg.url)
        how = f"fetch it where there is a network, save it as DIR/{model}{Path(urlsplit(cfg.url).path).suffix}"
    else:
        wanted = f"a file {model}.safetensors (or .pth) in the folder of --weights"
        how = f"save its state dict as DIR/{model}.safetensors"
    return MissingWeights(model, reason, wanted=wanted, how=how)


def all_missing(errors: Sequence[MissingWeights]) -> AnchorError:
    """Return one error for all anchors of a space that lack weights, so that every file is fetched in one go."""
    if len(errors) == 1:
        return errors[0]
    reasons = "; ".join(dict.fromkeys(error.reason for error in errors))
    return AnchorError(
        f"There are no pre-trained weights for {', '.join(error.model for error in errors)}: {reasons}.",
        expected="".join(f"\n  {error.wanted}" for error in errors),
        hint="".join(f"\n  {error.how}" for error in errors)
        + "\n  and pass --weights DIR; or say `pretrained: false` to start untrained and be fitted",
    )
