"""The figures that keep the package readable: sizes, parameters, twins, names, docstrings, repeated passages.

``python -m tests.test_house`` lists every offender, one a line; with words behind it, only the figures whose title
holds one of them.
"""

from __future__ import annotations

import ast
import io
import keyword
import sys
import tokenize
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from functools import cache
from itertools import combinations, pairwise
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[1] / "restnet_search"

# title: (how many there are now, how many there may be); lower the first with every offender that goes.
BREACHES = {
    "folders of more than 15 modules": (0, 0),
    "modules above 400 lines": (0, 0),
    "functions above 8 parameters": (0, 0),
    "functions above 6 parameters": (5, 5),
    "dataclasses that are twins": (0, 0),
    "dataclasses that list the fields of another": (0, 0),
    "docstrings that begin with a question word": (0, 0),
    "file names in two rooms": (0, 0),
    "repeated passages": (0, 0),
    "run_search longer than a screen": (0, 0),
    "private names imported": (0, 0),
    "names found, said, told": (0, 0),
    "identifiers in British spelling": (2, 0),
    "names that have a better one": (0, 0),
}

LONGEST_MODULE = 400
MOST_MODULES = 15
SCREEN = 60
PASSAGE = 8
COMMON = 8  # a shape that stands in more places is a habit of the language, as a list of fields is
ALIKE = 3  # where fewer lines than that differ from the others, it is a list
TWIN_FIELDS = 4  # fewer shared fields are a coincidence (name, path, seconds)
QUESTION_WORDS = {"what", "how", "whether", "where", "which", "when", "why"}
VAGUE_NAMES = {"found", "said", "told"}
BRITISH = (
    "behaviour", "centre", "colour", "favour", "initialis", "licenc", "maximis", "minimis", "neighbour", "normalis",
    "optimis", "organis", "quantis", "recognis", "serialis", "summaris",
)  # fmt: skip

# The field's word for what the code called otherwise.
BETTER = {
    "Accelerator": "MixedPrecision", "EarlyJob": "HalvingJob", "Entrant": "Configuration", "Place": "Promotion",
    "Reuse": "CacheStatistics", "Taps": "FeatureExtractor", "View": "Preprocessing", "Way": "Direction",
    "_CHANCES": "MAX_ATTEMPTS", "_PATIENCE": "JOIN_TIMEOUT", "_Sitting": "Session", "_bury": "replace_dead",
    "_hear": "handle_message", "_promised": "order by hypervolume gain", "_see_off": "join_or_kill",
    "ask_beside": "ask_pending", "asks_together": "ask_batch", "at_home": "on_cpu", "by_gain": "by_hypervolume_gain",
    "decide_early": "successive halving", "is_kept": "is_cached", "keep_untold": "record_pending", "keeps": "can_cache",
    "merit": "score", "merits": "scores", "narrowed": "downcast", "settle": "move_to_device", "sitting": "session",
    "together": "trials_per_pass",
}  # fmt: skip

# One name in several rooms is right where the files play the same part; the reason stands beside it.
SAME_PART = {
    "__init__": "what a package offers",
}
# A command is named after the word that a user types, whatever the room is called that does its work.
COMMANDS = ("cli",)


class Module(NamedTuple):
    """A module of the package: its path below the root, its text and its syntax tree."""

    path: Path
    text: str
    tree: ast.Module

    @property
    def place(self) -> str:
        return self.path.as_posix()


@cache
def modules() -> tuple[Module, ...]:
    """Return all modules of the package, without importing any."""
    paths = sorted(ROOT.rglob("*.py"))
    texts = [path.read_text(encoding="utf-8") for path in paths]
    return tuple(Module(path.relative_to(ROOT), text, ast.parse(text)) for path, text in zip(paths, texts, strict=True))


def folders_too_full() -> list[str]:
    folders: dict[Path, int] = defaultdict(int)
    for module in modules():
        folders[module.path.parent] += module.path.stem not in ("__init__", "__main__")
    return [
        f"{folder.as_posix()}/: {count} modules"
        for folder, count in folders.items()
        if count > MOST_MODULES and folder.parts[:1] != COMMANDS
    ]


def modules_too_long() -> list[str]:
    lengths = {module.place: len(module.text.splitlines()) for module in modules()}
    return [f"{place}: {length} lines" for place, length in lengths.items() if length > LONGEST_MODULE]


Function = ast.FunctionDef | ast.AsyncFunctionDef


