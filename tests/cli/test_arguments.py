"""Arguments that several commands share."""

from __future__ import annotations

from pathlib import Path

import pytest

from restnet_search.cli.arguments import with_data
from restnet_search.cli.main import main
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


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--trials", "1e3"),
        ("--trials", "1_000"),
        ("--trials", "\uff11\uff10"),
        ("--trials", "0"),
        ("--trials", "9" * 5000),
        ("--workers", "99999"),
        ("--seed", "-1"),
        ("--seed", "4294967296"),
        ("--timeout", "nan"),
        ("--timeout", "inf"),
        ("--timeout", "1e300"),
        ("--timeout", "1_0"),
        ("--cache-gb", "-0.5"),
    ],
)
def test_numbers_on_the_command_line_are_plain_and_bounded(
    option: str, value: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--space", "nowhere", option, value])
    message = capsys.readouterr().err
    assert ended.value.code == 2 and option in message and "nowhere" not in message and len(message) < 400
    assert "in the range" in message or "in digits 0 to 9" in message


@pytest.mark.parametrize(("option", "value"), [("--trials", "40"), ("--seed", "0"), ("--timeout", "1e2")])
def test_plain_numbers_are_taken(option: str, value: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--space", "nowhere", option, value])
    assert "nowhere" in capsys.readouterr().err
