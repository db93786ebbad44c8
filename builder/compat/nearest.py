"""The combinations that work and are nearest to one that does not.

Every axis that was asked for may move, and what was not asked for stays open. `moves` says how far each move is; GPUs,
driver and distribution stay as they were asked for. One answer is given for each set of axes that has to move, and none
that moves more than another one; where that leaves room, the next in order of distance fill it.
"""

from __future__ import annotations

import dataclasses
import heapq
import itertools
from collections.abc import Iterator
from functools import cache, lru_cache, partial
from typing import NamedTuple

from builder.compat.judge import examine
from builder.compat.model import Combination, Facts, Project
from builder.compat.moves import FREE_THREADED, PROJECT, PYTHON
from builder.compat.points import (
    Beside,
    Point,
    newer,
    points_of,
    to_channel,
    to_companions,
    to_cuda,
    to_extras,
    to_images,
    to_releases,
)
from builder.compat.rules.lookup import MEMORY, PerFacts, index_of
from builder.compat.rules.versions import is_free_threaded, python_of
from builder.compat.rules.view import DRIVER_QUESTION

_SIBLINGS = {"tensorflow": "tensorflow-cpu", "tensorflow-cpu": "tensorflow"}
# How many combinations that do not work are looked at before giving up.
_PATIENCE = 500
_FIELDS = tuple(field.name for field in dataclasses.fields(Combination))
_PACKAGE, _VERSION, _CUDA, _CHANNEL, _COMPANIONS, _PYTHON, _EXTRAS, _IMAGE = (1 << place for place in range(8))


class _Offer(NamedTuple):
    """What can be had at a spot in several ways, with what each costs; any Python when they are None."""

    pythons: tuple[str, ...] | None
    extras: tuple[tuple[int, tuple[str, ...]], ...]
    images: tuple[tuple[int, str | None], ...]


class _Variant(NamedTuple):
    """One way to have an offer. They are ordered by their fields."""

    cost: int
    order: tuple[object, ...]
    moved: int
    python: str | None
    extras: tuple[str, ...]
    image: str | None


class _Spot(NamedTuple):
    """A release in one of its builds, seen from a question. The closer one comes first, then the newer one."""

    cost: int
    number: int
    package: str
    version: str | None
    cuda: str | None
    channel: str | None
    companions: Beside


_Around = dict[_Offer, dict[int, list[_Spot]]]
"""Spots by what they offer, then by the bits of the fields that differ; in order."""


class _Memory:
    """What is remembered for some facts."""

    def __init__(self, facts: Facts) -> None:
        self.pythons = tuple(index_of(facts).pythons)
        self._points: dict[str, tuple[Point, ...]] = {}
        self._distances: dict[tuple[str, str], dict[str, int]] = {}
        self._around: dict[tuple[object, ...], _Around] = {}
        self._works: dict[Combination, bool] = {}

    def points(self, project: Project, facts: Facts) -> tuple[Point, ...]:
        """All of a project."""
        if project.name not in self._points:
            self._points[project.name] = points_of(project, index_of(facts))
        return self._points[project.name]

    def distances(self, version: str, project: Project, facts: Facts) -> dict[str, int]:
        """From a version, which need not exist, to every release of a project."""
        key = (version, project.name)
        if key not in self._distances:
            if len(self._distances) >= MEMORY // 8:
                self._distances.clear()
            self._distances[key] = to_releases(version, index_of(facts).releases(project))
        return self._distances[key]

    def around(self, asked: Combination, facts: Facts) -> _Around:
        """What is around a combination. Cells that differ in Python alone have the same around them."""
        key = (asked.package, asked.version, asked.extras, asked.cuda, asked.channel, asked.companions, asked.image)
        held = self._around.get(key)
        if held is None:
            if len(self._around) >= MEMORY // 64:
                self._around.clear()
            held = self._around[key] = {}
            of = _toolkits(asked, facts) if asked.package == DRIVER_QUESTION else _releases(asked, facts, self)
            for moved, offer, spot in of:
                held.setdefault(offer, {}).setdefault(moved, []).append(spot)
            for groups in held.values():
                for spots in groups.values():
                    spots.sort()
        return held

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
    search = _Search(combination, facts)
    found: list[tuple[_Order, Combination]] = []
    kinds: list[int] = []
    aside: list[_Place] = []
    while search.heaps and len(found) < limit:
        moved = min(search.heaps, key=search.closest)
        if any(kind & moved == kind for kind in kinds):
            aside += search.heaps.pop(moved)
            continue
        place = search.take(moved)
        if moved and (candidate := search.try_out(place)) is not None:
            kinds.append(moved)
            found.append((place.order, candidate))
    for place in aside:
        search.put(0, place)
    while search.heaps and len(found) < limit:
        place = search.take(min(search.heaps, key=search.closest))
        if (candidate := search.try_out(place)) is not None:
            found.append((place.order, candidate))
    return tuple(candidate for _, candidate in sorted(found, key=lambda one: one[0]))


