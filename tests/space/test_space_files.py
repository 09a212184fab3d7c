"""Spaces from files: where they are found, what is read, and that every error says what to change."""

from __future__ import annotations

import copy
import textwrap
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from restnet_search.errors import SpaceError
from restnet_search.space import SearchSpace, builtin_spaces, dump_space, find_space, load_space, parse_space
from restnet_search.space.plain_yaml import read_yaml, write_yaml
from restnet_search.space.renamed_keys import upgrade_space

BASE = "anchors: [{model: resnet18}, {model: resnet34}]\ndata: {dataset: digits}\n"
REPOSITORY = Path(__file__).resolve().parents[2]


def error_of(text: str) -> SpaceError:
    with pytest.raises(SpaceError) as caught:
        parse_space(text, source="my.yaml")
    return caught.value


class TestBuiltin:
    def test_those_of_the_checkout_are_found(self) -> None:
        assert builtin_spaces() == {path.stem: path for path in sorted((REPOSITORY / "search_spaces").glob("*.yaml"))}

    @pytest.mark.parametrize("name", sorted(builtin_spaces()))
    def test_every_one_loads_under_its_file_name_and_says_what_it_is(self, name: str) -> None:
        space = load_space(builtin_spaces()[name])
        assert space.name == name
        assert space.description
        assert space.budgets
        assert parse_space(dump_space(space)) == space

    @pytest.mark.parametrize("name", sorted(builtin_spaces()))
    def test_every_one_stands_in_the_table(self, name: str) -> None:
        table = (REPOSITORY / "search_spaces" / "README.md").read_text(encoding="utf-8")
        assert f"| [`{name}`]({name}.yaml) |" in table

    def test_the_readmes_example_is_valid(self) -> None:
        readme = (REPOSITORY / "search_spaces" / "README.md").read_text(encoding="utf-8")
        example = readme.split("```yaml\n")[1].split("```")[0]
        assert [anchor.name for anchor in parse_space(example).anchors] == ["resnet50", "resnet18", "build"]

    @pytest.mark.parametrize("name", sorted(builtin_spaces()))
    def test_every_timm_model_exists(self, name: str) -> None:
        import timm

        import restnet_search.anchors.loading.cifar_resnet  # noqa: F401  registers the CIFAR ResNets  # noqa: F401  registers the CIFAR ResNets

        models = [anchor.model for anchor in load_space(builtin_spaces()[name]).anchors if anchor.model]
        assert [model for model in models if not timm.is_model(model)] == []


