"""Read back what runs wrote: reports and hybrids."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from restnet_search.reporting.model.run_report import Report
from restnet_search.reporting.results_file.codec import read_results

if TYPE_CHECKING:
    from torch import nn

__all__ = ["load_hybrid", "load_run"]


def load_run(path: str | Path) -> Report:
    """Read the report of a run folder (or of a ``results.json``).

    Raises:
        RunError: If it is missing, truncated or of another schema version.
    """
    return read_results(Path(path))


def load_hybrid(
    run: str | Path,
    hybrid: str | None = None,
    *,
    weights: str | Path | None = None,
    base: str | Path | None = None,
    trust_code: bool = False,
    stitch_only: bool = False,
) -> nn.Module:
    """Build a hybrid of a run, or read an exported one, as a module in eval mode.

    Args:
        run: A run folder, or (``hybrid`` None) the ``.json`` or ``.safetensors`` file or the folder of an export.
        hybrid: Its id in the run's results (``h012``); an anchor's name gives the anchor.
        weights: Folder with the anchors' weights, where it is not the one that the run was started with.
        base: For an export: folder that the files of ``factory: file.py:function`` are in, where it is not this one.
        trust_code: Whether anchors from ``factory:`` code may be built.
        stitch_only: Take the hybrid of a run as the search left it, also where ``finetune`` has trained all of it.

    Returns:
        A module that maps images ``(B, C, H, W)``, normalised as the front anchor expects, to logits ``(B, classes)``.

    Raises:
        RunError: If the run, the hybrid or its weights are missing or damaged.
        ExportError: If the export is.
    """
    folder = Path(run)
    if hybrid is None:
        from restnet_search.export.formats.safetensors import load_export

        return load_export(folder, base_dir=Path(base) if base else None, trust_code=trust_code)
    from restnet_search.search.prepare.rebuild import rebuild_network

    place = Path(weights) if weights else None
    return rebuild_network(folder, hybrid, weights=place, trust_code=trust_code, stitch_only=stitch_only).network
