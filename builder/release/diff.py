"""What differs between two images. Pure.

Packages are compared by name and versions, layers by what they are when unpacked, checks by their state. What is not
known of one of the images is not compared, and counts as no difference: `Difference.unknown` says what and why.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum

from packaging.utils import canonicalize_name

from builder.attest.software import DebianPackage, Software
from builder.matrix import Level
from builder.release.parts import Configuration, Contents, Layer, Outcome, Standing, Unknown

_DEBIAN_ARCHITECTURES = {"386": "i386", "arm": "armhf", "ppc64le": "ppc64el"}
"""What Debian calls the architectures that images call otherwise."""


class Kind(Enum):
    """What happened on the way from the first image to the second."""

    ADDED = "added"
    REMOVED = "removed"
    CHANGED = "changed"


def kind(before: object, after: object) -> Kind:
    """What happened to something that is there when it is neither None nor empty."""
    if not before:
        return Kind.ADDED
    return Kind.CHANGED if after else Kind.REMOVED


@dataclass(frozen=True, kw_only=True)
class PackageChange:
    """A package that differs.

    Attributes:
        name: normalised; of a package for another architecture than the image's with that, as `libc6:i386`.
        before, after: its versions, sorted; several where it is installed several times. Empty where it is not there.
    """

    name: str
    before: tuple[str, ...]
    after: tuple[str, ...]

    @property
    def kind(self) -> Kind:
        """Whether it came, went or has other versions."""
        return kind(self.before, self.after)


@dataclass(frozen=True, kw_only=True)
class CheckChange:
    """A check whose state differs; None where there is no such check."""

    name: str
    before: Outcome | None
    after: Outcome | None

    @property
    def kind(self) -> Kind:
        """Whether it came, went or ended otherwise."""
        return kind(self.before, self.after)


@dataclass(frozen=True, kw_only=True)
class SettingChange:
    """A part of the configuration that differs.

    Attributes:
        name: such as `user`, `env PATH`, `label maintainer`.
        before, after: its value; None where it is not set.
    """

    name: str
    before: str | None
    after: str | None

    @property
    def kind(self) -> Kind:
        """Whether it came, went or has another value; an empty value is one."""
        return kind(self.before is not None, self.after is not None)


@dataclass(frozen=True, kw_only=True)
class Layers:
    """The layers of two images.

    Attributes:
        shared: in both, as the first has them.
        only_before, only_after: in one of them.
        comparable: whether the sizes of both count the same.
    """

    shared: tuple[Layer, ...]
    only_before: tuple[Layer, ...]
    only_after: tuple[Layer, ...]
    comparable: bool


@dataclass(frozen=True, kw_only=True)
class LevelChange:
    """The level that was reached, where it differs; None for none at all."""

    before: Level | None
    after: Level | None


@dataclass(frozen=True, kw_only=True)
class Difference:
    """What differs between two images.

    Attributes:
        before, after: the images.
        python, debian: packages, by name; None when not known of both.
        layers: what both have in common, and what not.
        checks: by name; None when not known of both.
        level: None when it is the same, or not known of both.
        suites: whether the checks are of two releases of the suite, and may differ for that alone.
        settings: of the configuration.
        unknown: what is not known, and of which image: sentences that begin with `packages` or `checks`.
    """

    before: Contents
    after: Contents
    python: tuple[PackageChange, ...] | None
    debian: tuple[PackageChange, ...] | None
    layers: Layers
    checks: tuple[CheckChange, ...] | None
    level: LevelChange | None
    suites: bool
    settings: tuple[SettingChange, ...]
    unknown: tuple[str, ...]

    @property
    def differs(self) -> bool:
        """Whether anything that is known of both differs."""
        return bool(
            self.python
            or self.debian
            or self.before.diff_ids != self.after.diff_ids
            or self.checks
            or self.level
            or self.settings
        )

    @property
    def growth(self) -> int | None:
        """Bytes that the second image has more; None when its sizes count otherwise than the first's."""
        return self.after.size - self.before.size if self.layers.comparable else None


