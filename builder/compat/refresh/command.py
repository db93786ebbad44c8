"""The command: reads an index, works out the tables that follow, prints the difference, writes when told to."""

from __future__ import annotations

import datetime
import difflib
import functools
import importlib
import os
import ssl
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import click

from builder.compat.load import PROJECTS, TABLES
from builder.compat.refresh import derive, merge
from builder.compat.refresh.canonical import canonical, dump
from builder.compat.refresh.index import Fetch, IndexRelease, fetch_with, read_project, requirements
from builder.compat.refresh.merge import INVERSE_OF, Needs
from builder.compat.refresh.raw import Table, mapping, records
from builder.compat.values import Value, read_table
from builder.engine.urls import redact_urls
from builder.errors import ConfigError, Differs, ImgbuildError
from builder.project import write_output
from builder.site import load_site


class Refresher:
    """Reads an index once per project and works out the tables that follow.

    Args:
        directory: laid out as `builder/compat/tables`.
        recheck: whether METADATA is read for releases that the tables have already.
    """

    def __init__(self, fetch: Fetch, index_url: str, directory: Path, *, recheck: bool = False) -> None:
        self._fetch = fetch
        self._directory = directory
        self._recheck = recheck
        self._found = functools.cache(
            lambda project: read_project(
                fetch, index_url, project, sources=self.table(project).get("sdist_only") is True
            )
        )
        self.projects = tuple(sorted(path.stem for path in (directory / PROJECTS).glob("*.yaml")))
        python = read_table(directory / "python.yaml")
        self._pythons = tuple(row.field("version").text() for row in python.field("rows").items())

    def path(self, project: str) -> Path:
        return self._directory / PROJECTS / f"{project}.yaml"

    @functools.cache  # noqa: B019 - one Refresher per run
    def table(self, project: str) -> Table:
        """A project's table as committed; an empty one for a project that has none, such as a plugin's."""
        path = self.path(project)
        return _plain(read_table(path)) if path.exists() else {}

    @functools.cache  # noqa: B019
    def refreshed(self, project: str) -> Table:
        """A project's table as the index would have it.

        Raises:
            ConfigError: the index cannot be reached, or does not answer for this project.
        """
        table = self.table(project)
        releases = self._found(project)
        new = merge.merged(table, releases, self._needs(project, table, releases), self._pythons)
        for companion in INVERSE_OF.get(project, ()):
            new = derive.with_inverse(new, self.refreshed(companion))
        if project in merge.TRACKED_EXTRAS:
            new = derive.with_distributions(new, self._found, self._pythons)
        return new

    def _needs(self, project: str, table: Table, releases: Mapping[str, IndexRelease]) -> dict[str, Needs]:
        from packaging.version import Version

        had = {version for row in records(table.get("rows")) for version in _keys(row.get("releases"))}
        needs = {}
        for version, release in releases.items():
            wanted = self._recheck or version not in had
            if release.wheels and wanted and Version(version) >= Version(str(table["oldest"])):
                requires, extras = requirements(self._fetch, release.wheels[-1])
                pythons = release.pythons(self._pythons) or set(self._pythons)
                needs[version] = merge.needs_of(project, requires, extras, pythons, self.projects)
        return needs


def difference(path: Path, old: str, new: str) -> str:
    """A unified difference between two texts of a table; empty when they are equal."""
    name = path.name
    lines = difflib.unified_diff(old.splitlines(True), new.splitlines(True), f"a/{name}", f"b/{name}", n=2)
    return "".join(lines)


