"""Errors that a user can act on: what came, what was expected, what to do next.

Every error that user input can cause derives from :class:`RestnetError`; the command line prints its message without
a traceback (unless ``--debug``) and exits with its ``exit_code``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches

__all__ = [
    "AnchorError",
    "BudgetError",
    "DataError",
    "DiskError",
    "ExportError",
    "ExtensionError",
    "GraphError",
    "RestnetError",
    "RunError",
    "SpaceError",
    "did_you_mean",
    "first_line",
    "first_of",
]


class RestnetError(Exception):
    """Root of all errors meant for the user.

    Args:
        problem: What came and why it cannot be used, one sentence.
        expected: What would have been accepted.
        hint: What to do next, ideally a command or a key to change.
    """

    exit_code = 2

    def __init__(self, problem: str, *, expected: str | None = None, hint: str | None = None) -> None:
        self.problem, self.expected, self.hint = problem, expected, hint
        lines = [problem]
        if expected:
            lines.append(f"Expected: {expected}")
        if hint:
            lines.append(f"Next: {hint}")
        super().__init__("\n".join(lines))


class BudgetError(RestnetError):
    """A device budget or quantity that cannot be read, or that nothing fits."""


class SpaceError(RestnetError):
    """A search space that is missing, malformed or contradicts itself."""


class DataError(RestnetError):
    """A data set that is missing, unreadable or does not fit the space."""


class AnchorError(RestnetError):
    """An anchor that cannot be built, loaded or fitted."""


class GraphError(RestnetError):
    """A model that cannot be traced, cut or counted."""


class RunError(RestnetError):
    """A run folder that is missing, incomplete or belongs to something else."""


class DiskError(RunError):
    """A disk that took no more while a run was written; what had finished is kept, and the run can go on."""


class ExportError(RestnetError):
    """An export that failed or did not verify; nothing finished-looking is left behind."""


class ExtensionError(RestnetError):
    """A ranker, stitch layer, strategy or export format that is not known, not trusted or cannot be loaded."""


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message that says something, or its type's name: what fits a sentence."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def first_of(names: Sequence[str], most: int) -> str:
    """Return the first names as one phrase, and how many more there are: ``a, b and 3 more``."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def did_you_mean(name: str, valid: Iterable[str]) -> str:
    """Return the valid names as one phrase, the closest match first named: ``"a", "b" (did you mean "a"?)``."""
    names = list(valid)
    phrase = ", ".join(names)
    close = get_close_matches(name, names, n=1, cutoff=0.6)
    return f"{phrase} (did you mean {close[0]!r}?)" if close else phrase
