"""Parts of the back that may change beside the stitch layer: batch-norm statistics, norm parameters, deltas, all.

The anchor itself never changes: a tuned back replaces some of its tensors by its own and shares the rest.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import get_args

import torch
from torch import Tensor, fx, nn
from torch.func import functional_call
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from restnet_search.compute import Compute
from restnet_search.graph.image_size import keep_size_check
from restnet_search.space.schema import Tune

__all__ = [
    "STATISTICS_IMAGES", "TUNES", "StatisticsFit", "Tune", "TunedBack", "norm_parameters", "norm_statistics",
    "training_view", "with_tensors",
]  # fmt: skip

TUNES: tuple[Tune, ...] = get_args(Tune)

LORA_RANK = 4
"""Rank of the low-rank deltas of ``stitch+lora`` (Hu et al. 2021 use 4 to 8)."""

STATISTICS_IMAGES = 1000
"""Images that batch-norm statistics are estimated on, at most: each gives all its positions, so more add nothing."""

# torch.fx records the first, torch.export the second, whose counterpart for training is the third
_BATCH_NORM = F.batch_norm
_EXPORTED = torch.ops.aten._native_batch_norm_legit_no_training.default
_EXPORTED_TRAINING = torch.ops.aten._native_batch_norm_legit.default


class TunedBack(nn.Module):
    """A back with tensors of its own: features ``(B, ...)`` to logits ``(B, classes)``.

    Its parameters are what trains: none for ``stitch`` and ``stitch+norm-stats``; scale and shift of all norm layers
    for ``stitch+norm``; for ``stitch+lora`` two factors per linear or convolution weight, whose product is added to it
    and starts at zero (LoRA, Hu et al. 2021, eq. 3); every floating-point parameter for ``all`` and ``hybrid``.

    Under ``hybrid`` the front is such a part, too: images ``(B, C, H, W)`` to features ``(B, ...)``.

    In training mode, batch-norms normalise by each batch of two and more; statistics have to be estimated anew then
    (:meth:`statistics_fit`). It starts in eval mode, where they are fixed.

    Args:
        back: Sliced from an anchor; is not changed, and has no gradients.
        tune: What is tuned beside the stitch layer.
        generator: Draws the first factors of the low-rank deltas.
        statistics: Batch-norm statistics to use in place of the back's, by name.
    """

    def __init__(
        self,
        back: fx.GraphModule,
        tune: Tune,
        generator: torch.Generator | None = None,
        statistics: Mapping[str, Tensor] | None = None,
    ) -> None:
        super().__init__()
        self._shared = (back,)  # a tuple hides the anchor's tensors from parameters() and state_dict()
        self.statistics = dict(statistics or {})
        own = dict(back.named_parameters())
        replaced: list[str] = []
        match tune:
            case "stitch+norm":
                replaced = norm_parameters(back)
            case "all" | "hybrid":
                replaced = [name for name, tensor in own.items() if tensor.is_floating_point()]
        # names may hold dots, which parameter names may not
        self._replaced = replaced
        self.replacements = nn.ParameterList([nn.Parameter(own[name].detach().clone()) for name in replaced])
        self._adapted = _map_weights(back) if tune == "stitch+lora" else []
        self.factors = nn.ParameterList()
        for name in self._adapted:
            weight = own[name]
            rows, columns = weight.shape[0], weight[0].numel()
            inner = torch.empty(LORA_RANK, columns).normal_(std=columns**-0.5, generator=generator)
            self.factors.extend([nn.Parameter(torch.zeros(rows, LORA_RANK)), nn.Parameter(inner)])
        self.train(False)

    @property
    def back(self) -> fx.GraphModule:
        return self._shared[0]

    def forward(self, features: Tensor) -> Tensor:
        if self.training and len(features) > 1:
            return functional_call(self._by_batch, self._own_tensors(), (features,))
        return functional_call(self.back, self._tensors(), (features,))

    @cached_property
    def _by_batch(self) -> fx.GraphModule:
        return _normalizing_by_batch(self.back)

    def statistics_fit(self) -> StatisticsFit:
        """Return an estimate of the batch-norm statistics of the back as it is now, to be fed."""
        own = {name: tensor.detach() for name, tensor in self._own_tensors().items()}
        return StatisticsFit(with_tensors(self.back, own) if own else self.back)

    def changed(self) -> dict[str, Tensor]:
        """The back's tensors that are its own, by name, with low-rank deltas added up; detached copies."""
        return {name: tensor.detach().clone() for name, tensor in self._tensors().items()}

    def _tensors(self) -> dict[str, Tensor]:
        return {**self.statistics, **self._own_tensors()}

    def _own_tensors(self) -> dict[str, Tensor]:
        """All but statistics."""
        tensors: dict[str, Tensor] = dict(zip(self._replaced, self.replacements, strict=True))
        for index, name in enumerate(self._adapted):
            weight = self.back.get_parameter(name)
            tensors[name] = weight + (self.factors[2 * index] @ self.factors[2 * index + 1]).view_as(weight)
        return tensors


