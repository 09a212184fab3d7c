"""Models from user code: run only where the user said so."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import nn

from restnet_search.errors import AnchorError, did_you_mean

__all__ = ["build_from_factory"]


def build_from_factory(
    factory: str, kwargs: Mapping[str, Any], *, base_dir: Path | None, trust_code: bool
) -> nn.Module:
    """Call ``module:function`` or ``file.py:function`` (relative to `base_dir`) with `kwargs`.

    Raises:
        AnchorError: If code is not trusted, cannot be found, fails, or returns no module.
    """
    if not trust_code:
        raise AnchorError(
            f"The space names the factory {factory!r}, which is Python code to run.",
            hint="read that code; if you trust it, pass --trust-code",
        )
    build = _find(factory, base_dir)
    try:
        model = build(**kwargs)
    except (Exception, SystemExit) as error:  # user code may raise anything
        raise AnchorError(f"The factory {factory!r} failed with {kwargs}: {type(error).__name__}: {error}") from error
    if not isinstance(model, nn.Module):
        raise AnchorError(f"The factory {factory!r} returned a {type(model).__name__}.", expected="an nn.Module")
    return model


def _find(factory: str, base_dir: Path | None) -> Callable[..., Any]:
    where, _, name = factory.rpartition(":")
    if not where or not name:
        raise AnchorError(f"Cannot read the factory {factory!r}.", expected="module:function or file.py:function")
    try:
        module = _run_file((base_dir or Path()) / where) if where.endswith(".py") else importlib.import_module(where)
    except (Exception, SystemExit) as error:  # importing runs user code
        raise AnchorError(
            f"Cannot import the factory {factory!r}: {type(error).__name__}: {error}",
            hint="install its module, or name the file: file.py:function, relative to the space file",
        ) from error
    build = getattr(module, name, None)
    if not callable(build):
        offered = sorted(
            key
            for key, value in vars(module).items()
            if not key.startswith("_") and getattr(value, "__module__", None) == module.__name__ and callable(value)
        )
        raise AnchorError(
            f"{where} has no function {name!r}.", expected=f"one of {did_you_mean(name, offered)}" if offered else None
        )
    return build


def _run_file(path: Path) -> Any:
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}")
    name = f"restnet_user_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"cannot load {path}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses in the file look their module up by name
    spec.loader.exec_module(module)
    return module
