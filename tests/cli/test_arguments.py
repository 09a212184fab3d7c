"""Arguments that several commands share."""

from __future__ import annotations

from pathlib import Path

import pytest

from restnet_search.cli.arguments import with_data
from restnet_search.space import SearchSpace


@pytest.mark.parametrize(
    ("root", "data", "wanted"),
    [
        (None, None, None),
        ("images", None, "space/images"),  # a space's own paths start at its file
        ("images", "given", "here/given"),  # the command line's start at the working folder, and win
        (None, "given", "here/given"),
    ],
)
def test_the_data_lies_where_the_command_line_or_else_the_space_says(
    root: str | None, data: str | None, wanted: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    plain = {"anchors": [{"model": "a"}, {"model": "b"}], "data": {"root": root}}
    placed = with_data(SearchSpace.model_validate(plain), tmp_path / "space", Path(data) if data else None)
    assert placed.data.root == (str(tmp_path / wanted) if wanted else None)
