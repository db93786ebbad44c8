"""`imgbuild lock`."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from builder.cli.lock_report import Entry, report, report_check
from builder.cli.options import (
    format_option,
    load,
    matrix_options,
    note,
    select_cells,
    selection_options,
    this_site,
)
from builder.exits import cancellable

if TYPE_CHECKING:
    from builder.lock.file import Locks
    from builder.lock.model import BaseLock, EnvironmentLock
    from builder.project import Project
    from builder.resolve.plan import Survey
    from builder.resolve.python import Upgrade

_ALL = "*"
"""The value of a bare `--upgrade`."""


@click.command("lock")
@matrix_options
@selection_options
@click.option(
    "--upgrade",
    multiple=True,
    is_flag=False,
    flag_value=_ALL,
    metavar="[PACKAGE]",
    help="Let versions move: of one Python package, with `debian` of the distribution's packages and the base, or "
    "of everything without a value. May be repeated; CELLs go before it.",
)
@click.option(
    "--check", is_flag=True, help="Write and resolve nothing; exit 19 when something is not locked, 13 when more is."
)
@click.option("--dry-run", is_flag=True, help="Resolve, say what would change, and write nothing.")
@click.option(
    "--part",
    type=click.Choice(["all", "python", "debian"]),
    default="all",
    show_default=True,
    help="Only the Python packages, which needs no engine; or only the bases and the distribution's packages.",
)
@click.option(
    "--bases",
    type=click.Choice(["auto", "registry", "bootstrap"]),
    default="auto",
    show_default=True,
    help="Where bases come from, as in `imgbuild build`.",
)
@format_option
def lock(
    patterns: tuple[str, ...],
    only: tuple[str, ...],
    skip: tuple[str, ...],
    matrix_path: Path | None,
    repository: str | None,
    upgrade: tuple[str, ...],
    check: bool,
    dry_run: bool,
    part: str,
    bases: str,
    format_: str,
) -> None:
    """Resolve what the cells install to exact versions and hashes, in lock files that are reviewed like code.

    A lock file that has everything stays as it is, to the byte; what is missing is added, and what is locked keeps
    its version. Cells that share a framework, a version, CUDA, a Python and a base share a lock.

    \b
    Examples:
      imgbuild lock                        after a change of the matrix or of a template
      imgbuild lock --check                in CI: is everything locked that the cells ask for?
      imgbuild lock --upgrade --dry-run    what would newer versions change, and in which cells?
      imgbuild lock --upgrade debian       the distribution's security fixes, as a change to review
      imgbuild lock --upgrade numpy        one package, in every environment that has it
    """
    if check and (upgrade or dry_run):
        raise click.UsageError("--check resolves nothing: leave out --upgrade and --dry-run")
    from builder.lock.file import locks_of, replace_locks
    from builder.resolve.plan import survey

    project, matrix = load(matrix_path, repository)
    cells = select_cells(matrix, patterns, only, skip)
    locks = locks_of(project)
    asked = survey(matrix.cells, cells, project)
    # Some of the cells leave open what the others need.
    whole = not (patterns or only or skip)
    unneeded = _leftover(asked, locks, part) if whole else ()
    if check:
        _check(asked, locks, unneeded, part, format_)
        return
    entries: list[Entry] = []
    found: list[EnvironmentLock | BaseLock] = []
    with cancellable() as cancel:
        moves = _upgrade(upgrade, asked, locks)
        if part != "debian":
            entries += _lock_python(asked, locks, moves, cancel, found)
        if part != "python":
            everything = moves.everything or "debian" in upgrade
            entries += _lock_bases(
                asked,
                locks,
                project=project,
                repository=matrix.repository,
                mode=bases,
                upgrade=everything,
                cancel=cancel,
                new=found,
            )
        if not dry_run:
            # Whatever failed has done so by now: one change, whole or not at all.
            replace_locks(locks, found, unneeded)
    report(entries, unneeded, dry_run, format_)


def _leftover(asked: Survey, locks: Locks, part: str) -> tuple[Path, ...]:
    from builder.lock.file import BASE_SUFFIX, PYTHON_SUFFIX
    from builder.resolve.plan import leftover_files

    suffixes = {"all": (PYTHON_SUFFIX, BASE_SUFFIX), "python": (PYTHON_SUFFIX,), "debian": (BASE_SUFFIX,)}[part]
    return tuple(path for path in leftover_files(asked, locks) if path.name.endswith(suffixes))


def _upgrade(names: tuple[str, ...], asked: Survey, locks: Locks) -> Upgrade:
    from builder.resolve.plan import known_packages, previous_environment
    from builder.resolve.python import Upgrade

    everything = _ALL in names
    before = (previous_environment(environment, locks) for environment in asked.environments)
    return Upgrade(
        everything=everything,
        packages=known_packages((name for name in names if name != _ALL), before) if names else frozenset(),
    )


def _lock_python(
    asked: Survey, locks: Locks, moves: Upgrade, cancel: threading.Event, new: list[EnvironmentLock | BaseLock]
) -> list[Entry]:
    from builder.lock.documents import environment_text
    from builder.resolve.machine import lock_environments
    from builder.resolve.plan import environment_changes, previous_environment

    found = lock_environments(
        asked.environments,
        locks,
        site=this_site(),
        upgrade=moves,
        cancel=cancel,
        on_failure=lambda error: note(f"also: {error}"),
    )
    entries = []
    for environment, lock in zip(asked.environments, found, strict=True):
        before, path = previous_environment(environment, locks), locks.python_path(environment.name)
        entry = Entry(kind="environment", name=environment.name, path=path, cells=environment.cells)
        text = environment_text(lock)
        if before is None or environment_text(before) != text or _differs(path, text):
            entry.status = "changed" if before is not None else "new"
            entry.changes = environment_changes(environment, before, lock)
            new.append(lock)
        entries.append(entry)
    return entries


def _differs(path: Path, text: str) -> bool:
    """Whether the project's own file is there and is written in another way: sorted by hand, for example."""
    try:
        return path.read_bytes() != text.encode()
    except FileNotFoundError:
        return False


