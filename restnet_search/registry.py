"""Find rankers, stitch layers, strategies and export formats by name: our own, and those of installed packages.

A package of a user offers one through an entry point of the group that the registry names::

    [project.entry-points."restnet_search.rankers"]
    spread = "their_package.rankers:SpreadRanker"

The tables of built-in names are text, so that a search space is checked without importing torch. Names of installed
entry points are read from the metadata of packages; their code is imported by :meth:`Registry.get` alone, which needs
the name and the user's trust.
"""

from __future__ import annotations

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

    def get(self, name: str, *, trust_code: bool = False) -> Any:
        """Return what is registered under a name.

        Args:
            name: Of a built-in, or of an installed entry point.
            trust_code: Whether code of installed packages may be imported. Without it none of them is looked at, but
                for the message about a name that is no built-in.

        Raises:
            ExtensionError: If the name is not known, belongs to a package whose code is not trusted, is offered
                twice, or cannot be loaded.
        """
        if name in self.built_ins and not trust_code:
            return _load_built_in(self.built_ins[name])
        points = tuple(entry_points(group=self.group, name=name))
        if name in self.built_ins:
            if points:
                raise self._shadowed(name, points[0])
            return _load_built_in(self.built_ins[name])
        if not points:
            raise ExtensionError(
                f"There is no {self.kind} {name!r}.",
                expected=f"one of {did_you_mean(name, self.known_names())}",
                hint=f"a package adds its own with an entry point of the group {self.group}",
            )
        if not trust_code:
            raise ExtensionError(
                f"The {self.kind} {name!r} is Python code of {_package(points[0])}.",
                expected=f"a built-in one ({', '.join(self.built_ins)}), or leave to run that code",
                hint="read that code; if you trust it, pass --trust-code",
            )
        if len(points) > 1:
            packages = " and ".join(sorted(_package(point) for point in points))
            raise ExtensionError(f"The {self.kind} {name!r} is offered by {packages}.", hint="uninstall one of them")
        return self._load(points[0])

    def _shadowed(self, name: str, point: EntryPoint) -> ExtensionError:
        return ExtensionError(
            f"{_package(point)} offers a {self.kind} {name!r} ({point.value}), which is the name of the built-in "
            f"{self.built_ins[name]}.",
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


def _load_built_in(place: str) -> Any:
    module, _, attribute = place.partition(":")
    return getattr(import_module(module), attribute)


def _package(point: EntryPoint) -> str:
    return f"the package {point.dist.name} {point.dist.version}" if point.dist else "an unnamed package"


RANKERS = Registry(
    "ranker",
    "restnet_search.rankers",
    MappingProxyType(
        {
            "cka": "restnet_search.similarity.rankers:CkaRanker",
            "kl": "restnet_search.similarity.rankers:KlRanker",
            "lstsq": "restnet_search.similarity.rankers:LstsqRanker",
            "random": "restnet_search.similarity.rankers:RandomRanker",
        }
    ),
)

STITCH_LAYERS = Registry("stitch layer", "restnet_search.stitch_layers", MappingProxyType({}))

STRATEGIES = Registry(
    "strategy",
    "restnet_search.strategies",
    MappingProxyType(
        {
            "independent": "restnet_search.search.study.independent:train_independently",
            "joint": "restnet_search.search.study.joint_strategy:train_jointly",
        }
    ),
)

FORMATS = Registry(
    "export format",
    "restnet_search.formats",
    MappingProxyType(
        {
            "onnx": "restnet_search.export.onnx:OnnxFormat",
            "safetensors": "restnet_search.export.safetensors:SafetensorsFormat",
            "pt2": "restnet_search.export.pt2:Pt2Format",
            "executorch": "restnet_search.export.executorch:ExecutorchFormat",
            "openvino": "restnet_search.export.openvino:OpenvinoFormat",
            "litert": "restnet_search.export.litert:LitertFormat",
        }
    ),
)
