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
_CMAKE_SOURCE = "horovod/horovod:docs/install.rst@v0.28.1; horovod 0.28.1 built with CMake 3.25, 3.31 and 4"


def _asked(combination: Combination) -> tuple[bool, str | None]:
    for name, version in combination.companions:
        if name == HOROVOD:
            return True, version
    return False, None


def _adaptation(package: str, release: str, version: str | None, python: str, facts: Facts) -> Adaptation | None:
    """The first adaptation, the most particular one, that is about these; any version where it is None."""
    framework = _FRAMEWORKS.get(package, package)
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


def builds_with(package: str, release: str, version: str, facts: Facts) -> bool:
    """Whether this version of Horovod is known to build and work with a release of a framework, on some Python."""
    return any(
        adaptation.works is True
        and adaptation.origin.confidence is Confidence.READ
        and adaptation.framework == _FRAMEWORKS.get(package, package)
        and allows(adaptation.specifier, release)
        and allows(adaptation.horovod, version)
        for adaptation in facts.horovod
    )


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
    adaptation = _adaptation(combination.package, view.release, version, (combination.python or "").rstrip("t"), facts)
    if adaptation is None:
        yield unknown(f"no source says whether {pair} build and work together", view.index.tables)
        return
    steps = f": {'; '.join(adaptation.steps)}" if adaptation.steps else ""
    if adaptation.works is None or adaptation.origin.confidence is not Confidence.READ:
        known = f": {adaptation.warning}" if adaptation.warning else steps
        probably = f"; it probably takes what near releases take{known}" if known else ""
        yield unknown(f"nobody is known to have tried whether {pair} work together{probably}", adaptation.origin)
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
    needed = facts.compilers.get(view.row.cxx or "")
    if needed is not None and system.gcc is not None and numbers_of(system.gcc) < numbers_of(needed.gcc):
        said = (
            f"horovod against {combination.package} {view.release} needs {needed.cxx.upper()}, GCC {needed.gcc} or "
            f"later; {system.name} has GCC {system.gcc}"
        )
        source = f"{needed.origin}; {system.origin}"
        read = needed.origin.confidence is Confidence.READ
        yield forbidden(said, source) if read else unknown(f"probably {said}", source)
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