def _lock_bases(
    asked: Survey,
    locks: Locks,
    *,
    project: Project,
    repository: str,
    mode: str,
    upgrade: bool,
    cancel: threading.Event,
    new: list[EnvironmentLock | BaseLock],
) -> list[Entry]:
    from builder.lock import Bases
    from builder.lock.documents import base_text
    from builder.resolve.machine import lock_bases
    from builder.resolve.plan import base_changes, previous_base

    found = lock_bases(
        asked.grounds,
        locks,
        project=project,
        repository=repository,
        site=this_site(),
        mode=Bases(mode),
        upgrade=upgrade,
        cancel=cancel,
        on_line=note,
    )
    entries = []
    for ground, lock in zip(asked.grounds, found, strict=True):
        before, path = previous_base(ground, locks), locks.base_path(ground.base.name)
        entry = Entry(kind="base", name=ground.base.name, path=path, cells=ground.cells)
        text = base_text(lock)
        if before is None or base_text(before) != text or _differs(path, text):
            entry.status = "changed" if before is not None else "new"
            entry.changes = base_changes(ground, before, lock)
            new.append(lock)
        entries.append(entry)
    return entries


def _check(asked: Survey, locks: Locks, unneeded: Sequence[Path], part: str, format_: str) -> None:
    """Says what is not locked, and what is and need not be; without network, engine or uv."""
    from builder.lock.documents import base_text, environment_text
    from builder.lock.file import missing_python
    from builder.resolve.plan import missing_debian, unasked, unasked_debian

    entries: list[Entry] = []
    for environment in asked.environments if part != "debian" else ():
        path, lock = locks.python_path(environment.name), locks.environment(environment.name)
        entry = Entry(kind="environment", name=environment.name, path=path, cells=environment.cells)
        entry.missing = missing_python(lock, environment.requests)
        if lock is not None and locks.owns(path):
            entry.leftover = (*unasked(environment, lock), *_form(path, environment_text(lock)))
        entries.append(entry)
    for ground in asked.grounds if part != "python" else ():
        path, base = locks.base_path(ground.base.name), locks.base(ground.base.name)
        entry = Entry(kind="base", name=ground.base.name, path=path, cells=ground.cells)
        entry.missing = missing_debian(ground, base)
        if base is not None and locks.owns(path):
            entry.leftover = (*unasked_debian(ground, base), *_form(path, base_text(base)))
        entries.append(entry)
    for entry in entries:
        entry.status = "missing" if entry.missing else "differs" if entry.leftover else "locked"
    report_check(entries, unneeded, format_)


def _form(path: Path, text: str) -> tuple[str, ...]:
    return ("it is not written as imgbuild writes it",) if _differs(path, text) else ()