def parameters_of(function: Function) -> list[ast.arg]:
    """Return the parameters of a function, ``self`` and ``cls`` left out."""
    spec = function.args
    every = [*spec.posonlyargs, *spec.args, *spec.kwonlyargs, *filter(None, (spec.vararg, spec.kwarg))]
    return [parameter for parameter in every if parameter.arg not in ("self", "cls")]


def is_command(module: Module, function: Function) -> bool:
    """Say if a function's parameters are the options of a command."""
    annotations = [ast.unparse(p.annotation) for p in parameters_of(function) if p.annotation]
    return module.path.parts[0] in COMMANDS and any("typer." in text or "options." in text for text in annotations)


def functions_above(most: int) -> list[str]:
    return [
        f"{module.place}:{node.lineno} {node.name}: {len(parameters_of(node))} parameters"
        for module in modules()
        for node in ast.walk(module.tree)
        if isinstance(node, Function) and len(parameters_of(node)) > most and not is_command(module, node)
    ]


def is_dataclass(node: ast.AST) -> bool:
    return isinstance(node, ast.ClassDef) and any("dataclass" in ast.unparse(d) for d in node.decorator_list)


def fields_of(node: ast.ClassDef) -> frozenset[str]:
    """Return the names of the fields that a dataclass declares itself."""
    return frozenset(
        item.target.id
        for item in node.body
        if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name) and "ClassVar" not in ast.unparse(item)
    )


def shared_fields(one: frozenset[str], other: frozenset[str]) -> int:
    """Return how many fields two dataclasses share; 0 where they are so few that chance explains them."""
    shared = len(one & other)
    return shared if shared >= TWIN_FIELDS else 0


def are_twins(one: frozenset[str], other: frozenset[str]) -> bool:
    """Say if each of two dataclasses shares more than half of its fields with the other."""
    return 2 * shared_fields(one, other) > max(len(one), len(other))


def is_part(one: frozenset[str], other: frozenset[str]) -> bool:
    """Say if only the smaller one shares more than half of its fields: the larger could hold it as one field."""
    return max(len(one), len(other)) >= 2 * shared_fields(one, other) > min(len(one), len(other))


def pairs_of_dataclasses(related: Callable[[frozenset[str], frozenset[str]], bool]) -> list[str]:
    classes = [
        (f"{module.place}:{node.lineno} {node.name}", fields_of(node))
        for module in modules()
        for node in ast.walk(module.tree)
        if isinstance(node, ast.ClassDef) and is_dataclass(node)
    ]
    return [
        f"{one} ~ {other}: {len(fields & others)} of {len(fields)} and {len(others)} fields"
        for (one, fields), (other, others) in combinations(classes, 2)
        if related(fields, others)
    ]


def docstrings() -> Iterator[tuple[str, str]]:
    """Yield place and text of every docstring."""
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    for module in modules():
        for node in ast.walk(module.tree):
            if isinstance(node, documented) and (text := ast.get_docstring(node)):
                yield f"{module.place}:{getattr(node, 'lineno', 1)}", text


def begins_with_question(text: str) -> bool:
    return bool(words := text.split()) and words[0].strip(",.:'").lower() in QUESTION_WORDS


def questions() -> list[str]:
    return [f"{place} {text.splitlines()[0]}" for place, text in docstrings() if begins_with_question(text)]


def repeated_file_names() -> list[str]:
    places: dict[str, list[str]] = defaultdict(list)
    for module in modules():
        if module.path.parts[:1] != COMMANDS:
            places[module.path.stem].append(module.place)
    return [f"{name}: {', '.join(where)}" for name, where in places.items() if len(where) > 1 and name not in SAME_PART]


class Line(NamedTuple):
    """A line of code: its number and its shape (names, strings and numbers replaced by what they are)."""

    number: int
    shape: str


def passed_over(tree: ast.Module) -> set[int]:
    """Return the lines of imports, of ``__all__``, and docstrings of one line."""
    lines: set[int] = set()
    for node in ast.walk(tree):
        if not isinstance(node, ast.stmt):
            continue
        is_offer = isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
        is_prose = (
            isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and node.lineno == node.end_lineno
        )
        if is_offer or is_prose or isinstance(node, ast.Import | ast.ImportFrom):
            lines.update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return lines


