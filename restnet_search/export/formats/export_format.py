"""The interface of an export format.

A new format is one class. It is named in :data:`restnet_search.registry.FORMATS`, or offered by a package of your own::

    [project.entry-points."restnet_search.formats"]
    raw = "my_package.raw_format:RawFormat"

With that package installed, ``restnet-search export RUN --format raw --trust-code`` writes it; verification, the
manifest with its digests, the model card and the command line need no change. ``restnet_search.testing.formats``
holds the conformance suite to run on it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from restnet_search.errors import ExportError, ExtensionError
from restnet_search.registry import FORMATS

if TYPE_CHECKING:
    from torch import Tensor

    from restnet_search.export.network.export_source import ExportSource

__all__ = ["DEFAULT_FORMATS", "ExportFormat", "Runner", "RuntimeExample", "find_format", "get_format"]

Runner = Callable[["Tensor"], "Tensor"]
"""Runs a saved network: normalized images or, where its graph normalizes, uint8 pixels ``(B, C, H, W)`` to logits."""

DEFAULT_FORMATS = ("onnx", "safetensors")
"""What is written where no format is asked for: those that need no further package."""


@dataclass(frozen=True)
class RuntimeExample:
    """The lines of a short program that run a saved network, without this package where the runtime allows.

    The program has ``here`` (the folder of the export), ``about`` (``export.json``), ``images`` (a float32 or uint8
    array ``(1, C, H, W)``) and ``numpy`` as ``np``.

    Attributes:
        packages: What must be installed, in words.
        imports: ``module`` or ``module:name``.
        run: Statements that set ``logits``, an array ``(1, classes)``; a template with the fields ``{file}``, the
            file to open, and ``{format}``. Braces that stay are doubled.
    """

    packages: str
    imports: tuple[str, ...]
    run: str


class ExportFormat(ABC):
    """One file format: saves networks, and runs them from there with the format's own runtime.

    Created without arguments; raises an ExportError there if its packages are not installed. The module imports heavy
    packages inside its methods where it can. Instances keep no state between calls.

    An own format has to

    - set :attr:`name` to the name that it is registered under;
    - write plain files, each named ``<source.stem>`` and a suffix, and nothing else, into the folder that it is given;
    - save ``source.deployed``, which is folded and starts with the normalization where that was asked for
      (``source.network`` where :attr:`holds_graph` is False);
    - compute in float32: logits may differ from PyTorch's by 1e-4 (of the largest, where that is above 1);
    - accept any batch, or split the images into batches of :attr:`batch`;
    - read files from disk alone, with nothing left from :meth:`save`;
    - raise an ExportError for a network that it cannot hold and for a file that it cannot read; files may come from
      anyone, so reading them must not run code that they hold.

    Attributes:
        name: Of the format.
        batch: The batch that its files are fixed to; None: any.
        holds_graph: Whether files hold the operations, and so the normalization if asked for, or weights alone.
        example: A program that runs the files, written beside them; None: none is.
    """

    name: ClassVar[str]
    batch: ClassVar[int | None] = None
    holds_graph: ClassVar[bool] = True
    example: ClassVar[RuntimeExample | None] = None

    @abstractmethod
    def save(self, source: ExportSource, folder: Path) -> tuple[Path, ...]:
        """Write the network into an existing folder; return the files, first the one to open.

        Raises:
            ExportError: If the format cannot hold this network.
        """

    @abstractmethod
    def open(self, path: Path, *, base_dir: Path | None = None, trust_code: bool = False) -> Runner:
        """Read the first of the saved files with the format's own runtime, from disk alone.

        Args:
            path: What :meth:`save` returned first.
            base_dir: Folder that the relative path of a factory starts from, where the files name one.
            trust_code: Whether that code may run.

        Raises:
            ExportError: If the file cannot be read.
        """


def find_format(name: str, *, trust_code: bool = False) -> type[ExportFormat]:
    """Return the class of the format of that name; the packages that it needs may be missing.

    Args:
        name: Of a built-in format, or of one that an installed package offers.
        trust_code: Whether code of installed packages may be imported.

    Raises:
        ExportError: If there is none, or its code is not trusted or is no export format.
    """
    try:
        cls = FORMATS.get(name, trust_code=trust_code)
    except ExtensionError as error:
        raise ExportError(error.problem, expected=error.expected, hint=error.hint) from error
    if not (isinstance(cls, type) and issubclass(cls, ExportFormat) and getattr(cls, "name", None) == name):
        raise ExportError(
            f"The object registered as the export format {name!r} is none: {cls!r}.",
            expected=f"a subclass of {ExportFormat.__module__}.ExportFormat with the name {name!r}",
        )
    return cls


def get_format(name: str, *, trust_code: bool = False) -> ExportFormat:
    """Return the format of that name, ready to use; arguments as of :func:`find_format`.

    Raises:
        ExportError: Likewise, and if a package that it needs is not installed.
    """
    return find_format(name, trust_code=trust_code)()
