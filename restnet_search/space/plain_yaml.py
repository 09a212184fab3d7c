"""YAML as plain data: PyYAML's safe loader, with exponents read as numbers and duplicate keys refused."""

from __future__ import annotations

import re

import yaml

from restnet_search.errors import SpaceError

__all__ = ["read_yaml", "write_yaml"]

# PyYAML follows YAML 1.1, which takes 1e-3 and 1.5e3 for text; YAML 1.2 and everybody else takes them for numbers.
_EXPONENT = re.compile(r"[-+]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)[eE][-+]?[0-9]+$")
_EXPONENT_STARTS = list("-+.0123456789")
_FLOAT = "tag:yaml.org,2002:float"


class _Loader(yaml.SafeLoader):
    pass


class _Dumper(yaml.SafeDumper):
    pass


_Loader.add_implicit_resolver(_FLOAT, _EXPONENT, _EXPONENT_STARTS)
_Dumper.add_implicit_resolver(_FLOAT, _EXPONENT, _EXPONENT_STARTS)  # so that the text "1e-3" is written in quotes


def read_yaml(text: str, source: str) -> object:
    """Read one YAML document; it can only hold plain data, and no code runs.

    Args:
        text: The document.
        source: What errors call it: a file name.

    Raises:
        SpaceError: If it is no YAML, or holds tags; says line and column.
    """
    try:
        return _load(text, source)
    except yaml.MarkedYAMLError as error:
        raise _marked(error, source) from error
    except yaml.YAMLError as error:  # characters that YAML does not allow
        raise SpaceError(f"{source} is no YAML: {' '.join(str(error).split())}.", expected="UTF-8 text") from error
    except ValueError as error:  # what looks like a date or a number, and is none: 2026-13-45
        raise SpaceError(
            f"{source} is no YAML: {error}.", hint="put what looks like a date or a number in quotes"
        ) from error
    except RecursionError as error:
        raise SpaceError(f"{source} is nested too deeply.") from error


def write_yaml(data: object) -> str:
    """Write plain data so that :func:`read_yaml` gives back an equal value."""
    text = _dump(data, allow_unicode=True)
    # YAML's exotic line breaks, which PyYAML writes as they are and reads as plain ones: escape whatever is not ASCII.
    return _dump(data, allow_unicode=False) if any(char in text for char in "\x85\u2028\u2029\ufeff") else text


def _dump(data: object, *, allow_unicode: bool) -> str:
    return yaml.dump(
        data, Dumper=_Dumper, sort_keys=False, default_flow_style=None, allow_unicode=allow_unicode, width=110
    )


def _load(text: str, source: str) -> object:
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        _refuse_duplicate_keys(node, source, set())
        return loader.construct_document(node)
    finally:
        loader.dispose()


def _refuse_duplicate_keys(node: yaml.Node, source: str, visited: set[int]) -> None:
    """PyYAML would silently keep the last of them."""
    if id(node) in visited:
        return
    visited.add(id(node))
    if isinstance(node, yaml.SequenceNode):
        for item in node.value:
            _refuse_duplicate_keys(item, source, visited)
    elif isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    place = _place(source, key.start_mark)
                    raise SpaceError(f"{place}: the key {key.value!r} is there twice.", hint="keep one of them")
                seen.add(key.value)
            _refuse_duplicate_keys(value, source, visited)


def _place(source: str, mark: yaml.Mark | None) -> str:
    return f"{source}, line {mark.line + 1}, column {mark.column + 1}" if mark else source


def _marked(error: yaml.MarkedYAMLError, source: str) -> SpaceError:
    place = _place(source, error.problem_mark or error.context_mark)
    problem = " ".join(str(error.problem or error.context).split())
    if tag := re.search(r"could not determine a constructor for the tag '(.*)'", problem):
        name = tag[1].replace("tag:yaml.org,2002:", "!!")
        return SpaceError(
            f"{place}: the tag {name} is not allowed.",
            expected="plain data (text, numbers, lists, mappings); a space file never runs code",
            hint="remove the tag; a model of your own is named by `factory:` and needs --trust-code",
        )
    context = f" ({' '.join(error.context.split())})" if error.context and error.problem else ""
    return SpaceError(f"{place}: this is no YAML: {problem}{context}.", hint="check indentation, brackets and quotes")