def with_tensors(back: fx.GraphModule, tensors: Mapping[str, Tensor]) -> fx.GraphModule:
    """A copy of a slice in which the named parameters and buffers are others, and all the rest is shared.

    Raises:
        KeyError: If a name is none of the slice's.
        ValueError: If a shape differs.
    """
    own = {**dict(back.named_parameters(remove_duplicate=False)), **dict(back.named_buffers(remove_duplicate=False))}
    if unknown := sorted(tensors.keys() - own.keys()):
        raise KeyError(f"the back has no tensor {', '.join(unknown)}")
    if other := [name for name, tensor in tensors.items() if tensor.shape != own[name].shape]:
        raise ValueError(f"the back's tensors have other shapes: {', '.join(other)}")
    # what deepcopy finds in its memo it takes from there; a tensor with two names is replaced under both
    memo: dict[int, object] = {id(tensor): tensor for tensor in own.values()}
    for name, tensor in tensors.items():
        is_parameter = isinstance(own[name], nn.Parameter)
        memo[id(own[name])] = nn.Parameter(tensor, requires_grad=False) if is_parameter else tensor
    tuned = copy.deepcopy(back, memo)
    keep_size_check(back, tuned)
    return tuned


class StatisticsFit:
    """Batch-norm means and variances on other features than those that the anchor was trained on.

    Each layer sees what the layers before it make with each batch's own statistics; the batches' means and unbiased
    variances are averaged by their size (as torch does with ``momentum=None``, where batches are equal). Li et al.
    2016, arXiv 1603.04779.

    Args:
        back: Sliced from an anchor; is not changed.
    """

    def __init__(self, back: fx.GraphModule) -> None:
        self.back = back
        self._names = norm_statistics(back)
        self._images = 0
        if self._names:
            self._watched = _normalizing_by_batch(back)
            self._own = dict(self._watched.named_buffers(remove_duplicate=False))
            self._sums = {name: torch.zeros_like(self._own[name]) for name in self._names}

    @property
    def is_needed(self) -> bool:
        """False where the back has no batch-norm statistics."""
        return bool(self._names)

    @torch.no_grad()
    def update(self, features: Tensor) -> None:
        """Add features ``(B, ...)`` as the stitch layer makes them; a single image has no variance and is left out."""
        if not self._names or len(features) < 2:
            return
        self._watched(features)
        for name in self._names:
            self._sums[name] += self._own[name] * len(features)
        self._images += len(features)

    def see(self, before: nn.Module, features: Tensor, compute: Compute) -> None:
        """Add front features ``(B, ...)``, or images where ``before``, all that lies before the back, holds the front.

        Where the batch does not fit memory, each of its micro-batches counts as a batch: layers behind the first then
        see what the statistics of smaller batches make, and come out a little different.
        """

        def add(rows: slice) -> None:
            with torch.no_grad(), compute.autocast_frozen():
                self.update(before(features[rows]))

        for _ in compute.micro_batches.map("batch-norm statistics", len(features), add, least=2):
            pass

    def result(self) -> dict[str, Tensor]:
        """Statistics by buffer name; empty where the back has none, or no features came."""
        return {name: total / self._images for name, total in self._sums.items()} if self._images else {}


def training_view(part: fx.GraphModule, momentum: float = 0.1) -> fx.GraphModule:
    """Return a copy of a slice over the same tensors, whose batch-norms normalise by their batch.

    Each forward moves the running statistics, which the slice itself normalises by, towards the batch's own.

    Args:
        part: Sliced from an anchor; stays as it is.
        momentum: Share of the batch's statistics (0.1: torch's default).
    """
    view = with_tensors(part, {})
    _use_batch_statistics(view, momentum)
    return view


