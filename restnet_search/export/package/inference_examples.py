"""A short program for each format that classifies an image with the exported network, as it stands."""

from __future__ import annotations

from math import floor

from restnet_search.data import Preprocessing
from restnet_search.errors import ExportError
from restnet_search.export.formats.export_format import RuntimeExample, find_format
from restnet_search.export.package.export_manifest import FormatEntry
from restnet_search.plain.escaping import python_text

__all__ = ["example_name", "find_example", "inference_example"]

_HEAD = '''"""Classify an image: python {name} IMAGE (without one: a grey ramp). Needs {packages}."""

import json
import sys
from pathlib import Path

{imports}

here = Path(__file__).resolve().parent
about = json.loads((here / "export.json").read_text(encoding="utf-8"))
image = (Image.open(sys.argv[1]) if sys.argv[1:] else Image.linear_gradient("L")).convert("RGB")
{crop}
{pixels}
{run}
print(about["classes"][int(logits[0].argmax())], *logits[0].round(4))
'''
_NORMALIZED = """look = about["preprocessing"]
images = (np.asarray(image, np.float32) / 255 - np.float32(look["mean"])) / np.float32(look["std"])
images = np.ascontiguousarray(images.transpose(2, 0, 1)[None])"""
_FILTERS = ("NEAREST", "BOX", "BILINEAR", "HAMMING", "BICUBIC", "LANCZOS")
_BYTES = "images = np.ascontiguousarray(np.asarray(image).transpose(2, 0, 1)[None])  # the graph normalises"


def example_name(format: str) -> str:
    return f"example_{format}.py"


def find_example(format: str, *, trust_code: bool) -> RuntimeExample | None:
    """Return what runs files of a format; None where it says nothing, or belongs to a package that is not trusted."""
    try:
        return find_format(format, trust_code=trust_code).example
    except ExportError:
        return None


def inference_example(preprocessing: Preprocessing, entry: FormatEntry, example: RuntimeExample) -> str:
    """Return the source of the program for one format; it reads ``export.json`` and the model beside itself."""
    imports = [_import(name) for name in ("numpy:np", *example.imports, "PIL:Image")]
    return _HEAD.format(
        name=example_name(entry.format),
        packages=example.packages,
        imports="\n".join(sorted(imports, key=lambda line: (line.startswith("from"), line))),
        crop=_crop(preprocessing),
        pixels=_BYTES if entry.input == "uint8" else _NORMALIZED,
        run=example.run.format(format=python_text(entry.format), file=python_text(entry.files[0].name)),
    )


def _import(name: str) -> str:
    module, _, member = name.partition(":")
    if module == "numpy":
        return "import numpy as np"
    return f"from {module} import {member}" if member else f"import {module}"


def _crop(preprocessing: Preprocessing) -> str:
    """Resize and crop with Pillow, as timm's evaluation transform does."""
    _, height, width = preprocessing.size
    tall, wide = floor(height / preprocessing.crop_pct), floor(width / preprocessing.crop_pct)
    if (filter_name := preprocessing.interpolation.upper()) not in _FILTERS:
        raise ExportError(
            f"The example cannot resize by {preprocessing.interpolation!r}.", expected=f"one of {', '.join(_FILTERS)}"
        )
    how = f"Image.Resampling.{filter_name}"
    if preprocessing.crop_mode == "squash":
        resize = f"image = image.resize(({wide}, {tall}), {how})"
    elif preprocessing.crop_mode == "border":
        resize = (
            f"scale = min({wide} / image.width, {tall} / image.height)\n"
            f"image = image.resize((round(image.width * scale), round(image.height * scale)), {how})"
        )
    elif tall == wide:
        resize = f"image = image.resize(tuple(int({tall} * side / min(image.size)) for side in image.size), {how})"
    else:
        resize = (
            f"scale = max({wide} / image.width, {tall} / image.height)\n"
            f"image = image.resize((round(image.width * scale), round(image.height * scale)), {how})"
        )
    if preprocessing.crop_mode != "border":
        return (
            f"{resize}\n"
            f"left, top = round((image.width - {width}) / 2), round((image.height - {height}) / 2)\n"
            f"image = image.crop((left, top, left + {width}, top + {height}))"
        )
    fill = tuple(round(255 * value) for value in preprocessing.mean)
    return (
        f"{resize}\n"
        f'canvas = Image.new("RGB", ({width}, {height}), {fill})\n'
        "gaps = (canvas.width - image.width) / 2, (canvas.height - image.height) / 2\n"
        "canvas.paste(image, tuple(int(gap) if gap > 0 else round(gap) for gap in gaps))\n"
        "image = canvas"
    )
