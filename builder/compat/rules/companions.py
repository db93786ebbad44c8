"""Rules about projects that are installed beside the framework."""

from __future__ import annotations

from collections.abc import Iterator

from builder.compat.model import CPU, Build, Combination, Companion, Confidence, Facts
from builder.compat.rules.requirement import missing_release
from builder.compat.rules.said import Said, forbidden, unknown, warning
from builder.compat.rules.versions import allows, in_order, listed, version_of
from builder.compat.rules.view import View, shown, view_of, were_read

HOROVOD = "horovod"
_BROKEN = (
    "it links against another libtorch, and its import fails, torchvision's with "
    "`operator torchvision::nms does not exist`"
)
_LINKED_WITH_TORCH = ("torchvision", "torchaudio")
_NMS = "pytorch/vision#9085; pytorch/pytorch#122494"


def public(version: str) -> str:
    """A version without its local label: 0.28.0 of 0.28.0+cu130."""
    return version.partition("+")[0]


def companion(combination: Combination, facts: Facts) -> Iterator[Said]:
    """The release wants another version of a companion, or nobody knows which version works."""
    view = view_of(combination, facts)
    if view.row is None or view.release is None:
        return
    name = f"{combination.package} {view.release}"
    for project, version in combination.companions:
        fact = view.row.companion(view.release, project)
        if fact is None:
            continue
        if not fact.known:
            note = f": {fact.note}" if fact.note else ""
            yield unknown(f"no source says which {project} works with {name}{note}", fact.origin)
        elif fact.versions is not None and not fact.versions:
            yield _mismatch(fact, f"no {project} belongs to {name}")
        elif version is None:
            continue
        elif fact.versions is not None and not _among(public(version), fact.versions):
            yield _mismatch(fact, f"{name} wants {project} {listed(fact.versions, 'or')}, not {version}")
        elif fact.specifier and not allows(fact.specifier, public(version)):
            yield _mismatch(fact, f"{name} wants {project} {fact.specifier}, not {version}")
        elif fact.versions is not None and fact.origin.confidence is not Confidence.READ:
            note = f": {fact.note}" if fact.note else ""
            yield warning(f"that {project} {version} works with {name} is only inferred{note}", fact.origin)


def _among(version: str, versions: tuple[str, ...]) -> bool:
    parsed = version_of(version)
    return any(version == one or (parsed is not None and parsed == version_of(one)) for one in versions)


def _mismatch(fact: Companion, said: str) -> Said:
    note = f" ({fact.note})" if fact.note else ""
    if fact.origin.confidence is Confidence.READ:
        return forbidden(said + note, fact.origin)
    return unknown(f"probably {said}{note}", fact.origin)


def companion_release(combination: Combination, facts: Facts) -> Iterator[Said]:
    """The companion's release never was, or the tables do not go that far."""
    index = view_of(combination, facts).index
    for name, version in combination.companions:
        project = facts.projects.get(name)
        if project is not None and version is not None and index.release(project, public(version)) is None:
            yield missing_release(project, public(version), index)


def companion_python(combination: Combination, facts: Facts) -> Iterator[Said]:
    """The companion has no wheel for this Python."""
    view = view_of(combination, facts)
    python = combination.python
    if python is None:
        return
    for name, version in combination.companions:
        project = facts.projects.get(name)
        if project is None or project.sdist_only:
            continue
        fact = view.row.companion(view.release, name) if view.row is not None and view.release is not None else None
        candidates = (public(version),) if version is not None else fact.versions if fact is not None else None
        found = [held for one in candidates or () if (held := view.index.release(project, one)) is not None]
        pythons = [row.pythons_of(release) for release, row in found]
        if found and all(names is not None and python not in names for names in pythons):
            release, row = found[-1]
            yield forbidden(
                f"{name} {release} has no wheel for Python {python}; it has wheels for "
                f"{listed(in_order(pythons[-1] or ()))}",
                row.origin,
            )
            continue
        for release, row in found[:1]:
            required = row.requires_python_of(release)
            if row.pythons_of(release) is None and required and not allows(required, python.rstrip("t")):
                yield forbidden(f"{name} {release} requires Python {required}, not {python}", row.origin)


def companion_build(combination: Combination, facts: Facts) -> Iterator[Said]:
    """A companion that links against torch is built for another CUDA than torch itself."""
    cuda = combination.cuda
    if combination.package != "torch" or cuda is None:
        return
    view = view_of(combination, facts)
    for name, version in combination.companions:
        if name not in _LINKED_WITH_TORCH:
            continue
        wanted = "cpu" if cuda == CPU else f"cu{cuda.replace('.', '')}"
        label = version.partition("+")[2] if version is not None else ""
        if label:
            if label != wanted:
                yield forbidden(f"{name} {version} is built for {label}, torch for {wanted}: {_BROKEN}", _NMS)
            continue
        builds = _builds_of(view, facts, name, version)
        fitting = tuple(build for build in builds if build.cuda == cuda)
        carried = frozenset[str]().union(*(build.channels for build in fitting)) if builds else frozenset({"pytorch"})
        what = f"the {name} on channel pypi is built for {_own(builds)}, torch {shown(cuda)}: {_BROKEN}"
        if combination.channel == "pypi" and carried and "pypi" not in carried:
            yield forbidden(f"{what}; take both from channel {min(carried)}", _source(builds))
        elif combination.channel is None and carried and "pypi" not in carried:
            yield warning(f"take {name} from channel {min(carried)}, as torch: {what}", _source(builds))
        elif builds and not carried and len(were_read(builds)) == len(builds):
            yield forbidden(f"{name} {version or ''} has no build {shown(cuda)}: {_BROKEN}", _source(builds))


def _builds_of(view: View, facts: Facts, name: str, version: str | None) -> tuple[Build, ...]:
    """The builds of a companion's release: the one that is asked for, else one that belongs to torch's."""
    project = facts.projects.get(name)
    fact = view.row.companion(view.release, name) if view.row is not None and view.release is not None else None
    if version is None and fact is not None and fact.versions:
        version = fact.versions[-1]
    found = view.index.release(project, public(version)) if project is not None and version is not None else None
    if found is None:
        return ()
    release, row = found
    return view.index.builds(row, release)


def _own(builds: tuple[Build, ...]) -> str:
    """What the build on channel pypi is for."""
    own = next((build for build in builds if "pypi" in build.channels), None)
    return "CUDA" if own is None else shown(own.cuda).removeprefix("for ")


def _source(builds: tuple[Build, ...]) -> str:
    own = next((build for build in builds if "pypi" in build.channels), None)
    return _NMS if own is None else f"{own.origin}; {_NMS}"


def not_judged(combination: Combination, facts: Facts) -> Iterator[Said]:
    """The tables do not know a companion whose version was given, so it is not judged."""
    view = view_of(combination, facts)
    if view.row is None or view.release is None:
        return
    for name, version in combination.companions:
        if version is None or name == HOROVOD or name in facts.projects:
            continue
        if view.row.companion(view.release, name) is None:
            yield warning(f"the tables do not know {name}: {version} is not judged", view.index.tables)
