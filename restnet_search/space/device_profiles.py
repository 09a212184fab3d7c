"""Device profiles: what a device has room for, from a named document, and the latencies that were measured on it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, cast

from pydantic import Field, ValidationError, field_validator, model_validator

from restnet_search.errors import BudgetError, did_you_mean
from restnet_search.space.discovery import shipped_files
from restnet_search.space.messages import describe_problems
from restnet_search.space.plain_yaml import read_yaml, read_yaml_text, write_yaml
from restnet_search.space.sections.checks import Problem, plain_data, raise_problems
from restnet_search.space.sections.fields import Section, Text
from restnet_search.units import ITEM_BYTES, MemoryDtype, parse_quantity

__all__ = [
    "DeviceLimits",
    "DeviceProfile",
    "builtin_profiles",
    "dump_profile",
    "find_profile",
    "load_profile",
    "parse_profile",
]

_FOLDER = "devices"
_LIST = "list the built-in ones: restnet-search device list"
_SHOW = "look at one: restnet-search device show raspberry-pi-4"


class DeviceLimits(Section):
    """Quantities as ``--budget`` takes them; together they are one device budget."""

    macs: Text | None = Field(default=None, description="Such as 2GFLOPs.")
    params: Text | None = Field(default=None, description="Such as 10Mparams.")
    memory: Text | None = Field(
        default=None, description="RAM for weights and activations: 1GiB, or 1MiB@int8 for networks that run in int8."
    )
    storage: Text | None = Field(
        default=None, description="Room for the weights, such as a flash memory: 2MiB@int8. Limits the parameters."
    )
    latency: Text | None = Field(default=None, description="Such as 30ms; held against the profile's own table.")

    @field_validator("*")
    @classmethod
    def _readable(cls, value: str | None, info: Any) -> str | None:
        if value is None:
            return None
        wanted = "memory" if info.field_name == "storage" else info.field_name
        try:
            quantity = parse_quantity(value)
        except BudgetError as error:
            raise ValueError(f"{error.problem} Expected: {error.expected}") from error
        if quantity.kind != wanted:
            raise ValueError(f"limits {quantity.kind}, not {info.field_name}")
        if wanted == "latency" and quantity.at:
            raise ValueError("is measured on the device itself; leave out what stands behind the @")
        return value

    @property
    def text(self) -> str | None:
        """Return the limits as ``--budget`` takes them; None where there are none."""
        limits = [self.macs, self._params(), self.memory, f"{self.latency}@device" if self.latency else None]
        return ",".join(filter(None, limits)) or None

    def _params(self) -> str | None:
        """Return the fewer of the parameters that are allowed and those that the storage holds."""
        if self.storage is None:
            return self.params
        room = parse_quantity(self.storage)
        count = int(room.value // ITEM_BYTES[cast("MemoryDtype", room.at or "float32")])
        if self.params is not None and parse_quantity(self.params).value <= count:
            return self.params
        return f"{count}params"


class DeviceProfile(Section):
    """One device; YAML files under ``search_spaces/devices/`` and what ``device import`` writes hold this.

    ``latency`` is a latency table as a run's ``latency.json`` holds it; who prices hybrids by it reads and checks it.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_.-]*$", description="Also of its device budget.")]
    device: Text = Field(description="What it is.")
    source: Text = Field(description="The public document that the limits are from, or who measured.")
    note: str = ""
    limits: DeviceLimits = DeviceLimits()
    latency: dict[str, object] | None = Field(default=None, description="Measured on it; null: limits only.")

    @field_validator("latency")
    @classmethod
    def _plain(cls, value: object) -> object:
        return plain_data(value)

    @model_validator(mode="after")
    def _says_something(self) -> DeviceProfile:
        problems: list[Problem] = []
        if self.limits.latency is not None and self.latency is None:
            why = "needs latencies that were measured on the device (restnet-search device bench, device import)"
            problems.append(Problem(("limits", "latency"), why, self.limits.latency))
        if self.limits.text is None and self.latency is None:
            problems.append(Problem(("limits",), "needs a limit where there is no latency table", {}))
        raise_problems("DeviceProfile", problems)
        return self

    @property
    def budget(self) -> str | None:
        """Return its limits as one device budget of its name, as ``--budget`` takes it: ``pi=1GiB,30ms@device``."""
        return f"{self.name}={self.limits.text}" if self.limits.text else None


def builtin_profiles() -> dict[str, Path]:
    """Return the device profiles that come with restnet-search: name -> YAML file, in alphabetical order.

    Raises:
        SpaceError: If the installation is without them.
    """
    return shipped_files(_FOLDER, "device profiles")


def find_profile(text: str, *, cwd: Path) -> Path:
    """Find the file of a device profile: a built-in name, or a path; relative ones start at `cwd`.

    Raises:
        BudgetError: If it is neither.
    """
    profiles = builtin_profiles()
    if text in profiles:
        return profiles[text]
    if text and (path := cwd / text).exists():
        return path
    raise BudgetError(
        f"There is no device profile {text!r}.",
        expected=f"a YAML file, or a built-in name: {did_you_mean(text, profiles)}",
        hint=_LIST,
    )


def load_profile(path: Path) -> DeviceProfile:
    """Read a device profile from a YAML file.

    Raises:
        BudgetError, SpaceError: If the file cannot be read, is no YAML, or no valid profile; all problems are named.
    """
    try:
        text = read_yaml_text(path)
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no text"
        raise BudgetError(
            f"Cannot read the device profile {path}: {why}.", expected="a YAML file", hint=_LIST
        ) from error
    return parse_profile(read_yaml(text, str(path)), str(path))


def parse_profile(content: object, source: str) -> DeviceProfile:
    """Validate a device profile; `source` is what errors call it.

    Raises:
        BudgetError: If it is none; every problem is one line.
    """
    if not isinstance(content, Mapping):
        raise BudgetError(
            f"{source} is no device profile.", expected="keys name, device, source and limits", hint=_SHOW
        )
    try:
        return DeviceProfile.model_validate(dict(content))
    except ValidationError as error:
        lines = describe_problems(error, content, DeviceProfile)
    raise BudgetError("\n  ".join([f"The device profile {source} cannot be used:", *lines]), hint=_SHOW)


def dump_profile(profile: DeviceProfile) -> str:
    """Write a profile as YAML without what is not set; :func:`parse_profile` takes back what it holds."""
    return write_yaml(profile.model_dump(mode="json", exclude_none=True, exclude_defaults=True))