def lines_of(text: str) -> list[Line]:
    """Return the lines of code and docstrings, without blanks, comments, imports and lone punctuation."""
    shapes: dict[int, list[str]] = defaultdict(list)
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        (number, _), (last, _) = token.start, token.end
        if token.type == tokenize.NAME:
            shapes[number].append(token.string if keyword.iskeyword(token.string) else "N")
        elif token.type == tokenize.NUMBER:
            shapes[number].append("0")
        elif token.type == tokenize.STRING and number == last:
            shapes[number].append("S")
        elif token.type == tokenize.STRING:  # prose is equal or it is not
            for line, words in enumerate(token.string.splitlines(), number):
                shapes[line].extend(words.split())
        elif token.type not in (tokenize.COMMENT, tokenize.ENDMARKER):
            shapes[number].extend(token.string.split())
    left_out = passed_over(ast.parse(text))
    return [
        Line(number, " ".join(shape))
        for number, shape in sorted(shapes.items())
        if number not in left_out and any(part[0].isalnum() for part in shape)
    ]


def repeated(files: dict[str, list[Line]], length: int = PASSAGE) -> list[str]:
    """Return each pair of places that share a run of at least `length` lines of one shape, longest run first."""
    windows: dict[tuple[str, ...], list[tuple[str, int]]] = defaultdict(list)
    for place, lines in files.items():
        for first in range(len(lines) - length + 1):
            shapes = tuple(line.shape for line in lines[first : first + length])
            if max(Counter(shapes).values()) <= length - ALIKE:  # else it is a list of values, fields or parameters
                windows[shapes].append((place, first))
    # neighbouring windows of one pair, at one distance, are one run
    pairs: dict[tuple[str, str, int], list[int]] = defaultdict(list)
    for places in windows.values():
        if len(places) <= COMMON:
            for (one, first), (other, second) in combinations(places, 2):
                if one != other or abs(first - second) >= length:
                    pairs[one, other, second - first].append(first)
    runs: list[tuple[int, str]] = []
    for (one, other, distance), starts in pairs.items():
        starts.sort()
        breaks = [0, *(i for i in range(1, len(starts)) if starts[i] > starts[i - 1] + 1), len(starts)]
        for begin, end in pairwise(breaks):
            first, last = starts[begin], starts[end - 1] + length - 1
            here, there = files[one], files[other]
            runs.append(
                (
                    last - first + 1,
                    f"{one}:{here[first].number}-{here[last].number} ~ "
                    f"{other}:{there[first + distance].number}-{there[last + distance].number}",
                )
            )
    return [f"{text} ({size} lines)" for size, text in sorted(runs, key=lambda run: (-run[0], run[1]))]


def passages() -> list[str]:
    return repeated({module.place: lines_of(module.text) for module in modules()})


