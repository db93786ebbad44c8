"""Rules about builds: which CUDA, channel and Python a release has binaries for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from builder.compat.model import CPU, Build, Combination, Confidence, Facts, Row
from builder.compat.rules.lookup import index_of
from builder.compat.rules.said import Said, forbidden, unknown, warning
from builder.compat.rules.versions import allows, in_order, is_free_threaded, listed, numbers_of, python_of
from builder.compat.rules.view import DRIVER_QUESTION, View, brought, pythons_of, shown, view_of, were_read

_FEW = 3


def toolkit_of(combination: Combination) -> str | None:
    """The CUDA toolkit that is asked for, such as 12.4; None for none."""
    cuda = combination.cuda
    if combination.package == DRIVER_QUESTION and cuda is None and combination.version is not None:
        cuda = ".".join(combination.version.split(".")[:2])
    return None if cuda == CPU else cuda


def toolkit(combination: Combination, facts: Facts) -> Iterator[Said]:
    """The CUDA version never was, or the tables do not go that far."""
    cuda = toolkit_of(combination)
    if cuda is None:
        return
    index = index_of(facts)
    known = facts.toolkits.get(cuda)
    if known is not None:
        if not known.exists:
            near = _around(cuda, index.toolkits)
            why = f": {known.why}" if known.why else ""
            yield forbidden(f"CUDA {cuda} was never released; the nearest are {near}{why}", known.origin)
        elif combination.package == DRIVER_QUESTION:
            yield from _patch(combination, facts)
    elif numbers_of(cuda) > numbers_of(facts.newest_toolkit):
        yield unknown(f"CUDA {cuda} is newer than the tables, which end with {facts.newest_toolkit}", index.tables)
    elif index.toolkits and numbers_of(cuda) > numbers_of(index.toolkits[0]):
        yield forbidden(
            f"CUDA {cuda} was never released; the nearest are {_around(cuda, index.toolkits)}", index.tables
        )
    elif combination.package == DRIVER_QUESTION or not view_of(combination, facts).with_cuda:
        oldest = index.toolkits[0] if index.toolkits else "none"
        yield unknown(f"CUDA {cuda} is older than the tables, which begin with {oldest}", index.tables)


def _patch(combination: Combination, facts: Facts) -> Iterator[Said]:
    """The patch release in `cuda==12.4.1`."""
    version = combination.version
    known = facts.toolkits[toolkit_of(combination) or ""]
    patches = in_order({*known.patches, *known.drivers})
    if version is None or version.count(".") < 2 or not patches or version in patches:
        return
    said = f"CUDA {version} is not among the known patches of {known.version}: {listed(patches)}"
    if numbers_of(version) > numbers_of(patches[-1]):
        yield unknown(said, known.origin)
    else:
        yield forbidden(said, known.origin)


def _around(version: str, known: list[str]) -> str:
    below = [one for one in known if numbers_of(one) < numbers_of(version)][-1:]
    above = [one for one in known if numbers_of(one) > numbers_of(version)][:1]
    return listed([*below, *above])


def cuda_build(combination: Combination, facts: Facts) -> Iterator[Said]:
    """The release has no build for this CUDA."""
    view = view_of(combination, facts)
    if view.row is None or combination.cuda is None or view.with_cuda:
        return
    if toolkit_of(combination) is not None and not _is_toolkit(combination.cuda, facts):
        return
    name = f"{combination.package} {view.release}"
    if not view.builds:
        # A release that the lists of builds pass over; a project without any builds is not about CUDA.
        if view.project is not None and any(row.builds for row in view.project.rows):
            yield unknown(f"no source says which builds {name} has", view.row.origin)
        return
    asked = "build without CUDA" if combination.cuda == CPU else f"build for CUDA {combination.cuda}"
    read = were_read(view.builds) or view.builds
    gone = next((one for one in view.row.absent if one.cuda == combination.cuda), None)
    if gone is not None and gone.origin.confidence is Confidence.READ:
        yield forbidden(f"{name} has no {asked}; known are {_names(view.builds)}", gone.origin)
        return
    said = f"{name} has no {asked}; its builds are {_names(read)}"
    if combination.cuda == CPU and f"{combination.package}-cpu" in facts.projects:
        said += f"; the project without CUDA is {combination.package}-cpu"
    if _list_was_read(view):
        of_cuda = tuple(build for build in read if build.cuda != CPU)
        yield forbidden(said, _origins(of_cuda or read))
    else:
        yield unknown(f"no source lists every build of {name}; known are {_names(view.builds)}", _origins(view.builds))


def _is_toolkit(cuda: str, facts: Facts) -> bool:
    """Whether the rule about toolkits has nothing against this version, so that it makes sense to look for builds."""
    known = facts.toolkits.get(cuda)
    if known is not None:
        return known.exists
    toolkits = index_of(facts).toolkits
    return not toolkits or not numbers_of(toolkits[0]) < numbers_of(cuda) < numbers_of(facts.newest_toolkit)


def _names(builds: tuple[Build, ...]) -> str:
    versions = in_order({build.cuda for build in builds if build.cuda != CPU})
    names = [f"for CUDA {one}" if not place else one for place, one in enumerate(versions)]
    return listed([*names, *(["one without CUDA"] if any(build.cuda == CPU for build in builds) else [])])


def _list_was_read(view: View) -> bool:
    """Whether a source lists all builds. Where only the default build was read, nobody has seen the list."""
    others = [build for build in view.builds if not build.default and build.cuda != CPU]
    row_was_read = view.row is not None and view.row.origin.confidence is Confidence.READ
    return row_was_read and (not others or any(build.origin.confidence is Confidence.READ for build in others))


def _origins(builds: tuple[Build, ...]) -> str:
    """The sources of a list of builds: those that speak of several of them, for they are such lists; else some."""
    told = Counter(source for build in builds for source in build.origin.sources)
    lists = [source for source, number in told.items() if number > 1]
    return "; ".join((lists or list(told))[:_FEW])


def channel(combination: Combination, facts: Facts) -> Iterator[Said]:
    """The channel does not carry this build."""
    view = view_of(combination, facts)
    asked = combination.channel
    if view.row is None or asked is None or not view.with_cuda or any(asked in one.channels for one in view.with_cuda):
        return
    name = f"{combination.package} {view.release}"
    channels = sorted(set[str]().union(*(build.channels for build in view.with_cuda)))
    what = name if combination.cuda is None else f"the build {shown(view.with_cuda[0].cuda)} of {name}"
    carried = [build for build in view.builds if asked in build.channels]
    own = f", which has its build {shown(carried[0].cuda)}" if len(carried) == 1 else ""
    said = f"{what} is not on channel {asked}{own}; it is on {listed(channels)}"
    # What a channel does carry was read, or the build itself: either way the two do not come together.
    read = were_read(tuple(carried)) or were_read(view.with_cuda)
    yield forbidden(said, _origins(read)) if read else unknown(said, _origins(view.with_cuda))


def extra_build(combination: Combination, facts: Facts) -> Iterator[Said]:
    """A pip extra brings another CUDA than the one that is asked for."""
    view = view_of(combination, facts)
    if view.row is None or view.release is None or not view.with_cuda or combination.cuda is None:
        return
    named = brought(view.builds, view.row, view.release, combination.extras)
    if named and not any(build in named for build in view.with_cuda):
        yield forbidden(
            f"{combination.package}[{','.join(combination.extras)}] brings the build {_names(named)}, not "
            f"{'one without CUDA' if combination.cuda == CPU else f'one for CUDA {combination.cuda}'}",
            _origins(named),
        )


def inferred_build(combination: Combination, facts: Facts) -> Iterator[Said]:
    """No source that could be read has this build; there are only signs of it."""
    view = view_of(combination, facts)
    if view.row is None or not view.able or were_read(view.able):
        return
    build = view.able[0]
    yield unknown(
        f"there are only signs that {combination.package} {view.release} has a build {shown(build.cuda)}", build.origin
    )


def python_wheel(combination: Combination, facts: Facts) -> Iterator[Said]:
    """The release has no wheel for this Python."""
    view = view_of(combination, facts)
    python, row, release = combination.python, view.row, view.release
    if python is None or row is None or release is None or _not_released(python, facts):
        return
    name = f"{combination.package} {release}"
    if view.fitting and not view.able:
        yield from _refused(name, python, _pythons(view.fitting, row, release), row)
    elif not view.builds:
        pythons = row.pythons_of(release)
        if pythons is not None and python not in pythons:
            yield from _refused(name, python, pythons, row)
    required = row.requires_python_of(release)
    depends = any(pythons_of(build, row, release) is not None for build in view.fitting) or row.pythons_of(release)
    if not depends and required and not allows(required, python.rstrip("t")):
        yield forbidden(f"{name} requires Python {required}, not {python}", row.origin)


def _refused(name: str, python: str, pythons: frozenset[str], row: Row) -> Iterator[Said]:
    kind = "free-threaded Python" if is_free_threaded(python) else "Python"
    said = f"{name} has no wheel for {kind} {python}; it has wheels for {listed(in_order(pythons))}"
    yield forbidden(said, row.origin) if row.origin.confidence is Confidence.READ else unknown(said, row.origin)


def _pythons(builds: tuple[Build, ...], row: Row, release: str) -> frozenset[str]:
    return frozenset[str]().union(*(pythons_of(build, row, release) or frozenset() for build in builds))


def _not_released(python: str, facts: Facts) -> bool:
    """Whether the rule about Python's own releases has spoken already."""
    series = python.rstrip("t")
    known = facts.pythons.get(series)
    if known is None:
        pythons = index_of(facts).pythons
        return bool(pythons) and python_of(series) > python_of(pythons[-1])
    return known.first_release is not None and known.first_release > facts.date


def broken_python(combination: Combination, facts: Facts) -> Iterator[Said]:
    """Its wheel installs on this Python and does not work there."""
    view = view_of(combination, facts)
    if view.row is None or combination.python is None:
        return
    why = view.row.broken_pythons.get(combination.python)
    if why is not None:
        yield forbidden(
            f"{combination.package} {view.release} installs on Python {combination.python} and does not work: {why}",
            view.row.origin,
        )


def plain_install(combination: Combination, facts: Facts) -> Iterator[Said]:
    """The build comes only with a pip extra or under another project's name; the plain requirement gives another."""
    view = view_of(combination, facts)
    if combination.cuda in (None, CPU) or not view.able:
        return
    build = view.able[0]
    if any(one.default for one in view.able) and not build.extra:
        return
    name = f"{combination.package}=={view.release}"
    has_extra = view.row is not None and brought((build,), view.row, view.release or "", combination.extras)
    if build.extra and not has_extra:
        yield warning(
            f"install {combination.package}[{build.extra}]=={view.release}: the plain requirement brings no CUDA",
            build.origin,
        )
    elif build.distribution and not build.extra:
        yield warning(f"install {build.distribution}=={view.release}: {name} brings no CUDA", build.origin)
