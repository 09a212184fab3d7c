"""``restnet-search device list|show|bench|import|check``."""

from __future__ import annotations

import os
import shlex
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from restnet_search.cli import options
from restnet_search.errors import BudgetError
from restnet_search.plain.escaping import one_line

if TYPE_CHECKING:
    from restnet_search.devices.device_results import DeviceResults
    from restnet_search.space import SearchSpace
    from restnet_search.space.schema import LatencySpec

__all__ = ["app"]

app = typer.Typer(
    name="device",
    no_args_is_help=True,
    help="Device profiles: limits and measured latencies. Measure on a device, check how well sums of parts hold.",
)

Space = Annotated[
    str | None, typer.Argument(metavar="[SPACE]", help="A built-in name or a YAML file (default: as for a search).")
]
Hybrids = Annotated[
    int,
    typer.Option(
        parser=options.whole(1, 10_000), metavar="N", help="Whole hybrids that sums of parts are checked against."
    ),
]
Runs = Annotated[
    int | None,
    typer.Option(
        parser=options.whole(1, 10**6), metavar="N", help="Counted runs of every network (default: the space's)."
    ),
]
Threads = Annotated[
    int | None,
    typer.Option(parser=options.whole(1, 1024), metavar="N", help="Threads of the runtime (default: the space's)."),
]


class Runtime(StrEnum):
    """Return the runtime that measures on this machine."""

    PYTORCH = "pytorch"
    ONNXRUNTIME = "onnxruntime"


@app.command("list")
def list_profiles(as_json: options.Json = False) -> None:
    """List the device profiles that come with restnet-search."""
    from restnet_search.cli.console import console, print_json
    from restnet_search.costs.latency_table import table_of
    from restnet_search.reporting.commands.device_tables import DeviceRow, DevicesTable, render_devices
    from restnet_search.space.device_profiles import builtin_profiles, load_profile

    rows: list[DeviceRow] = []
    for name, path in builtin_profiles().items():
        profile = load_profile(path)
        parts = len(table_of(profile.latency, name).parts) if profile.latency else 0
        rows.append(DeviceRow(name, profile.device, profile.limits.text or "", parts, profile.source))
    table = DevicesTable(tuple(rows))
    if as_json:
        print_json(table.to_json())
    else:
        console().print(render_devices(table))


@app.command("show")
def show(
    profile: Annotated[str, typer.Argument(metavar="NAME|PATH", help="A built-in name or a YAML file.")],
    as_json: options.Json = False,
) -> None:
    """Print a device profile as YAML, to copy and change, or as JSON with the device budget that it gives."""
    from restnet_search.cli.console import print_json
    from restnet_search.costs.latency_table import table_of
    from restnet_search.space.device_profiles import dump_profile, find_profile, load_profile

    path = find_profile(profile, cwd=Path.cwd())
    loaded = load_profile(path)
    if loaded.latency is not None:
        table_of(loaded.latency, str(path))
    if as_json:
        print_json(loaded.model_dump(mode="json") | {"budget": loaded.budget})
    else:
        typer.echo(dump_profile(loaded), nl=False)


@app.command("bench")
def bench(
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where the folder is written.")],
    space: Space = None,
    hybrids: Hybrids = 16,
    runs: Runs = None,
    threads: Threads = None,
    data: options.Data = None,
    trust_code: options.TrustCode = False,
    as_json: options.Json = False,
) -> None:
    """Write a folder of ONNX networks and one script that measures them on a device, with numpy and onnxruntime alone.

    They are the parts that hybrids of the space are made of, and some whole hybrids. Weights are random: latency does
    not depend on them.
    """
    from restnet_search.cli.console import print_json
    from restnet_search.cli.progress import show_progress
    from restnet_search.devices.bench import write_bench
    from restnet_search.devices.bench_files import RESULTS, SCRIPT

    chosen, base = _choose(space, data)
    chosen = chosen.model_copy(update={"latency": _latency(chosen, checked=hybrids, runs=runs, threads=threads)})
    with show_progress() as progress:
        made = write_bench(chosen, out, base=base, trust_code=trust_code, progress=progress, named=_found_by(space))
    if as_json:
        facts = {"networks": made.networks, "wholes": made.wholes, "bytes": made.bytes}
        print_json({"folder": str(made.folder), "script": SCRIPT, **facts})
        return
    typer.echo(
        f"{made.folder}: {made.networks} networks ({made.wholes} whole hybrids), {made.bytes / 1e6:.1f} MB.\n"
        f"On the device, with numpy and onnxruntime: python {SCRIPT}\n"
        f"Back here: restnet-search device import {RESULTS} --name NAME --limit 30ms --out NAME.yaml"
    )