def run_search_too_long() -> list[str]:
    """Measure ``run_search`` with the imports of its module."""
    (module,) = (module for module in modules() if module.place == "pipeline/run.py")
    (job,) = (node for node in module.tree.body if isinstance(node, Function) and node.name == "run_search")
    imports = [node for node in module.tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    lines = sum((node.end_lineno or node.lineno) - node.lineno + 1 for node in [job, *imports])
    return [f"pipeline/run.py:{job.lineno} run_search: {lines} lines with imports"] if lines > SCREEN else []


def private_imports() -> list[str]:
    return [
        f"{module.place}:{node.lineno} {node.module}.{alias.name}"
        for module in modules()
        for node in ast.walk(module.tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("restnet_search")
        for alias in node.names
        if alias.name.startswith("_") and not alias.name.startswith("__")
    ]


def names_of(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Yield line and name of everything that a module names: variables, parameters, attributes, functions, classes."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.id
        elif isinstance(node, ast.arg):
            yield node.lineno, node.arg
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.lineno, node.name
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.attr


def names_like(matches: Callable[[str], bool]) -> list[str]:
    return [
        f"{module.place}:{line} {name}"
        for module in modules()
        for line, name in sorted(set(names_of(module.tree)))
        if matches(name)
    ]


def is_british(name: str) -> bool:
    return any(part in name.lower() for part in BRITISH)


def outdated_names() -> list[str]:
    return [f"{row}: better {BETTER[row.rpartition(' ')[2]]}" for row in names_like(BETTER.__contains__)]


def british_names() -> list[str]:
    files = [f"{module.place} (file name)" for module in modules() if is_british(module.path.stem)]
    return [*files, *names_like(is_british)]


FIGURES: dict[str, Callable[[], list[str]]] = {
    "folders of more than 15 modules": folders_too_full,
    "modules above 400 lines": modules_too_long,
    "functions above 8 parameters": lambda: functions_above(8),
    "functions above 6 parameters": lambda: functions_above(6),
    "dataclasses that are twins": lambda: pairs_of_dataclasses(are_twins),
    "dataclasses that list the fields of another": lambda: pairs_of_dataclasses(is_part),
    "docstrings that begin with a question word": questions,
    "file names in two rooms": repeated_file_names,
    "repeated passages": passages,
    "run_search longer than a screen": run_search_too_long,
    "private names imported": private_imports,
    "names found, said, told": lambda: names_like(VAGUE_NAMES.__contains__),
    "identifiers in British spelling": british_names,
    "names that have a better one": outdated_names,
}


@pytest.mark.parametrize("title", FIGURES)
def test_no_worse_than_it_was(title: str) -> None:
    offenders = FIGURES[title]()
    present, _ = BREACHES[title]
    assert len(offenders) <= present, "\n".join([f"{len(offenders)} {title}, {present} allowed:", *offenders])


def test_every_figure_has_its_limit() -> None:
    assert set(FIGURES) == set(BREACHES)
    assert all(target <= present for present, target in BREACHES.values())


class TestDetectors:
    """Each detector sees what it has to see, and nothing else."""

    BLOCK = ("x = 1", "if x:", "    y = g(x)", "for i in y:", "    h(i)", "del x", "y += 1", "f('one')")

    def test_a_passage_with_other_names_strings_and_numbers_is_the_same(self) -> None:
        renamed = "\n".join(self.BLOCK).replace("y", "other").replace("1", "7.5").replace("one", "two")
        spread = "import os\n\n# why\n" + renamed.replace("\n", "  # because\n\n")
        files = {"a": lines_of("\n".join(self.BLOCK)), "b": lines_of(spread)}
        assert repeated(files) == [f"a:1-8 ~ b:4-18 ({PASSAGE} lines)"]

    def test_a_line_fewer_or_another_between_is_no_passage(self) -> None:
        whole, shorter = "\n".join(self.BLOCK), "\n".join(self.BLOCK[1:])
        other = "\n".join([*self.BLOCK[:3], "del x", *self.BLOCK[3:]])
        assert repeated({"a": lines_of(whole), "b": lines_of(other)}) == []
        assert repeated({"a": lines_of(f"pass\n{shorter}"), "b": lines_of(shorter)}) == []

    def test_a_passage_twice_in_one_file_counts_but_not_with_itself(self) -> None:
        block = "\n".join(self.BLOCK)
        assert repeated({"a": lines_of(f"{block}\nz = [1]\n{block}")}) == [f"a:1-8 ~ a:10-17 ({PASSAGE} lines)"]
        assert repeated({"a": lines_of("\n".join(["x = 1", "del x", "f()"] * 4))}) == []

    def test_a_list_is_no_passage(self) -> None:
        rows = "\n".join(["numbers = {", *(f"    'n{i}': {i}," for i in range(PASSAGE)), "}"])
        assert repeated({"a": lines_of(rows), "b": lines_of(rows)}) == []

    def test_imports_short_docstrings_and_lone_punctuation_are_passed_over(self) -> None:
        text = '"""Doc."""\nimport os\nfrom a import (\n    b,\n)\n__all__ = [\n    "x"\n]\nx = f(\n    1,\n)\n'
        assert lines_of(text) == [Line(9, "N = N ("), Line(10, "0 ,")]

    @pytest.mark.parametrize(
        ("one", "other", "twins", "part"),
        [
            ("abcdefgh", "abcdexyz", True, False),
            ("abcdefgh", "abcdwxyz", False, False),  # half is not more than half
            ("abcd", "abcdefgh", False, True),
            ("abcd", "abcdefg", True, False),
            ("abc", "abc", False, False),
        ],
    )
    def test_twins_and_parts(self, one: str, other: str, twins: bool, part: bool) -> None:
        assert are_twins(frozenset(one), frozenset(other)) is twins
        assert is_part(frozenset(one), frozenset(other)) is part

    def test_parameters_are_counted_without_self(self) -> None:
        (function,) = ast.parse("def f(self, a, /, b, *c, d=1, **e): ...").body
        assert isinstance(function, ast.FunctionDef)
        assert [parameter.arg for parameter in parameters_of(function)] == ["a", "b", "d", "c", "e"]

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("What it does.", True),
            ("When, and why.", True),
            ("Return what it does.", False),
            ("Whatever", False),
            ("", False),
        ],
    )
    def test_questions(self, text: str, expected: bool) -> None:
        assert begins_with_question(text) is expected


def print_offenders(words: list[str]) -> None:
    """Print every offender of the figures whose title holds one of `words` (all without words)."""
    for title, detect in FIGURES.items():
        if not words or any(word in title for word in words):
            offenders = detect()
            print(f"\n{title}: {len(offenders)} (target {BREACHES[title][1]})")  # noqa: T201
            print("\n".join(f"  {offender}" for offender in offenders))  # noqa: T201


if __name__ == "__main__":
    print_offenders(sys.argv[1:])
