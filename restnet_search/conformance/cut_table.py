"""The table of what can be cut, as JSON and as Markdown."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from restnet_search.conformance.cut_check import CutOutcome
from restnet_search.errors import RunError
from restnet_search.files import write_atomically
from restnet_search.plain.json_text import read_json
from restnet_search.units import format_count

__all__ = ["read_cut_table", "render", "write_cut_table"]


_HEADER = (
    "| family | model | built with | status | cut points | layouts | known | answer | max diff | s | MACs | by torch"
    " | difference | why |"
)


def read_cut_table(path: Path, versions: dict[str, str]) -> dict[str, CutOutcome]:
    """Return outcomes by family that an earlier run with the same versions left; empty where there are none.

    Raises:
        RunError: If the file is no conformance table.
    """
    if not path.is_file():
        return {}
    try:
        table = read_json(path)
        if table["versions"] != versions:
            return {}
        outcomes = [CutOutcome(**row) for row in table["families"]]
    except (ValueError, KeyError, TypeError) as error:
        raise RunError(f"{path} is no conformance table: {error}", hint="remove it, or give --fresh") from error
    return {outcome.family: outcome for outcome in outcomes}


def write_cut_table(
    folder: Path, outcomes: Sequence[CutOutcome], versions: dict[str, str], pending: Sequence[str] = ()
) -> None:
    """Write ``conformance.json`` and ``conformance.md``; ``pending``: families still to be checked."""
    table = {"versions": versions, "families": [asdict(outcome) for outcome in outcomes]}
    write_atomically(folder / "conformance.json", json.dumps(table, indent=1) + "\n")
    write_atomically(folder / "conformance.md", render(outcomes, versions, pending))


def render(outcomes: Sequence[CutOutcome], versions: dict[str, str], pending: Sequence[str] = ()) -> str:
    """Return the table in Markdown: counts, what was not checked yet, what was rejected, every row."""
    lines = ["# Conformance", "", _summary(outcomes), ""]
    lines += [
        "Written by `make conformance`. Each model is built with random weights and cut; at every block-level cut point"
        " the logits of front and back are compared with the whole model's (eval, float32, CPU, batch sizes 1 and 3)."
        " *Answer* counts, of the cut points with a grid of at least 4x4, those whose features move most in the corner"
        " (within a quarter of the grid) where the image is moved, for all four corners. *Known* counts layouts;"
        " unknown ones are stitched within their family only.",
        "",
        "*MACs* are of one image, as budgets count them; *by torch*, what `torch.utils.flop_counter` counts (halved,"
        " attention's fast paths off). *Why* names what the one has and the other lacks. A model whose convolutions and"
        " products are counted more than 1 % below torch's is rejected. Models with branches for training alone are"
        " re-parameterised, then cut.",
        "",
        "Versions: " + ", ".join(f"{name} {version}" for name, version in versions.items()) + ".",
        "",
    ]
    if pending:
        lines += ["## Not checked yet", "", f"{len(pending)}: {', '.join(pending)}.", ""]
    if rejected := [outcome for outcome in outcomes if outcome.status != "equal"]:
        lines += ["## Rejected", ""]
        lines += [f"- {outcome.family} (`{outcome.model}`): {outcome.reason}" for outcome in rejected] + [""]
    if astray := [outcome for outcome in outcomes if outcome.astray]:
        lines += ["## Layouts that do not answer", ""]
        lines += [f"- {outcome.family} (`{outcome.model}`): {', '.join(outcome.astray)}" for outcome in astray] + [""]
    lines += ["## All", "", _HEADER, "|---|---|---|---|--:|---|--:|--:|--:|--:|--:|--:|--:|---|"]
    return "\n".join([*lines, *(_row(outcome) for outcome in outcomes)]) + "\n"


def _summary(outcomes: Sequence[CutOutcome]) -> str:
    parts = []
    for name, beyond in (("timm", False), ("torchvision", True)):
        own = [outcome for outcome in outcomes if outcome.family.startswith("torchvision.") == beyond]
        equal = sum(outcome.status == "equal" for outcome in own)
        cuts, known = sum(outcome.cut_points for outcome in own), sum(outcome.known for outcome in own)
        parts.append(f"{name}: {equal} of {len(own)} checked families equal, {cuts} cut points, {known} layouts known")
    return "; ".join(parts) + "."


def _row(outcome: CutOutcome) -> str:
    layouts = ", ".join(f"{count} {kind}" for kind, count in outcome.layouts.items())
    difference = "" if outcome.max_diff is None else f"{outcome.max_diff:g}"
    known = f"{outcome.known}/{outcome.known + outcome.unknown}" if outcome.cut_points else ""
    answer = f"{outcome.checked - len(outcome.astray)}/{outcome.checked}" if outcome.checked else ""
    cells = [outcome.family, f"`{outcome.model}`", outcome.built, outcome.status, str(outcome.cut_points)]
    cells += [layouts, known, answer, difference, f"{outcome.seconds:.1f}", *_counts(outcome)]
    return "| " + " | ".join(cells) + " |"


def _counts(outcome: CutOutcome) -> list[str]:
    if outcome.macs is None or not outcome.torch_macs:
        return ["", "", "", ""]
    above = outcome.macs / outcome.torch_macs - 1
    trained = outcome.trained_macs
    fused = f"re-parameterised: {format_count(trained)} as trained" if trained is not None else ""
    why = "; ".join(text for text in (outcome.why, fused) if text)
    return [format_count(outcome.macs), format_count(outcome.torch_macs), f"{above:+.2%}", why]