def changed(asked: Combination, other: Combination) -> tuple[str, ...]:
    """The names of the fields in which two combinations differ, in the order of `Combination`."""
    return tuple(name for name in _FIELDS if getattr(asked, name) != getattr(other, name))


_Order = tuple[int, int, int]
"""How far it is, the number of a spot, and the place of a variant in its offer."""


class _Place(NamedTuple):
    """A spot in one variant of its offer.

    Attributes:
        order: no two places have the same.
        moved: the bits of the fields that the spot's group differs in.
        spots: the group, which shares its variants.
        at: the spot's place there.
        variants: of its offer.
    """

    order: _Order
    moved: int
    spots: list[_Spot]
    at: int
    variants: tuple[_Variant, ...]


class _Search:
    """The way outwards from a combination.

    Attributes:
        heaps: by the bits of the fields that differ, places to look at. Of a spot that was not looked at yet, at most
            the first variant is there, and none while one before it in its group was not.
    """

    def __init__(self, asked: Combination, facts: Facts) -> None:
        self._asked = asked
        self._facts = facts
        self._memory = _memory(facts)
        self._seen: set[Combination] = set()
        self._patience = _PATIENCE
        self.heaps: dict[int, list[_Place]] = {}
        for offer, groups in self._memory.around(asked, facts).items():
            if variants := _variants(asked.python, self._memory.pythons, offer):
                for moved, spots in groups.items():
                    self._reach(moved, spots, 0, variants, 0)

    def closest(self, moved: int) -> _Order:
        """The order of the closest place where these fields differ."""
        return self.heaps[moved][0].order

    def put(self, moved: int, place: _Place) -> None:
        """Adds a place to look at."""
        heapq.heappush(self.heaps.setdefault(moved, []), place)

    def take(self, moved: int) -> _Place:
        """The closest place where these fields differ; what is behind it comes into reach."""
        heap = self.heaps[moved]
        place = heapq.heappop(heap)
        if not heap:
            del self.heaps[moved]
        if not place.order[2]:
            for variant in range(1, len(place.variants)):
                self._reach(place.moved, place.spots, place.at, place.variants, variant)
            if place.at + 1 < len(place.spots):
                self._reach(place.moved, place.spots, place.at + 1, place.variants, 0)
        return place

    def _reach(self, moved: int, spots: list[_Spot], at: int, variants: tuple[_Variant, ...], variant: int) -> None:
        spot, chosen = spots[at], variants[variant]
        order = (spot.cost + chosen.cost, spot.number, variant)
        self.put(moved | chosen.moved, _Place(order, moved, spots, at, variants))

    def try_out(self, place: _Place) -> Combination | None:
        """The combination there, if it works and was not found before."""
        spot, variant = place.spots[place.at], place.variants[place.order[2]]
        candidate = Combination(
            package=spot.package,
            version=spot.version,
            extras=variant.extras,
            cuda=spot.cuda,
            python=variant.python,
            channel=spot.channel,
            companions=spot.companions,
            gpus=self._asked.gpus,
            driver=self._asked.driver,
            image=variant.image,
            system=self._asked.system,
        )
        if candidate in self._seen:
            return None
        self._seen.add(candidate)
        if self._memory.works(candidate, self._facts):
            return candidate
        self._patience -= 1
        if self._patience <= 0:
            self.heaps.clear()
        return None


