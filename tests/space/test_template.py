"""The space that `init` writes reads back as what was asked for, whatever is in the names."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from restnet_search.space import SearchSpace, parse_space
from restnet_search.space.template import SpaceDraft, anchor_entry, render_template

TEXT = st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z")) | st.just(" "), min_size=1, max_size=150)


def draft(**changes: object) -> SpaceDraft:
    plain = SpaceDraft(
        name="mine", anchors=("resnet50.a1_in1k", "resnet18"), dataset="", root="../images",
        test=None, budgets=("2GFLOPs", "1GFLOPs,3Mparams"),
    )  # fmt: skip
    return replace(plain, **changes)


def test_what_was_asked_for_is_there_and_all_else_is_the_default() -> None:
    space = parse_space(render_template(draft(test="test")))
    expected = SearchSpace.model_validate(
        {
            "name": "mine",
            "description": "resnet50.a1_in1k and resnet18, stitched.",
            "anchors": [{"model": "resnet50.a1_in1k"}, {"model": "resnet18"}],
            "data": {"root": "../images", "splits": {"test": "test"}},
            "budgets": ["2GFLOPs", "1GFLOPs,3Mparams"],
        }
    )
    assert space == expected


@settings(max_examples=40, deadline=None)
@given(root=TEXT, file=TEXT, note=st.text(max_size=50))
def test_no_text_breaks_the_file(root: str, file: str, note: str) -> None:
    space = parse_space(render_template(draft(root=root, anchors=("resnet18", f"{file}:build"), notes=(note,))))
    assert space.data.root == root
    assert space.anchors[1].factory == f"{file}:build" or space.anchors[1].model == f"{file}:build"


def test_every_section_has_a_comment() -> None:
    text = render_template(draft(notes=("10 classes.",)))
    assert "# 10 classes.\n" in text
    blocks = text.split("\n\n")
    assert len(blocks) > 7 and all("# " in block for block in blocks)
    assert max(map(len, text.splitlines())) <= 120


def test_embedded_data_needs_no_folder() -> None:
    space = parse_space(render_template(draft(dataset="digits", root=None)))
    assert (space.data.dataset, space.data.root) == ("digits", None)


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("resnet18.a1_in1k", "model"),
        ("hf-hub:timm/resnet18.a1_in1k", "model"),
        ("own.py:build", "factory"),
        ("package.module:build", "factory"),
    ],
)
def test_factories_are_told_from_models(text: str, key: str) -> None:
    assert anchor_entry(text) == {key: text}
