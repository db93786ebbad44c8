"""The Python packages of one environment: every request of its cells, resolved together, into a lock.

Cells that share an environment share its versions, and so its layers. Each request then installs a part of them: what
it needs, without what earlier requests have brought.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from builder.errors import ConfigError, Impossible, NotLocked
from builder.lock.file import constraints_sha256, missing_python
from builder.lock.model import EnvironmentLock, LockedPackage, PythonRequest, Requests
from builder.resolve.pylock import Release, ReleaseFile
from builder.resolve.target import Target


class Resolving(Protocol):
    """What is asked of a resolver; `Uv` is one."""

    def releases(
        self,
        requirements: Iterable[str],
        *,
        constraints: str = "",
        preferred: Mapping[str, str] | None = None,
        deps: bool = True,
    ) -> tuple[Release, ...]:
        """One version of everything that the requirements need, with its files."""

    def names(self, requirements: Iterable[str], pins: Mapping[str, str]) -> frozenset[str]:
        """The projects that requirements need, given one version of each."""


@dataclass(frozen=True, kw_only=True)
class Upgrade:
    """What `lock --upgrade` moves.

    Attributes:
        everything: whether every package may move.
        packages: normalised names of those that may.
    """

    everything: bool = False
    packages: frozenset[str] = field(default_factory=frozenset)

    def moves(self, name: str) -> bool:
        """Whether a package may get another version, although the lock has one."""
        return self.everything or name in self.packages

    def concerns(self, lock: EnvironmentLock | None) -> bool:
        """Whether anything in a lock may move."""
        return lock is None or self.everything or not self.packages.isdisjoint(lock.packages)


def lock_environment(
    name: str,
    requests: Mapping[str, Requests],
    *,
    target: Target,
    resolver: Callable[[], Resolving],
    hash_of: Callable[[str], str],
    previous: EnvironmentLock | None,
    upgrade: Upgrade,
) -> EnvironmentLock:
    """Locks an environment.

    What the previous lock has stays as it is, unless it is to be upgraded, or no longer fits. When it has everything,
    nothing is resolved.

    Args:
        name: of the environment.
        requests: what each of its cells asks for, by the cell's id.
        target: what it runs on.
        resolver: makes the resolver, once there is something to resolve.
        hash_of: the SHA-256 of the file at an address; called for a file that its index gives no hash of.
        previous: its lock so far.
        upgrade: what may move.

    Raises:
        ConfigError: cells of the environment have different constraints.
        Impossible: no versions satisfy all requests, or a package has no file for this Python and glibc.
        NotLocked: an index has another hash for a file than the previous lock.
        ImgbuildError: the resolver failed, see `Uv`.
    """
    constraints = _one_constraints(name, requests)
    asked = sorted(
        {request for each in requests.values() for request in each.python}, key=lambda request: request.order
    )
    if previous is not None and not upgrade.concerns(previous) and not missing_python(previous, requests):
        return _pruned(previous, asked)
    keep = {} if previous is None else {n: p for n, p in previous.packages.items() if not upgrade.moves(n)}
    try:
        return _Locking(
            name=name,
            constraints=constraints,
            target=target,
            resolver=resolver(),
            hash_of=hash_of,
            keep=keep,
        ).lock(asked, _with_deps(requests))
    except Impossible as error:
        raise Impossible(error.message, where=name, hint=_askers(error.message, requests)) from None


def _one_constraints(name: str, requests: Mapping[str, Requests]) -> str:
    by_text: dict[str, str] = {}
    for cell, each in requests.items():
        by_text.setdefault(each.constraints, cell)
    if len(by_text) > 1:
        first, second = list(by_text.values())[:2]
        raise ConfigError(
            f"cells {first} and {second} share an environment and have different constraints",
            where=name,
            hint="name one constraints file for both in matrix.yaml",
        )
    return next(iter(by_text), "")


def _with_deps(requests: Mapping[str, Requests]) -> dict[PythonRequest, frozenset[str]]:
    """For each request the requirements that surely brought their dependencies to whoever makes it: in every cell."""
    found: dict[PythonRequest, frozenset[str]] = {}
    for each in requests.values():
        whole = frozenset(line for request in each.python if request.deps for line in request.requirements)
        for request in each.python:
            found[request] = found.get(request, whole) & whole
    return found


def _pruned(lock: EnvironmentLock, asked: Collection[PythonRequest]) -> EnvironmentLock:
    """The lock without what nothing asks for any more."""
    installs = {request: names for request, names in lock.installs.items() if request in asked}
    used = {name for names in installs.values() for name in names}
    packages = {name: package for name, package in lock.packages.items() if name in used}
    return dataclasses.replace(lock, packages=packages, installs=installs)


@dataclass(frozen=True, kw_only=True)
class _Locking:
    name: str
    constraints: str
    target: Target
    resolver: Resolving
    hash_of: Callable[[str], str]
    keep: Mapping[str, LockedPackage]
    _known: dict[frozenset[str], frozenset[str]] = field(default_factory=dict)

    def lock(
        self, asked: Collection[PythonRequest], with_deps: Mapping[PythonRequest, frozenset[str]]
    ) -> EnvironmentLock:
        found = self._releases(asked)
        pins = {release.name: release.version for release in found.values()}
        installs = {request: self._installs(request, with_deps[request], pins) for request in asked}
        used = sorted({name for names in installs.values() for name in names})
        return EnvironmentLock(
            name=self.name,
            constraints=constraints_sha256(self.constraints),
            packages={name: self._chosen(found[name]) for name in used},
            installs=installs,
        )

    def _releases(self, asked: Collection[PythonRequest]) -> dict[str, Release]:
        """One version of everything that any request installs."""
        preferred = {name: package.version for name, package in self.keep.items()}
        whole = sorted({line for request in asked if request.deps for line in request.requirements})
        alone = sorted({line for request in asked if not request.deps for line in request.requirements})
        found: dict[str, Release] = {}
        if whole:
            resolved = self.resolver.releases(whole, constraints=self.constraints, preferred=preferred)
            found = {release.name: release for release in resolved}
        if alone:
            # They agree with what is installed with its dependencies, and bring nothing of their own.
            pins = "".join(f"{name}=={release.version}\n" for name, release in sorted(found.items()))
            constraints = "\n".join(filter(None, (self.constraints, pins)))
            resolved = self.resolver.releases(alone, constraints=constraints, preferred=preferred, deps=False)
            found |= {release.name: release for release in resolved}
        return found

    def _installs(self, request: PythonRequest, with_deps: Collection[str], pins: Mapping[str, str]) -> tuple[str, ...]:
        # What was asked for without dependencies brought none, also to those who build on it.
        built_on = [line for line in request.after if line in with_deps]
        there = self._needs(built_on, pins) | {_project(line) for line in request.after}
        if request.deps:
            wanted = self._needs([*built_on, *request.requirements], pins)
        else:
            wanted = frozenset(_project(line) for line in request.requirements)
        return tuple(sorted(wanted - there))

    def _needs(self, requirements: Collection[str], pins: Mapping[str, str]) -> frozenset[str]:
        key = frozenset(requirements)
        if key and key not in self._known:
            self._known[key] = self.resolver.names(sorted(key), pins)
        return self._known.get(key, frozenset())

    def _chosen(self, release: Release) -> LockedPackage:
        files = {file.name: file for file in release.files}
        kept = self.keep.get(release.name)
        if kept is not None and kept.version == release.version:
            # A better file of the same release is an upgrade as well.
            again = files.get(kept.file)
            if again is not None and again.sha256 is not None and kept.sha256 not in (again.sha256, again.disputed):
                raise NotLocked(
                    f"{kept.file} is locked with SHA-256 {kept.sha256}, and the index now says {again.sha256}",
                    where=self.name,
                    hint="find out which of the two is right; `imgbuild lock --upgrade "
                    f"{release.name}` takes what the index says",
                )
            return kept
        best = self.target.best(files)
        if best is None:
            glibc = ".".join(map(str, self.target.glibc))
            raise Impossible(
                f"{release.name} {release.version} has no file for Python {self.target.python} on glibc {glibc}, only "
                + (", ".join(sorted(files)) or "none at all"),
            )
        if files[best].disputed is not None:
            raise NotLocked(
                f"two indexes have different files named {best}: "
                f"one has SHA-256 {files[best].sha256}, the other {files[best].disputed}",
                where=self.name,
                hint="find out which of the two is right, and take the index with the other out of pip's settings",
            )
        return LockedPackage(name=release.name, version=release.version, file=best, sha256=self._sha256(files[best]))

    def _sha256(self, file: ReleaseFile) -> str:
        return file.sha256 or self.hash_of(file.url)


def _project(requirement: str) -> str:
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    return str(canonicalize_name(Requirement(requirement).name))


def _askers(explanation: str, requests: Mapping[str, Requests]) -> str:
    """Which cells ask for what an explanation names."""
    words = {re.sub(r"[-_.]+", "-", word).lower() for word in re.findall(r"[A-Za-z0-9][A-Za-z0-9._-]*", explanation)}
    cells: dict[str, list[str]] = {}
    for cell, each in requests.items():
        for line in sorted({line for request in each.python for line in request.requirements}):
            if _project(line) in words:
                cells.setdefault(line, []).append(cell)
    if not cells:
        return f"asked for by {_several(list(requests))}"
    return "; ".join(f"{line} is asked for by {_several(names)}" for line, names in cells.items())


def _several(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
