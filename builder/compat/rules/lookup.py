"""What rules look up over and over, computed once for each `Facts` and forgotten with it."""

from __future__ import annotations

import re
import weakref
from collections.abc import Callable
from functools import cached_property
from typing import Generic, TypeVar

from packaging.version import Version

from builder.compat.model import Adaptation, Build, Confidence, Facts, Gpu, ImageTags, Project, Row, System, Toolkit
from builder.compat.rules.versions import in_order, numbers_of, version_of

T = TypeVar("T")

MEMORY = 4096
"""How many answers of one kind are remembered. Beyond, they are forgotten all at once."""

_NVIDIA_IMAGE = re.compile(r"(?:docker\.io/)?nvidia/cuda(?::(?P<tag>[^@]*))?(?:@.*)?")
_TAG = re.compile(r"(?P<version>\d+(?:\.\d+)*)-(?P<flavour>[a-z0-9-]+?)-(?P<system>[a-z]+\d+(?:\.\d+)?)")
_SYSTEM_OF_TAG = re.compile(r"([a-z]+)[:-]?(\d+(?:\.\d+)?)")


class Tag:
    """A tag of `nvidia/cuda`, such as 12.4.1-devel-ubuntu22.04. The parts are empty when it is of another form."""

    __slots__ = ("flavour", "system", "text", "version")

    def __init__(self, text: str) -> None:
        match = _TAG.fullmatch(text)
        self.text = text
        self.version: str = match["version"] if match else ""
        self.flavour: str = match["flavour"] if match else ""
        self.system: str = match["system"] if match else ""

    @property
    def cuda(self) -> str:
        """The toolkit, such as 12.4; empty when the tag names none."""
        return ".".join(self.version.split(".")[:2])


