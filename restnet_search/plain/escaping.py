"""Text that users name (anchors, classes, files, spaces, runs), made harmless for what it is written into.

One function per target. A name stays recognizable; it never becomes markup, code, a formula or a control code there.
Shell commands are quoted by :func:`shlex.quote`, JSON and YAML by their writers.
"""

from __future__ import annotations

import re
import unicodedata

__all__ = ["code_block", "csv_cell", "markdown", "markdown_code", "one_line", "plot_text", "printable", "python_text"]

# Joiners of letters (Persian, Hindi) and of emoji stay where they join; all others hide or turn around what is shown.
_JOINER = re.compile(r"(?<=[^\x00-\x7f])[\u200c\u200d](?=[^\x00-\x7f])")
_HIDDEN = ("Cc", "Cf", "Cs", "Zl", "Zp")
# An underscore within a word is none of markup, and names of models are full of them.
_MARKDOWN = re.compile(
    r"[\\`*\[\]<>|~&$]|(?<![^\W_])_|_(?![^\W_])|^[-=+#]|(?<=^\d)[.)]|:(?=//|\w+:)|@(?=\w)|(?<=www)\."
)
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\uff1d", "\uff0b", "\uff0d", "\uff20")


def printable(text: str) -> str:
    """Return text with a question mark for every control character but tabs and line ends.

    So no terminal's code, no character that turns lines around and none without a width is left.
    """
    if text.isascii() and text.isprintable():
        return text
    kept = {match.start() for match in _JOINER.finditer(text)}
    return "".join(
        "?" if letter not in "\t\n" and place not in kept and unicodedata.category(letter) in _HIDDEN else letter
        for place, letter in enumerate(text)
    )


def one_line(text: str) -> str:
    """Return printable text on one line: white space of every kind is one blank."""
    return " ".join(printable(text).split())


def csv_cell(text: str) -> str:
    """Return a cell that no spreadsheet takes for a formula: such ones begin with an apostrophe.

    Separators, quotes and line ends are quoted by :mod:`csv`.
    """
    text = printable(text)
    return f"'{text}" if text.startswith(_FORMULA) else text


def markdown(text: str) -> str:
    """Return text for a paragraph, a heading or a table's cell of Markdown, where it is no markup and no HTML."""
    return _MARKDOWN.sub(r"\\\g<0>", one_line(text))


def markdown_code(text: str) -> str:
    """Return text as inline code of Markdown, also in a table's cell; backticks within are shown."""
    text = one_line(text).replace("|", "\\|")
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", text)), default=0))
    pad = " " if text.startswith("`") or text.endswith("`") else ""
    return f"{fence}{pad}{text}{pad}{fence}" if text else ""


def code_block(text: str) -> list[str]:
    """Return the lines of a block of code in Markdown, which nothing in the text ends."""
    text = printable(text)
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", text)), default=0))
    return [fence, text, fence]


def python_text(text: str) -> str:
    """Return text as it stands between the double quotes of a Python literal."""
    return "".join(_python_letter(letter) for letter in text)


def _python_letter(letter: str) -> str:
    if letter in '\\"':
        return f"\\{letter}"
    if letter.isprintable():
        return letter
    return f"\\U{ord(letter):08x}"


def plot_text(text: str) -> str:
    """Return a label of a plot on one line; matplotlib reads formulas between dollar signs."""
    return one_line(text).replace("\\", "\\\\").replace("$", "\\$") if "$" in text else one_line(text)
