"""The same library, or the same large file, more than once in one image."""

from __future__ import annotations

import posixpath
import re
from collections import defaultdict
from collections.abc import Mapping

from builder.sizes.layers import Seen, is_library
from builder.sizes.model import Copy, Duplicate, Kind
from builder.sizes.owners import Owners

_BUNDLED = re.compile(r"-[0-9a-f]{8}(?=\.so)|-[0-9a-f]{8}(?=[.-]\d)")
"""What auditwheel puts into the name (and the soname) of a library that it copies into a wheel."""

_SONAME = re.compile(r"(lib.+?\.so)(?:\.([0-9]+))?(?:\.|$)")


def loader_name(name: str) -> str:
    """What the loader knows a library by, as far as its file's name says: up to the first number of its version.

    By convention that is the soname. What auditwheel adds is left out, since the soname that it writes is never
    anybody else's: `libgomp-a34b3233.so.1.0.0` is `libgomp.so.1`.
    """
    match = _SONAME.match(_BUNDLED.sub("", name))
    if not match:
        return name
    return f"{match[1]}.{match[2]}" if match[2] else match[1]


def duplicates(seen: Mapping[str, Seen], owners: Owners) -> tuple[Duplicate, ...]:
    """What an image has more than once, most wasteful first: libraries of one name, and files of one content."""
    by_name: dict[str, list[str]] = defaultdict(list)
    by_content: dict[str, list[str]] = defaultdict(list)
    for path, item in seen.items():
        if item.entry.digest:
            by_content[item.entry.digest].append(path)
            name = posixpath.basename(path)
            if is_library(name):
                by_name[loader_name(name)].append(path)
    found = []
    told: set[str] = set()
    for name, paths in by_name.items():
        if len(paths) > 1:
            told.update(paths)
            found.append(_duplicate(name, paths, seen, owners))
    for paths in by_content.values():
        if len(paths) > 1 and not told.issuperset(paths):
            found.append(_duplicate(posixpath.basename(min(paths)), paths, seen, owners))
    return tuple(sorted(found, key=lambda item: (-item.wasted, item.name)))


def _duplicate(name: str, paths: list[str], seen: Mapping[str, Seen], owners: Owners) -> Duplicate:
    copies = []
    for path in paths:
        kind, package = owners.of(path)
        copies.append(
            Copy(path=f"/{path}", bytes=seen[path].entry.bytes, package="" if kind is Kind.OTHER else package)
        )
    return Duplicate(
        name=name,
        same=len({seen[path].entry.digest for path in paths}) == 1,
        copies=tuple(sorted(copies, key=lambda copy: (-copy.bytes, copy.path))),
    )
