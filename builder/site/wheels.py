"""Wheels in this machine's file system, which a build can only get from here.

A container reaches no `file://` index and no directory of this machine. So these are searched here, for exactly the
versions that are pinned, and what is found becomes a part of the build's context.
"""

from __future__ import annotations

import urllib.parse
from collections.abc import Iterable, Iterator, Mapping
from html.parser import HTMLParser
from pathlib import Path

from builder.site.settings import Site, local_path


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
        yield from _wheels_at(link)
    for index in site.local_indexes:
        for project in projects:
            yield from _wheels_at(index / project)


def _wheels_at(path: Path) -> Iterator[Path]:
    """The wheels in a directory, and those that its `index.html`, or a page, links to in this file system."""
    page = path
    if path.is_dir():
        yield from sorted(path.glob("*.whl"))
        page = path / "index.html"
    if page.suffix != ".html" or not page.is_file():
        return
    links = _Links()
    links.feed(page.read_text(encoding="utf-8", errors="replace"))
    for link in links.found:
        target = local_path(urllib.parse.urljoin(page.as_uri(), link))
        if target is not None and target.suffix == ".whl":
            yield Path(target)


class _Links(HTMLParser):
    """Collects where the links of a page lead."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "a":
            self.found += [value for name, value in attrs if name == "href" and value]
