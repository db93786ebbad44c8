"""What there is around a combination: the builds of every release, and how far it is to each.

`moves` says what a move costs. Where a cost is above nothing, the value is another one than was asked for.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from packaging.version import Version

from builder.compat.model import CPU, Combination, Companion, Facts, Project, Row
from builder.compat.moves import CHANNEL, COMPANION, CUDA, CUDA_MAJOR, CUDA_STEP, EXTRA, IMAGE, MINOR, NO_CUDA, PATCH
from builder.compat.rules.base import nearest_tags
from builder.compat.rules.companions import HOROVOD, public
from builder.compat.rules.horovod import builds_with
from builder.compat.rules.lookup import Index, Tag, index_of
from builder.compat.rules.versions import allows, in_order, numbers_of, version_of
from builder.compat.rules.view import pythons_of, were_read

Beside = tuple[tuple[str, str | None], ...]
"""Companions with their versions, as `Combination` has them."""


class Point(NamedTuple):
    """A release in one of its builds on one channel.

    Attributes:
        release: its version.
        cuda: of the build; None where the project has no builds and is compiled.
        channel: likewise.
        extra: the pip extra that brings the build; empty for none.
        extras: every extra that can be installed.
        pythons: that it has wheels for, oldest first; None for any.
    """

    release: str
    cuda: str | None
    channel: str | None
    extra: str
    extras: frozenset[str]
    pythons: tuple[str, ...] | None


def points_of(project: Project, index: Index) -> tuple[Point, ...]:
    """All of a project: newer releases first, then newer CUDA."""
    found: list[Point] = []
    for _, (release, row) in sorted(index.releases(project).items(), reverse=True):
        found += sorted(
            _of_release(row, release, index, project.sdist_only),
            key=lambda point: (newer(point.cuda), point.channel or ""),
        )
    return tuple(found)


def _of_release(row: Row, release: str, index: Index, only_source: bool) -> Iterator[Point]:
    extras = frozenset(
        extra.name
        for extra in row.extras
        if extra.installable and (extra.versions is None or release in extra.versions)
    )
    builds = index.builds(row, release)
    if only_source:
        yield Point(release, None, None, "", extras, _ordered(row.pythons_of(release)))
    for build in were_read(builds):
        own = extras | {build.extra} if build.extra else extras
        pythons = _ordered(pythons_of(build, row, release))
        for channel in sorted(build.channels):
            yield Point(release, build.cuda, channel, build.extra, own, pythons)


def _ordered(pythons: frozenset[str] | None) -> tuple[str, ...] | None:
    return None if pythons is None else tuple(in_order(pythons))


def newer(version: str | None) -> tuple[int, ...]:
    """For sorting the newer first."""
    return tuple(-number for number in numbers_of(version or ""))


def to_releases(version: str, releases: Mapping[Version, tuple[str, Row]]) -> dict[str, int]:
    """How far it is from a version, which need not exist, to each of these."""
    asked = version_of(version)
    if asked is None:
        return {}
    patches: dict[tuple[int, int], list[Version]] = {}
    for one in sorted({*releases, asked}):
        patches.setdefault((one.major, one.minor), []).append(one)
    minors = {minor: place for place, minor in enumerate(patches)}
    from_minor = (asked.major, asked.minor)
    measured = {}
    for one, (text, _) in releases.items():
        minor = (one.major, one.minor)
        steps, own = abs(minors[minor] - minors[from_minor]), patches[minor]
        # In another minor, the newest patch is the one to take.
        within = abs(own.index(one) - own.index(asked)) if not steps else len(own) - 1 - own.index(one)
        measured[text] = MINOR.cost * steps + PATCH.cost * min(within, 9)
    return measured


def to_channel(asked: str | None, own: str | None) -> tuple[int, str | None]:
    """How far it is to a build's channel, and what to ask for."""
    if asked is None or own is None or asked == own:
        return 0, asked
    return CHANNEL.cost, own


