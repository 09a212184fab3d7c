"""A ten-line program for each format that classifies an image with the exported network, as it stands."""

from __future__ import annotations

from math import floor

from restnet_search.data import View
from restnet_search.export.package.export_manifest import FormatEntry

__all__ = ["example_name", "inference_example"]

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
_NORMALISED = """look = about["preprocessing"]
images = (np.asarray(image, np.float32) / 255 - np.float32(look["mean"])) / np.float32(look["std"])
images = np.ascontiguousarray(images.transpose(2, 0, 1)[None])"""
_BYTES = "images = np.ascontiguousarray(np.asarray(image).transpose(2, 0, 1)[None])  # the graph normalises"

_PACKAGES = {
    "onnx": "onnxruntime, numpy, pillow",
    "openvino": "openvino, numpy, pillow",
    "executorch": "executorch, torch, numpy, pillow",
    "litert": "ai-edge-litert, numpy, pillow",
    "pt2": "torch, numpy, pillow",
    "safetensors": "restnet-search",
}
_IMPORTS = {
    "onnx": ("onnxruntime",),
    "openvino": ("openvino",),
    "executorch": ("torch", "executorch.runtime:Runtime"),
    "litert": ("ai_edge_litert.interpreter:Interpreter",),
    "pt2": ("torch",),
    "safetensors": ("torch", "restnet_search:load_hybrid"),
}
_CHECKED = """record = next(entry for entry in about["formats"] if entry["format"] == "{format}")["files"][0]
if hashlib.sha256((here / "{file}").read_bytes()).hexdigest() != record["sha256"]:
    sys.exit("{file} was truncated or altered")  # torch would unpickle what an altered archive holds
"""
_RUN = {
    "onnx": 'session = onnxruntime.InferenceSession(here / "{file}", providers=["CPUExecutionProvider"])\n'
    '(logits,) = session.run(["logits"], {{"images": images}})',
    "openvino": 'model = openvino.compile_model(here / "{file}", "CPU", {{"INFERENCE_PRECISION_HINT": "f32"}})\n'
    'logits = model({{"images": images}})["logits"]',
    "executorch": 'method = Runtime.get().load_program(here / "{file}").load_method("forward")\n'
    "logits = method.execute([torch.from_numpy(images)])[0].numpy()",
    "litert": 'model = Interpreter(model_path=str(here / "{file}"))\n'
    "model.allocate_tensors()\n"
    'model.set_tensor(model.get_input_details()[0]["index"], images)\n'
    "model.invoke()\n"
    'logits = model.get_tensor(model.get_output_details()[0]["index"])',
    "pt2": _CHECKED + 'model = torch.export.load(here / "{file}").module(check_guards=False)\n'
    "with torch.no_grad():\n    logits = model(torch.from_numpy(images)).numpy()",
    "safetensors": "with torch.no_grad():\n    logits = load_hybrid(here)(torch.from_numpy(images)).numpy()",
}


def example_name(format: str) -> str:
    return f"example_{format}.py"


def inference_example(view: View, entry: FormatEntry) -> str:
    """The source of the program for one format; it reads ``export.json`` and the model beside itself."""
    format, file = entry.format, entry.files[0].name
    imported = [_import(name) for name in ("numpy:np", *_IMPORTS[format], "PIL:Image")]
    if format == "pt2":
        imported.insert(0, "import hashlib")
    return _HEAD.format(
        name=example_name(format),
        packages=_PACKAGES[format],
        imports="\n".join(sorted(imported, key=lambda line: (line.startswith("from"), line))),
        crop=_crop(view),
        pixels=_BYTES if entry.input == "uint8" else _NORMALISED,
        run=_RUN[format].format(format=format, file=file),
    )


def _import(name: str) -> str:
    module, _, member = name.partition(":")
    if module == "numpy":
        return "import numpy as np"
    return f"from {module} import {member}" if member else f"import {module}"


def _crop(view: View) -> str:
    """Resize and crop with Pillow, as timm's evaluation transform does."""
    _, height, width = view.size
    tall, wide = floor(height / view.crop_pct), floor(width / view.crop_pct)
    how = f"Image.Resampling.{view.interpolation.upper()}"
    if view.crop_mode == "squash":
        resize = f"image = image.resize(({wide}, {tall}), {how})"
    elif view.crop_mode == "border":
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
    if view.crop_mode != "border":
        return (
            f"{resize}\n"
            f"left, top = round((image.width - {width}) / 2), round((image.height - {height}) / 2)\n"
            f"image = image.crop((left, top, left + {width}, top + {height}))"
        )
    fill = tuple(round(255 * value) for value in view.mean)
    return (
        f"{resize}\n"
        f'canvas = Image.new("RGB", ({width}, {height}), {fill})\n'
        "gaps = (canvas.width - image.width) / 2, (canvas.height - image.height) / 2\n"
        "canvas.paste(image, tuple(int(gap) if gap > 0 else round(gap) for gap in gaps))\n"
        "image = canvas"
    )
