"""CKA matrix of two models: one pass and one matrix product per batch, against the published package torch-cka.

Both compare every module of the one model with every module of the other, as torch-cka does unless it is told layers,
on the same images and the same weights (random ones: no weights are needed to measure this). Who is right is decided by
a third way, in float64 from the images on and by the formula as it is written, for some of the layers: torch-cka's
float32 sums cancel where features of all images are alike.
"""

# The package is optional: a line that ignores its absence would be one too many where it is installed.
# pyright: reportMissingImports=false

from __future__ import annotations

import contextlib
import math
import os
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tests.benchmarks.measure import growth_exponent, run_fresh
from tests.benchmarks.result import Condition, Finding


@dataclass(frozen=True)
class Size:
    models: tuple[str, str]
    images: int
    batch: int
    side: int


SIZES = {
    "full": Size(("resnet50", "resnet18"), 256, 64, 224),
    "small": Size(("resnet50", "resnet18"), 64, 32, 96),
    "tiny": Size(("resnet18", "resnet10t"), 16, 8, 32),
}
RATIO, AGREEMENT = 20.0, 1e-3


def run(size: str) -> Finding:
    given = SIZES[size]
    if _missing():
        note = "not run: torch-cka is missing; pip install 'restnet-search[bench]'"
        return Finding(_question(given), None, RATIO, None, None, "s", note=note)
    setting = {"models": list(given.models), "images": given.images, "batch": given.batch, "side": given.side}
    ours, other = run_fresh("cka", "ours", **setting), run_fresh("cka", "other", **setting)
    forward = run_fresh("cka", "forward", **setting).seconds
    exact: dict[str, float] = run_fresh("cka", "exact", **setting).value["cka"]
    off = _largest_difference(ours.value["cka"], exact)
    images = sorted({max(given.batch, given.images // divisor) for divisor in (4, 2)} - {given.images})
    seconds = [run_fresh("cka", "ours", **(setting | {"images": count})).seconds for count in images]
    images, seconds = [*images, given.images], [*seconds, ours.seconds]
    growth = {"of": "images", "points": list(zip(images, seconds, strict=True)), "exponent": None}
    growth["exponent"] = growth_exponent(images, seconds) if len(images) > 1 else None
    return Finding(
        _question(given),
        other.seconds / ours.seconds,
        RATIO,
        ours.seconds,
        other.seconds,
        "s",
        (
            Condition(
                "peak memory of torch-cka over ours (to reach: more than 1)",
                other.extra_bytes / max(1, ours.extra_bytes),
                other.extra_bytes > ours.extra_bytes,
            ),
            Condition("entries of ours that are NaN (to reach: 0)", ours.value["nan"], ours.value["nan"] == 0),
            Condition(
                f"largest difference from float64 over {len(exact)} pairs of layers (to reach: below {AGREEMENT:g}; "
                f"torch-cka: {_largest_difference(other.value['cka'], exact):.2g})",
                off,
                off < AGREEMENT,
            ),
        ),
        note=f"torch-cka: {other.value['said'] or 'no error'}; {other.value['nan']} of its entries are NaN."
        + _what_limits(ours.seconds, other.seconds, forward),
        details={
            "forward_seconds": forward,
            "layers": [ours.value["layers_a"], ours.value["layers_b"]],
            "ours_extra_bytes": ours.extra_bytes,
            "other_extra_bytes": other.extra_bytes,
            "growth": [growth] if growth["exponent"] is not None else [],
        },
    )


def _what_limits(ours: float, other: float, forward: float) -> str:
    """Why the target was missed; empty where it was reached."""
    if other / ours >= RATIO:
        return ""
    return (
        f" Of our {ours:.0f} s, {forward:.0f} s are the forward passes of both models, which both ways need; with them "
        f"alone the ratio would be {other / forward:.0f}. The rest is one Gram matrix per layer and batch, in float64."
    )


def _question(given: Size) -> str:
    first, second = given.models
    return (
        f"CKA of every module of {first} with every module of {second} on {given.images} images at {given.side}, in "
        f"batches of {given.batch}: the package's MinibatchCKA against torch-cka."
    )


def _missing() -> bool:
    import importlib.util

    return importlib.util.find_spec("torch_cka") is None


def _models(names: list[str], side: int) -> list[nn.Module]:
    import timm

    built: list[nn.Module] = []
    for name in names:
        torch.manual_seed(0)
        built.append(timm.create_model(name, num_classes=10).eval().requires_grad_(False))
    return built


def _images(count: int, side: int) -> Tensor:
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(0))


def _channels_last(models: list[str], images: int, side: int) -> tuple[list[nn.Module], Tensor]:
    """Models, one of them warmed up, and images as our way runs them."""
    built = [model.to(memory_format=torch.channels_last) for model in _models(models, side)]
    pixels = _images(images, side).to(memory_format=torch.channels_last)
    built[0](pixels[:2])
    return built, pixels


def _ours(models: list[str], images: int, batch: int, side: int) -> Callable[[], dict[str, Any]]:
    from restnet_search.similarity.cka import MinibatchCKA

    built, pixels = _channels_last(models, images, side)

    def work() -> dict[str, Any]:
        cka = MinibatchCKA()
        for chunk in pixels.split(batch):
            grams = [_grams_of(model, chunk) for model in built]
            cka.update_grams(*(list(found.values()) for found in grams))
            names = [list(found) for found in grams]
        return _answer(built, names[0], names[1], cka.matrix())

    return work


def _forward(models: list[str], images: int, batch: int, side: int) -> Callable[[], None]:
    """The passes alone, as ours runs them."""
    built, pixels = _channels_last(models, images, side)

    @torch.no_grad()
    def work() -> None:
        for chunk in pixels.split(batch):
            for model in built:
                model(chunk)

    return work


@torch.no_grad()
def _grams_of(model: nn.Module, pixels: Tensor) -> dict[str, Tensor]:
    """The U-centred Gram of every module's output, made while the model runs, so that no features are kept.

    Many modules hand on what another one gave: a block its last layer's output, an identity its input.
    """
    from restnet_search.similarity.cka import u_centered_gram

    grams: dict[str, Tensor] = {}
    last: list[tuple[Tensor, int, Tensor]] = []

    def hook(name: str) -> Callable[[nn.Module, Any, Tensor], None]:
        def keep(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
            # the version tells whether an activation has worked on it in place meanwhile
            if not (last and last[0][0] is output and last[0][1] == output._version):
                last[:] = [(output, output._version, u_centered_gram(output))]
            grams[name] = last[0][2]

        return keep

    with _hooked(model, hook):
        model(pixels)
    return grams


@contextlib.contextmanager
def _hooked(model: nn.Module, hook: Callable[[str], Callable[..., None]]) -> Iterator[None]:
    handles = [module.register_forward_hook(hook(name)) for name, module in model.named_modules()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _other(models: list[str], images: int, batch: int, side: int) -> Callable[[], dict[str, Any]]:
    from torch.utils.data import DataLoader, TensorDataset

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        os.environ.setdefault("MPLBACKEND", "Agg")
        from torch_cka import CKA

        built, pixels = _models(models, side), _images(images, side)
        built[0](pixels[:2])
        for model in built:  # as users have them; the package records gradients
            model.requires_grad_(True)
        compared = CKA(*built, model1_name=models[0], model2_name=models[1])

    def work() -> dict[str, Any]:
        said = ""
        try:
            compared.compare(DataLoader(TensorDataset(pixels), batch_size=batch))
        except AssertionError as error:  # it checks for NaN at the very end
            said = str(error)
        # rows and columns are in the order in which modules were called
        return _answer(
            built, list(compared.model1_features), list(compared.model2_features), compared.hsic_matrix, said
        )

    return work


def _exact(models: list[str], images: int, batch: int, side: int) -> Callable[[], dict[str, Any]]:
    """Minibatch CKA (Nguyen et al. 2021) with the unbiased HSIC of Song et al. (2012), as it is written, in float64."""
    built, pixels = [model.double() for model in _models(models, side)], _images(images, side)
    chosen = [_some_layers(model) for model in built]

    def work() -> dict[str, Any]:
        across: dict[tuple[str, str], float] = {}
        own: list[dict[str, float]] = [{}, {}]
        for chunk in pixels.double().split(batch):
            grams = [_plain_grams(model, names, chunk) for model, names in zip(built, chosen, strict=True)]
            for sums, found in zip(own, grams, strict=True):
                for name, gram in found.items():
                    sums[name] = sums.get(name, 0.0) + _hsic(gram, gram)
            for a, first in grams[0].items():
                for b, second in grams[1].items():
                    across[a, b] = across.get((a, b), 0.0) + _hsic(first, second)
        scales = {(a, b): math.sqrt(own[0][a] * own[1][b]) for a, b in across}
        return {"cka": {f"{a} | {b}": value / scales[a, b] for (a, b), value in across.items()}}

    return work


def _some_layers(model: nn.Module, count: int = 12) -> list[str]:
    names = [name for name, _ in model.named_modules() if name and _compared(model, name)]
    return names[:: max(1, len(names) // count)]


@torch.no_grad()
def _plain_grams(model: nn.Module, names: list[str], pixels: Tensor) -> dict[str, Tensor]:
    grams: dict[str, Tensor] = {}

    def hook(name: str) -> Callable[[nn.Module, Any, Tensor], None]:
        def keep(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
            if name in names:
                grams[name] = (output.flatten(1) @ output.flatten(1).T).fill_diagonal_(0)

        return keep

    with _hooked(model, hook):
        model(pixels)
    return grams


def _hsic(first: Tensor, second: Tensor) -> float:
    n = len(first)
    trace, sums = (first @ second).trace(), first.sum() * second.sum()
    total = trace + sums / ((n - 1) * (n - 2)) - 2 / (n - 2) * (first @ second).sum()
    return float(total) / (n * (n - 3))


def _largest_difference(found: dict[str, float | None], exact: dict[str, float]) -> float:
    """Over the pairs of layers for which both have a value."""
    both = [(value, exact[pair]) for pair in exact if (value := found.get(pair)) is not None]
    return max(abs(a - b) for a, b in both)


def _answer(
    models: list[nn.Module], layers_a: list[str], layers_b: list[str], matrix: Tensor, said: str = ""
) -> dict[str, Any]:
    """The matrix by pairs of layers. Norm layers are left out of the comparison, not of the work.

    torch-cka keeps references, so an activation that works in place has overwritten what the norm before it gave.
    """
    values = matrix.tolist()
    pairs = {
        f"{a} | {b}": (None if math.isnan(values[i][j]) else values[i][j])
        for i, a in enumerate(layers_a)
        for j, b in enumerate(layers_b)
        if _compared(models[0], a) and _compared(models[1], b)
    }
    nan = int(torch.isnan(matrix).sum())
    return {"layers_a": len(layers_a), "layers_b": len(layers_b), "nan": nan, "said": said, "cka": pairs}


def _compared(model: nn.Module, name: str) -> bool:
    return not isinstance(model.get_submodule(name), nn.BatchNorm2d | nn.Identity)


WAYS = {"ours": _ours, "other": _other, "exact": _exact, "forward": _forward}
