"""The commented search space that ``restnet-search init`` writes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from restnet_search.plain.escaping import one_line
from restnet_search.space.plain_yaml import write_yaml
from restnet_search.space.published_data import DATA_PRESETS, EMBEDDED

__all__ = ["SpaceDraft", "anchor_entry", "render_template"]


@dataclass(frozen=True)
class SpaceDraft:
    """A new space: what the user named, and what was found out about the data.

    Attributes:
        anchors: timm models, or ``module:function`` / ``file.py:function``, as the file shall name them.
        dataset: ``""`` for folders and tars, a preset, a timm name, or ``digits``.
        root: Folder of the data as the file shall name it; None where the data set needs none.
        test: Name of the test split; None where test is cut from val.
        budgets: Device budgets.
        notes: Facts (costs, classes) that stand as comments at the top, one line each.
    """

    name: str
    anchors: tuple[str, ...]
    dataset: str
    root: str | None
    test: str | None
    budgets: tuple[str, ...]
    notes: tuple[str, ...] = ()


def anchor_entry(text: str) -> dict[str, str]:
    """Return ``{"model": ...}``, or ``{"factory": ...}`` for ``module:function`` and is no ``hf-hub:`` source."""
    before, colon, _ = text.rpartition(":")
    is_source = before.split(":")[0] in ("hf-hub", "hf_hub", "local-dir", "timm")
    return {"factory": text} if colon and not is_source else {"model": text}


def render_template(draft: SpaceDraft) -> str:
    """Return the YAML text; :func:`restnet_search.space.parse_space` reads it back with the draft's values.

    Every section that a first search may want to change stands there with its default and a comment.
    """
    description = f"{' and '.join(draft.anchors)}, stitched."
    notes = "".join(f"# {one_line(note)}\n" for note in draft.notes)
    splits = {"train": "train", "val": "val", "test": draft.test}
    own = draft.dataset == EMBEDDED or draft.dataset in DATA_PRESETS  # these bring their splits
    where = "" if own else f"  splits: {_flow(splits)} # test: null cuts it from val\n"
    root = (
        "" if draft.root is None else f"  root: {_flow(draft.root)} # --data DIR wins; starts at this file's folder\n"
    )
    return f"""\
# A search space, written by restnet-search init. Check it after changes: restnet-search spaces check FILE
# A key that is left out has its default; restnet-search spaces show FILE prints all of them.
{notes}name: {_flow(draft.name)}
description: {_flow(description)}

# The pre-trained models that are cut and stitched. `weights: FILE` names a checkpoint of yours; without it timm's
# published weights are taken (on machines without a network: from --weights DIR).
anchors:
{_anchor_lines(draft.anchors)}
orders: [large_to_small, small_to_large] # which anchor supplies the front; the better one depends on the budget

cut_points:
  granularity: block # all: also inside blocks
  min_depth: 0.0     # share of an anchor's MACs in the front, at least ...
  max_depth: 1.0     # ... and at most

ranker: cka # or lstsq, kl, random: orders stitch points before any training
keep: top_k # or buckets: the best of every range of FLOPs, and of every back cut point
top_k: 3    # stitch points kept per front cut point and partner

# linear maps channels (1x1); conv3x3 reads neighbours too: better between shallow CNNs, nine times the cost.
stitch: {{kind: linear, init: lstsq, images: 1000}}

# What is trained beside the stitch layer, and how. paper: nothing; balanced: the back's norm layers; best: all of front
# and back, longer. Keys of `training` win; [low, high] are searched. More images and epochs: slower, better.
effort: balanced
training: {{epochs: [1, 2], images: 4000}}
search: {{trials: 40, seed: 0}} # trials: trained in full; timeout: seconds
halving: {{when: auto}} # scores many candidates cheaply and drops most of them; always, never
controls: {{self: 1, random: 2}} # beside the trials: each anchor stitched to itself, and random stitch points
# distilled: true there also trains the small anchor to follow the large one, on as many images as the search saw

# Anchors whose head does not match the classes of the data are fitted first, once (then kept):
# head trains the classifier alone, full trains all layers, never makes a mismatch an error.
fit: {{tune: head, epochs: 10, lr: 1.0e-3}}

# Networks over every budget are never trained. Limits joined by commas hold together: 2GFLOPs,10Mparams
budgets: {_flow(list(draft.budgets))}

data:
  dataset: {_flow(draft.dataset)} # "": folders or tar files, one folder of images per class; else cifar10, dtd, ...
{root}{where}  subset: {{train: null, val: null, test: null}} # fewer images for a quick first try
"""


def _anchor_lines(anchors: Sequence[str]) -> str:
    entries = (anchor_entry(anchor) for anchor in anchors)
    return "".join(f"  - {key}: {_flow(value)}\n" for entry in entries for key, value in entry.items())


def _flow(value: object) -> str:
    """Return the value on one line of YAML, quoted where it must be."""
    text = write_yaml([value]).rstrip("\n")  # "[text]", or "- [a, b]": a bare scalar would end with a document mark
    if "\n" in text:
        return json.dumps(value, ensure_ascii=False)  # JSON is YAML, and never breaks a line
    return text[1:-1] if text.startswith("[") else text.removeprefix("- ")
