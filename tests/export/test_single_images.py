"""No export is kept whose logits for an image depend on the other images of the batch, or on chance."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from restnet_search.errors import ExportError
from restnet_search.export.adaptive.verify_routes import run_without_torch
from restnet_search.export.formats.onnx import OnnxFormat
from restnet_search.export.package.write_export import export_network
from restnet_search.export.verification.compare import require_single_images, spread_images
from restnet_search.testing.formats import images_of, small_hybrid


def batch_normalized(network: nn.Module) -> nn.Module:
    """Return a copy whose batch-norms take their statistics from the batch, as without track_running_stats."""
    changed = copy.deepcopy(network)
    norms = [module for module in changed.modules() if isinstance(module, nn.BatchNorm2d)]
    assert norms
    for norm in norms:
        norm.track_running_stats, norm.running_mean, norm.running_var = False, None, None
    return changed.eval()


def hybrid_with_norms() -> str:
    from restnet_search.testing.formats import HYBRIDS

    return next(
        name
        for name in HYBRIDS
        if any(isinstance(module, nn.BatchNorm2d) for module in small_hybrid(name).network.modules())
    )


def test_an_export_of_a_network_that_looks_at_its_batch_is_refused(tmp_path: Path) -> None:
    """Its ONNX file agrees with PyTorch in equal batches, to the last digit."""
    source = small_hybrid(hybrid_with_norms())
    changed = replace(source, network=batch_normalized(source.network), fold=False)
    with pytest.raises(
        ExportError, match=r"answers an image differently when others are in its batch.* It was not kept"
    ):
        export_network(changed, images_of(source), ["onnx"], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_onnx_routes_are_run_one_image_at_a_time(tmp_path: Path) -> None:
    source = small_hybrid(hybrid_with_norms())
    images = {"route": images_of(source)}
    sound, *_ = OnnxFormat().save(source, tmp_path)
    logits = run_without_torch({"route": sound}, images, tmp_path)["route"]
    with torch.no_grad():
        torch.testing.assert_close(logits, source.network(images["route"]), rtol=1e-4, atol=1e-4)
    changed = replace(source, network=batch_normalized(source.network), fold=False)
    unsound, *_ = OnnxFormat().save(changed, tmp_path)
    with pytest.raises(ExportError, match="The ONNX route route answers an image differently when others"):
        run_without_torch({"route": unsound}, images, tmp_path)


@pytest.mark.parametrize("count", [1, 2, 3, 64])
def test_every_number_of_images_will_do(count: int) -> None:
    images = torch.randn(count, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    assert 2 <= len(spread_images(images)) <= 4

    def sound(batch: Tensor) -> Tensor:
        return batch.flatten(1)

    require_single_images("it", sound, images)
    with pytest.raises(ExportError, match="others are in its batch"):
        require_single_images("it", lambda batch: sound(batch) - sound(batch).mean(0), images)
    with pytest.raises(ExportError, match="from one time to the next"):
        require_single_images("it", lambda batch: sound(batch) * torch.rand(1), images)
    with pytest.raises(ExportError, match="another shape"):
        require_single_images("it", lambda batch: sound(batch).squeeze(), images[:, :1])
