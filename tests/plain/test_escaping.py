"""Names that users give are text in whatever they are written into."""

from __future__ import annotations

import ast
import csv
import io
import subprocess
import sys
import unicodedata
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from restnet_search.plain.escaping import (
    code_block,
    csv_cell,
    markdown,
    markdown_code,
    one_line,
    plot_text,
    printable,
    python_text,
)

NASTY = [
    "=cmd|' /C calc'!A0",
    "+1",
    "@SUM(A1)",
    "-2+3",
    "\tx",
    "a,b;c",
    'a"b',
    "a'b",
    "a\nb",
    "a\r\nb",
    "a|b",
    "<b>x</b>",
    "<script>alert(1)</script>",
    "[x](http://y)",
    "![x](y)",
    "*x*",
    "__init__",
    "_x_",
    "`x`",
    "``",
    "# x",
    "- x",
    "+ x",
    "1. x",
    "> x",
    "$x^2$",
    "$(rm -rf)",
    "\\",
    "a\\",
    "{x}",
    "{{0}}",
    "%s",
    '"""',
    "'''",
    '"); import os; os.system("x',
    "http://x.y",
    "www.x.y",
    "x@y.z",
    ":cat:",
    "&lt;",
    "&#x41;",
    "~~x~~",
    "---",
    "===",
    "\x1b]0;t\x07",
    "a\u202eb",
    "a\u200bb",
    "a\u2066b",
    "\ufeffa",
    "a\u2028b",
    "a\x85b",
    "\U000e0041",
    "größe",
    "猫",
    "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",
    "👩\u200d💻",
    "resnet18.a1_in1k",
    "hf-hub:timm/x",
    "",
]
names = st.sampled_from(NASTY) | st.text(max_size=12)
RENDERER = MarkdownIt("commonmark").enable("table").enable("strikethrough")


class Page(HTMLParser):
    """The pieces of text and the start tags of a page."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.texts: list[str] = []
        self.tags: list[str] = []
        self.feed(html)
        self.close()

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)


def text_of(html: str) -> str:
    return "".join(Page(html).texts)


def tags_of(html: str) -> list[str]:
    return Page(html).tags


@given(names)
def test_nothing_hidden_is_left_on_a_terminal(name: str) -> None:
    shown = printable(name)
    assert len(shown) == len(name)
    hidden = {letter for letter in shown if unicodedata.category(letter) in ("Cc", "Cf", "Cs", "Zl", "Zp")}
    assert hidden <= {"\t", "\n", "\u200c", "\u200d"}
    assert all(b in (a, "?") for a, b in zip(name, shown, strict=True))


@pytest.mark.parametrize(
    "word", ["\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645", "👩\u200d💻", "größe", "猫", "naïve"]
)
def test_words_of_any_script_are_shown_whole(word: str) -> None:
    assert printable(word) == one_line(word) == word


@given(names)
def test_a_name_in_markdown_is_text_alone(name: str) -> None:
    """A second implementation reads it: no tag but the paragraph's, and the text is the name's."""
    for template, tags in (("{}", ["p"]), ("- {}: x", ["ul", "li"]), ("# {}", ["h1"])):
        html = RENDERER.render(template.format(markdown(f"x{name}y") if template == "{}" else markdown(name)))
        assert tags_of(html) == tags
        wanted = f"x{name}y" if template == "{}" else name
        assert one_line(wanted) in one_line(text_of(html))


@given(names, names)
def test_a_name_in_a_table_stays_in_its_cell(first: str, second: str) -> None:
    html = RENDERER.render(f"| a | b |\n|---|---|\n| {markdown(first)} | {markdown(second)} |\n")
    assert tags_of(html) == ["table", "thead", "tr", "th", "th", "tbody", "tr", "td", "td"]
    assert one_line(text_of(html)) == one_line(f"a b {first} {second}")


@given(names)
def test_inline_code_and_blocks_end_where_they_should(name: str) -> None:
    shown = one_line(name)
    html = RENDERER.render(f"x {markdown_code(name)} y")
    assert tags_of(html) == (["p", "code"] if shown else ["p"])
    block = RENDERER.render("\n".join([*code_block(shown), "", "after"]))
    assert tags_of(block) == ["pre", "code", "p"] and shown in text_of(block)


@given(names)
def test_a_cell_is_no_formula_and_is_read_back(name: str) -> None:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerow([csv_cell(name), "next"])
    ((cell, after),) = csv.reader(io.StringIO(buffer.getvalue(), newline=""))
    assert after == "next" and cell.removeprefix("'") == printable(name).removeprefix("'")
    assert not cell.startswith(("=", "+", "-", "@", "\t", "\r"))


@given(st.sampled_from(NASTY) | st.text(max_size=20))
def test_a_literal_of_python_holds_the_name_itself(name: str) -> None:
    literal = f'"{python_text(name)}"'
    assert ast.literal_eval(literal) == name
    assert literal.isprintable()


@pytest.mark.parametrize("name", ["$x^2$", "a$b", "\\frac$", "$\\undefined$", "$$", "lar[/red]ge"])
def test_a_label_of_a_plot_is_no_formula(name: str, tmp_path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(1, 1))
    axes = figure.subplots()
    axes.set_title(plot_text(name))
    axes.set_xlabel(plot_text(name))
    figure.savefig(tmp_path / "x.png")
    assert (tmp_path / "x.png").stat().st_size


FILES = ['a"b.onnx', "a'b.onnx", "a\\b.onnx", "{x}.onnx", "größe 猫.onnx", '");import os;os.mkdir("ran");("']


@pytest.mark.parametrize("file", FILES)
def test_examples_of_exports_run_whatever_their_files_and_classes_are_called(file: str, tmp_path: Path) -> None:
    """The generated program is run: it opens the file of that name and prints the class of that name."""
    import json

    from restnet_search.export.formats.export_format import RuntimeExample
    from restnet_search.export.package.export_manifest import ExportedFile, FormatEntry
    from restnet_search.export.package.inference_examples import inference_example
    from tests.export.networks import VIEW

    entry = FormatEntry(
        max_difference=0.0,
        mean_difference=0.0,
        top1_agreement=1.0,
        images=1,
        format="onnx",
        files=(ExportedFile(file, 1, "0" * 64),),
        input="float32",
        batch=None,
        folded="",
    )
    example = RuntimeExample("numpy", ("os",), 'logits = np.ones((1, 2)) * len((here / "{file}").read_text())')
    program = inference_example(VIEW, entry, example)
    (tmp_path / file).write_text("abc")
    classes = ['"); os.mkdir("ran")', "=cmd"]
    facts = {"classes": classes, "preprocessing": {"mean": VIEW.mean, "std": VIEW.std}}
    (tmp_path / "export.json").write_text(json.dumps(facts))
    (tmp_path / "example.py").write_text(program, encoding="utf-8")
    done = subprocess.run([sys.executable, "example.py"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{classes[0]} 3.0 3.0\n"
    assert not (tmp_path / "ran").exists()


def test_an_example_that_cannot_resize_is_refused() -> None:
    from restnet_search.errors import ExportError
    from restnet_search.export.package.inference_examples import _crop
    from tests.export.networks import VIEW

    with pytest.raises(ExportError, match="cannot resize by"):
        _crop(replace(VIEW, interpolation="x); import os; (os"))
