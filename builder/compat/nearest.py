"""The combinations that work and are nearest to one that does not.

Every axis that was asked for may move, and what was not asked for stays open. `moves` says how far each move is; GPUs,
driver and distribution stay as they were asked for. One answer is given for each set of axes that has to move, and none
that moves more than another one; where that leaves room, the next in order of distance fill it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from functools import cached_property

from builder.compat.judge import examine
from builder.compat.model import CPU, Build, Combination, Companion, Facts, Project
from builder.compat.moves import (
    CHANNEL,
    COMPANION,
    CUDA,
    CUDA_MAJOR,
    CUDA_STEP,
    EXTRA,
    FREE_THREADED,
    IMAGE,
    MINOR,
    NO_CUDA,
    PATCH,
    PROJECT,
    PYTHON,
)
from builder.compat.rules.base import nearest_tags
from builder.compat.rules.companions import public
from builder.compat.rules.lookup import MEMORY, Index, PerFacts, Tag, index_of
from builder.compat.rules.versions import allows, in_order, is_free_threaded, numbers_of, python_of, version_of
from builder.compat.rules.view import DRIVER_QUESTION, pythons_of, were_read

_SIBLINGS = {"tensorflow": "tensorflow-cpu", "tensorflow-cpu": "tensorflow"}
# How many combinations are examined before giving up: the base axes fit by construction, the rest is rarely to be met.
_PATIENCE = 250


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Point:
    """A release in one of its builds on one channel, and the Pythons that it has wheels for; None for any."""

    project: str
    release: str
    place: int
    build: Build
    cuda: str
    channel: str
    extras: frozenset[str]
    pythons: tuple[str, ...] | None


class _Project:
    """A project's points, and how far its releases are from each other."""

    def __init__(self, project: Project, index: Index) -> None:
        self.project = project
        self._index = index
        self._distances: dict[str, dict[str, int]] = {}

    @cached_property
    def points(self) -> tuple[_Point, ...]:
        return tuple(self._points())

    def _points(self) -> Iterator[_Point]:
        ordered = sorted(self._index.releases(self.project).items())
        for place, (_, (release, row)) in enumerate(ordered):
            builds = self._index.builds(row, release)
            extras = {
                extra.name
                for extra in row.extras
                if extra.installable and (extra.versions is None or release in extra.versions)
            }
            for build in were_read(builds):
                pythons = pythons_of(build, row, release)
                for channel in sorted(build.channels):
                    yield _Point(
                        project=self.project.name,
                        release=release,
                        place=place,
                        build=build,
                        cuda=build.cuda,
                        channel=channel,
                        extras=frozenset(extras | ({build.extra} if build.extra else set())),
                        pythons=None if pythons is None else tuple(in_order(pythons)),
                    )

    def distances(self, version: str) -> dict[str, int]:
        """From this version, which need not exist, to every release."""
        if version not in self._distances:
            if len(self._distances) > 512:
                self._distances.clear()
            self._distances[version] = self._measure(version)
        return self._distances[version]

    def _measure(self, version: str) -> dict[str, int]:
        asked = version_of(version)
        if asked is None:
            return {}
        minors = sorted({(one.major, one.minor) for one in self._index.releases(self.project)} | {_minor(asked)})
        places = {minor: place for place, minor in enumerate(minors)}
        patches: dict[tuple[int, int], list[object]] = {}
        for one in sorted({*self._index.releases(self.project), asked}):
            patches.setdefault((one.major, one.minor), []).append(one)
        measured = {}
        for one, (release, _) in self._index.releases(self.project).items():
            steps = abs(places[_minor(one)] - places[_minor(asked)])
            own = patches[_minor(one)]
            # In another minor, the newest patch is the one to take.
            within = abs(own.index(one) - own.index(asked)) if not steps else len(own) - 1 - own.index(one)
            measured[release] = MINOR.cost * steps + PATCH.cost * min(within, 9)
        return measured


def _minor(version: object) -> tuple[int, int]:
    return getattr(version, "major", 0), getattr(version, "minor", 0)


_FIELDS = tuple(field.name for field in dataclasses.fields(Combination))


class _Memory:
    """What is remembered for some facts."""

    def __init__(self, facts: Facts) -> None:
        self.projects: dict[str, _Project] = {}
        self._works: dict[Combination, bool] = {}
        index = index_of(facts)
        self.toolkit_place = {version: place for place, version in enumerate(index.toolkits)}

    def works(self, combination: Combination, facts: Facts) -> bool:
        """Whether it is valid. Many combinations that do not work have the same neighbours."""
        held = self._works.get(combination)
        if held is None:
            if len(self._works) >= 4 * MEMORY:
                self._works.clear()
            held = self._works[combination] = examine(combination, facts).valid is True
        return held


_memory = PerFacts(_Memory)


