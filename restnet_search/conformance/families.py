"""The model that stands for each family: the smallest of every module of timm, one per family of torchvision."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any

__all__ = ["CASES", "TORCHVISION", "Case", "all_cases", "smallest_model"]


@dataclass(frozen=True)
class Case:
    """A model to check.

    Attributes:
        family: timm's module, or ``torchvision.`` and the family.
        model: Its name.
        size: Side of its images; None: 128 where timm says that any size goes, else the published one.
        kwargs: What it is built with (fewer blocks where it is too large for a small machine).
    """

    family: str
    model: str
    size: int | None = None
    kwargs: Mapping[str, Any] = field(default_factory=dict)


CASES: tuple[Case, ...] = (
    Case("beit", "beit_base_patch16_224", 112, {"img_size": 112, "depth": 3}),
    Case("byoanet", "halonet_h1"),
    Case("byobnet", "test_byobnet"),
    Case("cait", "cait_xxs24_224", 112, {"img_size": 112, "depth": 6}),
    Case("coat", "coat_tiny", 128, {"img_size": 128}),
    Case("convit", "convit_tiny", 112, {"img_size": 112}),
    Case("convmixer", "convmixer_768_32", 64),
    Case("convnext", "test_convnext"),
    Case("cpubone", "cpubone_nano"),
    Case("crossvit", "crossvit_tiny_240", 240),
    Case("csatv2", "csatv2", 256),
    Case("cspnet", "cs3darknet_focus_s"),
    Case("cspnext", "cspnext_tiny"),
    Case("davit", "davit_tiny", 224),
    Case("deepseek_vit", "deepseek_vit_412m", 126, {"depth": 2}),
    Case("deit", "deit_tiny_patch16_224", 112, {"img_size": 112}),
    Case("densenet", "densenet121"),
    Case("dla", "dla46x_c"),
    Case("dpn", "dpn48b"),
    Case("edgenext", "edgenext_xx_small"),
    Case("efficientformer", "efficientformer_l1"),
    Case("efficientformer_v2", "efficientformerv2_s0"),
    Case("efficientnet", "test_efficientnet"),
    Case("efficientvim", "efficientvim_m1"),
    Case("efficientvit_mit", "efficientvit_b0"),
    Case("efficientvit_msra", "efficientvit_m0"),
    Case("eva", "eva02_tiny_patch14_224", 112, {"img_size": 112}),
    Case("fasternet", "fasternet_t0"),
    Case("fastvit", "fastvit_t8"),
    Case("focalnet", "focalnet_tiny_srf"),
    Case("gcvit", "gcvit_xxtiny", 224),
    Case("gemma4_vit", "gemma4_vit_167m", 96, {"depth": 2}),
    Case("ghostnet", "ghostnetv3_050"),
    Case("hardcorenas", "hardcorenas_a"),
    Case("hgnet", "hgnetv2_b0"),
    Case("hiera", "hiera_tiny_224", 128, {"img_size": 128, "stages": (1, 2, 3, 1)}),
    Case("hieradet_sam2", "sam2_hiera_tiny", 224),
    Case("hrnet", "hrnet_w18_small"),
    Case("iformer", "iformer_t"),
    Case("inception_next", "inception_next_atto"),
    Case("inception_resnet_v2", "inception_resnet_v2"),
    Case("inception_v3", "inception_v3"),
    Case("inception_v4", "inception_v4"),
    Case("lcnetv2", "lcnetv2_small"),
    Case("levit", "levit_128s"),
    Case("lowformer", "lowformer_b0"),
    Case("mambaout", "test_mambaout"),
    Case("maxxvit", "test_maxvit"),
    Case("metaformer", "poolformerv2_s12"),
    Case("mlp_mixer", "gmlp_ti16_224"),
    Case("mobilenetv3", "lcnet_035"),
    Case("mobilenetv5", "mobilenetv5_300m", 256),
    Case("mobilevit", "mobilevitv2_050"),
    Case("mvitv2", "mvitv2_tiny", 128, {"img_size": 128}),
    Case("naflexvit", "naflexvit_base_patch16_gap", kwargs={"depth": 2}),
    Case("nasnet", "nasnetalarge", 96),
    Case("nest", "nest_tiny", 112, {"img_size": 112}),
    Case("nextvit", "nextvit_small"),
    Case("nfnet", "test_nfnet"),
    Case("pit", "pit_ti_224"),
    Case("pnasnet", "pnasnet5large", 96),
    Case("pvt_v2", "pvt_v2_b0"),
    Case("qwen3_vit", "qwen3_vit_88m", 96, {"depth": 2}),
    Case("rdnet", "rdnet_tiny"),
    Case("regnet", "regnetx_002"),
    Case("repghost", "repghostnet_050"),
    Case("repvit", "repvit_m0_9"),
    Case("res2net", "res2net50_48w_2s"),
    Case("resnest", "resnest14d"),
    Case("resnet", "test_resnet"),
    Case("resnetv2", "resnetv2_18"),
    Case("rexnet", "rexnet_100"),
    Case("selecsls", "selecsls60"),
    Case("senet", "legacy_seresnext26_32x4d"),
    Case("sequencer", "sequencer2d_s", 112, {"img_size": 112, "layers": (1, 1, 2, 1)}),
    Case("shvit", "shvit_s1"),
    Case("sknet", "skresnet18"),
    Case("starnet", "starnet_s050"),
    Case("swiftformer", "swiftformer_xs"),
    Case("swin_transformer", "swin_tiny_patch4_window7_224", 112, {"img_size": 112}),
    Case("swin_transformer_v2", "swinv2_tiny_window8_256", 128, {"img_size": 128, "depths": (2, 2, 2, 2)}),
    Case(
        "swin_transformer_v2_cr", "swinv2_cr_tiny_224", 112, {"img_size": 112, "window_size": 7, "depths": (2, 2, 2, 2)}
    ),
    Case("tiny_vit", "tiny_vit_5m_224"),
    Case("tnt", "tnt_s_patch16_224", 112, {"img_size": 112, "depth": 4}),
    Case("tresnet", "tresnet_m"),
    Case("twins", "twins_pcpvt_small", 128, {"img_size": 128}),
    Case("vgg", "vgg11"),
    Case("vision_transformer", "test_vit"),
    Case("vision_transformer_hybrid", "vit_tiny_r_s16_p8_224"),
    Case("vision_transformer_relpos", "test_vit_relpos"),
    Case("vision_transformer_sam", "samvit_base_patch16_224", 112, {"img_size": 112, "depth": 3}),
    Case("visformer", "visformer_tiny"),
    Case("vitamin", "vitamin_small_224", 112, {"img_size": 112}),
    Case("volo", "volo_d1_224", 112, {"img_size": 112}),
    Case("vovnet", "ese_vovnet19b_slim_dw"),
    Case("xception", "legacy_xception"),
    Case("xception_aligned", "xception41"),
    Case("xcit", "xcit_nano_12_p16_224"),
)

TORCHVISION: tuple[Case, ...] = tuple(
    Case(f"torchvision.{family}", model, size)
    for family, model, size in (
        ("alexnet", "alexnet", 96),
        ("convnext", "convnext_tiny", 64),
        ("densenet", "densenet121", 64),
        ("efficientnet", "efficientnet_b0", 64),
        ("googlenet", "googlenet", 96),
        ("inception", "inception_v3", 96),
        ("maxvit", "maxvit_t", 224),
        ("mnasnet", "mnasnet0_5", 64),
        ("mobilenetv2", "mobilenet_v2", 64),
        ("mobilenetv3", "mobilenet_v3_small", 64),
        ("regnet", "regnet_y_400mf", 64),
        ("resnet", "resnet18", 64),
        ("shufflenetv2", "shufflenet_v2_x0_5", 64),
        ("squeezenet", "squeezenet1_1", 96),
        ("swin_transformer", "swin_t", 64),
        ("vgg", "vgg11", 64),
        ("vision_transformer", "vit_b_32", 224),
    )
)


def all_cases() -> tuple[Case, ...]:
    """Return the cases of every module that the installed timm names, and of torchvision.

    A module that the table does not know (of a newer timm) is stood for by its smallest model.
    """
    known = {case.family: case for case in CASES}
    cases = [known.get(module) or Case(module, smallest_model(module)) for module in timm_modules()]
    return (*cases, *TORCHVISION)


def timm_modules() -> list[str]:
    """Return the modules of timm itself, without what others (the CIFAR ResNets here) have registered with it."""
    from timm.models import list_modules

    return [module for module in list_modules() if find_spec(f"timm.models.{module}") is not None]


def smallest_model(module: str) -> str:
    """Return the model of a module of timm with the fewest parameters; all are built, without memory (slow)."""
    import timm
    import torch

    counts: dict[str, int] = {}
    for name in timm.list_models(module=module):
        with torch.device("meta"):
            counts[name] = sum(p.numel() for p in timm.create_model(name, num_classes=10).parameters())
    return min(counts, key=lambda name: (counts[name], name))