def to_cuda(asked: str | None, own: str | None, toolkits: list[str]) -> tuple[int, str | None]:
    """How far it is to a build's CUDA, and the version to ask for: binaries for a whole major serve several."""
    if asked is None or own is None or asked == own:
        return 0, asked
    if CPU in (asked, own):
        return NO_CUDA.cost, own if "." in own or own == CPU else _toolkit_of(own, "", toolkits)
    if "." not in own:
        if numbers_of(asked)[0] == numbers_of(own)[0] and asked in toolkits:
            return 0, asked
        own = _toolkit_of(own, asked, toolkits)
    move = CUDA if numbers_of(asked)[0] == numbers_of(own)[0] else CUDA_MAJOR
    return move.cost + CUDA_STEP.cost * _half_steps(asked, own, toolkits) // 2, own


def _toolkit_of(major: str, asked: str, toolkits: list[str]) -> str:
    """A toolkit of a major: the one nearest to the one asked for, or the newest."""
    own = [version for version in reversed(toolkits) if version.partition(".")[0] == major]
    return min(own, key=lambda version: _half_steps(asked, version, toolkits) if asked else 0, default=major)


def _half_steps(asked: str, own: str, toolkits: list[str]) -> int:
    """How many toolkits it is from one to the other, doubled: one that never was stands between two."""
    places = []
    for version in (asked, own):
        older = sum(1 for one in toolkits if numbers_of(one) < numbers_of(version))
        places.append(2 * older - (version not in toolkits))
    return abs(places[0] - places[1])


def to_extras(asked: tuple[str, ...], point: Point) -> tuple[tuple[int, tuple[str, ...]], ...]:
    """The extras to ask for, as far as this build has them."""
    if not asked:
        return ((0, ()),)
    kept = tuple(name for name in asked if name in point.extras)
    if kept == asked:
        return ((0, asked), (EXTRA.cost, ())) if len(asked) == 1 else ((0, asked),)
    if point.extra and point.extra not in kept:
        kept = tuple(sorted({*kept, point.extra}))
    return ((EXTRA.cost, kept),)


def to_images(asked: Combination, cuda: str | None, facts: Facts) -> tuple[tuple[int, str | None], ...]:
    """The image that is asked for, and tags that exist and are like it.

    Where the combination has a CUDA, an image in place of the one asked for has the same. So has the one asked for,
    unless the two differed already. A build without CUDA needs none of them.
    """
    index = index_of(facts)
    tag = index.tag(asked.image) if asked.image is not None else None
    if tag is None:
        return ((0, asked.image),)
    agreed = tag.cuda == asked.cuda
    if agreed and cuda == CPU:
        return ()
    own = index.images_by_toolkit.get(cuda or "")
    if own is None or not tag.version:
        names = nearest_tags(tag, facts)
        keeps = True
    else:
        like = tag if tag.cuda == cuda else Tag(f"{own[-1].version}-{tag.flavour}-{tag.system}")
        names = nearest_tags(like, facts)
        keeps = tag.cuda == cuda or not agreed
    images = [f"nvidia/cuda:{name}" for name in names]
    others = [(IMAGE.cost + place, image) for place, image in enumerate(images) if image != asked.image]
    return ((0, asked.image), *others) if keeps else tuple(others)


def to_companions(asked: Combination, project: Project, release: str, facts: Facts) -> tuple[int, Beside]:
    """The companions, each in a version that belongs to this release."""
    if not asked.companions:
        return 0, ()
    found = index_of(facts).release(project, release)
    cost, beside = 0, []
    for name, version in asked.companions:
        fact = found[1].companion(release, name) if found is not None else None
        fitting = version
        if version is not None:
            fitting = _fitting(fact, name, version, project.name, release, facts)
        cost += COMPANION.cost * (fitting != version)
        beside.append((name, fitting))
    return cost, tuple(beside)


def _fitting(fact: Companion | None, name: str, version: str, project: str, release: str, facts: Facts) -> str:
    """The version of a companion that a release wants: the same when it fits, else the newest that does."""
    own = public(version)
    if fact is not None and fact.versions:
        parsed = version_of(own)
        if any(parsed == version_of(one) for one in fact.versions):
            return version
        return max(fact.versions, key=numbers_of)
    held = facts.projects.get(name)
    if held is None:
        return version
    releases = [text for _, (text, _) in sorted(index_of(facts).releases(held).items())]
    if name == HOROVOD:
        if builds_with(project, release, own, facts):
            return version
        return next((one for one in reversed(releases) if builds_with(project, release, one, facts)), version)
    if fact is None or not fact.specifier or allows(fact.specifier, own):
        return version
    return next((one for one in reversed(releases) if allows(fact.specifier, one)), version)
