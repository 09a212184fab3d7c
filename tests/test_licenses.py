"""Whose licence weights have, and which of them shut out commercial use."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
from safetensors.torch import save_file
from timm.models import get_pretrained_cfg

from restnet_search.anchors import load_anchor
from restnet_search.licenses import TRAINED_HERE, forbids_commercial_use, licence_of, licence_warning, non_commercial
from restnet_search.space.schema import AnchorSpec

# Every licence that timm 1.0.31 declares for weights, read in the licences' texts.
RESTRICTED = {"cc-by-nc-4.0", "fair-noncommercial-research-license", "apple-amlr", "seer-license"}


def test_timms_licences_are_sorted_as_their_texts_say() -> None:
    declared = {get_pretrained_cfg(name).license for name in timm.list_models(pretrained=True)} - {None}
    assert {"apache-2.0", "mit", "cc-by-nc-4.0"} <= declared
    assert {licence for licence in declared if forbids_commercial_use(licence)} == RESTRICTED & declared


@pytest.mark.parametrize("licence", ["CC-BY-NC-SA-4.0", "Non-Commercial", "research only", "noncommercial"])
def test_what_a_space_says_is_understood(licence: str) -> None:
    assert forbids_commercial_use(licence)


@pytest.mark.parametrize("licence", [None, "apache-2.0", "cc-by-4.0", "ncsa", "apple-ascl", TRAINED_HERE])
def test_what_allows_it_or_is_unknown_warns_of_nothing(licence: str | None) -> None:
    assert not forbids_commercial_use(licence)


def test_the_space_wins_and_files_are_anybodys() -> None:
    assert licence_of("published", said=None, declared="mit") == "mit"
    assert licence_of("published", said=None, declared="unknown") is None
    assert licence_of("file", said=None, declared="mit") is None
    assert licence_of("file", said="bsd", declared="mit") == "bsd"
    assert licence_of("untrained", said=None, declared="cc-by-nc-4.0") == TRAINED_HERE
    assert licence_of("own", said=None, declared=None) is None


def test_a_network_is_warned_of_by_the_anchors_in_it() -> None:
    licences = {"hiera": "cc-by-nc-4.0", "vgg": "bsd-3-clause", "own": None}
    assert non_commercial(licences, ("vgg", "hiera", "hiera")) == ("hiera",)
    assert licence_warning(licences, ("vgg", "own")) is None
    assert "hiera (cc-by-nc-4.0)" in str(licence_warning(licences, ("hiera", "vgg")))


def test_loaded_anchors_carry_it(tmp_path: Path) -> None:
    save_file(timm.create_model("resnet10t").state_dict(), tmp_path / "resnet10t.safetensors")

    def licence(**spec: object) -> str | None:
        anchor = AnchorSpec.model_validate({"model": "resnet10t", **spec})
        return load_anchor(anchor, classes=10, weights_dir=tmp_path, base_dir=None, trust_code=False).licence

    assert licence() == "apache-2.0"  # in --weights DIR under the published name
    assert licence(weights="resnet10t.safetensors") is None
    assert licence(weights="resnet10t.safetensors", license="cc-by-nc-4.0") == "cc-by-nc-4.0"
    assert licence(pretrained=False) == TRAINED_HERE