def _releases(asked: Combination, facts: Facts, memory: _Memory) -> Iterator[tuple[int, _Offer, _Spot]]:
    """The builds of the project, and of the one that is the same with or without CUDA."""
    packages = [asked.package]
    if asked.cuda is not None and asked.package in _SIBLINGS:
        packages.append(_SIBLINGS[asked.package])
    toolkits = index_of(facts).toolkits
    to_own_cuda = cache(lambda own: to_cuda(asked.cuda, own, toolkits))
    images_for = cache(lambda cuda: to_images(asked, cuda, facts))
    numbers = itertools.count()
    for package in packages:
        project = facts.projects.get(package)
        if project is None or asked.version is None:
            continue
        distances = memory.distances(asked.version, project, facts)
        to_own_companions = cache(partial(to_companions, asked, project, facts=facts))
        for point in memory.points(project, facts):
            cuda_cost, cuda = to_own_cuda(point.cuda)
            channel_cost, channel = to_channel(asked.channel, point.channel)
            companions_cost, companions = to_own_companions(point.release)
            cost = distances.get(point.release, 0) + cuda_cost + channel_cost + companions_cost
            moved = (
                _VERSION * (point.release != asked.version)
                | _CUDA * (cuda != asked.cuda)
                | _CHANNEL * (channel != asked.channel)
                | _COMPANIONS * (companions != asked.companions)
            )
            if package != asked.package:
                cost, moved = cost + PROJECT.cost, moved | _PACKAGE
            offer = _Offer(point.pythons, to_extras(asked.extras, point), images_for(cuda))
            yield moved, offer, _Spot(cost, next(numbers), package, point.release, cuda, channel, companions)


def _toolkits(asked: Combination, facts: Facts) -> Iterator[tuple[int, _Offer, _Spot]]:
    """For the driver question: every toolkit, or none where only an image is asked about."""
    own = asked.version or asked.cuda
    toolkits = index_of(facts).toolkits
    for number, toolkit in enumerate(reversed(toolkits) if own is not None else (None,)):
        cost, _ = to_cuda(".".join((own or "").split(".")[:2]), toolkit, toolkits)
        version = toolkit if asked.version is not None else None
        cuda = toolkit if asked.cuda is not None else None
        moved = _VERSION * (version != asked.version) | _CUDA * (cuda != asked.cuda)
        offer = _Offer(None, ((0, asked.extras),), to_images(asked, toolkit, facts))
        yield moved, offer, _Spot(cost, number, asked.package, version, cuda, asked.channel, asked.companions)


@lru_cache(MEMORY)
def _variants(python: str | None, every: tuple[str, ...], offer: _Offer) -> tuple[_Variant, ...]:
    """Every way to have an offer with this Python or another one, the nearest first."""
    return tuple(
        sorted(
            _Variant(
                cost=python_cost + extras_cost + image_cost,
                order=(newer(to), extras, image or ""),
                moved=_PYTHON * (to != python) | _EXTRAS * (extras_cost > 0) | _IMAGE * (image_cost > 0),
                python=to,
                extras=extras,
                image=image,
            )
            for python_cost, to in _pythons(python, offer.pythons, every)
            for extras_cost, extras in offer.extras
            for image_cost, image in offer.images
        )
    )


def _pythons(
    asked: str | None, own: tuple[str, ...] | None, every: tuple[str, ...]
) -> Iterator[tuple[int, str | None]]:
    if asked is None:
        yield 0, None
        return
    for python in (asked, *(one for one in every if one != asked)) if own is None else own:
        steps = abs(python_of(python)[1] - python_of(asked)[1])
        yield PYTHON.cost * steps + FREE_THREADED.cost * (is_free_threaded(python) != is_free_threaded(asked)), python