class TestFindSpace:
    """--space, then $RESTNET_SPACE, then ./restnet.yaml, then the demo."""

    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        (tmp_path / "restnet.yaml").write_text(BASE)
        (tmp_path / "mine.yaml").write_text(BASE)
        return tmp_path

    def test_the_argument_wins_and_needs_no_note(self, folder: Path) -> None:
        found = find_space("mine.yaml", environ={"RESTNET_SPACE": "demo"}, cwd=folder)
        assert (found.path, found.builtin, found.origin, found.note) == (folder / "mine.yaml", None, "--space", "")

    def test_then_the_environment(self, folder: Path) -> None:
        found = find_space(None, environ={"RESTNET_SPACE": "cifar10_resnet"}, cwd=folder)
        assert (found.path, found.builtin) == (builtin_spaces()["cifar10_resnet"], "cifar10_resnet")
        assert found.origin == "$RESTNET_SPACE"
        assert found.note.startswith("Space: cifar10_resnet, from $RESTNET_SPACE. ")

    def test_then_the_working_folder(self, folder: Path) -> None:
        found = find_space(None, environ={"RESTNET_SPACE": ""}, cwd=folder)
        assert (found.path, found.origin) == (folder / "restnet.yaml", "restnet.yaml")
        assert "restnet.yaml" in found.note

    def test_then_the_demo(self, tmp_path: Path) -> None:
        found = find_space(None, environ={}, cwd=tmp_path)
        assert (found.path, found.builtin, found.origin) == (builtin_spaces()["demo"], "demo", "built-in demo")

    def test_the_note_says_what_to_pass_instead(self, tmp_path: Path) -> None:
        note = find_space(None, environ={}, cwd=tmp_path).note
        assert "pass --space NAME|PATH" in note
        assert all(name in note for name in builtin_spaces())
        assert "\n" not in note

    def test_a_built_in_name_wins_over_a_file_unless_it_is_written_as_a_path(self, tmp_path: Path) -> None:
        (tmp_path / "demo").write_text(BASE)
        assert find_space("demo", environ={}, cwd=tmp_path).builtin == "demo"
        assert find_space("./demo", environ={}, cwd=tmp_path).path.read_text() == BASE

    def test_absolute_paths(self, folder: Path) -> None:
        assert find_space(str(folder / "mine.yaml"), environ={}, cwd=Path("/")).path == folder / "mine.yaml"

    @pytest.mark.parametrize(
        ("argument", "said"),
        [
            ("dmo", "(did you mean 'demo'?)"),
            ("mine", "Next: pass mine.yaml"),
            ("no/such.yaml", "--space names the file no/such.yaml, which does not exist."),
            ("", "--space names no space: ''."),
        ],
    )
    def test_unknown_names_say_what_there_is(self, folder: Path, argument: str, said: str) -> None:
        with pytest.raises(SpaceError) as caught:
            find_space(argument, environ={}, cwd=folder)
        assert said in str(caught.value)
        assert all(name in str(caught.value) for name in builtin_spaces())

    def test_a_wrong_environment_is_named_as_such(self, folder: Path) -> None:
        with pytest.raises(SpaceError, match=r"^\$RESTNET_SPACE names no space: 'nothing'"):
            find_space(None, environ={"RESTNET_SPACE": "nothing"}, cwd=folder)


