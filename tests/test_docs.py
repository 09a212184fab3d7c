"""Documents keep their promises: links lead somewhere, decisions are numbered, dated and listed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import restnet_search

PROJECT = Path(restnet_search.__file__).parents[1]
DECISIONS = PROJECT / "docs" / "decisions"
NOTES = sorted(path for path in DECISIONS.glob("*.md") if path.name != "README.md")
DOCUMENTS = sorted([*PROJECT.glob("*.md"), *(PROJECT / "docs").rglob("*.md"), *PROJECT.glob("search_spaces/*.md")])

LINK = re.compile(r"\[[^\]]+\]\((?!https?:|#|mailto:)([^)#\s]+)(?:#[^)]*)?\)")

PLACE = re.compile(r"`((?:[\w.-]+/)+[\w.-]*)`")
WITH_PLACES = [PROJECT / "ARCHITECTURE.md", PROJECT / "CONTRIBUTING.md", *NOTES]


def named(path: Path) -> str:
    return path.relative_to(PROJECT).as_posix()


@pytest.mark.parametrize("document", DOCUMENTS, ids=named)
def test_links_lead_somewhere(document: Path) -> None:
    targets = LINK.findall(document.read_text(encoding="utf-8"))
    assert [target for target in targets if not (document.parent / target).exists()] == []


@pytest.mark.parametrize("document", WITH_PLACES, ids=named)
def test_places_in_the_house_are_there(document: Path) -> None:
    """Folders and modules in backticks: below the project or the package, a module with or without its ending."""
    places = PLACE.findall(document.read_text(encoding="utf-8"))
    roots = (PROJECT, PROJECT / "restnet_search")
    missing = [
        place
        for place in places
        if not any((root / place).exists() or (root / f"{place}.py").exists() for root in roots)
    ]
    assert missing == []


def test_notes_are_numbered_without_a_gap() -> None:
    assert [int(path.name[:4]) for path in NOTES] == list(range(1, len(NOTES) + 1))


@pytest.mark.parametrize("note", NOTES, ids=lambda path: path.stem)
def test_a_note_is_whole_and_listed(note: Path) -> None:
    """Title, date, context, decision, consequences; the index has its number, date and title."""
    title, _, date, *lines = note.read_text(encoding="utf-8").splitlines()
    assert title.startswith("# ")
    assert re.match(r"\d{4}-\d\d-\d\d", date)
    assert [line for line in lines if line.startswith("#")] == ["## Context", "## Decision", "## Consequences"]
    row = f"| [{note.name[:4]}]({note.name}) | {date} | {title[2:]} |"
    assert row in (DECISIONS / "README.md").read_text(encoding="utf-8").splitlines()


def test_the_map_names_every_room() -> None:
    """Packages, and the rooms of those that the map goes into."""
    package = PROJECT / "restnet_search"
    rooms = {path.parent.name for path in package.glob("*/__init__.py")}
    for floor in ("search", "export", "reporting"):
        rooms |= {path.parent.name for path in (package / floor).glob("*/__init__.py")}
    text = (PROJECT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    assert sorted(room for room in rooms if f"{room}/" not in text) == []
