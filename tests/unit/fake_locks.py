"""Lock files for tests: everything that cells ask for, in versions and with hashes that are made up."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path

from packaging.requirements import Requirement

from builder.lock import BaseLock, DebianRequest, EnvironmentLock, LockedPackage, MadeBase, PythonRequest
from builder.lock.file import LOCKS, Locks, constraints_sha256, environment_name, write_base, write_environment
from builder.matrix import Cell
from builder.render import Renderer

VERSION = "1.5"
"""Of everything whose version no request says."""


def fake_package(requirement: str) -> LockedPackage:
    parsed = Requirement(requirement)
    version = next((specifier.version.removesuffix(".*") for specifier in parsed.specifier), VERSION)
    return LockedPackage(
        name=parsed.name,
        version=version,
        file=f"{parsed.name.replace('-', '_')}-{version}-py3-none-any.whl",
        sha256=hashlib.sha256(requirement.encode()).hexdigest(),
    )


def fake_environment(name: str, requests: Sequence[PythonRequest], constraints: str = "") -> EnvironmentLock:
    """Every request installs what it names, and nothing else."""
    packages = {}
    installs = {}
    for request in requests:
        found = [fake_package(requirement) for requirement in request.requirements]
        packages.update((package.name, package) for package in found)
        installs[request] = tuple(sorted(package.name for package in found))
    return EnvironmentLock(name=name, constraints=constraints_sha256(constraints), packages=packages, installs=installs)


def fake_base(cell: Cell, requests: Iterable[DebianRequest]) -> BaseLock:
    """Every request installs what it names, and a library beside it."""
    return BaseLock(
        name=cell.base.name,
        image=cell.base.image,
        refreshed="2026-01-02",
        digest=None,
        why="a test",
        made=MadeBase(recipe="0" * 64, packages={"dpkg": "1.21"}),
        installs={
            request: dict.fromkeys((*request.packages, f"lib{request.packages[0]}"), f"{VERSION}-1")
            for request in requests
        },
    )


def write_fake_locks(cells: Iterable[Cell], directory: Path, fallback: Path | None = None) -> Locks:
    """Writes the lock files of cells below `directory`, which holds their templates, or else `fallback` does."""
    renderer = Renderer(directory, fallback)
    locks = Locks(directory / LOCKS)
    python: dict[str, dict[PythonRequest, None]] = {}
    debian: dict[str, dict[DebianRequest, None]] = {}
    by_name: dict[str, tuple[Cell, str]] = {}
    bases: dict[str, Cell] = {}
    for cell in cells:
        asked, name = renderer.collect(cell), environment_name(cell)
        by_name[name], bases[cell.base.name] = (cell, asked.constraints), cell
        python.setdefault(name, {}).update(dict.fromkeys(asked.python))
        debian.setdefault(cell.base.name, {}).update(dict.fromkeys(asked.debian))
    for name, requests in python.items():
        write_environment(locks, fake_environment(name, tuple(requests), by_name[name][1]))
    for name, asked_for in debian.items():
        write_base(locks, fake_base(bases[name], asked_for))
    return locks
