from __future__ import annotations

import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread
from rich.cells import cell_len

from restnet_search.reporting.figures.heatmap import Heatmap, render_heatmap, write_heatmap_png


def made(rows: int, columns: int, seed: int = 0) -> Heatmap:
    matrix = np.random.default_rng(seed).uniform(-0.02, 1.0, (rows, columns))
    matrix[0, 0] = math.nan
    return Heatmap.of(
        matrix, title="CKA", row_name="resnet", column_name="vit",
        rows=[f"layer{i}.[0]" for i in range(rows)], columns=[f"blocks.{j}" for j in range(columns)],
    )  # fmt: skip


def test_values_that_are_not_numbers_become_null_and_json_is_valid() -> None:
    heatmap = made(3, 4)
    data = json.loads(json.dumps(heatmap.to_json(), allow_nan=False))
    assert data["values"][0][0] is None
    assert data["rows"] == {"anchor": "resnet", "cut_points": ["layer0.[0]", "layer1.[0]", "layer2.[0]"]}
    assert data["best"] == [int(np.nanargmax([math.nan if v is None else v for v in row])) for row in data["values"]]


def test_best_takes_the_first_of_equals_and_none_of_nothing() -> None:
    heatmap = Heatmap("t", "a", "b", ("x", "y"), ("u", "v"), ((0.5, 0.5), (None, None)))
    assert (heatmap.best(0), heatmap.best(1)) == (0, None)


def test_labels_must_fit_the_matrix() -> None:
    with pytest.raises(ValueError, match="2 x 1"):
        Heatmap("t", "a", "b", ("x", "y"), ("u",), ((0.5,),))


@pytest.mark.parametrize("width", [60, 80, 120])
@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (4, 6), (28, 20), (5, 39), (6, 136)])
def test_every_cell_is_printed_and_no_line_is_too_wide(width: int, rows: int, columns: int, printed) -> None:
    text = printed(render_heatmap(made(rows, columns)), width)
    assert "\x1b" not in text
    assert max(cell_len(line) for line in text.splitlines()) <= width
    lines = [line for line in text.splitlines() if re.match(r"\d+ layer|\d+ la", line)]
    blocks = len(lines) // rows
    cells = sum(len(line.split()) - 2 for line in lines)  # a row begins with its index and its path
    assert cells == rows * (columns + 1)  # its best partner stands at the end
    assert blocks == 1 or columns > 20


def test_digits_are_the_values(printed) -> None:
    heatmap = Heatmap("t", "a", "b", ("0",), tuple("0123"), ((0.123, 1.0, None, -0.04),))
    assert re.search(r"^0 +0\.12 1\.00 +- -\.04 +1$", printed(render_heatmap(heatmap)), re.M)
    wide = Heatmap("t", "a", "b", ("0",), tuple(map(str, range(20))), ((0.876, 1.0, None, -0.04) * 5,))
    assert re.search(r"^0 +88 \*\* +- -4 ", printed(render_heatmap(wide)), re.M)


def test_a_terminal_gets_coloured_cells(printed) -> None:
    text = printed(render_heatmap(made(3, 4)), terminal=True)
    assert len(set(re.findall(r"48;2;\d+;\d+;\d+", text))) >= 8


def test_png_is_a_picture_with_more_than_one_colour(tmp_path: Path) -> None:
    path = write_heatmap_png(made(28, 4), tmp_path / "new" / "map.png")
    picture = imread(path)
    assert picture.ndim == 3 and min(picture.shape[:2]) > 100
    assert len(np.unique(picture.reshape(-1, picture.shape[2]), axis=0)) > 50
    assert [file.name for file in path.parent.iterdir()] == ["map.png"]
