"""Whose license weights have, and which of them shut out commercial use."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
from safetensors.torch import save_file
from timm.models import get_pretrained_cfg_value

from restnet_search.anchors import load_anchor
from restnet_search.licenses import TRAINED_HERE, forbids_commercial_use, license_of, license_warning, non_commercial
from restnet_search.space.schema import AnchorSpec

# Every license that timm 1.0.31 declares for weights, read in the licenses' texts.
RESTRICTED = {"cc-by-nc-4.0", "fair-noncommercial-research-license", "apple-amlr", "seer-license"}


def test_timms_licenses_are_sorted_as_their_texts_say() -> None:
    declared = {get_pretrained_cfg_value(name, "license") for name in timm.list_models(pretrained=True)} - {None}
    assert {"apache-2.0", "mit", "cc-by-nc-4.0"} <= declared
    assert {license for license in declared if forbids_commercial_use(license)} == RESTRICTED & declared


@pytest.mark.parametrize("license", ["CC-BY-NC-SA-4.0", "Non-Commercial", "research only", "noncommercial"])
def test_what_a_space_says_is_understood(license: str) -> None:
    assert forbids_commercial_use(license)


@pytest.mark.parametrize("license", [None, "apache-2.0", "cc-by-4.0", "ncsa", "apple-ascl", TRAINED_HERE])
def test_what_allows_it_or_is_unknown_warns_of_nothing(license: str | None) -> None:
    assert not forbids_commercial_use(license)


def test_the_space_wins_and_files_are_anybodys() -> None:
    assert license_of("published", stated=None, declared="mit") == "mit"
    assert license_of("published", stated=None, declared="unknown") is None
    assert license_of("file", stated=None, declared="mit") is None
    assert license_of("file", stated="bsd", declared="mit") == "bsd"
    assert license_of("untrained", stated=None, declared="cc-by-nc-4.0") == TRAINED_HERE
    assert license_of("own", stated=None, declared=None) is None


def test_a_network_is_warned_of_by_the_anchors_in_it() -> None:
    licenses = {"hiera": "cc-by-nc-4.0", "vgg": "bsd-3-clause", "own": None}
    assert non_commercial(licenses, ("vgg", "hiera", "hiera")) == ("hiera",)
    assert license_warning(licenses, ("vgg", "own")) is None
    assert "hiera (cc-by-nc-4.0)" in str(license_warning(licenses, ("hiera", "vgg")))


def test_loaded_anchors_carry_it(tmp_path: Path) -> None:
    save_file(timm.create_model("resnet10t").state_dict(), tmp_path / "resnet10t.safetensors")

    def license(**spec: object) -> str | None:
        anchor = AnchorSpec.model_validate({"model": "resnet10t", **spec})
        return load_anchor(anchor, classes=10, weights_dir=tmp_path, base_dir=None, trust_code=False).license

    assert license() == "apache-2.0"  # in --weights DIR under the published name
    assert license(weights="resnet10t.safetensors") is None
    assert license(weights="resnet10t.safetensors", license="cc-by-nc-4.0") == "cc-by-nc-4.0"
    assert license(pretrained=False) == TRAINED_HERE
