"""Rules about Horovod, which has no wheels: it is compiled against the framework, by the base's compiler."""

from __future__ import annotations

from collections.abc import Iterator

from builder.compat.model import Adaptation, Combination, Confidence, Facts, System
from builder.compat.rules.base import system_of
from builder.compat.rules.companions import HOROVOD
from builder.compat.rules.lookup import MEMORY, index_of
from builder.compat.rules.said import Said, forbidden, unknown, warning
from builder.compat.rules.versions import allows, numbers_of
from builder.compat.rules.view import view_of

_FRAMEWORKS = {"tensorflow-cpu": "tensorflow"}
# The first GCC whose support of a standard is complete enough to compile the frameworks' headers.
_GCC = {"c++14": 5, "c++17": 8, "c++20": 10}
_GCC_SOURCE = "https://gcc.gnu.org/projects/cxx-status.html; horovod/horovod:docs/install.rst@v0.28.1 (g++-8 for C++17)"
_CMAKE_SOURCE = "horovod/horovod:docs/install.rst@v0.28.1; horovod 0.28.1 built with CMake 3.25, 3.31 and 4"


def _asked(combination: Combination) -> tuple[bool, str | None]:
    for name, version in combination.companions:
        if name == HOROVOD:
            return True, version
    return False, None


def _adaptation(combination: Combination, facts: Facts, release: str) -> Adaptation | None:
    """The first adaptation, the most particular one, that is about this combination."""
    framework = _FRAMEWORKS.get(combination.package, combination.package)
    _, version = _asked(combination)
    python = (combination.python or "").rstrip("t")
    key = (framework, release, version, python)
    held = index_of(facts).adaptations
    if key not in held:
        if len(held) >= MEMORY:
            held.clear()
        held[key] = next(
            (
                adaptation
                for adaptation in facts.horovod
                if adaptation.framework == framework
                and allows(adaptation.specifier, release)
                and (version is None or allows(adaptation.horovod, version))
                and (not python or not adaptation.pythons or allows(adaptation.pythons, python))
            ),
            None,
        )
    return held[key]


def horovod(combination: Combination, facts: Facts) -> Iterator[Said]:
    """Horovod does not build against this framework, nobody knows, or it takes an adaptation."""
    asked, version = _asked(combination)
    view = view_of(combination, facts)
    if not asked or view.release is None:
        return
    pair = f"horovod {version}" if version is not None else "horovod"
    pair = f"{pair} and {combination.package} {view.release}"
    framework = _FRAMEWORKS.get(combination.package, combination.package)
    if facts.horovod and all(adaptation.framework != framework for adaptation in facts.horovod):
        names = sorted({adaptation.framework for adaptation in facts.horovod})
        yield forbidden(
            f"horovod has no binding for {combination.package}; it has them for {', '.join(names)}",
            facts.horovod[0].origin,
        )
        return
    adaptation = _adaptation(combination, facts, view.release)
    if adaptation is None:
        yield unknown(f"no source says whether {pair} build and work together", view.index.tables)
        return
    steps = f": {'; '.join(adaptation.steps)}" if adaptation.steps else ""
    if adaptation.works is None or adaptation.origin.confidence is not Confidence.READ:
        known = f": {adaptation.warning}" if adaptation.warning else steps
        yield unknown(f"no source says whether {pair} work together{known}", adaptation.origin)
    elif not adaptation.works:
        why = f": {adaptation.warning}" if adaptation.warning else steps
        yield forbidden(f"{pair} do not work together{why}", adaptation.origin)
    else:
        if steps:
            yield warning(f"{pair} take an adaptation{steps}", adaptation.origin)
        if adaptation.warning:
            yield warning(f"{pair}: {adaptation.warning}", adaptation.origin)


def horovod_compiler(combination: Combination, facts: Facts) -> Iterator[Said]:
    """The distribution's compiler or CMake is too old, or too new, to compile Horovod against this framework."""
    asked, _ = _asked(combination)
    system = system_of(combination, facts)
    view = view_of(combination, facts)
    if not asked or system is None or view.row is None:
        return
    needed = _GCC.get(view.row.cxx or "")
    if needed is not None and system.gcc is not None and numbers_of(system.gcc) < (needed,):
        yield forbidden(
            f"horovod against {combination.package} {view.release} needs {str(view.row.cxx).upper()}, GCC {needed} or "
            f"later; {system.name} has GCC {system.gcc}",
            f"{_GCC_SOURCE}; {view.row.origin}",
        )
    yield from _cmake(system)


def _cmake(system: System) -> Iterator[Said]:
    if system.cmake is None:
        return
    if numbers_of(system.cmake) >= (4,):
        yield warning(
            f"CMake {system.cmake} of {system.name} refuses horovod's gloo: set CMAKE_POLICY_VERSION_MINIMUM=3.5",
            _CMAKE_SOURCE,
        )
    elif numbers_of(system.cmake) < (3, 13):
        yield warning(
            f"horovod needs CMake 3.13 or later, {system.name} has {system.cmake}: install a newer one (pip install "
            "cmake)",
            _CMAKE_SOURCE,
        )


def runtime_flavour(combination: Combination, facts: Facts) -> Iterator[Said]:
    """The base image's flavour has no compiler, and something has to be compiled."""
    asked, _ = _asked(combination)
    index = index_of(facts)
    tag = index.tag(combination.image) if combination.image is not None else None
    project = facts.projects.get(combination.package)
    compiled = HOROVOD if asked else combination.package if project is not None and project.sdist_only else ""
    images = facts.images.get(tag.version) if tag is not None else None
    if compiled and tag is not None and tag.flavour and not tag.flavour.endswith("devel"):
        yield warning(
            f"{compiled} has no wheels and must be compiled; flavour {tag.flavour} has no CUDA compiler: build in the "
            "devel flavour, or without CUDA operations",
            images.origin if images is not None else index.tables,
        )