class Index:
    """The tables of one `Facts`, by what rules ask for."""

    def __init__(self, facts: Facts) -> None:
        # Not the facts themselves: they would hold this, and this would hold them.
        self._toolkits = facts.toolkits
        self._images = facts.images
        self._gpu_rows = facts.gpus
        self._all_systems = facts.systems
        self._all_pythons = facts.pythons
        self._releases: dict[str, dict[Version, tuple[str, Row]]] = {}
        self._tags: dict[str, Tag | None] = {}
        self._systems: dict[str, System | None] = {}
        self._builds: dict[tuple[str, str], tuple[Build, ...]] = {}
        self.fitting: dict[tuple[object, ...], tuple[tuple[Build, ...], tuple[Build, ...]]] = {}
        self.near_tags: dict[str, tuple[str, ...]] = {}
        self.adaptations: dict[tuple[object, ...], Adaptation | None] = {}
        self.tables = f"imgbuild's tables of {facts.date}"

    def release(self, project: Project, version: str) -> tuple[str, Row] | None:
        """The release as the tables write it and its row; None when they have none."""
        known = self._releases.get(project.name)
        if known is None:
            known = {
                parsed: (text, row)
                for row in project.rows
                for text in row.releases
                if (parsed := version_of(text)) is not None
            }
            self._releases[project.name] = known
        parsed = version_of(version)
        return known.get(parsed) if parsed is not None else None

    def releases(self, project: Project) -> dict[Version, tuple[str, Row]]:
        """All its releases, by version."""
        self.release(project, "0")
        return self._releases[project.name]

    def builds(self, row: Row, release: str) -> tuple[Build, ...]:
        """The builds of a release."""
        key = (row.project, release)
        found = self._builds.get(key)
        if found is None:
            found = self._builds[key] = tuple(
                build for build in row.builds if build.versions is None or release in build.versions
            )
        return found

    def tag(self, image: str) -> Tag | None:
        """The tag of an `nvidia/cuda` image; None for another image."""
        if image not in self._tags:
            match = _NVIDIA_IMAGE.fullmatch(image)
            if len(self._tags) >= MEMORY:
                self._tags.clear()
            self._tags[image] = Tag(match["tag"] or "latest") if match else None
        return self._tags[image]

    def system_of_image(self, image: str) -> System | None:
        """The distribution that an image's name tells: by its codename, or as in ubuntu22.04; None for neither."""
        if image not in self._systems:
            if len(self._systems) >= MEMORY:
                self._systems.clear()
            self._systems[image] = self._read_system(image)
        return self._systems[image]

    def _read_system(self, image: str) -> System | None:
        name = image.partition("@")[0].rpartition("/")[2]
        words = re.split(r"[^a-z0-9.]+", name)
        for system in self._all_systems.values():
            if system.codename and system.codename in words:
                return system
        for match in _SYSTEM_OF_TAG.finditer(name):
            found = self._all_systems.get(f"{match[1]} {match[2]}")
            if found is not None:
                return found
        return None

    @cached_property
    def toolkits(self) -> list[str]:
        """Versions of the toolkits that exist, oldest first."""
        return in_order(version for version, toolkit in self._toolkits.items() if toolkit.exists)

    @cached_property
    def families(self) -> dict[int, str]:
        """By CUDA major, the oldest Linux driver that runs any of it by minor-version compatibility."""
        floors: dict[int, str] = {}
        for version in reversed(self.toolkits):
            if floor := self._toolkits[version].minor_driver:
                floors[numbers_of(version)[0]] = floor
        return floors

    @cached_property
    def images_by_toolkit(self) -> dict[str, list[ImageTags]]:
        """By toolkit, its images, oldest first."""
        images: dict[str, list[ImageTags]] = {}
        for version in in_order(self._images):
            images.setdefault(".".join(version.split(".")[:2]), []).append(self._images[version])
        return images

    @cached_property
    def _gpus(self) -> dict[str, Gpu]:
        return {word: gpu for gpu in self._gpu_rows for word in (gpu.capability, *gpu.names)}

    def gpu(self, text: str) -> Gpu | None:
        """The row of a compute capability, or of a GPU's name as the tables write it."""
        return self._gpus.get(text)

    def capability(self, text: str) -> tuple[int, ...]:
        """The compute capability that a capability or a name means."""
        gpu = self._gpus.get(text)
        return numbers_of(gpu.capability if gpu else text)

    @cached_property
    def first_toolkit(self) -> dict[tuple[int, ...], Toolkit | None]:
        """By compute capability, the first toolkit that makes code for it; None for the oldest of the tables, which
        may not be the first."""
        first: dict[tuple[int, ...], Toolkit | None] = {}
        for place, version in enumerate(self.toolkits):
            toolkit = self._toolkits[version]
            for capability in toolkit.sass or ():
                first.setdefault(numbers_of(capability), toolkit if place else None)
        return first

    @cached_property
    def oldest_code(self) -> dict[str, tuple[int, ...]]:
        """By toolkit, the oldest compute capability that its compiler makes code for, where that was read."""
        return {
            toolkit.version: min(map(numbers_of, toolkit.sass))
            for toolkit in self._toolkits.values()
            if toolkit.sass and (toolkit.arch_origin or toolkit.origin).confidence is Confidence.READ
        }

    @cached_property
    def pythons(self) -> list[str]:
        """Every CPython series of the tables, oldest first."""
        return in_order(self._all_pythons)


class PerFacts(Generic[T]):
    """Something that is made once for each `Facts` and forgotten with it."""

    def __init__(self, make: Callable[[Facts], T]) -> None:
        self._make = make
        self._held: dict[int, tuple[weakref.ref[Facts], T]] = {}

    def __call__(self, facts: Facts) -> T:
        number = id(facts)
        held = self._held.get(number)
        if held is not None and held[0]() is facts:
            return held[1]
        made = self._make(facts)
        self._held[number] = (weakref.ref(facts, lambda _gone: self._held.pop(number, None)), made)
        return made


index_of = PerFacts(Index)
"""The index of some facts."""
