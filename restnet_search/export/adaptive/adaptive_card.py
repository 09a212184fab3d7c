"""The model card that lies in an adaptive model's folder."""

from __future__ import annotations

from restnet_search.export.adaptive.adaptive_manifest import AdaptiveManifest
from restnet_search.export.adaptive.route import Route
from restnet_search.export.network.architecture import HybridArchitecture
from restnet_search.export.network.network_facts import Accuracy
from restnet_search.plain.escaping import code_block, markdown, one_line, python_text
from restnet_search.units import CONVENTION, format_bytes, format_count, format_seconds

__all__ = ["describe_route", "render_adaptive_card"]

_PYTHON = """```python
import restnet_search
import torch

model = restnet_search.AdaptiveModel.load(".")  # this folder
route = model.set_budget("{budget}")  # the most accurate that fits; or model.use("{name}")
pixels = torch.zeros(1, {channels}, {height}, {width}, dtype=torch.uint8)  # RGB
logits = model(pixels{named})
model.follow(target_ms=30)  # from here on the latency of the calls decides
```"""
_ONNX = """```python
import numpy as np
import onnxruntime

session = onnxruntime.InferenceSession("{file}")  # opens {weights}, too
(logits,) = session.run(None, {{"images": np.zeros((1, {channels}, {height}, {width}), np.float32)}})
```"""

_CASCADE = """```python
model.cascade({threshold!r}, small="{small}", large="{large}")  # or model.cascade(): the best on val
logits = model(pixels)  # each image goes its own way; uint8, which both routes normalise themselves
print(model.cascading.images, model.cascading.deferred, model.cascading.mean_macs)
```"""
_ONNX_CASCADE = """With ONNX, one image at a time (`images`: normalised as the input of each route says):

```python
import numpy as np
import onnxruntime

small, large = onnxruntime.InferenceSession("{small}"), onnxruntime.InferenceSession("{large}")
(logits,) = small.run(None, {{"images": images}})
odds = np.exp(logits - logits.max(), dtype=np.float64)
if odds.max() / odds.sum() < {threshold!r}:
    (logits,) = large.run(None, {{"images": images}})
```"""


