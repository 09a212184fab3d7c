"""Find rankers, stitch layers, strategies and export formats by name: our own, and those of installed packages.

A package of a user offers one through an entry point of the group that the registry names::

    [project.entry-points."restnet_search.rankers"]
    spread = "their_package.rankers:SpreadRanker"

The tables of built-in names are text, so that a search space is checked without importing torch. Names of installed
entry points are read from the metadata of packages; their code is imported only when it is named and trusted. What a
process has imported once, it need not be trusted with again: :meth:`Registry.admit` stands where the user's trust is
known, and :meth:`Registry.get` finds afterwards what was admitted.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from types import MappingProxyType
from typing import Any

from restnet_search.errors import ExtensionError, did_you_mean

__all__ = ["FORMATS", "RANKERS", "STITCH_LAYERS", "STRATEGIES", "Registry"]


@dataclass(frozen=True)
class Registry:
    """The implementations of one interface, by name.

    Attributes:
        kind: Of thing, as messages call it.
        group: Of entry points.
        built_ins: Where each of our own is, ``module:attribute``; imported on first use, so that the packages which
            one of them needs do not burden the others.
    """

    kind: str
    group: str
    built_ins: Mapping[str, str]

    def names(self) -> tuple[str, ...]:
        """Return the built-in names."""
        return tuple(self.built_ins)

    def known_names(self) -> tuple[str, ...]:
        """Return the built-in names, then those that installed packages add; no code of theirs runs."""
        installed = {point.name for point in entry_points(group=self.group)}
        return (*self.built_ins, *sorted(installed - self.built_ins.keys()))

    def admit(self, name: str, *, trust_code: bool) -> None:
        """Make sure that :meth:`get` finds a name; import its code where a package offers it and code is trusted.

        Raises:
            ExtensionError: As :meth:`get`.
        """
        if name not in self.built_ins or (trust_code and self._points(name)):
            self.get(name, trust_code=trust_code)

    def get(self, name: str, *, trust_code: bool = False) -> Any:
        """Return what is registered under a name.

        Args:
            name: Of a built-in, or of an installed entry point.
            trust_code: Whether code of installed packages may be imported. Without it, only what this process has
                imported already is found.

        Raises:
            ExtensionError: If the name is not known, belongs to a package whose code is not trusted, is offered
                twice (also where one of both is a built-in and code is trusted), or cannot be loaded.
        """
        built_in = self.built_ins.get(name)
        points = self._points(name) if built_in is None or trust_code else []
        if built_in is not None:
            if points:
                raise self._shadowed(name, points[0])
            module, _, attribute = built_in.partition(":")
            return getattr(import_module(module), attribute)
        if not points:
            raise ExtensionError(
                f"There is no {self.kind} {name!r}.",
                expected=f"one of {did_you_mean(name, self.known_names())}",
                hint=f"a package adds its own with an entry point of the group {self.group}",
            )
        if len(points) > 1:
            packages = " and ".join(sorted(_package(point) for point in points))
            raise ExtensionError(f"The {self.kind} {name!r} is offered by {packages}.", hint="uninstall one of them")
        if not trust_code and points[0].module not in sys.modules:
            raise ExtensionError(
                f"The {self.kind} {name!r} is Python code of {_package(points[0])}.",
                expected=f"a built-in one ({', '.join(self.built_ins)}), or leave to run that code",
                hint="read that code; if you trust it, pass --trust-code",
            )
        return self._load(points[0])

    def _points(self, name: str) -> list[EntryPoint]:
        return list(entry_points(group=self.group, name=name))

    def _shadowed(self, name: str, point: EntryPoint) -> ExtensionError:
        return ExtensionError(
            f"{_sentence(_package(point))} offers a {self.kind} {name!r} ({point.value}), which is the name of the "
            f"built-in {self.built_ins[name]}.",
            hint=f"uninstall it, give its {self.kind} another name, or leave out --trust-code to use the built-in",
        )

    def _load(self, point: EntryPoint) -> Any:
        try:
            return point.load()
        except (Exception, SystemExit) as error:  # importing runs code of others
            raise ExtensionError(
                f"The {self.kind} {point.name!r} of {_package(point)} cannot be loaded from {point.value}: "
                f"{type(error).__name__}: {error}",
                hint="mend or reinstall that package",
            ) from error


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def _package(point: EntryPoint) -> str:
    return f"the package {point.dist.name} {point.dist.version}" if point.dist else "an unnamed package"


def _names(package: str, **places: str) -> Mapping[str, str]:
    return MappingProxyType({name: f"{package}{place}" for name, place in places.items()})


_RANKERS = _names(
    "restnet_search.similarity.rankers:", cka="CkaRanker", kl="KlRanker", lstsq="LstsqRanker", random="RandomRanker"
)
_STITCH_LAYERS = _names(
    "restnet_search.stitching.kinds:",
    linear="Linear",
    conv3x3="Conv3x3",
    lowrank="LowRank",
    mlp="Perceptron",
    block="Block",
)
_STRATEGIES = _names(
    "restnet_search.search.study.",
    independent="independent:train_independently",
    joint="joint_strategy:train_jointly",
)
_FORMATS = _names(
    "restnet_search.export.formats.",
    onnx="onnx:OnnxFormat",
    safetensors="safetensors:SafetensorsFormat",
    pt2="pt2:Pt2Format",
    executorch="executorch:ExecutorchFormat",
    openvino="openvino:OpenvinoFormat",
    litert="litert:LitertFormat",
)

RANKERS = Registry("ranker", "restnet_search.rankers", _RANKERS)
STITCH_LAYERS = Registry("stitch layer", "restnet_search.stitch_layers", _STITCH_LAYERS)
STRATEGIES = Registry("strategy", "restnet_search.strategies", _STRATEGIES)
FORMATS = Registry("export format", "restnet_search.formats", _FORMATS)
