"""Read and write search spaces as YAML, and import the code of installed packages that they name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from restnet_search.errors import ExtensionError, SpaceError
from restnet_search.registry import RANKERS, STITCH_LAYERS, STRATEGIES
from restnet_search.space.messages import describe_problems
from restnet_search.space.plain_yaml import read_yaml, read_yaml_text, write_yaml
from restnet_search.space.renamed_keys import upgrade_space
from restnet_search.space.schema import SearchSpace
from restnet_search.space.sections.checks import NOT_REGISTERED

__all__ = ["MEND_OPTIONS", "WITH_OPTIONS", "admit_extensions", "dump_space", "load_space", "parse_space"]

_EXPECTED = "a mapping with at least the keys anchors and data"
_LIST = "list the built-in spaces: restnet-search spaces list"
_MEND = "mend the file"
_SHOWN = 30  # problems; whoever has more reads no further
WITH_OPTIONS = "with the command line's options"
MEND_OPTIONS = "mend the option of that name, or the file where no option set it"
_HINT = "look at a complete one: restnet-search spaces show demo"


def load_space(path: str | Path, *, upgrade: bool = False, replaced: Mapping[str, Any] | None = None) -> SearchSpace:
    """Read a search space from a YAML file.

    Paths inside it (``weights``, ``data.root``, the file of a ``factory``) are left as written.

    Args:
        path: The file.
        upgrade: Take it as a run folder's own copy: with keys of earlier releases, and with names that some package
            offered when the run was started.
        replaced: Keys at the top of the space, and of its sections, that something else than the file sets. They count
            as the file's own where an effort fills in what is not set.

    Raises:
        SpaceError: If the file is missing, is no YAML, or is no valid space; all problems are named at once.
        ExtensionError: If nothing that is installed now offers what the space of a run names.
    """
    path = Path(path)
    try:
        text = read_yaml_text(path)
    except FileNotFoundError as error:
        raise SpaceError(f"There is no file {path}.", expected="a YAML file", hint=_LIST) from error
    except IsADirectoryError as error:
        raise SpaceError(f"{path} is a folder.", expected="a YAML file", hint="name the file inside it") from error
    except UnicodeDecodeError as error:
        raise SpaceError(f"{path} is no text: byte {error.start} is not UTF-8.", expected="a YAML file") from error
    except OSError as error:
        raise SpaceError(f"{path} cannot be read: {error.strerror}.") from error
    content = read_yaml(text, str(path)) if upgrade else text
    if isinstance(content, Mapping):
        # before there was an effort, keys that a space did not set were those of the paper; and nothing was retrained
        earlier = {"effort": "paper", "retrain": {"hybrids": 0}}
        return _parse({**earlier, **upgrade_space(content)}, str(path), _MEND, of_run=True)
    if not replaced:
        return parse_space(text, source=str(path))
    return parse_space(_replaced(read_yaml(text, str(path)), replaced), f"{path} {WITH_OPTIONS}", MEND_OPTIONS)


def _replaced(content: Any, changes: Mapping[str, Any]) -> Any:
    """Return what a file holds with some keys replaced; what is no mapping is left for validation to refuse."""
    if not isinstance(content, Mapping):
        return content
    merged = dict(content)
    for key, value in changes.items():
        merged[key] = _replaced(merged.get(key, {}), value) if isinstance(value, Mapping) else value
    return merged


def parse_space(content: str | Mapping[str, Any], source: str = "the space", mend: str = _MEND) -> SearchSpace:
    """Validate a search space.

    Args:
        content: YAML text, or what such text holds.
        source: What errors call it: a file name.
        mend: What errors tell the user to do first.

    Raises:
        SpaceError: If it is no valid space. Every problem is one line: the path in the file, what is wrong and what
            would be right, the value.
    """
    return _parse(content, source, mend, of_run=False)


def _parse(content: str | Mapping[str, Any], source: str, mend: str, *, of_run: bool) -> SearchSpace:
    data = read_yaml(content, source) if isinstance(content, str) else content
    if data is None or data == {}:
        raise SpaceError(f"{source} is empty.", expected=_EXPECTED, hint=_HINT)
    if not isinstance(data, Mapping):
        kind = "a list" if isinstance(data, list) else f"a single value ({type(data).__name__})"
        raise SpaceError(f"{source} holds {kind} at the top.", expected=_EXPECTED, hint=_HINT)
    try:
        return SearchSpace.model_validate(dict(data))
    except ValidationError as error:
        if of_run:
            _refuse_missing_extensions(error, source)
        lines = describe_problems(error, data, SearchSpace)
    except RecursionError as error:
        raise SpaceError(f"{source} is nested too deeply, or refers to itself.") from error
    count = "a problem" if len(lines) == 1 else f"{len(lines)} problems"
    shown = lines if len(lines) <= _SHOWN else [*lines[:_SHOWN], f"and {len(lines) - _SHOWN} more"]
    raise SpaceError("\n  ".join([f"{source} has {count}:", *shown]), hint=f"{mend}; {_HINT}")


def _refuse_missing_extensions(error: ValidationError, source: str) -> None:
    """Say which names of a run's space some package offered when the run began, and none does any more."""
    problems = [item for item in error.errors(include_url=False) if item["type"] == NOT_REGISTERED]
    if not problems:
        return
    facts = [(item.get("ctx", {}), item["input"]) for item in problems]
    missing = dict.fromkeys(f"the {context['kind']} {name!r}" for context, name in facts)
    groups = dict.fromkeys(context["group"] for context, _ in facts)
    raise ExtensionError(
        f"{source} names {' and '.join(missing)}, which no installed package offers.",
        expected="what the run was made with",
        hint=f"install the package that offers it, by an entry point of the group {' or '.join(groups)}",
    ) from error


def admit_extensions(space: SearchSpace, *, trust_code: bool) -> None:
    """Import the ranker, the stitch layers and the strategy of a space where installed packages offer them.

    Built-in ones are not imported.

    Raises:
        ExtensionError: If one is not trusted, not known (any more) or cannot be loaded, or if code is trusted and a
            package offers another one under the name of a built-in.
    """
    RANKERS.admit(space.ranker.kind, trust_code=trust_code)
    STRATEGIES.admit(space.search.strategy, trust_code=trust_code)
    for kind in space.stitch.kind:
        STITCH_LAYERS.admit(kind, trust_code=trust_code)


def dump_space(space: SearchSpace) -> str:
    """Write a space as YAML, all defaults filled in; :func:`parse_space` gives back an equal one."""
    return write_yaml(space.model_dump(mode="json"))
