"""Wheels, and source distributions, in this machine's file system, which a build can only get from here.

A container reaches no `file://` index and no directory of this machine. So these are searched here, for exactly the
versions that are pinned or the files that are locked, and what is found becomes a part of the build's context.
"""

from __future__ import annotations

import functools
import hashlib
import urllib.parse
from collections.abc import Iterable, Iterator, Mapping
from html.parser import HTMLParser
from pathlib import Path
from typing import Protocol

from builder.site.settings import Site, local_path

_SUFFIXES = (".whl", ".tar.gz", ".zip")


class LockedFile(Protocol):
    """One file of a lock: its project's normalised name, its own name, and its SHA-256 in hexadecimal digits."""

    @property
    def name(self) -> str: ...

    @property
    def file(self) -> str: ...

    @property
    def sha256(self) -> str: ...


def site_files(site: Site, locked: Iterable[LockedFile]) -> tuple[Path, ...]:
    """The site's own files that have the name of a locked one, sorted by name.

    Their content is pip's to judge: it takes no file whose hash is another, and says so. Of several files of one name,
    one with the locked hash is taken before the first.

    Args:
        site: says which directories and local indexes to search.
        locked: what is wanted.
    """
    wanted = {package.file: package for package in locked}
    found: dict[str, Path] = {}
    for path in _candidates(site, sorted({package.name for package in wanted.values()})):
        if path.name not in wanted or not path.is_file():
            continue
        first, package = found.get(path.name), wanted[path.name]
        if first is None or (not supplies(first, package) and supplies(path, package)):
            found[path.name] = path
    return tuple(found[name] for name in sorted(found))


def supplies(path: Path, locked: LockedFile) -> bool:
    """Whether a file has the content that is locked."""
    status = path.stat()
    return _sha256(path, status.st_mtime_ns, status.st_size) == locked.sha256


@functools.lru_cache(maxsize=1024)
def _sha256(path: Path, mtime_ns: int, size: int) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while piece := stream.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def site_wheels(site: Site, pins: Mapping[str, str]) -> tuple[Path, ...]:
    """The site's own wheels of the pinned projects in exactly the pinned versions, sorted by file name.

    A local version counts: `2.1.0+cpu` is not `2.1.0`. Of several files of one name, the first directory's is taken.

    Args:
        site: says which directories and local indexes to search.
        pins: versions by project name.
    """
    from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename
    from packaging.version import InvalidVersion, Version

    wanted = {canonicalize_name(name): Version(version) for name, version in pins.items()}
    found: dict[str, Path] = {}
    for path in _candidates(site, wanted):
        try:
            name, version, _, _ = parse_wheel_filename(path.name)
        except (InvalidWheelFilename, InvalidVersion):
            continue
        if wanted.get(name) == version and path.name not in found and path.is_file():
            found[path.name] = path
    return tuple(found[name] for name in sorted(found))


def _candidates(site: Site, projects: Iterable[str]) -> Iterator[Path]:
    for link in site.local_links:
        yield from _files_at(link)
    for index in site.local_indexes:
        for project in projects:
            yield from _files_at(index / project)


def _files_at(path: Path) -> Iterator[Path]:
    """The packages in a directory, and those that its `index.html`, or a page, links to in this file system."""
    page = path
    if path.is_dir():
        yield from sorted(entry for entry in path.iterdir() if entry.name.endswith(_SUFFIXES))
        page = path / "index.html"
    if page.suffix != ".html" or not page.is_file():
        return
    links = _Links()
    links.feed(page.read_text(encoding="utf-8", errors="replace"))
    for link in links.found:
        target = local_path(urllib.parse.urljoin(page.as_uri(), link))
        if target is not None and target.name.endswith(_SUFFIXES):
            yield Path(target)


class _Links(HTMLParser):
    """Collects where the links of a page lead."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "a":
            self.found += [value for name, value in attrs if name == "href" and value]