class TestFiles:
    def test_paths_stay_as_written(self, tmp_path: Path) -> None:
        file = tmp_path / "space.yaml"
        file.write_text("anchors: [{model: a, weights: w/a.safetensors}, {factory: 'm.py:f'}]\ndata: {root: ../data}\n")
        space = load_space(file)
        assert space.anchors[0].weights == "w/a.safetensors"
        assert space.anchors[1].factory == "m.py:f"
        assert space.data.root == "../data"

    def test_a_byte_order_mark_and_windows_line_ends_do_not_matter(self, tmp_path: Path) -> None:
        file = tmp_path / "space.yaml"
        file.write_bytes(b"\xef\xbb\xbf" + BASE.replace("\n", "\r\n").encode())
        assert load_space(file) == parse_space(BASE)

    def test_of_very_many_problems_the_first_are_shown(self) -> None:
        error = error_of(BASE + f"training: {{tune: {['wrong'] * 300}}}\n")
        first, *lines = error.problem.splitlines()
        assert first == "my.yaml has 300 problems:"
        assert [line.split(":")[0] for line in lines[:-1]] == [f"  training.tune[{place}]" for place in range(30)]
        assert lines[-1] == "  and 270 more"

    def test_a_missing_file(self, tmp_path: Path) -> None:
        with pytest.raises(SpaceError, match=r"There is no file .*nowhere\.yaml"):
            load_space(tmp_path / "nowhere.yaml")

    def test_a_folder(self, tmp_path: Path) -> None:
        with pytest.raises(SpaceError, match="is a folder"):
            load_space(tmp_path)

    def test_a_file_below_a_file(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        with pytest.raises(SpaceError, match="cannot be read: Not a directory"):
            load_space(tmp_path / "file" / "space.yaml")

    def test_what_is_no_text(self, tmp_path: Path) -> None:
        file = tmp_path / "weights.safetensors"
        file.write_bytes(b"\x80\x04\x95")
        with pytest.raises(SpaceError, match="byte 0 is not UTF-8"):
            load_space(file)

    @pytest.mark.parametrize("text", ["", "\n\n", "# only a comment\n", "{}", "---\n"])
    def test_an_empty_file(self, text: str) -> None:
        error = error_of(text)
        assert error.problem == "my.yaml is empty."
        assert "anchors and data" in str(error)

    @pytest.mark.parametrize(("text", "kind"), [("[1, 2]", "a list"), ("- a", "a list"), ("demo", "a single value")])
    def test_no_mapping_at_the_top(self, text: str, kind: str) -> None:
        assert error_of(text).problem.startswith(f"my.yaml holds {kind}")

    def test_the_file_is_named(self, tmp_path: Path) -> None:
        file = tmp_path / "space.yaml"
        file.write_text("anchors: 3")
        with pytest.raises(SpaceError) as caught:
            load_space(file)
        assert caught.value.problem.startswith(f"{file} has 2 problems:")


class TestRenamedKeys:
    """A run's own copy of its space opens under the names that keys had when it was written."""

    def test_old_keys_are_mapped_and_nothing_else_changes(self) -> None:
        raw = {"early": {"when": "never"}, "cache": {"together": 3, "disk_gb": 1}, "name": "old"}
        before = copy.deepcopy(raw)
        assert upgrade_space(raw) == {
            "halving": {"when": "never"},
            "cache": {"trials_per_pass": 3, "disk_gb": 1},
            "name": "old",
        }
        assert before == raw

    def test_stitch_layers_of_runs_before_there_were_terms_have_none(self) -> None:
        old, own = {"stitch": {"kind": ["linear"]}}, {"stitch": {"kind": ["linear"], "terms": ["scale"]}}
        assert upgrade_space(old)["stitch"] == {"kind": ["linear"], "terms": []}
        assert upgrade_space(own)["stitch"] == own["stitch"]

    @pytest.mark.parametrize("raw", [{}, {"cache": None}, {"cache": [1]}, {"early": {}, "halving": {}}])
    def test_what_cannot_be_mapped_is_left_to_validation(self, raw: dict[str, Any]) -> None:
        assert upgrade_space(raw) == raw

    def test_a_present_space_stays_as_it_is(self) -> None:
        raw = parse_space(BASE).model_dump(mode="json")
        assert upgrade_space(raw) == raw

    def test_only_who_asks_for_it_gets_it(self, tmp_path: Path) -> None:
        path = tmp_path / "space.yaml"
        path.write_text(BASE + "early: {buckets: 3}\ncache: {together: 5}\n", encoding="utf-8")
        space = load_space(path, upgrade=True)
        assert (space.halving.buckets, space.cache.trials_per_pass) == (3, 5)
        with pytest.raises(SpaceError, match="early: is now halving"):
            load_space(path)


class TestYaml:
    @pytest.mark.parametrize(
        ("text", "place"),
        [
            ("anchors: [a, b", "line 1, column 15"),
            ("anchors:\n\t- a", "line 2, column 1"),
            ("a: b: c", "line 1, column 5"),
            ("a: 'open", "line 1, column 9"),
            ("a: 1\n---\nb: 2", "line 2, column 1"),
            ("a: *nothing", "line 1, column 4"),
            ("? [a]\n: 1", "line 1, column 3"),
        ],
    )
    def test_malformed_yaml_names_line_and_column(self, text: str, place: str) -> None:
        error = error_of(text)
        assert error.problem.startswith(f"my.yaml, {place}: this is no YAML: ")
        assert "\n" not in error.problem

    @pytest.mark.parametrize(
        "tag", ["!!python/object/apply:os.system", "!!python/name:os.system", "!!python/tuple", "!include", "!Ref"]
    )
    def test_tags_are_refused(self, tag: str) -> None:
        error = error_of(f"{BASE}name: {tag} ['touch owned']")
        assert error.problem == f"my.yaml, line 3, column 7: the tag {tag} is not allowed."
        assert "never runs code" in str(error)

    def test_no_code_runs(self, tmp_path: Path) -> None:
        marker = tmp_path / "owned"
        error_of(
            f"{BASE}name: !!python/object/apply:pathlib.Path.touch [!!python/object/apply:pathlib.Path ['{marker}']]"
        )
        assert not marker.exists()

    def test_a_key_that_is_there_twice(self) -> None:
        error = error_of(f"{BASE}top_k: 1\nfit: {{}}\ntop_k: 2")
        assert error.problem == "my.yaml, line 5, column 1: the key 'top_k' is there twice."

    def test_merge_keys_may_override(self) -> None:
        text = """
        anchors:
          - &first {model: resnet18, kwargs: {num_classes: 10}}
          - {<<: *first, model: resnet34}
          - &third {<<: *first, name: third}
          - {<<: *third, name: fourth}
        data: {}
        """
        anchors = parse_space(textwrap.dedent(text)).anchors
        assert [anchor.name for anchor in anchors] == ["resnet18", "resnet34", "third", "fourth"]
        assert all(anchor.kwargs == {"num_classes": 10} for anchor in anchors)

    @pytest.mark.parametrize("text", ["1e-3", "1E-3", "0.1e-2", ".1e-2", "1.e-3", "0.001", "'1e-3'"])
    def test_numbers_with_exponents_are_numbers(self, text: str) -> None:
        assert parse_space(f"{BASE}fit: {{lr: {text}}}").fit.lr == 1e-3

    def test_also_where_the_schema_does_not_know_the_type(self) -> None:
        text = "anchors: [{model: a, kwargs: {rate: 1e-1, size: 2e+1}}, {model: b}]\ndata: {}"
        assert parse_space(text).anchors[0].kwargs == {"rate": 0.1, "size": 20.0}

    @pytest.mark.parametrize("text", ["2026-13-45", "0x_"])
    def test_what_only_looks_like_a_date_or_number(self, text: str) -> None:
        error = error_of(f"{BASE}name: {text}")
        assert error.problem.startswith("my.yaml ")
        assert "quotes" in str(error)

    @pytest.mark.parametrize("text", ["1:30", "190:20:30", "1_000", "010", "0x10", "0b101", "-0x1F", "1_0.5", "1:30.5"])
    @pytest.mark.parametrize(
        "place", ["name: {}", "search: {{trials: {}}}", "ranker: {{kind: cka, options: {{a: {}}}}}"]
    )
    def test_numbers_that_readers_of_yaml_disagree_on(self, text: str, place: str) -> None:
        """YAML 1.1 takes 1:30 for 90 and 010 for 8; YAML 1.2 takes them for text, and for 10."""
        assert isinstance(yaml.safe_load(text), int | float)  # so PyYAML reads it
        error = error_of(BASE + place.format(text))
        assert text in error.problem and "line 3, column " in error.problem and "quotes" in str(error)

    @pytest.mark.parametrize("text", ["'1:30'", '"010"', "'0x10'"])
    def test_in_quotes_they_are_text(self, text: str) -> None:
        assert parse_space(f"{BASE}description: {text}").description == text[1:-1]

    @pytest.mark.parametrize("word", ["yes", "no", "on", "off", "true"])
    @pytest.mark.parametrize("key", ["name", "license", "weights"])
    def test_a_yes_or_no_is_no_name(self, key: str, word: str) -> None:
        """The code of Norway, and the license of nobody: they are asked for in quotes."""
        text = "anchors: [{model: a, KEY: WORD}, {model: b}]\ndata: {}".replace("KEY", key)
        error = error_of(text.replace("WORD", word))
        assert f"anchors[0].{key}: must be text; put a number, a date or yes/no in quotes" in error.problem
        assert getattr(parse_space(text.replace("WORD", f"'x{word}'")).anchors[0], key) == f"x{word}"

    @pytest.mark.parametrize("text", ["[" * 5000, "a: \x00"])
    def test_what_the_parser_chokes_on(self, text: str) -> None:
        assert error_of(text).problem.startswith("my.yaml is ")

    @pytest.mark.parametrize("text", ["[" * 10_000, "a: " + "[" * 10_000 + "]" * 10_000, "- " * 10_000 + "x"])
    def test_a_list_ten_thousand_deep(self, text: str) -> None:
        error = error_of(text)
        assert error.problem.startswith("my.yaml is nested too deeply (my.yaml, line 1, column ")

    @pytest.mark.parametrize("merge", [False, True])
    def test_aliases_that_stand_for_billions_of_values(self, merge: bool) -> None:
        first = "{k: 1}" if merge else "[x]"
        lines = [f"a0: &a0 {first}"]
        for place in range(1, 11):
            many = ", ".join([f"*a{place - 1}"] * 10)
            lines.append(f"a{place}: &a{place} " + (f"{{<<: [{many}]}}" if merge else f"[{many}]"))
        start = time.monotonic()
        assert error_of("\n".join(lines)).problem.startswith("my.yaml holds too much (my.yaml, line ")
        assert time.monotonic() - start < 2

    def test_aliases_that_stand_for_little_are_fine(self) -> None:
        assert read_yaml("a: &a [1, 2]\nb: [*a, *a]", "my.yaml") == {"a": [1, 2], "b": [[1, 2], [1, 2]]}

    @pytest.mark.skipif(not Path("/dev/zero").exists(), reason="needs /dev/zero")
    def test_a_file_without_end(self) -> None:
        with pytest.raises(SpaceError, match="/dev/zero is too large"):
            load_space("/dev/zero")

    def test_a_space_that_refers_to_itself(self) -> None:
        error = error_of("anchors: [{model: a, kwargs: &k {k: *k}}, {model: b}]\ndata: {}")
        assert "refers to itself" in error.problem

    @settings(deadline=None)
    @given(st.text(max_size=60))
    def test_any_text_is_read_or_refused_with_a_reason(self, text: str) -> None:
        try:
            read_yaml(text, "my.yaml")
        except SpaceError as error:
            problem = error.problem
        else:
            return
        assert problem.startswith("my.yaml")

    scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()

    @settings(deadline=None)
    @given(st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=10))
    def test_what_is_written_is_read_back(self, data: object) -> None:
        assert read_yaml(write_yaml(data), "my.yaml") == data

    @pytest.mark.parametrize(
        "text", ["1e-3", "1_0e5", "yes", "null", "3", "1:30", "~", "<<", "=", "2026-01-01", "a\x85b"]
    )
    def test_text_that_looks_like_something_else_stays_text(self, text: str) -> None:
        assert read_yaml(write_yaml({"key": [text], text: 1}), "my.yaml") == {"key": [text], text: 1}
        assert yaml.safe_load(write_yaml([text])) == [text]