@app.command("import")
def import_results(
    results: Annotated[Path, typer.Argument(metavar="JSON", help="What the script wrote on the device.")],
    name: Annotated[str, typer.Option(metavar="NAME", help="Of the profile and its device budget.")],
    limit: Annotated[
        list[str] | None, typer.Option(metavar="LIMIT", help="30ms, 1GiB, 64MB@int8, 2GFLOPs; repeat it for several.")
    ] = None,
    source: Annotated[str | None, typer.Option(metavar="TEXT", help="The document that limits are from.")] = None,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Where to write it (default: NAME.yaml).")] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite FILE.")] = False,
    as_json: options.Json = False,
) -> None:
    """Make a device profile of what a device measured, for --device-profile."""
    from restnet_search.cli.console import console, print_json, printable
    from restnet_search.devices.device_results import measured_profile, read_results
    from restnet_search.devices.model_error import model_error
    from restnet_search.files import write_atomically
    from restnet_search.reporting.commands.device_tables import render_model_error
    from restnet_search.space.device_profiles import dump_profile

    measured = read_results(results)
    profile = measured_profile(measured, name, limit or (), source)
    file = out or Path(f"{name}.yaml")
    if file.is_dir() or (file.exists() and not force):
        raise BudgetError(f"{file} exists already.", hint="name another --out FILE, or pass --force")
    error = model_error(measured.table, measured.space)
    write_atomically(file, dump_profile(profile))
    if as_json:
        print_json({"profile": str(file), "budget": profile.budget, "error": error.to_json()})
        return
    console().print(render_model_error(error))
    typer.echo(f"Written: {printable(str(file))}. Search for it: {_search_with(file, measured)}")


@app.command("check")
def check(
    space: Space = None,
    runtime: Annotated[
        Runtime | None, typer.Option(help="What runs the networks (default: the space's, or pytorch).")
    ] = None,
    hybrids: Hybrids = 24,
    runs: Runs = None,
    threads: Threads = None,
    data: options.Data = None,
    trust_code: options.TrustCode = False,
    as_json: options.Json = False,
) -> None:
    """Measure a space's parts and some whole hybrids on this machine, and say how far sums of parts are off."""
    from restnet_search.cli.console import console, print_json
    from restnet_search.cli.progress import show_progress
    from restnet_search.devices.cut_space import measure_here
    from restnet_search.devices.model_error import model_error
    from restnet_search.reporting.commands.device_tables import render_model_error

    chosen, base = _choose(space, data)
    named = chosen.latency.runtime if chosen.latency.runtime != "device" else Runtime.PYTORCH
    spec = _latency(chosen, checked=hybrids, runs=runs, threads=threads, runtime=str(runtime or named))
    with show_progress() as progress:
        table = measure_here(chosen, spec, base=base, trust_code=trust_code, progress=progress)
    error = model_error(table, chosen.name)
    if as_json:
        print_json(error.to_json())
    else:
        console().print(render_model_error(error))


def _found_by(space: str | None) -> str:
    """Return what ``--space`` finds a space by, from any folder: the name of a built-in one, or its path."""
    from restnet_search.space import find_space

    location = find_space(space, environ=os.environ, cwd=Path.cwd())
    return location.builtin or str(location.path.resolve())


def _search_with(profile: Path, measured: DeviceResults) -> str:
    """Return a command that searches the space that was measured; what cannot be known here is in capitals."""
    from restnet_search.space.discovery import builtin_spaces

    known = measured.named in builtin_spaces() or Path(measured.named).is_file() if measured.named else False
    command = ["restnet-search", "--device-profile", str(profile), "--space", measured.named if known else "SPACE"]
    return shlex.join(command) + ("" if known else f" (SPACE: the file of the space {one_line(measured.space)})")


def _choose(space: str | None, data: Path | None) -> tuple[SearchSpace, Path]:
    from restnet_search.cli.arguments import choose_space, with_data

    chosen, base = choose_space(space)
    return with_data(chosen, base, data), base


def _latency(space: SearchSpace, **chosen: Any) -> LatencySpec:
    """The space's latency section with the command line's choices in place."""
    return space.latency.model_copy(update={key: value for key, value in chosen.items() if value is not None})
