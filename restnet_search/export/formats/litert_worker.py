"""Convert and run ``.tflite`` files, in the environment of LiteRT: run as a script, imports nothing of restnet_search.

python litert_worker.py convert STATIC.pt2 MODEL.tflite
python litert_worker.py run MODEL.tflite IMAGES.npy LOGITS.npy
"""

# These packages are optional: a line that ignores their absence would be one too many where they are installed.
# pyright: reportMissingImports=false

from __future__ import annotations

import sys


def convert(program: str, model: str) -> None:
    import litert_torch
    import torch

    exported = torch.export.load(program)
    (node,) = (node for node in exported.graph.nodes if node.name in exported.graph_signature.user_inputs)
    example = torch.zeros(node.meta["val"].shape, dtype=node.meta["val"].dtype)
    litert_torch.convert(exported.module(check_guards=False), (example,)).export(model)


def run(model: str, images: str, logits: str) -> None:
    import numpy as np
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=model)
    interpreter.allocate_tensors()
    (source,), (target,) = interpreter.get_input_details(), interpreter.get_output_details()
    rows = []
    for image in np.load(images):
        interpreter.set_tensor(source["index"], image[None])
        interpreter.invoke()
        rows.append(interpreter.get_tensor(target["index"]).copy())
    np.save(logits, np.concatenate(rows))


if __name__ == "__main__":
    {"convert": convert, "run": run}[sys.argv[1]](*sys.argv[2:])
