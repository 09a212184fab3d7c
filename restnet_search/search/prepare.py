"""Get anchors ready: loaded, fitted where needed, cut, profiled."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from restnet_search.anchors import Anchor, load_anchor, prepare_anchors
from restnet_search.compute import Compute, open_compute
from restnet_search.costs.table import AnchorCosts, profile_anchor
from restnet_search.data import DataSplits
from restnet_search.errors import RunError
from restnet_search.files import write_atomically
from restnet_search.graph.anchor_graph import AnchorGraph, cut_model
from restnet_search.progress import Progress
from restnet_search.search.features import CutAnchor
from restnet_search.search.run_folder import RunFolder, RunInputs
from restnet_search.space.schema import SearchSpace

__all__ = ["CodeAndWeights", "Prepared", "cut_anchors", "load_prepared", "prepare"]


@dataclass(frozen=True)
class CodeAndWeights:
    """Where anchors come from: the weights folder, the folder that relative paths start from, and what is trusted."""

    weights: Path | None
    base: Path | None
    trust_code: bool
    cache: Path


@dataclass(frozen=True)
class Prepared:
    """The anchors of a search, in the space's order; ``compute`` says where they run."""

    anchors: Mapping[str, CutAnchor]
    costs: Mapping[str, AnchorCosts]
    classes: tuple[str, ...]
    compute: Compute = field(default_factory=Compute)

    @property
    def graphs(self) -> dict[str, AnchorGraph]:
        return {name: anchor.graph for name, anchor in self.anchors.items()}


def prepare(
    space: SearchSpace, data: DataSplits, sources: CodeAndWeights, progress: Progress, compute: Compute | None = None
) -> Prepared:
    """Load every anchor, fit those whose head does not match the data's classes, then cut and profile them.

    They still lie on the CPU: see :func:`restnet_search.search.placing.settle`. Without ``compute``, the space says it.
    """
    place = compute or open_compute(space.compute, progress.log)
    anchors = prepare_anchors(
        space,
        data,
        weights_dir=sources.weights,
        base_dir=sources.base,
        trust_code=sources.trust_code,
        cache_dir=sources.cache,
        progress=progress,
        compute=place,
    )
    return replace(cut_anchors(space, anchors, data.classes, progress), compute=place)


def cut_anchors(
    space: SearchSpace, anchors: Sequence[Anchor], classes: tuple[str, ...], progress: Progress
) -> Prepared:
    """Cut and profile loaded anchors."""
    cut: dict[str, CutAnchor] = {}
    costs: dict[str, AnchorCosts] = {}
    with progress.task("Cutting and profiling anchors", total=len(anchors)) as task:
        for anchor in anchors:
            graph = cut_model(anchor.model, anchor.preprocessing.size, space.cut_points.granularity)
            cut[anchor.name] = CutAnchor(anchor, graph)
            costs[anchor.name] = profile_anchor(graph)
            task.advance()
    return Prepared(cut, costs, classes)


def remember_anchors(folder: RunFolder, prepared: Prepared) -> None:
    """Keep fitted weights and every anchor's digest in the run, so that its hybrids can be rebuilt and are checked.

    Raises:
        RunError: If the run was started with other weights.
    """
    from safetensors.torch import save

    path = folder.path / "anchors.json"
    facts = {
        "classes": list(prepared.classes),
        "anchors": {
            name: {"digest": cut.anchor.digest, "fitted": cut.anchor.fitted, "licence": cut.anchor.licence}
            for name, cut in prepared.anchors.items()
        },
    }
    if path.exists():
        _check_same(json.loads(path.read_text(encoding="utf-8")), facts, folder)
        return
    for name, cut in prepared.anchors.items():
        if cut.anchor.fitted:
            state = {key: value.contiguous() for key, value in cut.anchor.model.state_dict().items()}
            write_atomically(folder.anchor(name), save(state))
    write_atomically(path, json.dumps(facts, indent=2) + "\n")


def load_prepared(
    folder: RunFolder, space: SearchSpace, inputs: RunInputs, sources: CodeAndWeights, names: Sequence[str]
) -> dict[str, CutAnchor]:
    """Rebuild anchors of a run without its data: fitted ones from the run folder, others from where they came.

    Raises:
        RunError: If the run has no anchors yet, or an anchor's weights are not those of the run.
    """
    path = folder.path / "anchors.json"
    if not path.exists():
        raise RunError(
            f"The run {folder.name} stopped before its anchors were ready.",
            hint=f"go on with it: restnet-search --resume {folder.path}",
        )
    facts = json.loads(path.read_text(encoding="utf-8"))
    rebuilt: dict[str, CutAnchor] = {}
    for spec in space.anchors:
        if spec.name not in names:
            continue
        kept = folder.anchor(spec.name)
        source = spec.model_copy(update={"weights": str(kept.resolve())}) if kept.exists() else spec
        anchor = load_anchor(
            source,
            classes=len(facts["classes"]),
            weights_dir=sources.weights or (Path(inputs.weights) if inputs.weights else None),
            base_dir=sources.base or (Path(inputs.base) if inputs.base else None),
            trust_code=sources.trust_code,
        )
        if anchor.digest != facts["anchors"][spec.name]["digest"]:
            raise RunError(
                f"The weights of {spec.name} are not those that the run {folder.name} was started with.",
                hint="point --weights at the folder that the run was started with",
            )
        # a fitted anchor is read back from a file of ours, which does not say whose weights it was fitted from
        anchor = replace(anchor, licence=facts["anchors"][spec.name]["licence"])
        graph = cut_model(anchor.model, anchor.preprocessing.size, space.cut_points.granularity)
        rebuilt[spec.name] = CutAnchor(anchor, graph)
    return rebuilt


def _check_same(before: Mapping[str, Any], now: Mapping[str, Any], folder: RunFolder) -> None:
    if _identity(before) != _identity(now):
        raise RunError(
            f"The anchors or classes are not those that the run {folder.name} was started with.",
            expected=f"the weights and data recorded in {folder.path / 'anchors.json'}",
            hint="point --weights and --data at them again, or start a new run",
        )


def _identity(facts: Mapping[str, Any]) -> tuple[object, dict[str, tuple[object, object]]]:
    """What makes anchors the same; what is said of their licence does not."""
    return facts["classes"], {name: (said["digest"], said["fitted"]) for name, said in facts["anchors"].items()}
