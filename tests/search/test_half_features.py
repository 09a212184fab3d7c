"""What half the bytes cost: accuracies of trained anchors' hybrids, from features in float32 and in float16."""

from __future__ import annotations

from pathlib import Path

from restnet_search.anchors import load_anchor
from restnet_search.data import load_data
from restnet_search.graph.anchor_graph import cut_model
from restnet_search.search.features.store import FeatureStore
from restnet_search.search.prepare.cut_anchor import CutAnchor
from restnet_search.search.run.training_choices import TrainingChoices
from restnet_search.space.schema import AnchorSpec, DataSpec, SubsetSpec, TrainingSpec
from tests.search.stores import Anchors, candidate, context, disk_store, run_trial


def test_float16_moves_no_accuracy_by_more_than_a_fifth_of_a_point(shared: Path, tmp_path: Path) -> None:
    anchors: Anchors = {}
    for name in ("cifar_resnet20", "cifar_resnet8"):
        spec = AnchorSpec(model=name, weights=f"{name}.safetensors")
        anchor = load_anchor(spec, classes=10, weights_dir=shared / "weights", base_dir=None, trust_code=False)
        anchors[name] = CutAnchor(anchor, cut_model(anchor.model, anchor.preprocessing.size))
    root = str(shared / "data" / "cifar10")
    data = load_data(DataSpec(root=root, subset=SubsetSpec(train=1000, val=2000)))
    chosen = candidate(anchors, "cifar_resnet8", 2, "cifar_resnet20", 5)
    reached: list[int] = []
    for store in (FeatureStore(anchors, 2**30), disk_store(anchors, tmp_path, dtype="float16")):
        shared_by = context(anchors, data.train, store=store, val=data.val, training=TrainingSpec(batch_size=128))
        reached.append(run_trial(chosen, TrainingChoices(5e-3, 1), shared_by).correct)
    assert reached[0] > 1000  # a hybrid that works
    assert abs(reached[0] - reached[1]) <= 0.002 * len(data.val)
