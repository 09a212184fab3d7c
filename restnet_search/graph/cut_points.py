"""Find the cut points of a traced model: where exactly one tensor that depends on the image is alive."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from torch import fx, nn

from restnet_search.errors import GraphError
from restnet_search.graph.layout import Layout, layout_from_shapes
from restnet_search.graph.shapes import channel_axis
from restnet_search.graph.token_order import settle_orders
from restnet_search.graph.trace import TracedModel

__all__ = ["CutPoint", "CutPointTable", "Rejection", "find_cut_points"]

_CROSS = "tensors cross"


@dataclass(frozen=True)
class CutPoint:
    """A place where one tensor crosses from front to back.

    Attributes:
        index: Position among the anchor's cut points of the same granularity, 0 next to the image.
        node: Name of the graph node whose value crosses.
        path: Dotted path of the module that ends there.
        layout: What the axes of the crossing tensor mean.
        shape: Its shape for one image, without the batch axis.
    """

    index: int
    node: str
    path: str
    layout: Layout
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Rejection:
    """A node that is no cut point, and why."""

    node: str
    path: str
    reason: str


@dataclass(frozen=True)
class CutPointTable:
    """The cut points of one anchor, and every other node with the reason why it is none."""

    cut_points: tuple[CutPoint, ...]
    rejected: tuple[Rejection, ...]


def find_cut_points(traced: TracedModel, granularity: str = "block") -> CutPointTable:
    """Find the cut points of a traced model by liveness.

    A node is a cut point if, once it has run, its value is the only tensor that depends on the pixels and is still
    needed; then front and back compose to the whole model exactly. ``block`` keeps those at block boundaries: the
    ends of the modules that containers (``nn.Sequential``, ``nn.ModuleList``) and the model itself hold, and
    of runs of plain layers (convolution, normalisation, activation, pooling); it leaves out vectors, where the image
    grid is already pooled away. ``all`` keeps every one.

    Raises:
        GraphError: If the model has no cut point of that granularity.
    """
    alive = _live_after(traced)
    moved = traced.other_size.shapes
    boundaries = _block_boundaries(traced, [node for node, live in alive.items() if live == {node}])
    kept: list[tuple[fx.Node, str]] = []
    rejected: list[Rejection] = []
    for node in traced.graph.nodes:
        path = boundaries.get(node) or node.meta.get("path", "")
        if node.op in ("placeholder", "output", "get_attr"):
            continue
        if reason := _rejection(traced, node, alive, boundaries if granularity == "block" else None):
            rejected.append(Rejection(node.name, path, reason))
            continue
        kept.append((node, path))
    if not kept:
        raise GraphError(
            f"{type(traced.model).__name__} has no cut point of granularity {granularity!r}:"
            f" at {sum(_CROSS in item.reason for item in rejected)} of {len(rejected)} operations several {_CROSS}.",
            hint="try cut_points.granularity: all, or look at `restnet-search anchors inspect MODEL --rejected`",
        )
    grids = _convolved_grids(traced)
    layouts = settle_orders(traced, [(node, _layout(traced, node, moved, grids)) for node, _ in kept])
    layouts = {node: _for_its_family(traced, node, layout) for node, layout in layouts.items()}
    cut_points = tuple(
        CutPoint(index, node.name, path, layouts[node], node.meta["shape"][1:])
        for index, (node, path) in enumerate(kept)
    )
    return CutPointTable(cut_points, tuple(rejected))


def _live_after(traced: TracedModel) -> dict[fx.Node, set[fx.Node]]:
    """Return, for every node, the image-dependent nodes whose value is still needed once it has run."""
    dependent = traced.dependent
    last_use: dict[fx.Node, int] = {}
    order = {node: position for position, node in enumerate(traced.graph.nodes)}
    for node in dependent:
        # a shape query does not need the values; slices answer it from the record
        last_use[node] = max(
            (order[user] for user in node.users if user in dependent or user.op == "output"), default=-1
        )
    live: set[fx.Node] = set()
    alive: dict[fx.Node, set[fx.Node]] = {}
    for position, node in enumerate(traced.graph.nodes):
        live = {other for other in live if last_use[other] > position}
        if node in dependent and last_use[node] > position:
            live.add(node)
        alive[node] = set(live)
    return alive


def _rejection(
    traced: TracedModel,
    node: fx.Node,
    alive: Mapping[fx.Node, set[fx.Node]],
    boundaries: Mapping[fx.Node, str] | None,
) -> str | None:
    live = alive[node]
    if node is traced.logits:
        return "it is the output: nothing is left for a back"
    if node not in live:
        if node.meta.get("shape") is None or not live:
            return "its value is no tensor that depends on the image"
        return "its value does not depend on the image, or nothing needs it"
    if live != {node}:
        others = sorted(other.name for other in live - {node})
        return f"{len(live)} {_CROSS} here: {node.name} and {', '.join(others)}"
    shape = node.meta.get("shape")
    if shape is None:
        return "its value is a tuple, not one tensor"
    if node.meta["batch_axes"] != (0,) or shape[0] != traced.image.meta["shape"][0]:  # windows folded into the batch
        return "the batch is not its first axis alone"
    if boundaries is not None and node not in boundaries:
        return "not at a block boundary (granularity: all offers it)"
    return None


def _layout(
    traced: TracedModel, node: fx.Node, moved: Mapping[str, tuple[int, ...]], grids: Sequence[tuple[int, int]]
) -> Layout:
    return layout_from_shapes(
        node.meta["shape"],
        (traced.image_size[1], traced.image_size[2]),
        other_shape=moved.get(node.name),
        declared_prefix=traced.declared_prefix,
        channel_axis=channel_axis(traced.model, node),
        grids=grids,
    )


def _convolved_grids(traced: TracedModel) -> list[tuple[int, int]]:
    """Return the grids that convolutions put out: patch embeddings may cut off what does not fill a patch."""
    grids = {
        (shape[2], shape[3])
        for node in traced.graph.nodes
        if node.op == "call_module" and isinstance(_submodule(traced.model, str(node.target)), nn.Conv2d)
        if len(shape := node.meta.get("shape", ())) == 4
    }
    return sorted(grids, reverse=True)


def _for_its_family(traced: TracedModel, node: fx.Node, layout: Layout) -> Layout:
    """Add what is left to know of unknown features whose last axis holds channels: for stitches within the family."""
    shape: tuple[int, ...] = node.meta["shape"]
    if layout.kind != "unknown" or len(shape) < 3 or channel_axis(traced.model, node) != len(shape) - 1:
        return layout
    return replace(layout, channels=shape[-1], places=shape[1:-1], family=type(traced.model).__module__)


def _block_boundaries(traced: TracedModel, candidates: list[fx.Node]) -> dict[fx.Node, str]:
    """Map the candidates at block boundaries to the path of the block that ends there."""
    ends = _module_ends(traced)
    boundaries: dict[fx.Node, str] = {}
    run: tuple[fx.Node, str] | None = None
    single = set(candidates)
    for node in traced.graph.nodes:
        starts_next = _is_weighted(traced.model, node)
        if run is not None and starts_next:
            boundaries.setdefault(*run)
            run = None
        if node not in single:
            continue
        blocks = [path for path in ends.get(node, ()) if _is_block(traced.model, path)]
        if blocks and starts_next:  # a block that ends in a bare convolution: its normalisation still follows
            run = (node, max(blocks, key=len))
        elif blocks:
            boundaries[node] = max(blocks, key=len)
            run = None
        elif starts_next and _is_plain_layer(traced.model, str(node.target)):
            run = (node, str(node.target))
        elif run is not None and _has_grid(node):
            run = (node, run[1] if node.op != "call_module" else str(node.target))
    return {node: path for node, path in boundaries.items() if _has_grid(node)}


def _has_grid(node: fx.Node) -> bool:
    """Say if the value has more than one axis besides the batch (vectors, also as 1x1 grids, have not)."""
    return sum(size > 1 for size in node.meta.get("shape", ())[1:]) > 1


def _module_ends(traced: TracedModel) -> dict[fx.Node, list[str]]:
    """Return, for every node, the modules (paths) of which it is the last node."""
    last: dict[str, fx.Node] = {}
    for node in traced.graph.nodes:
        path = node.meta.get("path", "")
        while path:
            last[path] = node
            path = path.rpartition(".")[0]
    ends: dict[fx.Node, list[str]] = {}
    for path, node in last.items():
        ends.setdefault(node, []).append(path)
    return ends


def _is_block(root: nn.Module, path: str) -> bool:
    """Say if the module is a block: it has inner layers with weights, and a container or the model itself holds it."""
    module = _submodule(root, path)
    if module is None or not any(True for _ in module.children()) or not _has_weights(module):
        return False
    parent, _, name = path.rpartition(".")
    return not parent or name.isdigit() or isinstance(_submodule(root, parent), nn.Sequential | nn.ModuleDict)


def _is_plain_layer(root: nn.Module, path: str) -> bool:
    """Say if the path names a single layer held by the model itself or by one of its containers (as in VGG)."""
    parent, _, name = path.rpartition(".")
    return not parent or ("." not in parent and name.isdigit() and isinstance(_submodule(root, parent), nn.Sequential))


def _is_weighted(root: nn.Module, node: fx.Node) -> bool:
    module = _submodule(root, str(node.target)) if node.op == "call_module" else None
    return module is not None and _has_weights(module)


def _has_weights(module: nn.Module) -> bool:
    return any(parameter.ndim >= 2 for parameter in module.parameters())


def _submodule(root: nn.Module, path: str) -> nn.Module | None:
    try:
        return root.get_submodule(path)
    except AttributeError:
        return None
