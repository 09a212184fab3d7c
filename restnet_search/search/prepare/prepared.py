"""Anchors made ready: loaded, fitted where needed, cut, profiled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated

from pydantic import Field

from restnet_search.anchors import Anchor, fit_anchors, load_anchor
from restnet_search.anchors.anchor import WeightsSource
from restnet_search.anchors.loading.checkpoint import read_tensors
from restnet_search.anchors.loading.reconstruction import restore_fitted
from restnet_search.compute import Compute, open_compute
from restnet_search.costs.budget_terms import stated_at
from restnet_search.costs.cost_table import AnchorCosts
from restnet_search.costs.peak_memory import AnchorMemory, profile_memory
from restnet_search.data import DataSplits
from restnet_search.data.class_names import ClassOrder
from restnet_search.errors import RunError
from restnet_search.files import write_atomically
from restnet_search.graph.anchor_graph import AnchorGraph
from restnet_search.graph.cut_points import CutPoint
from restnet_search.plain.json_text import digested_text
from restnet_search.progress import Progress
from restnet_search.search.prepare.cut_anchor import CutAnchor, cut_anchor, profile
from restnet_search.search.prepare.memory_format import FormatChoice, choose_formats
from restnet_search.search.prepare.placement import anchors_on_cpu, move_to_device
from restnet_search.search.run.json_files import read_as
from restnet_search.search.run.run_folder import RunFolder, RunInputs
from restnet_search.search.run.session import Session
from restnet_search.space.anchor_sources import AnchorSources
from restnet_search.space.schema import SearchSpace
from restnet_search.space.space_files import admit_extensions
from restnet_search.units import MemoryDtype

__all__ = ["Prepared", "cut_anchors", "load_prepared", "prepare", "prepare_anchors", "remember_anchors", "run_classes"]


@dataclass(frozen=True)
class Prepared:
    """The anchors of a search, in the space's order.

    Attributes:
        anchors: Each with its cut points, on the device of ``compute`` once they are placed.
        costs: MACs and parameters of their parts.
        classes: Of the data, in the order of the anchors' answers.
        compute: Where they run.
        formats: In which memory format each runs.
        memory: Peak memory of their parts.
        memory_dtype: What weights and activations count as in it.
        class_order: Why the classes stand in their order; None where the data set itself says it.
    """

    anchors: Mapping[str, CutAnchor]
    costs: Mapping[str, AnchorCosts]
    classes: tuple[str, ...]
    compute: Compute = field(default_factory=Compute)
    formats: Mapping[str, FormatChoice] = field(default_factory=dict)
    memory: Mapping[str, AnchorMemory] = field(default_factory=dict)
    memory_dtype: MemoryDtype = "float32"
    class_order: ClassOrder | None = None

    @property
    def graphs(self) -> dict[str, AnchorGraph]:
        return {name: anchor.graph for name, anchor in self.anchors.items()}

    @property
    def cut_points(self) -> dict[str, tuple[CutPoint, ...]]:
        return {name: tuple(anchor.graph.cut_points) for name, anchor in self.anchors.items()}

    @property
    def macs(self) -> dict[str, int]:
        """Multiply-accumulates of each whole anchor for one image."""
        return {name: costs.total.macs for name, costs in self.costs.items()}

    def on_cpu(self) -> AbstractContextManager[None]:
        """Hold the anchors on the CPU in the plain format, to measure them as they are delivered."""
        return anchors_on_cpu(self.anchors, self.compute, self.formats)


def prepare_anchors(session: Session, data: DataSplits) -> Prepared:
    """Load, fit, cut and profile the anchors of a search, keep what a resumed run needs, and place them on the device.

    Raises:
        RunError: If the run was started with other weights.
    """
    space, compute = session.space, session.compute
    with session.clock.stage("fit"):
        prepared = prepare(
            space, data, session.setup.sources, session.progress, compute=compute, processes=session.processes
        )
        remember_anchors(session.folder, prepared)
        prepared = _as_deployed(prepared)
        dtype: MemoryDtype = stated_at("memory", session.budgets, space.memory_dtype)  # pyright: ignore[reportAssignmentType]
        memory = {name: profile_memory(graph, dtype) for name, graph in prepared.graphs.items()}
        move_to_device(prepared.anchors, compute)
        policy, kept = space.compute.channels_last, session.folder.formats
        formats = choose_formats(policy, prepared.anchors, prepared.macs, compute, kept, session.progress)
        move_to_device(prepared.anchors, compute, formats)
    return replace(prepared, formats=formats, memory=memory, memory_dtype=dtype)


@dataclass(frozen=True)
class _AnchorFacts:
    """An entry of ``anchors.json``."""

    digest: str
    fitted: bool
    license: Annotated[str | None, Field(validation_alias="licence")] = None
    fused: bool = False  # branches were fused when it was loaded, which runs of earlier versions never did
    weights: WeightsSource | None = None


@dataclass(frozen=True)
class _RunFacts:
    """The content of ``anchors.json``: what a run's anchors and classes were."""

    classes: list[str]
    anchors: dict[str, _AnchorFacts]

    def plain(self) -> dict[str, object]:
        """Return what the file holds."""
        anchors = {
            name: {"digest": one.digest, "fitted": one.fitted, "licence": one.license, "weights": one.weights}
            | ({"fused": True} if one.fused else {})
            for name, one in self.anchors.items()
        }
        return {"classes": self.classes, "anchors": anchors}


