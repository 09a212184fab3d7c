"""YAML as plain data: PyYAML's safe loader within limits, exponents read as numbers, duplicate keys refused.

ruamel.yaml was tried in its place (0.19). It knows numbers of YAML 1.2 and duplicate keys, but it writes ``yes`` and
``1:30`` without quotes, which readers of YAML 1.1 (most of them) take for true and 90, it does not read back a
next-line character that it wrote, and it has no limits on depth and aliases either. timm needs PyYAML anyway.
"""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from restnet_search.errors import SpaceError

__all__ = ["read_yaml", "read_yaml_text", "write_yaml"]

_MOST_BYTES = 16 * 2**20  # latency tables of devices are the largest files of ours, below 1 MiB
_MOST_DEPTH = 100
_MOST_VALUES = 1_000_000  # with every alias replaced by what it stands for

# PyYAML follows YAML 1.1, which takes 1e-3 and 1.5e3 for text; YAML 1.2 and everybody else takes them for numbers.
_EXPONENT = re.compile(r"[-+]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)[eE][-+]?[0-9]+$")
_EXPONENT_STARTS = list("-+.0123456789")
_FLOAT = "tag:yaml.org,2002:float"
# What YAML 1.1 reads as a number, and YAML 1.2 as text or as another number: 1:30, 1_000, 010, 0x10, 0b1.
_TWO_READINGS = re.compile(r"[-+]?(?:0[0-9xb].*|.*[_:].*)")


class _Loader(yaml.SafeLoader):
    """The safe loader, which counts while it reads: no value is made before the whole document is within limits."""

    def __init__(self, text: str, source: str) -> None:
        super().__init__(text)
        self._source = source
        self._depth = 0
        self._sizes: dict[yaml.Node, int] = {}  # values in every finished node, aliases replaced

    def compose_node(self, parent: yaml.Node | None, index: object) -> yaml.Node | None:
        mark = self.peek_event().start_mark
        is_alias = self.check_event(yaml.AliasEvent)
        self._depth += 1
        if self._depth > _MOST_DEPTH:
            raise SpaceError(
                f"{self._source} is nested too deeply ({_place(self._source, mark)}).",
                expected=f"at most {_MOST_DEPTH} lists and mappings inside one another",
            )
        node = super().compose_node(parent, index)  # pyright: ignore[reportArgumentType]  as the stubs of PyYAML have it
        self._depth -= 1
        if node is None:
            return None
        if not is_alias:
            self._sizes[node] = 1 + sum(self._sizes[child] for child in _children(node))
        elif node not in self._sizes:
            raise SpaceError(
                f"{_place(self._source, mark)}: the value refers to itself.", hint="write out what is meant"
            )
        if self._sizes[node] > _MOST_VALUES:
            raise SpaceError(
                f"{self._source} holds too much ({_place(self._source, mark)}).",
                expected=f"at most {_MOST_VALUES:,} values, counting what every alias stands for",
            )
        return node

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        self._refuse_two_readings(node)
        return super().construct_yaml_int(node)

    def construct_yaml_float(self, node: yaml.ScalarNode) -> float:
        self._refuse_two_readings(node)
        return super().construct_yaml_float(node)

    def _refuse_two_readings(self, node: yaml.ScalarNode) -> None:
        """Refuse a number that another reader of YAML takes for something else."""
        if _TWO_READINGS.fullmatch(node.value):
            shown = node.value if len(node.value) <= 40 else f"{node.value[:40]}..."
            raise SpaceError(
                f"{self._source} holds {shown}, which readers of YAML take for different numbers, or for text"
                f" ({_place(self._source, node.start_mark)}).",
                expected="a decimal number without leading zeros, colons and underscores, or text in quotes",
            )

    def compose_mapping_node(self, anchor: str | None) -> yaml.MappingNode:
        """Refuse a key that is there twice: PyYAML would silently keep the last."""
        node = super().compose_mapping_node(anchor)  # pyright: ignore[reportArgumentType]
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                place = _place(self._source, key.start_mark)
                raise SpaceError(f"{place}: the key {key.value!r} is there twice.", hint="keep one of them")
            seen.add(str(key.value))
        return node


class _Dumper(yaml.SafeDumper):
    pass


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_yaml_int)
_Loader.add_constructor(_FLOAT, _Loader.construct_yaml_float)
_Loader.add_implicit_resolver(_FLOAT, _EXPONENT, _EXPONENT_STARTS)
_Dumper.add_implicit_resolver(_FLOAT, _EXPONENT, _EXPONENT_STARTS)  # so that the text "1e-3" is written in quotes


def read_yaml_text(path: Path) -> str:
    """Read the text of a YAML file, without its byte order mark; of an endless file no more than the limit is read.

    Raises:
        OSError, UnicodeDecodeError: If the file cannot be read, or is no UTF-8.
        SpaceError: If it is larger than any file of ours.
    """
    with path.open("rb") as file:
        raw = file.read(_MOST_BYTES + 1)
    if len(raw) > _MOST_BYTES:
        raise SpaceError(f"{path} is too large.", expected=f"a YAML file of at most {_MOST_BYTES // 2**20} MiB")
    return raw.decode("utf-8-sig")


def read_yaml(text: str, source: str) -> object:
    """Read one YAML document; it can only hold plain data, and no code runs.

    Args:
        text: The document.
        source: What errors call it: a file name.

    Raises:
        SpaceError: If it is no YAML, holds tags, or is beyond the limits of depth and size; says line and column.
    """
    try:
        loader = _Loader(text, source)
        try:
            return loader.get_single_data()
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        raise _marked(error, source) from error
    except yaml.YAMLError as error:  # characters that YAML does not allow
        raise SpaceError(f"{source} is no YAML: {' '.join(str(error).split())}.", expected="UTF-8 text") from error
    except ValueError as error:  # what looks like a date or a number, and is none: 2026-13-45
        raise SpaceError(
            f"{source} is no YAML: {error}.", hint="put what looks like a date or a number in quotes"
        ) from error


def write_yaml(data: object) -> str:
    """Write plain data so that :func:`read_yaml` gives back an equal value."""
    text = _dump(data, allow_unicode=True)
    # YAML's exotic line breaks, which PyYAML writes as they are and reads as plain ones: escape whatever is not ASCII.
    return _dump(data, allow_unicode=False) if any(char in text for char in "\x85\u2028\u2029\ufeff") else text


def _dump(data: object, *, allow_unicode: bool) -> str:
    return yaml.dump(
        data, Dumper=_Dumper, sort_keys=False, default_flow_style=None, allow_unicode=allow_unicode, width=110
    )


def _children(node: yaml.Node) -> list[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return [child for pair in node.value for child in pair]
    return node.value if isinstance(node, yaml.SequenceNode) else []


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
