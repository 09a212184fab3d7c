"""Write the work of a device: ONNX networks over one file of weights, and the script that runs them there."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from restnet_search.devices.bench_files import BENCH_MANIFEST, SCRIPT, content_digest
from restnet_search.devices.cut_space import cut_space
from restnet_search.errors import BudgetError
from restnet_search.export.adaptive.shared_onnx import WEIGHTS_FILE, SharedWeights
from restnet_search.export.output_folder import scratch_beside
from restnet_search.files import file_digest
from restnet_search.progress import Progress
from restnet_search.search.points.latency_measurement import anchor_digest, networks_to_measure, parts_of
from restnet_search.search.points.onnx_sessions import write_part
from restnet_search.search.points.stitch_points import StitchPoint
from restnet_search.space.schema import SearchSpace

__all__ = ["DeviceBench", "write_bench"]

_FORMAT, _VERSION = "restnet-search device bench", 1


@dataclass(frozen=True)
class DeviceBench:
    """A folder to take to a device: how many networks it holds, whole hybrids among them, and its bytes."""

    folder: Path
    networks: int
    wholes: int
    bytes: int


def write_bench(
    space: SearchSpace,
    out: Path,
    *,
    base: Path,
    trust_code: bool,
    progress: Progress,
    named: str = "",
) -> DeviceBench:
    """Write the fronts, stitch layers, backs and anchors of a space, and some whole hybrids, for a device to measure.

    Weights are random, and equal ones (a front's are those of the next) are in one file once. The folder is there whole
    or not at all.

    Args:
        space: With an absolute data root; its section ``latency`` says threads, batch, runs and how many whole hybrids.
        out: Must not exist, or be an empty folder.
        base, trust_code: For factories.
        progress: Shows the networks.
        named: What ``--space`` finds the space by, from any folder of this machine.

    Raises:
        BudgetError: If `out` holds something, or a network cannot be written as ONNX.
        DataError, AnchorError, GraphError: As a search does.
    """
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise BudgetError(f"{out} exists already.", expected="a new or empty folder", hint="name another --out DIR")
    spec = space.latency
    graphs, costs = cut_space(space, base=base, trust_code=trust_code, progress=progress)
    networks, wholes = networks_to_measure(space, graphs, costs, spec)
    with scratch_beside(out) as scratch:
        draft = scratch / "bench"
        draft.mkdir()
        listed = _write_networks(networks, draft, progress)
        (draft / SCRIPT).write_text(_script(), encoding="utf-8")
        content = {
            "format": _FORMAT,
            "version": _VERSION,
            "space": space.name,
            "named": named,
            "anchors": {name: anchor_digest(graph, costs[name]) for name, graph in graphs.items()},
            "batch": spec.batch,
            "threads": spec.threads,
            "warmup": spec.warmup,
            "runs": spec.runs,
            "networks": listed,
            "wholes": [_whole(id, point) for id, point in wholes.items()],
            "files": {path.name: file_digest(path) for path in sorted(draft.iterdir())},
        }
        content["digest"] = content_digest(content)
        (draft / BENCH_MANIFEST).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        size = sum(path.stat().st_size for path in draft.iterdir())
        draft.replace(out)  # an empty folder gives way
    return DeviceBench(out, len(networks), len(wholes), size)


def _write_networks(
    networks: Mapping[str, tuple[nn.Module, Tensor]], folder: Path, progress: Progress
) -> list[dict[str, Any]]:
    import onnx

    listed: list[dict[str, Any]] = []
    task = progress.task(f"Writing {len(networks)} networks as ONNX", total=len(networks))
    with (folder / WEIGHTS_FILE).open("wb") as stream, task as step:
        shared = SharedWeights(stream)
        for place, (id, (network, features)) in enumerate(networks.items()):
            path = write_part(network, features, folder / f"{place:04d}.onnx")
            model = onnx.load(path)
            shared.take_all(model)
            path.write_bytes(model.SerializeToString())
            listed.append({"id": id, "file": path.name, "shape": list(features.shape)})
            step.advance()
    return listed


def _whole(id: str, point: StitchPoint) -> dict[str, str]:
    front, stitch, back = parts_of(point)
    return {"id": id, "front": front, "stitch": stitch, "back": back}


def _script() -> str:
    return (files("restnet_search.devices") / "on_device.py").read_text(encoding="utf-8")