def compare(before: Contents, after: Contents) -> Difference:
    """What differs on the way from one image to another."""
    python, debian = _packages(before, after)
    standing = (before.standing, after.standing)
    checks: tuple[CheckChange, ...] | None = None
    level: LevelChange | None = None
    suites = False
    if isinstance(standing[0], Standing) and isinstance(standing[1], Standing):
        checks = _checks(standing[0].checks, standing[1].checks)
        suites = standing[0].suite != standing[1].suite
        if standing[0].reached is not standing[1].reached:
            level = LevelChange(before=standing[0].reached, after=standing[1].reached)
    unknown = [
        f"{what} of {name}: {value.why}"
        for what, needed, values in (
            ("packages", python is None, (before.software, after.software)),
            ("checks", True, standing),
        )
        for name, value in zip("AB", values, strict=True)
        if needed and isinstance(value, Unknown)
    ]
    return Difference(
        before=before,
        after=after,
        python=python,
        debian=debian,
        layers=_layers(before, after),
        checks=checks,
        level=level,
        suites=suites,
        settings=tuple(_settings(before.configuration, after.configuration)),
        unknown=tuple(unknown),
    )


def _packages(
    before: Contents, after: Contents
) -> tuple[tuple[PackageChange, ...] | None, tuple[PackageChange, ...] | None]:
    if before.diff_ids == after.diff_ids:
        # The same files, whatever is in them.
        return (), ()
    if isinstance(before.software, Unknown) or isinstance(after.software, Unknown):
        return None, None
    return (
        _changes(_python(before.software), _python(after.software)),
        _changes(
            _debian(before.software, before.configuration.architecture),
            _debian(after.software, after.configuration.architecture),
        ),
    )


def _changes(before: Mapping[str, frozenset[str]], after: Mapping[str, frozenset[str]]) -> tuple[PackageChange, ...]:
    return tuple(
        PackageChange(name=name, before=tuple(sorted(before.get(name, ()))), after=tuple(sorted(after.get(name, ()))))
        for name in sorted(before.keys() | after.keys())
        if before.get(name) != after.get(name)
    )


def _python(software: Software) -> Mapping[str, frozenset[str]]:
    return _by_name((canonicalize_name(item.name), item.version) for item in software.python)


def _debian(software: Software, architecture: str) -> Mapping[str, frozenset[str]]:
    own = ("", "all", _DEBIAN_ARCHITECTURES.get(architecture, architecture))

    def name(package: DebianPackage) -> str:
        return package.name if package.architecture in own else f"{package.name}:{package.architecture}"

    return _by_name((name(item), item.version) for item in software.debian)


def _by_name(items: Iterable[tuple[str, str]]) -> Mapping[str, frozenset[str]]:
    found: dict[str, frozenset[str]] = {}
    for name, version in items:
        found[name] = found.get(name, frozenset()) | {version or "of no version"}
    return found


def _layers(before: Contents, after: Contents) -> Layers:
    # An image may have one layer twice: one that removes nothing and adds nothing, for example.
    common = Counter(before.diff_ids) & Counter(after.diff_ids)

    def split(layers: tuple[Layer, ...]) -> tuple[list[Layer], list[Layer]]:
        left = Counter(common)
        shared: list[Layer] = []
        own: list[Layer] = []
        for layer in layers:
            (shared if left[layer.diff_id] > 0 else own).append(layer)
            left[layer.diff_id] -= 1
        return shared, own

    shared, only_before = split(before.layers)
    return Layers(
        shared=tuple(shared),
        only_before=tuple(only_before),
        only_after=tuple(split(after.layers)[1]),
        comparable=before.place is after.place,
    )


def _checks(before: Mapping[str, Outcome], after: Mapping[str, Outcome]) -> tuple[CheckChange, ...]:
    changes = (
        CheckChange(name=name, before=before.get(name), after=after.get(name))
        for name in sorted(before.keys() | after.keys())
    )
    # Only the state: a reason may hold a time or a path of one run.
    return tuple(
        item for item in changes if (item.before and item.before.state) is not (item.after and item.after.state)
    )


def _settings(before: Configuration, after: Configuration) -> Iterable[SettingChange]:
    plain: tuple[tuple[str, Callable[[Configuration], str]], ...] = (
        ("platform", lambda found: f"{found.os}/{found.architecture}"),
        ("user", lambda found: found.user),
        ("workdir", lambda found: found.workdir),
        ("entrypoint", lambda found: json.dumps(found.entrypoint) if found.entrypoint else ""),
        ("command", lambda found: json.dumps(found.command) if found.command else ""),
    )
    for name, value in plain:
        if value(before) != value(after):
            yield SettingChange(name=name, before=value(before) or None, after=value(after) or None)
    for word, one, other in (
        ("env", before.environment, after.environment),
        ("label", before.labels, after.labels),
    ):
        for name in sorted(one.keys() | other.keys()):
            if one.get(name) != other.get(name):
                yield SettingChange(name=f"{word} {name}", before=one.get(name), after=other.get(name))
