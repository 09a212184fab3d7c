"""Peak memory: weights plus the largest live activations, by liveness over the graph.

The convention: batch 1; a value is alive from the operation that computes it until the last one that reads it or a view
of it; the image and the logits count likewise; weights are those that the used parts read, batch-norm statistics
included. Nothing is fused and nothing runs in place, so a runtime that does either needs less; what a kernel or a
runtime allocates for itself is not counted. In ``int8`` every value takes one byte, scales not counted.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn
from torch.utils._pytree import tree_leaves

from restnet_search.costs.live_bytes import LiveBytes, bytes_as
from restnet_search.graph.anchor_graph import AnchorGraph
from restnet_search.units import ITEM_BYTES, MemoryDtype

__all__ = ["AnchorMemory", "Memory", "hybrid_memory", "module_memory", "profile_memory"]


@dataclass(frozen=True)
class Memory:
    """Bytes that one part needs: its weights, and the most activations alive at once, its input and output among them.

    ``output`` is what its result keeps alive (a view keeps the whole storage).
    """

    weights: int
    activations: int
    output: int

    @property
    def peak(self) -> int:
        return self.weights + self.activations


@dataclass(frozen=True)
class AnchorMemory:
    """Memory of one anchor: whole, and of the front and the back at each of its cut points."""

    dtype: MemoryDtype
    total: Memory
    fronts: tuple[Memory, ...]
    backs: tuple[Memory, ...]


def hybrid_memory(front: Memory, stitch: Memory, back: Memory, *, stitch_input: int) -> int:
    """Return the peak bytes of front + stitch layer + back, which run one after the other.

    Args:
        front: Of the front anchor at its cut point.
        stitch: Of the stitch layer alone (:func:`module_memory`).
        back: Of the back anchor at its cut point.
        stitch_input: Bytes of the stitch layer's input on its own; a front's output may be a view that keeps more.
    """
    held = front.output - stitch_input
    weights = front.weights + stitch.weights + back.weights
    return weights + max(front.activations, stitch.activations + held, back.activations)


def profile_memory(graph: AnchorGraph, dtype: MemoryDtype = "float32") -> AnchorMemory:
    """Profile the memory of an anchor and of its parts at every cut point, from one run of one image.

    The run records which storage every node's value lies in and what each operation allocates while it runs; fronts and
    backs follow from that by liveness, so this costs one forward pass however many cut points there are.
    """
    itemsize = ITEM_BYTES[dtype]
    traced = graph.traced
    recorder = _Recorder(traced.module, itemsize)
    recorder.record(traced.example(1))
    liveness = _Liveness(traced.module, recorder.effects, itemsize)
    image = traced.image
    whole = [node for node in traced.graph.nodes if node.op not in ("placeholder", "output")]
    cuts = range(len(graph.cut_points))
    return AnchorMemory(
        dtype,
        liveness.of(whole, image, traced.logits),
        tuple(liveness.of(graph.front_nodes(cut), image, graph.crossing(cut)) for cut in cuts),
        tuple(liveness.of(graph.back_nodes(cut), graph.crossing(cut), traced.logits) for cut in cuts),
    )


def module_memory(module: nn.Module, shape: Sequence[int], dtype: MemoryDtype = "float32") -> Memory:
    """Profile the memory of a module for an input of this shape, by running it; on the meta device nothing is computed.

    The module is traced to plain operations first, so that its input counts until its last use only.
    """
    from torch.fx.experimental.proxy_tensor import make_fx

    itemsize = ITEM_BYTES[dtype]
    weights = [*module.parameters(), *module.buffers()]
    with torch.no_grad():
        device = weights[0].device if weights else None
        flat = make_fx(module)(torch.zeros(*shape, device=device))
        values = [torch.zeros(*shape, device=device)]  # held by nothing else
        constants = [value for value in vars(flat).values() if isinstance(value, Tensor)]
        with LiveBytes([*weights, *constants, *flat.parameters(), *flat.buffers()], values, itemsize=itemsize) as live:
            result = fx.Interpreter(flat).boxed_run(values)
            activations, output = live.peak, live.storage_of(result)[1]
    return Memory(sum(bytes_as(tensor, itemsize) for tensor in weights), activations, output)


@dataclass(frozen=True)
class _Effect:
    """Effects of running a node: the storages its value lies in (number, bytes), and the most it allocated meanwhile.

    ``alone`` is the value's own bytes: what it takes where it enters a part from elsewhere.
    """

    storages: tuple[tuple[int, int], ...]
    inside: int
    alone: int


class _Recorder(fx.Interpreter):
    """Runs a graph once and keeps the effect of every node."""

    def __init__(self, module: fx.GraphModule, itemsize: int) -> None:
        super().__init__(module)
        self._traced = module
        self.effects: dict[fx.Node, _Effect] = {}
        self._itemsize = itemsize

    def record(self, images: Tensor) -> None:
        weights = [*self._traced.parameters(), *self._traced.buffers(), *_constants(self._traced)]
        values: list[Tensor] = [images]
        with torch.no_grad(), LiveBytes(weights, values, itemsize=self._itemsize) as self._live:
            image = next(node for node in self._traced.graph.nodes if node.op == "placeholder")
            self.effects[image] = self._effect(images, 0)
            del images
            self.boxed_run(values)

    def run_node(self, n: fx.Node) -> object:
        before = self._live.mark()
        value = super().run_node(n)
        self.effects[n] = self._effect(value, self._live.peak - before)
        return value

    def _effect(self, value: object, inside: int) -> _Effect:
        tensors = [leaf for leaf in tree_leaves(value) if isinstance(leaf, Tensor)]
        storages = dict(self._live.storage_of(tensor) for tensor in tensors)
        alone = sum(tensor.numel() * _itemsize_of(tensor, self._itemsize) for tensor in tensors)
        return _Effect(tuple((number, size) for number, size in storages.items() if size), inside, alone)


class _Liveness:
    """Largest live bytes of parts of one recorded graph."""

    def __init__(self, module: fx.GraphModule, effects: Mapping[fx.Node, _Effect], itemsize: int) -> None:
        self._module, self._effects, self._itemsize = module, effects, itemsize

    def of(self, nodes: Sequence[fx.Node], start: fx.Node, stop: fx.Node) -> Memory:
        """Memory of the part that runs ``nodes`` on the value of ``start`` and returns that of ``stop``."""
        entering = self._effects[start]
        # the part before may have kept a larger storage alive; here the value stands for itself
        sizes = {number: entering.alone for number, _ in entering.storages}
        last = self._last_uses(nodes, start, stop)
        alive = dict(sizes)
        peak = sum(alive.values())
        for place, node in enumerate(nodes):
            effect = self._effects[node]
            fresh = {number: size for number, size in effect.storages if number not in alive and number not in sizes}
            peak = max(peak, sum(alive.values()) + max(effect.inside, sum(fresh.values())))
            alive |= fresh
            alive = {number: size for number, size in alive.items() if last.get(number, -1) > place}
        output = sum(sizes.get(number, size) for number, size in self._effects[stop].storages)
        return Memory(self._weights(nodes), peak, output)

    def _last_uses(self, nodes: Sequence[fx.Node], start: fx.Node, stop: fx.Node) -> dict[int, int]:
        """For every storage, the position of the last node that reads it; past the end for what is returned."""
        places = {node: place for place, node in enumerate(nodes)}
        last: dict[int, int] = {}
        for node in (start, *nodes):
            used = max((places[user] for user in node.users if user in places), default=-1)
            used = len(nodes) if node is stop else used
            for number, _ in self._effects[node].storages:
                last[number] = max(last.get(number, -1), used)
        return last

    def _weights(self, nodes: Iterable[fx.Node]) -> int:
        tensors: dict[int, Tensor] = {}
        for node in nodes:
            for tensor in _weights_of(self._module, node):
                tensors[tensor.untyped_storage().data_ptr()] = tensor
        return sum(bytes_as(tensor, self._itemsize) for tensor in tensors.values())


def _weights_of(module: fx.GraphModule, node: fx.Node) -> list[Tensor]:
    if node.op == "get_attr":
        owner, _, name = str(node.target).rpartition(".")
        value = getattr(module.get_submodule(owner), name)
        return [value] if isinstance(value, Tensor) else []
    if node.op != "call_module":
        return []
    layer = module.get_submodule(str(node.target))
    # inference does not read how many batches a batch-norm has seen
    buffers = [value for name, value in layer.named_buffers() if not name.endswith("num_batches_tracked")]
    return [*layer.parameters(), *buffers]


def _constants(module: fx.GraphModule) -> list[Tensor]:
    """Tensors that the graph reads and that are neither parameters nor buffers."""
    return [tensor for node in module.graph.nodes if node.op == "get_attr" for tensor in _weights_of(module, node)]


def _itemsize_of(tensor: Tensor, itemsize: int) -> int:
    return itemsize if tensor.is_floating_point() else tensor.element_size()