def render_adaptive_card(manifest: AdaptiveManifest) -> str:
    """Return Markdown: what the routes are, cost and reach, how to run them, whose weights are in it."""
    sections = [
        f"# Adaptive model of the run {markdown(manifest.run)}",
        f"{len(manifest.routes)} networks over one set of weights, switched while they run."
        + (f" Data: {markdown(manifest.data)}." if manifest.data else ""),
        _routes(manifest),
        _sizes(manifest),
        "## Run it",
        _usage(manifest),
        _cascades(manifest),
        _input(manifest),
        "`sha256sum --check SHA256SUMS` says whether the files are as they were written.",
        _licenses(manifest),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def describe_route(route: Route) -> str:
    """Return ``cnn[..layer1.0] + vit[blocks.2..]``, as reports name networks."""
    if isinstance(route.parts, HybridArchitecture):
        front, back = route.parts.front, route.parts.back
        return f"{front.anchor}[..{front.cut.path}] + {back.anchor}[{back.cut.path}..]"
    return route.parts.anchor


def _routes(manifest: AdaptiveManifest) -> str:
    types = dict.fromkeys(dtype for route in manifest.routes for dtype in _types(route))
    timed = [route.running.latency for route in manifest.routes if route.running.latency is not None]
    names = ["route", "network", "MACs", "params", *(f"memory {dtype}" for dtype in types)]
    names += [*(["latency (p95)"] if timed else []), "val", "test"]
    rows = [
        [
            markdown(route.name),
            markdown(describe_route(route)),
            format_count(route.costs.macs),
            format_count(route.costs.params),
            *(_bytes_or_dash(route.running.memory_at(dtype)) for dtype in types),
            *([_latency(route)] if timed else []),
            _accuracy(route.val),
            _accuracy(route.test),
        ]
        for route in manifest.routes
    ]
    notes = [CONVENTION]
    if types:
        notes.append(
            "Memory is the peak of a route that runs alone, for one image: weights and live activations, without what a"
            " runtime needs for itself. Loaded with AdaptiveModel, the weights of all routes are there at all times."
        )
    if timed:
        on = timed[0].on
        how = "a sum of measured parts (~)" if timed[0].p95 is None else "measured whole"
        notes.append(
            f"Latency of a batch of {on.batch}: {how}, {on.runtime}, {on.threads} thread{'s' * (on.threads != 1)},"
            f" {markdown(on.machine)}."
        )
    lines = ["| " + " | ".join(cells) + " |" for cells in [names, *rows]]
    return "\n".join([lines[0], "|" + "---|" * len(names), *lines[1:], "", " ".join(notes)])


def _types(route: Route) -> list[str]:
    """Return the types that memory is counted in, the run's own first."""
    running = route.running
    return sorted(running.memory, key=lambda dtype: (dtype != running.memory_dtype, -running.memory[dtype], dtype))


def _bytes_or_dash(value: int | None) -> str:
    return "-" if value is None else format_bytes(value)


def _latency(route: Route) -> str:
    latency = route.running.latency
    if latency is None:
        return "-"
    if latency.p95 is None:
        return f"~{format_seconds(latency.median)}"
    return f"{format_seconds(latency.median)} ({format_seconds(latency.p95)})"


def _accuracy(score: Accuracy | None) -> str:
    if score is None:
        return "-"
    return f"{score.top1:.1%}" + (f" ({score.ci95[0]:.1%} to {score.ci95[1]:.1%})" if score.ci95 else "")


def _sizes(manifest: AdaptiveManifest) -> str:
    measured = manifest.measured
    if measured is None:
        return ""
    sizes = measured.sizes
    lines = [
        f"- {format_bytes(sizes.artefact)} on disk; the routes exported alone: {format_bytes(sizes.separate)};"
        f" their weights, each once: {format_bytes(sizes.union)}.",
        f"- Every route equals the network exported alone to the last bit, on {measured.images} images.",
        f"- A switch takes {measured.switch_median_us:.1f} us (median of {measured.switches}; 99th percentile"
        f" {measured.switch_p99_us:.0f} us) where this was exported.",
    ]
    if manifest.onnx is not None and sizes.onnx is not None and sizes.onnx_separate is not None:
        largest = max(manifest.onnx.max_difference.values())
        lines.append(
            f"- ONNX: {format_bytes(sizes.onnx)}; apart: {format_bytes(sizes.onnx_separate)}; run without PyTorch,"
            f" logits within {largest:.1e} of PyTorch's."
        )
    return "\n".join(lines)


def _usage(manifest: AdaptiveManifest) -> str:
    cheapest = manifest.routes[0]
    channels, height, width = cheapest.preprocessing.size
    fields: dict[str, object] = {
        "channels": channels,
        "height": height,
        "width": width,
        "name": python_text(cheapest.name),
    }
    one_geometry = len({route.preprocessing.geometry for route in manifest.routes}) == 1
    budget = f"{cheapest.costs.macs / 1e6:.9g}MFLOPs"
    blocks = [_PYTHON.format(**fields, budget=budget, named="" if one_geometry else ", route=route")]
    if manifest.onnx is not None:
        blocks.append(
            _ONNX.format(**fields, file=python_text(str(cheapest.onnx)), weights=one_line(manifest.onnx.weights))
        )
    return "\n\n".join(blocks)


def _cascades(manifest: AdaptiveManifest) -> str:
    if not manifest.cascades:
        return ""
    lines = [
        "## Cascades",
        "",
        "The small route answers where it is sure, the large one is asked for the other images. Thresholds were chosen"
        " on val; MACs are averages over val, an image that both routes see takes the most. The weights of both are in"
        " memory. Which way an image goes is decided in Python, image by image, so no graph holds a cascade.",
        "",
        "| small | large | threshold | MACs (mean) | MACs (most) | left to large | val | test |",
        "|" + "---|" * 8,
    ]
    for one in manifest.cascades:
        cells = [
            markdown(one.small),
            markdown(one.large),
            f"{one.threshold:.4g}",
            format_count(one.mean_macs["val"]),
            format_count(one.cost.macs),
            f"{one.deferred['val']:.1%}",
            f"{one.val.top1:.1%}",
            f"{one.test.top1:.1%} ({one.test.ci95[0]:.1%} to {one.test.ci95[1]:.1%})",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    first = manifest.cascades[0]
    names = {"small": python_text(first.small), "large": python_text(first.large)}
    lines += ["", _CASCADE.format(**names, threshold=first.threshold)]
    onnx = {route.name: route.onnx for route in manifest.routes if route.onnx is not None}
    if {first.small, first.large} <= onnx.keys():
        files = {"small": python_text(str(onnx[first.small])), "large": python_text(str(onnx[first.large]))}
        lines += ["", _ONNX_CASCADE.format(**files, threshold=first.threshold)]
    return "\n".join(lines)


def _input(manifest: AdaptiveManifest) -> str:
    lines = ["## Input", ""]
    for preprocessing in dict.fromkeys(route.preprocessing for route in manifest.routes):
        names = [route.name for route in manifest.routes if route.preprocessing == preprocessing]
        channels, height, width = preprocessing.size
        mean, std = (", ".join(f"{value:g}" for value in values) for values in (preprocessing.mean, preprocessing.std))
        lines.append(
            f"- {', '.join(map(markdown, names))}: `({channels}, {height}, {width})`,"
            f" resized by {preprocessing.interpolation} interpolation,"
            f" {preprocessing.crop_mode} crop of {preprocessing.crop_pct:g};"
            f" floats: RGB in 0..1 minus ({mean}), divided by ({std})"
        )
    if len(lines) > 3:
        lines += [
            "",
            "The routes see images differently. uint8 pixels are normalised by the route that runs. Where size or crop"
            " differ, too, make the input for the route that will run: `route = model.current`, then"
            " `model(input, route=route)`.",
        ]
    return "\n".join(lines)


def _licenses(manifest: AdaptiveManifest) -> str:
    lines = sorted(
        f"- {markdown(anchor.name)}: {markdown(anchor.licence or 'not declared')}" for anchor in manifest.anchors
    )
    versions = ", ".join(f"{name} {version}" for name, version in manifest.environment.items())
    made = f"Exported by restnet-search {manifest.restnet_search}{f' ({versions})' if versions else ''}."
    command = ["", *code_block(one_line(manifest.command))] if manifest.command else []
    return "\n".join(["## Licences of the anchors' weights", "", *lines, "", made, *command])