def prepare(
    space: SearchSpace,
    data: DataSplits,
    sources: AnchorSources,
    progress: Progress,
    *,
    processes: int = 1,
    compute: Compute | None = None,
) -> Prepared:
    """Load every anchor, fit those whose head does not match the data's classes, then cut and profile them.

    They still lie on the CPU: see :func:`restnet_search.search.prepare.placement.move_to_device`. Without ``compute``,
    the space says where they are fitted; ``processes`` fit at the same time.
    """
    admit_extensions(space, trust_code=sources.trust_code)
    place = compute or open_compute(space.compute, progress.log)
    fitted = fit_anchors(space, data, sources, progress, place, processes)
    anchors = [fit.anchor for fit in fitted.fits]
    prepared = cut_anchors(space, anchors, fitted.data.classes, progress)
    return replace(prepared, compute=place, class_order=fitted.data.order)


def cut_anchors(
    space: SearchSpace, anchors: Sequence[Anchor], classes: tuple[str, ...], progress: Progress
) -> Prepared:
    """Cut and profile loaded anchors."""
    cut: dict[str, CutAnchor] = {}
    costs: dict[str, AnchorCosts] = {}
    with progress.task("Cutting and profiling anchors", total=len(anchors)) as task:
        for anchor in anchors:
            cut[anchor.name] = cut_anchor(anchor, space.cut_points.granularity)
            costs[anchor.name] = profile(cut[anchor.name])
            task.advance()
    return Prepared(cut, costs, classes)


def _as_deployed(prepared: Prepared) -> Prepared:
    """Let go of what fits alone need."""
    anchors = {
        name: CutAnchor(replace(cut.anchor, as_trained=None), cut.graph) for name, cut in prepared.anchors.items()
    }
    return replace(prepared, anchors=anchors)


def remember_anchors(folder: RunFolder, prepared: Prepared) -> None:
    """Keep fitted weights and every anchor's digest in the run, so that its hybrids can be rebuilt and are checked.

    Raises:
        RunError: If the run was started with other weights.
    """
    from safetensors.torch import save

    path = folder.path / "anchors.json"
    anchors = {
        name: _AnchorFacts(
            cut.anchor.digest,
            cut.anchor.weights.fitted,
            cut.anchor.license,
            fused=cut.anchor.as_trained is not None,
            weights=cut.anchor.weights.source,
        )
        for name, cut in prepared.anchors.items()
    }
    facts = _RunFacts(list(prepared.classes), anchors)
    if path.exists():
        _check_same(read_as(_RunFacts, path), facts, folder)
        return
    for name, cut in prepared.anchors.items():
        if cut.anchor.weights.changed:
            state = {key: value.contiguous() for key, value in cut.anchor.unfused.state_dict().items()}
            write_atomically(folder.anchor(name), save(state))
    write_atomically(path, digested_text(facts.plain()))


def load_prepared(
    folder: RunFolder, space: SearchSpace, inputs: RunInputs, sources: AnchorSources, names: Sequence[str]
) -> dict[str, CutAnchor]:
    """Rebuild anchors of a run without its data: fitted ones from the run folder, others from where they came.

    Raises:
        RunError: If the run has no anchors yet, or an anchor's weights are not those of the run.
    """
    path, facts = folder.path / "anchors.json", _read_facts(folder)
    if missing := sorted({spec.name for spec in space.anchors if spec.name in names} - facts.anchors.keys()):
        raise RunError(f"The file {path} of the run says nothing of the anchor {missing[0]}.", expected="all anchors")
    rebuilt: dict[str, CutAnchor] = {}
    for spec in space.anchors:
        if spec.name not in names:
            continue
        kept, classes, known = folder.anchor(spec.name), len(facts.classes), facts.anchors[spec.name]
        places = {
            "base_dir": sources.base or (Path(inputs.base) if inputs.base else None),
            "trust_code": sources.trust_code,
            "fuse": known.fused,
        }
        if kept.exists():
            anchor = restore_fitted(spec, read_tensors(kept), classes, **places)
        else:
            weights_dir = sources.weights or (Path(inputs.weights) if inputs.weights else None)
            anchor = load_anchor(spec, classes=classes, weights_dir=weights_dir, **places)
        if anchor.digest != known.digest:
            raise RunError(
                f"The weights of {spec.name} are not those that the run {folder.name} was started with.",
                hint="point --weights at the folder that the run was started with",
            )
        # a fitted anchor is read back from a file of ours, which does not say whose weights it was fitted from
        source = known.weights or anchor.weights.source
        weights = replace(anchor.weights, license=known.license, source=source, fitted=known.fitted)
        anchor = replace(anchor, weights=weights, as_trained=None)
        rebuilt[spec.name] = cut_anchor(anchor, space.cut_points.granularity)
    return rebuilt


def run_classes(folder: RunFolder) -> tuple[str, ...]:
    """Return the classes of a run, in the order of its networks' answers.

    Raises:
        RunError: If the run has no anchors yet.
    """
    return tuple(_read_facts(folder).classes)


def _read_facts(folder: RunFolder) -> _RunFacts:
    path = folder.path / "anchors.json"
    if not path.exists():
        raise RunError(
            f"The run {folder.name} stopped before its anchors were ready.",
            hint=f"go on with it: restnet-search --resume {folder.path}",
        )
    return read_as(_RunFacts, path)


def _check_same(before: _RunFacts, now: _RunFacts, folder: RunFolder) -> None:
    if _identity(before) != _identity(now):
        raise RunError(
            f"The anchors or classes are not those that the run {folder.name} was started with.",
            expected=f"the weights and data recorded in {folder.path / 'anchors.json'}",
            hint="point --weights and --data at them again, or start a new run",
        )


def _identity(facts: _RunFacts) -> tuple[list[str], dict[str, tuple[str, bool, bool]]]:
    """Return the facts that make anchors the same; that of their license is not among them."""
    return facts.classes, {name: (one.digest, one.fitted, one.fused) for name, one in facts.anchors.items()}