def nearest(combination: Combination, facts: Facts, limit: int = 3) -> tuple[Combination, ...]:
    """Combinations that work, closest first; see above for how far a move is.

    Deterministic: of two that are equally far, the one with the newer release, the newer CUDA, the newer Python.
    """
    if limit < 1:
        return ()
    memory = _memory(facts)
    candidates = sorted(_candidates(combination, facts), key=lambda candidate: candidate[0])
    chosen: list[tuple[tuple[object, ...], Combination]] = []
    kinds: list[frozenset[str]] = []
    waiting: list[tuple[tuple[object, ...], Combination]] = []
    seen: set[Combination] = set()
    patience = _PATIENCE
    for order, candidate in candidates:
        if candidate in seen or candidate == combination:
            continue
        seen.add(candidate)
        moved = frozenset(changed(combination, candidate))
        if any(kind <= moved for kind in kinds):
            if len(waiting) < _PATIENCE:
                waiting.append((order, candidate))
            continue
        if not patience:
            break
        patience -= 1
        if memory.works(candidate, facts):
            kinds.append(moved)
            chosen.append((order, candidate))
            if len(chosen) == limit:
                break
    for order, candidate in waiting:
        if len(chosen) == limit:
            break
        if memory.works(candidate, facts):
            chosen.append((order, candidate))
    return tuple(candidate for _, candidate in sorted(chosen, key=lambda one: one[0]))


def changed(asked: Combination, other: Combination) -> tuple[str, ...]:
    """The names of the fields in which two combinations differ, in the order of `Combination`."""
    return tuple(name for name in _FIELDS if getattr(asked, name) != getattr(other, name))


def _candidates(asked: Combination, facts: Facts) -> Iterator[tuple[tuple[object, ...], Combination]]:
    if asked.package == DRIVER_QUESTION:
        images = _images(asked, None, facts)
        yield from _toolkits(asked, facts, images)
        return
    names = [asked.package]
    if asked.cuda is not None and asked.package in _SIBLINGS:
        names.append(_SIBLINGS[asked.package])
    for name in names:
        project = facts.projects.get(name)
        if project is None or asked.version is None:
            continue
        memory = _memory(facts)
        held = memory.projects.setdefault(name, _Project(project, index_of(facts)))
        yield from _releases(asked, held, facts, 0 if name == asked.package else PROJECT.cost)


def _releases(
    asked: Combination, held: _Project, facts: Facts, base: int
) -> Iterator[tuple[tuple[object, ...], Combination]]:
    distances = held.distances(asked.version or "")
    memory = _memory(facts)
    index = index_of(facts)
    cuda_cost: dict[str, tuple[int, str]] = {}
    python_costs: dict[tuple[str, ...] | None, list[tuple[int, str | None]]] = {}
    companions: dict[str, tuple[int, tuple[tuple[str, str | None], ...]]] = {}
    images: dict[str, list[tuple[int, str | None]]] = {}
    for point in held.points:
        cost = base + distances.get(point.release, 0)
        if point.cuda not in cuda_cost:
            cuda_cost[point.cuda] = _cuda_cost(asked.cuda, point.cuda, memory)
        extra_cost, cuda = cuda_cost[point.cuda]
        cost += extra_cost
        if asked.channel is not None and asked.channel != point.channel:
            cost += CHANNEL.cost
        if point.pythons not in python_costs:
            python_costs[point.pythons] = _python_costs(asked.python, point.pythons)
        if point.release not in companions:
            companions[point.release] = _companions(asked, held.project, point.release, facts, index)
        companion_cost, beside = companions[point.release]
        if cuda not in images:
            images[cuda] = _images(asked, cuda, facts)
        for extras_cost, extras in _extras(asked, point):
            for python_cost, python in python_costs[point.pythons]:
                for image_cost, image in images[cuda]:
                    total = cost + companion_cost + extras_cost + python_cost + image_cost
                    candidate = Combination(
                        package=point.project,
                        version=point.release,
                        extras=extras,
                        cuda=cuda if asked.cuda is not None else None,
                        python=python,
                        channel=point.channel if asked.channel is not None else None,
                        companions=beside,
                        gpus=asked.gpus,
                        driver=asked.driver,
                        image=image,
                        system=asked.system,
                    )
                    yield (total, -point.place, _newer(cuda), _newer(python), extras, image or ""), candidate


def _newer(version: str | None) -> tuple[int, ...]:
    """For sorting the newer first."""
    return tuple(-number for number in numbers_of(version or ""))


def _cuda_cost(asked: str | None, own: str, memory: _Memory) -> tuple[int, str]:
    """What it costs to go from one CUDA to another, and the version to ask for."""
    if asked is None or asked == own:
        return 0, own
    if CPU in (asked, own):
        return NO_CUDA.cost, own if "." in own or own == CPU else _some_toolkit(own, "", memory)
    if "." not in own:
        if numbers_of(asked)[0] == numbers_of(own)[0] and asked in memory.toolkit_place:
            return 0, asked
        own = _some_toolkit(own, asked, memory)
    halves = abs(_place(asked, memory) - _place(own, memory))
    move = CUDA if numbers_of(asked)[0] == numbers_of(own)[0] else CUDA_MAJOR
    return move.cost + CUDA_STEP.cost * halves // 2, own