@click.command()
@click.option("--project", "names", multiple=True, help="Only this project; may be repeated.")
@click.option("--index-url", help="A simple index; default: that of the site settings, then pip's own.")
@click.option("--write", is_flag=True, help="Write the tables, and not only print what would change.")
@click.option("--allow-removals", is_flag=True, help="Let tables lose rows, releases, Pythons or requirements.")
@click.option("--recheck", is_flag=True, help="Read METADATA also of releases that the tables have.")
@click.option("--format", "only_format", is_flag=True, help="Ask no index: put the tables into their canonical form.")
@click.option("--counts", is_flag=True, help="Ask no index: print what the tables hold, as docs/facts.md shows it.")
@click.option("--tables", type=click.Path(path_type=Path, file_okay=False, exists=True), default=TABLES, hidden=True)
def command(
    names: Sequence[str],
    index_url: str | None,
    write: bool,
    allow_removals: bool,
    recheck: bool,
    only_format: bool,
    counts: bool,
    tables: Path,
) -> None:
    """Refresh the fact tables from a package index and show what changes."""
    if counts:
        click.echo(counts_of(tables), nl=False)
        return
    if only_format:
        pending = {path: dump(_plain(read_table(path))) for path in sorted(tables.rglob("*.yaml"))}
        _show_and_write(pending, write)
        return
    site = load_site(os.environ)
    url = index_url or site.index_url or _default_index()
    refresher = Refresher(fetch_with(_context(site.ca_bundle)), url, tables, recheck=recheck)
    for name in names:
        if name not in refresher.projects:
            raise ConfigError(
                f"there is no table of {name!r}", where="--project", hint=f"known: {', '.join(refresher.projects)}"
            )
    pending, removed = refresh(refresher, names or refresher.projects, datetime.date.today().isoformat())
    _show_and_write(pending, write and (allow_removals or not removed))
    if removed and not allow_removals:
        raise Differs(
            "the index lacks what the tables have, so nothing was written:\n    " + "\n    ".join(removed),
            hint="if it is really gone, say --allow-removals",
        )


def refresh(refresher: Refresher, names: Sequence[str], today: str) -> tuple[dict[Path, str], list[str]]:
    """The new text of every table that changes, and what they would lose, one line each.

    Args:
        today: ISO 8601; a table that changes gets this date.
    """
    pending, removed = {}, []
    for name in names:
        old, new = refresher.table(name), refresher.refreshed(name)
        if canonical(old) != new:
            pending[refresher.path(name)] = dump({**new, "date": today})
            removed += [f"{name}: {line}" for line in derive.lost(old, new)]
    return pending, removed


# Lists of a row whose entries say themselves how they are known.
_PARTS: Final = ("builds", "absent", "extras", "companions")


def counts_of(tables: Path) -> str:
    """What the tables hold, as a Markdown table."""
    lines = [
        "| table | rows | releases | builds | read | inferred | unknown | holds to |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for path in sorted(tables.rglob("*.yaml")):
        table = _plain(read_table(path))
        rows = records(table.get("rows"))
        parts = [
            *rows,
            *records(table.get("compilers")),
            *(item for row in rows for key in _PARTS for item in records(row.get(key))),
        ]
        told = [
            len([part for part in parts if part.get("confidence") == word]) for word in ("read", "inferred", "unknown")
        ]
        releases = sum(len(mapping(row.get("releases"))) for row in rows)
        builds = sum(len(records(row.get("builds"))) for row in rows)
        numbers = " | ".join(str(number or "–") for number in (len(rows), releases, builds, *told))
        lines.append(f"| `{path.relative_to(tables)}` | {numbers} | {table['date']} |")
    return "\n".join(lines) + "\n"


def _show_and_write(pending: Mapping[Path, str], write: bool) -> None:
    changed = 0
    for path, text in pending.items():
        shown = difference(path, path.read_text(encoding="utf-8"), text)
        changed += bool(shown)
        click.echo(shown, nl=False)
        if write and shown:
            write_output(path, text.encode(), 0o644)
    verb = "written" if write else "to change"
    click.echo(f"{changed} table(s) {verb}", err=True)


def _default_index() -> str:
    """The index that pip uses when nobody has told it another one."""
    try:
        module = importlib.import_module("pip._internal.models.index")
        return str(module.PyPI.simple_url)
    except (ImportError, AttributeError) as error:
        raise ConfigError(
            "no index is set, and this environment has no pip to ask for its own", hint="give --index-url"
        ) from error


def _context(certificates: Path | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=certificates)
    except OSError as error:
        message = f"the file of authorities cannot be read: {error.strerror}"
        raise ConfigError(message, where=str(certificates)) from error


def _plain(table: Value) -> Table:
    return dict(table.raw) if isinstance(table.raw, dict) else {}


def _keys(value: object) -> list[str]:
    return list(value) if isinstance(value, Mapping) else []


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    try:
        result = command.main(arguments, standalone_mode=False)
    except ImgbuildError as error:
        click.echo(f"Error: {redact_urls(str(error))}", err=True)
        return error.exit_code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        return 130
    return result if isinstance(result, int) else 0
