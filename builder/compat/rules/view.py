"""What a combination means in the tables: its release, and the builds that it may mean."""

from __future__ import annotations

import re
from dataclasses import dataclass

from builder.compat.model import CPU, Build, Combination, Confidence, Facts, Project, Row
from builder.compat.rules.lookup import MEMORY, Index, index_of
from builder.compat.rules.versions import same_cuda

_PROJECT = re.compile(r"[A-Za-z0-9._-]*")

DRIVER_QUESTION = "cuda"
"""The package that stands for a CUDA toolkit alone."""


@dataclass(frozen=True, kw_only=True)
class View:
    """A combination, looked up.

    Attributes:
        index: of the facts.
        project: None when the tables do not know it.
        release: its version as the tables write it; None when they have none, or none was asked for.
        row: that holds the release.
        builds: those of the release.
        with_cuda: of these, those that serve the CUDA that is asked for; all when none is.
        fitting: of these, those of the channel and the extras that are asked for.
        able: of these, those with wheels for the Python that is asked for.
    """

    index: Index
    project: Project | None
    release: str | None
    row: Row | None
    builds: tuple[Build, ...]
    with_cuda: tuple[Build, ...]
    fitting: tuple[Build, ...]
    able: tuple[Build, ...]

    @property
    def for_gpu(self) -> tuple[Build, ...]:
        """Of the able builds, those for a GPU."""
        return tuple(build for build in self.able if build.cuda != CPU)


_last: tuple[Combination, Facts, View] | None = None


def view_of(combination: Combination, facts: Facts) -> View:
    """Looks a combination up. The last answer is kept, since every rule asks for the same one."""
    global _last
    last = _last
    if last is not None and last[0] is combination and last[1] is facts:
        return last[2]
    view = _look_up(combination, facts)
    _last = (combination, facts, view)
    return view


def pythons_of(build: Build, row: Row, release: str) -> frozenset[str] | None:
    """The Pythons that a build has wheels for; None when they do not depend on it."""
    return build.pythons if build.pythons is not None else row.pythons_of(release)


def _look_up(combination: Combination, facts: Facts) -> View:
    index = index_of(facts)
    project = facts.projects.get(combination.package)
    found = index.release(project, combination.version) if project and combination.version else None
    if found is None:
        return View(index=index, project=project, release=None, row=None, builds=(), with_cuda=(), fitting=(), able=())
    release, row = found
    python = combination.python
    builds = index.builds(row, release)
    with_cuda, fitting = _fitting(index, row, release, combination)
    if python is None:
        able = fitting
    else:
        able = tuple(
            build for build in fitting if (pythons := pythons_of(build, row, release)) is None or python in pythons
        )
    return View(
        index=index,
        project=project,
        release=release,
        row=row,
        builds=builds,
        with_cuda=with_cuda,
        fitting=fitting,
        able=able,
    )


def _fitting(
    index: Index, row: Row, release: str, combination: Combination
) -> tuple[tuple[Build, ...], tuple[Build, ...]]:
    """`View.with_cuda` and `View.fitting`, which few combinations differ in."""
    cuda, channel, extras = combination.cuda, combination.channel, combination.extras
    key = (row.project, release, cuda, channel, extras)
    held = index.fitting.get(key)
    if held is not None:
        return held
    builds = index.builds(row, release)
    with_cuda = builds if cuda is None else tuple(build for build in builds if same_cuda(build.cuda, cuda))
    fitting = with_cuda if channel is None else tuple(build for build in with_cuda if channel in build.channels)
    named = brought(builds, row, release, extras)
    if named:
        fitting = tuple(build for build in fitting if build in named)
    if len(index.fitting) >= MEMORY:
        index.fitting.clear()
    index.fitting[key] = (with_cuda, fitting)
    return with_cuda, fitting


def brought(builds: tuple[Build, ...], row: Row, release: str, extras: tuple[str, ...]) -> tuple[Build, ...]:
    """The builds that these pip extras bring: by their own name, or as one that requires the same distribution."""
    if not extras:
        return ()
    required = {
        _PROJECT.match(text)[0]  # type: ignore[index]
        for extra in row.extras
        if extra.name in extras and (extra.versions is None or release in extra.versions)
        for text in extra.requires
    }
    return tuple(build for build in builds if build.extra and (build.extra in extras or build.distribution in required))


def shown(cuda: str) -> str:
    """A build, for a message."""
    return "without CUDA" if cuda == CPU else f"for CUDA {cuda}"


def were_read(builds: tuple[Build, ...]) -> tuple[Build, ...]:
    """Those whose existence was read in a source."""
    return tuple(build for build in builds if build.origin.confidence is Confidence.READ)
