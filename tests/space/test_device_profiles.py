"""Device profiles: those that ship say their source and give the budget that they say; bad ones are refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from restnet_search.cli import main
from restnet_search.errors import BudgetError
from restnet_search.space import builtin_spaces
from restnet_search.space.device_profiles import (
    builtin_profiles,
    dump_profile,
    find_profile,
    load_profile,
    parse_profile,
)
from restnet_search.space.plain_yaml import read_yaml
from restnet_search.units import parse_budget

GIB, MIB = 2**30, 2**20
SAID = {
    "jetson-orin-nano": {"memory": 8 * GIB},
    "pixel-6a": {"memory": 6 * GIB},
    "raspberry-pi-4": {"memory": 4 * GIB},
    "raspberry-pi-zero-2-w": {"memory": 512 * MIB},
    "stm32h743": {"memory": MIB, "params": 2 * MIB},
}
PLAIN = {"name": "box", "device": "a box", "source": "its data sheet", "limits": {"memory": "1GiB"}}


def test_those_that_ship() -> None:
    assert set(builtin_profiles()) == set(SAID)
    assert not set(builtin_profiles()) & set(builtin_spaces())


@pytest.mark.parametrize("name", sorted(SAID))
def test_a_shipped_profile_has_a_source_and_gives_the_budget_that_it_says(name: str) -> None:
    profile = load_profile(builtin_profiles()[name])
    assert profile.name == name and len(profile.source) > 20 and profile.latency is None
    budget = parse_budget(str(profile.budget))
    assert (budget.name, dict(budget.limits)) == (name, SAID[name])
    assert dict(budget.at) == ({"memory": "int8"} if name == "stm32h743" else {})
    fits = {kind: float(limit) for kind, limit in budget.limits}
    assert budget.allows(**{"macs": 1e15, "params": 1.0} | fits)
    for kind, limit in fits.items():
        assert not budget.allows(**{"macs": 1.0, "params": 1.0} | fits | {kind: limit + 1})


@pytest.mark.parametrize("name", sorted(SAID))
def test_a_profile_survives_yaml(name: str) -> None:
    profile = load_profile(builtin_profiles()[name])
    assert parse_profile(read_yaml(dump_profile(profile), "copy"), "copy") == profile


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        ({"storage": "2MB"}, {"params": 500_000}),
        ({"storage": "2MB@float16", "params": "2Mparams"}, {"params": 1e6}),
        ({"storage": "2MB@int8", "params": "1Mparams"}, {"params": 1e6}),
        ({"macs": "2G", "memory": "64MB@int8"}, {"macs": 2e9, "memory": 64e6}),
    ],
)
def test_limits_are_one_named_budget(limits: dict[str, str], expected: dict[str, float]) -> None:
    budget = parse_budget(str(parse_profile(PLAIN | {"limits": limits}, "box").budget))
    assert (budget.name, dict(budget.limits)) == ("box", expected)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"limits": {"latency": "30ms"}}, "limits.latency: needs latencies that were measured"),
        ({"limits": {"memory": "30ms"}}, "limits.memory: limits latency, not memory"),
        ({"limits": {"memory": "lots"}}, "Cannot read the quantity 'lots'"),
        ({"limits": {"ram": "1GB"}}, "limits.ram: is no known key"),
        ({"limits": {}}, "needs a limit"),
        ({"name": "2 boxes"}, "name: must match"),
        ({"source": ""}, "source: must not be empty"),
        ({"limits": {"latency": "1ms@pytorch"}, "latency": {"format": "x"}}, "leave out what stands behind the @"),
    ],
)
def test_what_is_wrong_is_named(change: dict[str, object], says: str) -> None:
    with pytest.raises(BudgetError) as refused:
        parse_profile(PLAIN | change, "box.yaml")
    assert says in str(refused.value) and "box.yaml" in str(refused.value)


def test_a_source_is_needed() -> None:
    with pytest.raises(BudgetError, match="source: is missing"):
        parse_profile({key: value for key, value in PLAIN.items() if key != "source"}, "box.yaml")


def test_profiles_are_found_by_name_or_path(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(dump_profile(parse_profile(PLAIN, "mine")))
    assert load_profile(find_profile("mine.yaml", cwd=tmp_path)).name == "box"
    assert find_profile("pixel-6a", cwd=tmp_path) == builtin_profiles()["pixel-6a"]
    with pytest.raises(BudgetError, match="did you mean 'raspberry-pi-4'"):
        find_profile("raspberry-pi4", cwd=tmp_path)


def test_named_budgets() -> None:
    budget = parse_budget(" pi=64MB@int8, 30ms@device")
    assert (budget.name, budget.limits) == ("pi", (("memory", 64e6), ("latency", 0.03)))
    assert budget.text == "pi=64MB@int8,30ms@device" and parse_budget(budget.text) == budget
    assert parse_budget("2GMACs").text == "2GFLOPs"
    for text in ("pi=", "=2G", "pi==2G", "2pi=2G"):
        with pytest.raises(BudgetError):
            parse_budget(text)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["device", "show", "pixel-7"], "pixel-6a"),
        (["--device-profile", "nothing", "--space", "demo"], "no device profile 'nothing'"),
        (["--device-profile", "limits.yaml", "--space", "demo"], "needs latencies that were measured"),
        (["--device-profile", "table.yaml", "--space", "demo"], "is no latency table"),
        (["device", "import", "missing.json", "--name", "x"], "Cannot read missing.json"),
        (["device", "import", "limits.yaml", "--name", "x"], "holds no measurements"),
    ],
)
def test_bad_input_is_one_clear_error(
    arguments: list[str], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    head = "name: box\ndevice: a box\nsource: its data sheet\n"
    (tmp_path / "limits.yaml").write_text(head + "limits: {latency: 30ms}\n")
    (tmp_path / "table.yaml").write_text(head + "latency: {format: another}\n")
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    told = capsys.readouterr()
    assert ended.value.code == 2 and told.out == ""
    assert says in told.err and "Traceback" not in told.err
    assert not (tmp_path / "reports").exists()


def test_list_and_show(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["device", "list"], ["device", "list", "--json"], ["device", "show", "stm32h743"]):
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        told = " ".join(capsys.readouterr().out.split())
        assert not ended.value.code
        assert "stm32h743" in told and "DS12110" in told
    assert "1MiB@int8" in told
