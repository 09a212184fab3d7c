"""Trace a model to a flat graph whose parameters are the model's own."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, fx, nn

from restnet_search.errors import GraphError, first_line
from restnet_search.graph.functional import make_functional
from restnet_search.graph.nodes import data_dependent
from restnet_search.graph.recording import OtherSize, look_at_other_size, record_shapes
from restnet_search.graph.torch_export import export_graph

__all__ = ["TracedModel", "trace_model"]

_ROOT = "model"


@dataclass(frozen=True)
class TracedModel:
    """A traced model: ``module`` computes what ``model`` computes, on the same parameters.

    ``declared_prefix`` is the number of prefix tokens that the model declares (0 where it declares none).
    """

    model: nn.Module
    module: fx.GraphModule
    image_size: tuple[int, int, int]
    declared_prefix: int = 0

    @property
    def graph(self) -> fx.Graph:
        return self.module.graph

    @property
    def image(self) -> fx.Node:
        """The node that stands for the image batch."""
        return next(node for node in self.graph.nodes if node.op == "placeholder")

    @property
    def logits(self) -> fx.Node:
        """The node whose value the model returns."""
        return next(node for node in self.graph.nodes if node.op == "output").args[0]

    @cached_property
    def dependent(self) -> set[fx.Node]:
        """The nodes whose value depends on the pixels; what is traced does not change."""
        return data_dependent(self.graph)

    @cached_property
    def parameters(self) -> dict[fx.Node, tuple[nn.Parameter, ...]]:
        """The parameters that each node uses; nodes without any are left out."""
        parameters: dict[fx.Node, tuple[nn.Parameter, ...]] = {}
        for node in self.graph.nodes:
            if node.op == "call_module":
                parameters[node] = tuple(self.module.get_submodule(str(node.target)).parameters())
            elif node.op == "get_attr":
                value = operator.attrgetter(str(node.target))(self.module)
                parameters[node] = (value,) if isinstance(value, nn.Parameter) else ()
        return {node: used for node, used in parameters.items() if used}

    @cached_property
    def other_size(self) -> OtherSize:
        """The trace's values for images of twice the side."""
        channels, height, width = self.image_size
        return look_at_other_size(self.model, self.module, _noise(2, (channels, 2 * height, 2 * width)))

    def example(self, batch: int = 2) -> Tensor:
        """A batch of seeded noise images ``(batch, C, H, W)``, for shapes and costs."""
        return _noise(batch, self.image_size)


def _noise(batch: int, image_size: tuple[int, int, int]) -> Tensor:
    return torch.randn(batch, *image_size, generator=torch.Generator().manual_seed(0))


class _OneInput(nn.Module):
    """Calls the model with the image alone, so that every other argument of its forward has its default."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.add_module(_ROOT, model)

    def forward(self, x: Tensor) -> Tensor:
        return self.get_submodule(_ROOT)(x)


class _Tracer(fx.Tracer):
    """Treats what timm declares untraceable, and torch's own layers, as single operations."""

    def __init__(self) -> None:
        # timm registers its untraceable modules and functions when the models are imported
        import timm.models  # noqa: F401
        from timm.layers import get_notrace_functions, get_notrace_modules

        super().__init__(autowrap_functions=tuple(get_notrace_functions()), param_shapes_constant=True)
        self._leaves = tuple(get_notrace_modules())

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, self._leaves) or super().is_leaf_module(m, module_qualified_name)


def trace_model(model: nn.Module, image_size: tuple[int, int, int]) -> TracedModel:
    """Trace a model in eval mode with torch.fx, or with torch.export where that fails.

    Args:
        model: Maps an image batch ``(B, C, H, W)`` to logits ``(B, classes)``.
        image_size: ``(C, H, W)`` of its images.

    Raises:
        GraphError: If the model cannot be traced, or does not return one tensor of logits.
    """
    model.eval()
    _forbid_inplace(model)
    images = _noise(2, image_size)
    expected = _run_model(model, images, image_size)
    reasons: list[str] = []
    for way, trace in (("torch.fx", _symbolic_graph), ("torch.export", export_graph)):
        try:
            module = trace(model, images)
            value = record_shapes(module, images)
        except Exception as error:  # noqa: BLE001  (tracing runs arbitrary model code: whatever it raises is the reason)
            reasons.append(f"{first_line(error)} ({way})")
            continue
        if value.ndim != 2:
            raise _no_logits(model, value)
        if torch.equal(expected, value):
            return TracedModel(model, module, image_size, int(getattr(model, "num_prefix_tokens", 0) or 0))
        reasons.append(f"its trace differs by up to {(expected - value).abs().max():.2e} ({way})")
    raise GraphError(
        f"{type(model).__name__} cannot be traced: {'; '.join(reasons)}",
        expected="a model whose forward does not branch on the values of its input, keep state or draw random numbers",
        hint="choose another anchor, or mark the offending function with torch.fx.wrap",
    )


def _run_model(model: nn.Module, images: Tensor, image_size: tuple[int, int, int]) -> Tensor:
    """Return what the model gives for a batch, once it is clear that it takes such images and returns one tensor."""
    try:
        with torch.no_grad():
            logits = model(images)
    except (RuntimeError, AssertionError, ValueError, TypeError, IndexError) as error:
        raise GraphError(
            f"{type(model).__name__} does not take images of {'x'.join(map(str, image_size))}: {first_line(error)}",
            hint="set the anchor's input size (kwargs: {img_size: ...}) to one that the model accepts",
        ) from error
    if not isinstance(logits, Tensor):
        raise _no_logits(model, logits)
    return logits


def _no_logits(model: nn.Module, returned: object) -> GraphError:
    return GraphError(
        f"{type(model).__name__} returns {type(returned).__name__}"
        f"{tuple(returned.shape) if isinstance(returned, Tensor) else ''}, not one tensor of logits.",
        expected="logits of shape (batch, classes)",
        hint="wrap the model in a factory that returns its main logits alone",
    )


def _symbolic_graph(model: nn.Module, _images: Tensor) -> fx.GraphModule:
    tracer = _Tracer()
    graph = tracer.trace(_OneInput(model))
    make_functional(graph)
    return _graph_module(type(model).__name__, tracer.root, graph)


def _graph_module(name: str, root: nn.Module, graph: fx.Graph) -> fx.GraphModule:
    attributes: dict[str, object] = {}
    for node in graph.nodes:
        if node.op in ("call_module", "get_attr"):
            owner, _, attribute = str(node.target).rpartition(".")
            value = getattr(root.get_submodule(owner), attribute)
            node.target = str(node.target).removeprefix(f"{_ROOT}.")
            attributes[node.target] = value
        node.meta["path"] = _path_of(node)
    module = fx.GraphModule(attributes, graph, class_name=name)
    module.graph.eliminate_dead_code()
    module.graph.lint()
    module.recompile()
    return module.eval()


def _path_of(node: fx.Node) -> str:
    """Dotted path of the module in whose forward the node was recorded ("" at the top)."""
    if node.op == "call_module":
        return str(node.target)
    stack = node.meta.get("nn_module_stack") or {}
    path = next(reversed(stack.values()))[0] if stack else ""
    return path.removeprefix(_ROOT).removeprefix(".")


def _forbid_inplace(model: nn.Module) -> None:
    # features are kept while later operations run, so no operation may overwrite its input
    for module in model.modules():
        if getattr(module, "inplace", False) is True:
            setattr(module, "inplace", False)  # noqa: B010  (no field of nn.Module)