class TestProblems:
    """One line each: the path in the file, what would be right, the value."""

    @pytest.mark.parametrize(
        ("text", "line"),
        [
            (
                "training: {ephocs: 3}",
                "training.ephocs: is no known key (its value: 3); valid keys: epochs, lr, batch_size, images,"
                " weight_decay, norms, whiten, views, tune, match_epochs, match_at, distill, distill_backs"
                " (did you mean 'epochs'?)",
            ),
            ("early: {when: never}", "early: is now halving (its value: {'when': 'never'})"),
            ("cache: {together: 3}", "cache.together: is now cache.trials_per_pass (its value: 3)"),
            (
                "ranker: {kind: ckaa}",
                "ranker.kind: must be one of cka, kl, lstsq, random (did you mean 'cka'?); came 'ckaa'",
            ),
            ("ranker: ckaa", "ranker: must be one of cka, kl, lstsq, random (did you mean 'cka'?); came 'ckaa'"),
            ("search: {sampler: TPE}", "search.sampler: must be one of tpe, random, nsga2; came 'TPE'"),
            ("fit: {tune: null}", "fit.tune: must be one of head, full, never; came null"),
            ("orders: [large_to_smal]", "orders[0]: must be one of large_to_small, small_to_large (did you mean"
             " 'large_to_small'?); came 'large_to_smal'"),
            ("orders: large_to_small", "orders: must be a list ([a, b]); came 'large_to_small'"),
            ("budgets: 85MFLOPs", "budgets: must be a list ([a, b]); came '85MFLOPs'"),
            ("training: 3", "training: must be a mapping (key: value); came 3"),
            ("stitch: [linear]", "stitch: must be a mapping (key: value); came ['linear']"),
            ("training: {lr: abc}", "training.lr: must be a list ([a, b]); came 'abc'"),
            ("training: {lr: [1e-3, abc]}", "training.lr[1]: must be a number; came 'abc'"),
            ("search: {trials: many}", "search.trials: must be a whole number; came 'many'"),
            ("description: 2026-01-01", "description: must be text; put a number, a date or yes/no in quotes; came"
             " datetime.date(2026, 1, 1)"),
            ("description: no", "description: must be text; put a number, a date or yes/no in quotes; came false"),
            ("name: a b", "name: must match ^[A-Za-z0-9_.-]+$; came 'a b'"),
            ("data: {root: ''}", "data.root: must not be empty; came ''"),
            ("yes: 1", "the space: the key true must be text; put it in quotes"),
            ("fit: {1: 2}", "fit: the key 1 must be text; put it in quotes"),
            ("cut_points: {anchors: {resnet18.a: 3}}", "cut_points.anchors['resnet18.a']: must be a mapping (key:"
             " value); came 3"),
            ("pairs: [[resnet18]]", "pairs[0][1]: is missing"),
        ],
    )  # fmt: skip
    def test_one_problem(self, text: str, line: str) -> None:
        key = text.partition(":")[0]
        base = "".join(part for part in BASE.splitlines(keepends=True) if not part.startswith(f"{key}:"))
        error = error_of(base + text)
        assert error.problem == f"my.yaml has a problem:\n  {line}"

    def test_an_unknown_key_of_an_anchor(self) -> None:
        error = error_of("anchors: [{model: a}, {model: b, modle: c}]\ndata: {}")
        assert error.problem.splitlines()[1:] == [
            "  anchors[1].modle: is no known key (its value: 'c'); valid keys: name, model, factory, pretrained,"
            " weights, kwargs, license (did you mean 'model'?)"
        ]

    def test_missing_sections_say_what_they_are(self) -> None:
        assert error_of("name: x").problem.splitlines()[1:] == [
            "  anchors: is missing; a list",
            "  data: is missing; a mapping with the keys "
            "dataset, root, splits, subset, classes, class_order, class_map, allow_overlap, test_fraction, seed, "
            "max_unreadable",
        ]

    def test_all_problems_of_a_file_are_named_at_once(self) -> None:
        error = error_of(
            """
            anchors: [{model: a, wieghts: w}, 3]
            data: {splits: {tran: x}, seed: -1}
            top_k: 0
            nmae: demo
            """
        )
        assert error.problem.startswith("my.yaml has 6 problems:\n")
        assert [line.split(":")[0].strip() for line in error.problem.splitlines()[1:]] == [
            "anchors[0].wieghts",
            "anchors[1]",
            "top_k",
            "data.splits.tran",
            "data.seed",
            "nmae",
        ]
        assert "restnet-search spaces show demo" in str(error)

    def test_a_huge_value_is_shortened(self) -> None:
        (line,) = error_of(f"{BASE}fit: {{tune: {'x' * 10_000}}}").problem.splitlines()[1:]
        assert len(line) < 200

    @pytest.mark.parametrize("section", SearchSpace.model_fields)
    def test_every_section_refuses_a_set(self, section: str) -> None:
        content: dict[str, Any] = {"anchors": [{"model": "a"}, {"model": "b"}], "data": {}, section: {object()}}
        with pytest.raises(SpaceError) as caught:
            parse_space(content)
        assert any(line.strip().startswith(section) for line in caught.value.problem.splitlines()[1:])
