"""What `imgbuild lock` prints."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import click

from builder.errors import Differs, NotLocked

if TYPE_CHECKING:
    from builder.resolve.plan import Change


@dataclass(kw_only=True)
class Entry:
    """What is said of one lock file."""

    kind: str
    name: str
    path: Path
    cells: Sequence[str]
    status: str = "unchanged"
    changes: Sequence[Change] = field(default_factory=tuple)
    missing: Sequence[str] = field(default_factory=tuple)
    leftover: Sequence[str] = field(default_factory=tuple)


def report(entries: Sequence[Entry], unneeded: Sequence[Path], dry_run: bool, format_: str) -> None:
    if format_ == "json":
        echo_json(entries, unneeded)
        return
    would = "would be " if dry_run else ""
    changed = [entry for entry in entries if entry.status != "unchanged"]
    for entry in changed:
        click.echo(f"{entry.path}: {would}{'written' if entry.status == 'new' else 'changed'}")
        if entry.status == "new":
            click.echo(f"    {_count({change.package for change in entry.changes}, 'package')}")
            click.echo(f"    in {_several(entry.cells)}")
            continue
        for cells, changes in _by_cells(entry.changes):
            for change in changes:
                click.echo(f"    {change}")
            click.echo(f"    in {_several(cells)}" if cells else "    in no cell")
        if not entry.changes:
            click.echo("    the same packages, written anew")
    for path in unneeded:
        click.echo(f"{path}: {would}removed, it belongs to no cell")
    if not changed and not unneeded:
        click.echo("nothing changed")
    elif len(changed) < len(entries):
        click.echo(f"{_count(entries[len(changed) :], 'lock file')} unchanged")


def echo_json(entries: Sequence[Entry], unneeded: Sequence[Path]) -> None:
    document = {
        "schema": "imgbuild.lock/1",
        "locks": [
            {
                "kind": entry.kind,
                "name": entry.name,
                "path": str(entry.path),
                "status": entry.status,
                "cells": list(entry.cells),
                "changes": [
                    {
                        "package": change.package,
                        "before": change.before,
                        "after": change.after,
                        "cells": list(change.cells),
                    }
                    for change in entry.changes
                ],
                "missing": list(entry.missing),
                "leftover": list(entry.leftover),
            }
            for entry in entries
        ],
        "removed": [str(path) for path in unneeded],
    }
    click.echo(json.dumps(document, indent=2))


def _cells(entries: Iterable[Entry]) -> list[str]:
    return list(dict.fromkeys(cell for entry in entries for cell in entry.cells))


def _by_cells(changes: Iterable[Change]) -> list[tuple[tuple[str, ...], list[Change]]]:
    """Changes that concern the same cells, together."""
    found: dict[tuple[str, ...], list[Change]] = {}
    for change in changes:
        found.setdefault(change.cells, []).append(change)
    return list(found.items())


def _several(cells: Sequence[str]) -> str:
    return ", ".join(cells[:5]) + (f" and {len(cells) - 5} more" if len(cells) > 5 else "")


def _count(things: Collection[object], name: str) -> str:
    return f"{len(things)} {name}" + ("" if len(things) == 1 else "s")


def fail(entries: Sequence[Entry], unneeded: Sequence[Path]) -> None:
    hint = "run `imgbuild lock`, look at what it changes, and commit it"
    lacking = [entry.path for entry in entries if entry.missing]
    if lacking:
        what = f"cells ask for what is not locked, in {_count(lacking, 'lock file')}"
        raise NotLocked(what, where=str(lacking[0]), hint=hint)
    differing = [entry.path for entry in entries if entry.leftover] + list(unneeded)
    if differing:
        what = f"{_count(differing, 'lock file')} would be written in another way"
        raise Differs(what, where=str(differing[0]), hint=hint)


def report_check(entries: Sequence[Entry], unneeded: Sequence[Path], format_: str) -> None:
    """Says what `--check` found.

    Raises:
        NotLocked: something is missing.
        Differs: nothing is, but something is left over.
    """
    if format_ == "json":
        echo_json(entries, unneeded)
    else:
        for entry in entries:
            for sentence in entry.missing:
                click.echo(f"{entry.path}: missing: {sentence}")
            for sentence in entry.leftover:
                click.echo(f"{entry.path}: differs: {sentence}")
        for path in unneeded:
            click.echo(f"{path}: belongs to no cell")
    fail(entries, unneeded)
    if format_ != "json":
        click.echo(f"{len(entries)} lock files hold all that {_count(_cells(entries), 'cell')} ask for")