def norm_parameters(back: fx.GraphModule) -> list[str]:
    """Return the names of the scales and shifts of norm layers that a slice uses."""
    names: dict[str, None] = {}
    for name, module in back.named_modules():
        if name and "norm" in type(module).__name__.lower():
            names |= {f"{name}.{key}": None for key, value in module.named_parameters(recurse=False) if value.ndim == 1}
    names |= {
        str(source.target): None
        for node in _calls(back, "norm")
        for source in node.all_input_nodes
        if source.op == "get_attr" and _is_vector_parameter(back, str(source.target))
    }
    return [name for name in _unique_parameters(back) if name in names]


def _map_weights(back: fx.GraphModule) -> list[str]:
    """Return the names of weights of linear layers and convolutions that are large enough for a low-rank delta."""
    names: set[str] = set()
    for name, module in back.named_modules():
        if name and isinstance(module, nn.Linear | _ConvNd):
            names.add(f"{name}.weight")
    for node in _calls(back, "linear", "conv"):
        names |= {str(source.target) for source in node.all_input_nodes if source.op == "get_attr"}
    return [
        name
        for name, tensor in _unique_parameters(back).items()
        if name in names and tensor.ndim >= 2 and min(tensor.shape[0], tensor[0].numel()) > LORA_RANK
    ]


def _unique_parameters(back: fx.GraphModule) -> dict[str, nn.Parameter]:
    return dict(back.named_parameters())


def _is_vector_parameter(back: fx.GraphModule, name: str) -> bool:
    value = _unique_parameters(back).get(name)
    return value is not None and value.ndim == 1


def _calls(back: fx.GraphModule, *words: str) -> Iterator[fx.Node]:
    """Function calls whose name holds one of the words."""
    for node in back.graph.nodes:
        name = getattr(node.target, "__name__", "").lower()
        if node.op == "call_function" and any(word in name for word in words):
            yield node


def norm_statistics(back: fx.GraphModule) -> list[str]:
    """Return the names of the buffers with batch-norm statistics, each once."""
    names: dict[str, None] = {}
    for name, module in back.named_modules():
        if isinstance(module, _BatchNorm) and module.running_mean is not None:
            names |= {f"{name}.running_mean": None, f"{name}.running_var": None}
    for node in _functional_batch_norms(back):
        arguments = _arguments(node)
        names |= {str(arguments[key].target): None for key in ("running_mean", "running_var")}
    return list(names)


def _normalizing_by_batch(back: fx.GraphModule) -> fx.GraphModule:
    """Return a copy, with buffers of its own, whose batch-norms normalise by each batch."""
    buffers = dict(back.named_buffers(remove_duplicate=False))  # counts of batches would change, too
    copied = with_tensors(back, {name: buffer.clone() for name, buffer in buffers.items()})
    _use_batch_statistics(copied, momentum=1.0)
    return copied


def _use_batch_statistics(watched: fx.GraphModule, momentum: float) -> None:
    """Make every batch-norm normalise by its batch and leave that share of the batch's statistics in its buffers."""
    for module in watched.modules():
        if isinstance(module, _BatchNorm) and module.running_mean is not None:
            module.training, module.momentum = True, momentum
    for node in _functional_batch_norms(watched):
        node.kwargs, node.args = {**_arguments(node), "training": True, "momentum": momentum}, ()
        node.target = _EXPORTED_TRAINING if node.target is _EXPORTED else node.target
    watched.recompile()


def _functional_batch_norms(back: fx.GraphModule) -> list[fx.Node]:
    """Calls of batch-norm as a function, with running statistics in buffers."""
    return [
        node
        for node in back.graph.nodes
        if node.op == "call_function"
        and node.target in (_BATCH_NORM, _EXPORTED)
        and all(getattr(_arguments(node)[key], "op", "") == "get_attr" for key in ("running_mean", "running_var"))
    ]


def _arguments(node: fx.Node) -> dict[str, fx.Node]:
    """The arguments of a batch-norm call by name."""
    if node.target is _BATCH_NORM:
        names = list(inspect.signature(_BATCH_NORM).parameters)
    else:
        names = [argument.name for argument in _EXPORTED._schema.arguments]
    return {**dict(zip(names, node.args, strict=False)), **node.kwargs}  # pyright: ignore[reportReturnType]
