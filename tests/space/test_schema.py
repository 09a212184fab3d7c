"""The schema: what is refused, what is filled in, and that YAML gives back what was written."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from restnet_search.errors import SpaceError
from restnet_search.files import problem_of_name
from restnet_search.space import SearchSpace, dump_space, parse_space
from restnet_search.space.schema import RankerSpec, StitchSpec, TrainingSpec


def a_space(**sections: Any) -> dict[str, Any]:
    """The smallest valid space, with `sections` put over it."""
    return {"anchors": [{"model": "resnet18"}, {"model": "resnet34"}], "data": {"dataset": "digits"}, **sections}


def problems(**sections: Any) -> list[str]:
    with pytest.raises(SpaceError) as caught:
        parse_space(a_space(**sections))
    return [line.strip() for line in caught.value.problem.splitlines()[1:]]


class TestDefaults:
    def test_only_anchors_and_data_are_required(self) -> None:
        space = parse_space(a_space())
        assert [anchor.name for anchor in space.anchors] == ["resnet18", "resnet34"]
        assert space.orders == ["large_to_small", "small_to_large"]
        assert (space.ranker.kind, space.stitch.init, space.objectives) == ("cka", "lstsq", ["accuracy", "macs"])

    def test_an_anchor_is_named_after_its_model_or_function(self) -> None:
        anchors = [{"model": "resnet18.a1_in1k"}, {"factory": "my/models.py:build_net"}, {"model": "vit", "name": "v"}]
        space = parse_space(a_space(anchors=anchors))
        assert [anchor.name for anchor in space.anchors] == ["resnet18.a1_in1k", "build_net", "v"]

    def test_a_model_that_is_a_path_lends_a_name_that_is_none(self) -> None:
        space = parse_space(a_space(anchors=[{"model": "local-dir:my/.models"}, {"model": "hf-hub:timm/vit"}]))
        assert [anchor.name for anchor in space.anchors] == ["local-dir:my_.models", "hf-hub:timm/vit"]
        assert parse_space(space.model_dump(mode="json")) == space

    def test_a_kind_alone_stands_for_its_section(self) -> None:
        space = parse_space(a_space(ranker="random", stitch="conv3x3"))
        assert space.ranker == RankerSpec(kind="random")
        assert space.stitch == StitchSpec(kind=["conv3x3"])

    def test_a_single_number_is_a_range_of_one_value(self) -> None:
        space = parse_space(a_space(effort="paper", training={"lr": 0.01, "epochs": 3}))
        assert space.training == TrainingSpec(lr=(0.01, 0.01), epochs=(3, 3))

    def test_a_space_cannot_be_changed(self) -> None:
        space = parse_space(a_space())
        with pytest.raises(ValueError, match="frozen"):
            space.top_k = 5


class TestNamesOfAnchors:
    @pytest.mark.parametrize(
        "name",
        ["../../x", "/x", "a/b", "a\\b", ".x", "..", "nul\0", "n" * 300, "NUL", "a\nb", "lar[/red]ge", "\x1b[2J"],
    )
    def test_one_that_cannot_name_a_file_is_refused_with_what_can(self, name: str) -> None:
        (problem,) = problems(anchors=[{"model": "resnet18", "name": name}, {"model": "resnet34"}])
        assert problem.startswith("anchors[0].name: must be at most 100 letters, digits, spaces and _ . + - @ =")

    @pytest.mark.parametrize("name", ["large", "resnet18.a1_in1k", "größe", "w=2:d=3", "a+b@224", "n" * 100, "a cnn"])
    def test_others_are_taken(self, name: str) -> None:
        space = parse_space(a_space(anchors=[{"model": "resnet18", "name": name}, {"model": "resnet34"}]))
        assert space.anchors[0].name == name


class TestNumbers:
    @pytest.mark.parametrize(
        "section",
        [
            {"top_k": True},
            {"search": {"seed": False}},
            {"search": {"timeout": True}},
            {"training": {"lr": True}},
            {"training": {"epochs": [False, 2]}},
            {"stitch": {"ridge": False}},
            {"cut_points": {"min_depth": False}},
            {"data": {"test_fraction": True}},
        ],
    )
    def test_true_and_false_are_no_numbers(self, section: dict[str, Any]) -> None:
        (line,) = problems(**section)
        assert ": must be a number; came " in line or ": must be a list" in line

    @pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
    def test_numbers_are_finite(self, value: float) -> None:
        assert problems(search={"timeout": value}) == [f"search.timeout: must be a finite number; came {value!r}"]
        assert all("must be" in line for line in problems(training={"lr": [1e-4, value]}))

    @pytest.mark.parametrize(
        ("section", "line"),
        [
            ({"training": {"lr": [0, 0.1]}}, "training.lr[0]: must be above 0; came 0"),
            ({"training": {"lr": -1}}, "training.lr: must be above 0; came -1"),
            ({"training": {"epochs": [-1, 2]}}, "training.epochs[0]: must be at least 0; came -1"),
            ({"training": {"batch_size": 0}}, "training.batch_size: must be at least 1; came 0"),
            ({"training": {"images": 1.5}}, "training.images: must be a whole number; came 1.5"),
            ({"ranker": {"batch_size": 3}}, "ranker.batch_size: must be at least 4; came 3"),
            ({"data": {"test_fraction": 1.0}}, "data.test_fraction: must be below 1; came 1.0"),
            ({"cut_points": {"max_depth": 1.5}}, "cut_points.max_depth: must be at most 1; came 1.5"),
            ({"top_k": 0}, "top_k: must be at least 1; came 0"),
            ({"fit": {"lr": "fast"}}, "fit.lr: must be a number; came 'fast'"),
        ],
    )
    def test_bounds_are_stated(self, section: dict[str, Any], line: str) -> None:
        assert problems(**section) == [line]

    @pytest.mark.parametrize("key", ["lr", "epochs"])
    def test_a_range_goes_up(self, key: str) -> None:
        assert problems(training={key: [3, 2]})[0].startswith(f"training.{key}: low is above high")

    @pytest.mark.parametrize("value", [[1], [1, 2, 3], [], {"low": 1}, "1"])
    def test_a_range_has_two_ends(self, value: object) -> None:
        assert all(line.startswith("training.epochs") for line in problems(training={"epochs": value}))

    @pytest.mark.parametrize(
        "text",
        ["1_000", "\uff12\uff10", "\u0661\u0662", " 12", "012", "0x10", "1_0.5", "\u06f1.5", "1" * 400, "1e9999"],
    )
    def test_text_that_only_python_takes_for_a_number_is_none(self, text: str) -> None:
        assert float(text) if "x" not in text else int(text, 16)  # it does
        for section in ({"training": {"images": text}}, {"search": {"timeout": text}}, {"latency": {"runs": text}}):
            (line,) = problems(**section)
            assert ": must be a " in line

    def test_no_number_of_the_schema_is_without_ends(self) -> None:
        """Whatever key takes a number takes neither 10^29 nor -10^29, and says what it takes."""
        known = SearchSpace.model_validate(a_space()).model_dump()
        keys = [(name, key) for name, section in known.items() if isinstance(section, dict) for key in section]
        numeric = [(name, key) for name, key in keys if type(known[name][key]) in (int, float)]
        numeric += [("search", "timeout"), ("fit", "patience"), ("training", "lr"), ("training", "epochs")]
        assert len(numeric) > 35
        for name, key in numeric:
            for value in (10**29, -(10**29), 1e29, -1e29):
                lines = problems(**{name: {key: value}})
                assert any(": must be " in line for line in lines), (name, key, value, lines)
        assert problems(top_k=10**29) and problems(top_k=-1)

    @pytest.mark.parametrize("digits", [41, 400, 5000])
    def test_counts_of_hundreds_of_digits_are_refused_in_few_words(self, digits: int) -> None:
        count = 10**digits
        for section in ({"top_k": count}, {"search": {"timeout": count}}, {"ranker": {"options": {"a": count}}}):
            (line,) = problems(**section)
            assert "digits" in line and len(line) < 200

    def test_zero_has_no_sign(self) -> None:
        space = parse_space(a_space(training={"weight_decay": -0.0}, cut_points={"min_depth": -0.0}))
        assert "-0.0" not in dump_space(space)


class TestAnchors:
    def test_there_are_at_least_two(self) -> None:
        assert problems(anchors=[{"model": "a"}])[0].startswith("anchors: must have at least 2 entries, has 1")

    def test_an_anchor_has_one_source(self) -> None:
        lines = problems(anchors=[{"name": "a"}, {"model": "b", "factory": "m:f"}])
        assert lines[0].startswith("anchors[0]: needs `model` (a timm name) or `factory`")
        assert lines[1].startswith("anchors[1]: has both `model` and `factory`")

    @pytest.mark.parametrize("factory", ["build", ":build", "models.py:", "models.py:two words"])
    def test_a_factory_names_a_function(self, factory: str) -> None:
        assert problems(anchors=[{"model": "a"}, {"factory": factory}]) == [
            f"anchors[1].factory: must read module:function or file.py:function; came {factory!r}"
        ]

    def test_names_differ(self) -> None:
        (line,) = problems(anchors=[{"model": "a"}, {"model": "b"}, {"model": "a"}])
        assert line.startswith("anchors[2].name: is the name of an earlier anchor")
        assert line.endswith("came 'a'")

    def test_kwargs_are_plain_data(self) -> None:
        kwargs = {"act": math.sin, "deep": {"x": [1, {2}]}, "p": math.nan}
        lines = problems(anchors=[{"model": "a", "kwargs": kwargs}, {"model": "b"}])
        assert [line.split(":")[0] for line in lines] == [
            "anchors[0].kwargs.act",
            "anchors[0].kwargs.deep.x[1]",
            "anchors[0].kwargs.p",
        ]

    def test_tuples_in_kwargs_become_lists_as_in_the_file(self) -> None:
        anchors = [{"model": "a", "kwargs": {"img_size": (32, 32)}}, {"model": "b"}]
        assert parse_space(a_space(anchors=anchors)).anchors[0].kwargs == {"img_size": [32, 32]}


class TestNames:
    def test_pairs_name_anchors(self) -> None:
        assert problems(pairs=[["resnet18", "resnet3"], ["resnet34", "resnet34"]]) == [
            "pairs[0][1]: is no anchor of this space; the anchors are resnet18, resnet34 (did you mean 'resnet34'?);"
            " came 'resnet3'",
            "pairs[1]: needs two different anchors; came ['resnet34', 'resnet34']",
        ]

    def test_cut_points_name_anchors(self) -> None:
        (line,) = problems(cut_points={"anchors": {"vit": {"exclude": [0]}}})
        assert line.startswith("cut_points.anchors.vit: is no anchor of this space")

    @pytest.mark.parametrize("reference", [True, -1, 1.5, "", None, ["layer1"]])
    def test_a_cut_point_is_an_index_or_a_path(self, reference: object) -> None:
        (line,) = problems(cut_points={"anchors": {"resnet18": {"include": [0, "layer1.0", reference]}}})
        assert line.startswith("cut_points.anchors.resnet18.include[2]: must be the index of a cut point")

    def test_depths_are_ordered(self) -> None:
        (line,) = problems(cut_points={"min_depth": 0.5, "max_depth": 0.5})
        assert line == "cut_points.min_depth: min_depth must be below max_depth (0.5); came 0.5"

    @pytest.mark.parametrize("objectives", [["accuracy"], ["macs", "params"], [], ["accuracy", "macs", "macs"]])
    def test_objectives_are_accuracy_and_a_cost(self, objectives: list[str]) -> None:
        assert problems(objectives=objectives)[0].startswith("objectives: ")

    def test_orders_are_listed_once(self) -> None:
        (line,) = problems(orders=["large_to_small", "large_to_small"])
        assert line.startswith("orders: lists something twice")

    def test_every_budget_is_read(self) -> None:
        lines = problems(budgets=["2Gflopz", "85MFLOPs", "1G,2G"])
        assert lines[0].startswith("budgets[0]: Cannot read the quantity '2Gflopz'.")
        assert "such as 2GFLOPs" in lines[0]
        assert lines[1].startswith("budgets[2]: The budget '1G,2G' limits one cost twice.")


names = st.text(min_size=1, max_size=12)
anchor_names = st.from_regex(r"[\w.+@=:-]{1,12}", fullmatch=True).filter(lambda name: problem_of_name(name) is None)
plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda items: st.lists(items, max_size=3) | st.dictionaries(st.text(max_size=8), items, max_size=3),
    max_leaves=8,
)
fractions = st.floats(0.0, 1.0)
rates = st.floats(1e-12, 1e3)
counts = st.integers(1, 10**9)


def ranges(values: st.SearchStrategy[Any]) -> st.SearchStrategy[list[Any]]:
    return st.lists(values, min_size=2, max_size=2).map(sorted)


anchor = st.fixed_dictionaries(
    {"model": names},
    optional={"pretrained": st.booleans(), "weights": names, "kwargs": st.dictionaries(st.text(), plain, max_size=4)},
)


@st.composite
def spaces(draw: st.DrawFn) -> dict[str, Any]:
    labels = draw(st.lists(anchor_names, min_size=2, max_size=3, unique=True))
    anchors = [draw(anchor) | {"name": label} for label in labels]
    low, high = draw(ranges(fractions).filter(lambda bounds: bounds[0] < bounds[1]))
    references = st.lists(st.integers(0, 99) | names, max_size=3)
    return {
        "name": draw(st.from_regex(r"[A-Za-z0-9_.-]+", fullmatch=True)),
        "description": draw(st.text(max_size=80)),
        "anchors": anchors,
        "pairs": draw(st.none() | st.just([labels[:2]])),
        "cut_points": {
            "min_depth": low,
            "max_depth": high,
            "anchors": {labels[0]: {"include": draw(st.none() | references), "exclude": draw(references)}},
        },
        "stitch": {"kind": draw(st.sampled_from(["linear", "conv3x3"])), "ridge": draw(rates)},
        "training": {"lr": draw(ranges(rates)), "epochs": draw(ranges(st.integers(0, 99))), "images": draw(counts)},
        "search": {"trials": draw(st.integers(1, 10**6)), "timeout": draw(st.none() | rates)},
        "budgets": draw(st.lists(st.sampled_from(["2GFLOPs", "85MMACs,1Mparams", "3G"]), max_size=2)),
        "data": {
            "dataset": draw(st.text(max_size=9)),
            "root": draw(st.none() | names),
            "subset": {"val": draw(counts)},
        },
    }


@settings(deadline=None)
@given(spaces())
def test_yaml_gives_back_an_equal_space(content: dict[str, Any]) -> None:
    space = parse_space(content)
    assert parse_space(dump_space(space)) == space


@settings(deadline=None)
@given(spaces())
def test_a_space_survives_being_written_as_plain_data(content: dict[str, Any]) -> None:
    space = parse_space(content)
    assert SearchSpace.model_validate(space.model_dump(mode="json")) == space