def _some_toolkit(major: str, asked: str, memory: _Memory) -> str:
    """A toolkit of a major for binaries that serve all of it: the one nearest to the one asked for, or the newest."""
    own = [version for version in memory.toolkit_place if version.partition(".")[0] == major]
    if not own:
        return major
    if not asked:
        return own[-1]
    return min(reversed(own), key=lambda version: abs(_place(version, memory) - _place(asked, memory)))


def _place(version: str, memory: _Memory) -> int:
    """Where a CUDA version stands among the toolkits, in half steps: one that never was stands between two."""
    place = memory.toolkit_place.get(version)
    if place is not None:
        return 2 * place
    return 2 * sum(1 for one in memory.toolkit_place if numbers_of(one) < numbers_of(version)) - 1


def _python_costs(asked: str | None, pythons: tuple[str, ...] | None) -> list[tuple[int, str | None]]:
    if asked is None:
        return [(0, None)]
    if pythons is None or asked in pythons:
        return [(0, asked)]
    costs = []
    for python in pythons:
        steps = abs(python_of(python)[1] - python_of(asked)[1])
        cost = PYTHON.cost * steps
        if is_free_threaded(python) != is_free_threaded(asked):
            cost += FREE_THREADED.cost
        costs.append((cost, python))
    # Farther ones of the same build never come first.
    return [(cost, python) for cost, python in sorted(costs, key=lambda one: (one[0], _newer(one[1])))[:3]]


def _extras(asked: Combination, point: _Point) -> Iterator[tuple[int, tuple[str, ...]]]:
    """The extras to ask for, as far as this build has them."""
    wanted = asked.extras
    brought = {point.build.extra} if point.build.extra else set()
    if not wanted:
        yield 0, ()
        return
    kept = tuple(name for name in wanted if name in point.extras)
    if kept == wanted:
        yield 0, wanted
    elif brought and not brought & set(kept):
        yield EXTRA.cost, tuple(sorted({*kept, *brought}))
    else:
        yield EXTRA.cost, kept
    if kept == wanted and len(wanted) == 1:
        yield EXTRA.cost, ()


def _companions(
    asked: Combination, project: Project, release: str, facts: Facts, index: Index
) -> tuple[int, tuple[tuple[str, str | None], ...]]:
    """The companions, each moved to a version that belongs to this release, and what that costs."""
    if not asked.companions:
        return 0, ()
    found = index.release(project, release)
    cost, beside = 0, []
    for name, version in asked.companions:
        fact = found[1].companion(release, name) if found is not None else None
        fitting = _fitting(fact, name, version, facts, index)
        cost += COMPANION.cost * (fitting != version)
        beside.append((name, fitting))
    return cost, tuple(beside)


def _fitting(fact: Companion | None, name: str, version: str | None, facts: Facts, index: Index) -> str | None:
    """The version of a companion that a release wants: the same when it fits, else the newest that does."""
    if fact is None or version is None:
        return version
    own = public(version)
    if fact.versions:
        parsed = version_of(own)
        if any(parsed == version_of(one) for one in fact.versions):
            return version
        return max(fact.versions, key=lambda one: numbers_of(one))
    if fact.specifier and not allows(fact.specifier, own):
        project = facts.projects.get(name)
        if project is not None:
            known = [text for _, (text, _) in sorted(index.releases(project).items()) if allows(fact.specifier, text)]
            return known[-1] if known else version
    return version


def _images(asked: Combination, cuda: str | None, facts: Facts) -> list[tuple[int, str | None]]:
    """The image that is asked for, and tags that exist and are like it, of its own CUDA and of this one."""
    if asked.image is None:
        return [(0, None)]
    index = index_of(facts)
    tag = index.tag(asked.image)
    if tag is None:
        return [(0, asked.image)]
    others = nearest_tags(tag, facts)
    if cuda is not None and cuda in index.images_by_toolkit and tag.version and tag.cuda != cuda:
        newest = index.images_by_toolkit[cuda][-1].version
        others += nearest_tags(Tag(f"{newest}-{tag.flavour}-{tag.system}"), facts, 1)
    names = [f"nvidia/cuda:{name}" for name in dict.fromkeys(others)]
    return [(0, asked.image), *((IMAGE.cost + place, name) for place, name in enumerate(names) if name != asked.image)]


def _toolkits(
    asked: Combination, facts: Facts, images: list[tuple[int, str | None]]
) -> Iterator[tuple[tuple[object, ...], Combination]]:
    """Toolkits for the driver question."""
    memory = _memory(facts)
    own = asked.version or asked.cuda
    if own is None:
        yield from (((cost, image or ""), dataclasses.replace(asked, image=image)) for cost, image in images)
        return
    for version in memory.toolkit_place:
        cost, _ = _cuda_cost(".".join(own.split(".")[:2]), version, memory)
        for image_cost, image in images:
            candidate = dataclasses.replace(
                asked,
                version=version if asked.version is not None else None,
                cuda=version if asked.cuda is not None else None,
                image=image,
            )
            yield (cost + image_cost, 0, _newer(version), (), (), image or ""), candidate
