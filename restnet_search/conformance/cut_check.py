"""Cut one model and compare front and back with the whole at every cut point."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field

import torch
from torch import nn

from restnet_search.anchors.reparameterize import fusion_of
from restnet_search.conformance.families import Case
from restnet_search.conformance.layout_check import LayoutCheck, check_layouts
from restnet_search.costs.cost_table import module_cost
from restnet_search.costs.second_count import count_twice
from restnet_search.errors import GraphError
from restnet_search.graph.anchor_graph import AnchorGraph, cut_model

__all__ = ["CutOutcome", "build_case", "check_case", "largest_difference"]

BATCHES = (1, 3)  # neither is the batch of the trace
_CLASSES, _ANY_SIZE = 10, 128


@dataclass(frozen=True, kw_only=True)
class CutOutcome(LayoutCheck):
    """The result of checking one model.

    Attributes:
        family: As in the case.
        model: Likewise.
        built: Image size and what else the model was built with.
        status: ``equal``: at every cut point and batch size the difference is 0; else ``rejected``.
        reason: Why it was rejected; empty where it is equal.
        cut_points: How many block-level cut points it has.
        layouts: How many of them have each layout.
        max_diff: The largest absolute difference of logits; None where nothing was compared.
        seconds: Wall-clock time.
        macs: Of one image, as costs count them; None where it was not cut.
        torch_macs: By torch's own counter.
        why: What makes the two differ.
        trained_macs: Before its branches were fused (:mod:`restnet_search.anchors.reparameterize`); None where it has
            none.
    """

    family: str
    model: str
    built: str
    status: str
    reason: str = ""
    cut_points: int = 0
    layouts: dict[str, int] = field(default_factory=dict)
    max_diff: float | None = None
    seconds: float = 0.0
    macs: int | None = None
    torch_macs: int | None = None
    why: str = ""
    trained_macs: int | None = None


def check_case(case: Case) -> CutOutcome:
    """Build, fuse, cut, count and compare one model; whatever goes wrong is its outcome.

    A model is rejected where front and back do not compose to it, and where its products and convolutions are counted
    more than 1 % below torch's counter.
    """
    begun, built = time.perf_counter(), ""
    try:
        model, size = build_case(case)
        built = ", ".join([str(size[1]), *(f"{key}={value}" for key, value in case.kwargs.items())])
        fused = fusion_of(model, size).fused
        trained, model = (None, model) if fused is None else (module_cost(model, size).macs, fused)
        graph = cut_model(model, size)
        counts = count_twice(model, graph.traced.example(1))
        difference = largest_difference(graph)
        layouts = Counter(cut.layout.kind + (" reordered" if cut.layout.order else "") for cut in graph.cut_points)
        layout_check = check_layouts(graph)
    except Exception as error:  # noqa: BLE001  (a model that fails is a row of the table; the others are still checked)
        problem = error.problem if isinstance(error, GraphError) else f"{type(error).__name__}: {error}"
        reason = " ".join(problem.split())[:300]
        return CutOutcome(
            family=case.family,
            model=case.model,
            built=built,
            status="rejected",
            reason=reason,
            seconds=time.perf_counter() - begun,
        )
    reasons = ["front and back do not compose to the whole"] if difference else []
    if counts.too_low:
        below = 1 - counts.ours.products / counts.torch
        reasons.append(f"its products are counted {below:.1%} below torch's counter: {counts.why}")
    return CutOutcome(
        family=case.family,
        model=case.model,
        built=built,
        status="rejected" if reasons else "equal",
        reason="; ".join(reasons),
        cut_points=len(graph.cut_points),
        layouts=dict(layouts),
        known=layout_check.known,
        unknown=layout_check.unknown,
        checked=layout_check.checked,
        astray=list(layout_check.astray),
        max_diff=difference,
        seconds=time.perf_counter() - begun,
        macs=counts.ours.macs,
        torch_macs=counts.torch,
        why=counts.why,
        trained_macs=trained,
    )


def build_case(case: Case) -> tuple[nn.Module, tuple[int, int, int]]:
    """Build the model in eval mode with random weights that let every part of it reach the logits.

    Returns:
        The model and the size of its images ``(C, H, W)``.
    """
    torch.manual_seed(0)
    model, side = _torchvision(case) if case.family.startswith("torchvision.") else _timm(case)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is not None:
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)  # pyright: ignore[reportArgumentType]
    for parameter in model.parameters():  # layer scales and heads that start at zero would hide errors
        if parameter.numel() and parameter.abs().max() < 1e-3:
            nn.init.uniform_(parameter, 0.05, 0.5) if parameter.ndim < 2 else nn.init.normal_(parameter, std=0.05)
    return model.eval(), (3, side, side)


def _timm(case: Case) -> tuple[nn.Module, int]:
    import timm
    from timm.models import get_pretrained_cfg

    model = timm.create_model(case.model, num_classes=_CLASSES, **case.kwargs)
    published = get_pretrained_cfg(case.model)
    if published is None or case.size is not None:
        return model, case.size or _ANY_SIZE
    side, smallest = published.input_size[1], (published.min_input_size or (3, 0, 0))[1]
    return model, _ANY_SIZE if not published.fixed_input_size and side > _ANY_SIZE >= smallest else side


def _torchvision(case: Case) -> tuple[nn.Module, int]:
    from torchvision.models import get_model

    return get_model(case.model, weights=None, num_classes=_CLASSES, **case.kwargs), case.size or 224


def largest_difference(graph: AnchorGraph) -> float:
    """The largest absolute difference of logits between front and back and the whole, over cut points and batch sizes.

    Raises:
        GraphError: If a difference is not a number, or the logits do not depend on the image, so nothing is shown.
    """
    largest = 0.0
    images = torch.randn(max(BATCHES), *graph.traced.image_size, generator=torch.Generator().manual_seed(2))
    with torch.inference_mode():
        wholes = {batch: graph.traced.model(images[:batch]) for batch in BATCHES}
        logits = wholes[max(BATCHES)]
        if not logits.isfinite().all() or bool((logits.std(dim=0) == 0).all()):
            raise GraphError("its logits with random weights do not tell images apart, so the comparison shows nothing")
        for cut in graph.cut_points:
            front, back = graph.front(cut.index), graph.back(cut.index)
            for batch, whole in wholes.items():
                difference = (back(front(images[:batch])) - whole).abs().max()
                largest = max(largest, difference.nan_to_num(float("inf")).item())
    return largest
