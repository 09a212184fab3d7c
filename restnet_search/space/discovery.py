"""Find the search space: as the user says, else in the environment, the working folder, or the demo."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Literal

from restnet_search.errors import SpaceError, did_you_mean

__all__ = [
    "DEMO",
    "ENVIRONMENT_VARIABLE",
    "FILE_NAME",
    "FoundSpace",
    "Origin",
    "builtin_spaces",
    "find_space",
    "shipped_files",
]

Origin = Literal["--space", "$RESTNET_SPACE", "restnet.yaml", "built-in demo"]

DEMO = "demo"
ENVIRONMENT_VARIABLE = "RESTNET_SPACE"
FILE_NAME = "restnet.yaml"
_SUFFIXES = (".yaml", ".yml")


@dataclass(frozen=True)
class FoundSpace:
    """A search space that was found, and how.

    Attributes:
        path: Its YAML file.
        builtin: Its name, if it comes with restnet-search.
        origin: What named it.
        note: One line for a user who passed no ``--space``: what was taken, and what to pass instead. Empty with it.
    """

    path: Path
    builtin: str | None
    origin: Origin
    note: str


def builtin_spaces() -> dict[str, Path]:
    """Return the search spaces that come with restnet-search: name -> YAML file, in alphabetical order.

    Raises:
        SpaceError: If the installation is without them.
    """
    return shipped_files("", "search spaces")


def shipped_files(folder: str, what: str) -> dict[str, Path]:
    """Return the YAML files in a folder of those that come with restnet-search: stem -> file, in alphabetical order.

    Raises:
        SpaceError: If there are none; `what` names them.
    """
    package = Path(str(files("restnet_search")))
    # A wheel carries them inside the package; in a checkout (also an editable install) they lie beside it.
    for home in (package / "_search_spaces", package.parent / "search_spaces"):
        if shipped := {path.stem: path for path in sorted((home / folder).glob("*.yaml"))}:
            return shipped
    raise SpaceError(f"This installation has no built-in {what}.", hint="install restnet-search again")


def find_space(argument: str | None, *, environ: Mapping[str, str], cwd: Path) -> FoundSpace:
    """Find the search space: `argument`, then ``$RESTNET_SPACE``, then ``restnet.yaml`` in `cwd`, then the demo.

    The first two are a built-in name or a YAML file; a file named like a built-in space is reached as ``./NAME``.

    Args:
        argument: What ``--space`` was given; None if it was not given.
        environ: The environment; an empty ``$RESTNET_SPACE`` counts as none.
        cwd: The working folder; relative paths start there.

    Raises:
        SpaceError: If `argument` or ``$RESTNET_SPACE`` names neither a built-in space nor a file.
    """
    spaces = builtin_spaces()
    if argument is not None:
        path, builtin = _named(argument, "--space", spaces, cwd)
        return FoundSpace(path, builtin, "--space", "")
    if value := environ.get(ENVIRONMENT_VARIABLE):
        path, builtin = _named(value, f"${ENVIRONMENT_VARIABLE}", spaces, cwd)
        return FoundSpace(path, builtin, "$RESTNET_SPACE", _note(f"{value}, from ${ENVIRONMENT_VARIABLE}", spaces))
    if (path := cwd / FILE_NAME).exists():
        return FoundSpace(path, None, "restnet.yaml", _note(f"{FILE_NAME} of this folder", spaces))
    reason = f"the built-in {DEMO} (there is no --space, ${ENVIRONMENT_VARIABLE} or ./{FILE_NAME})"
    return FoundSpace(_named(DEMO, "--space", spaces, cwd)[0], DEMO, "built-in demo", _note(reason, spaces))


def _named(text: str, origin: str, spaces: Mapping[str, Path], cwd: Path) -> tuple[Path, str | None]:
    if text in spaces:
        return spaces[text], text
    path = cwd / text
    if text and path.exists():  # a folder too: reading it says what is wrong
        return path, None
    beside = [candidate.name for suffix in _SUFFIXES if (candidate := cwd / f"{text}{suffix}").is_file()]
    hint = f"pass {beside[0]}" if text and beside else "list the built-in ones: restnet-search spaces list"
    is_path = path.suffix in _SUFFIXES or Path(text).name != text
    problem = f"the file {text}, which does not exist." if is_path else f"no space: {text!r}."
    raise SpaceError(
        f"{origin} names {problem}",
        expected=f"a YAML file, or a built-in name: {did_you_mean(text, spaces)}",
        hint=hint,
    )


def _note(taken: str, spaces: Mapping[str, Path]) -> str:
    return f"Space: {taken}. To take another, pass --space NAME|PATH; built-in names: {', '.join(spaces)}."
