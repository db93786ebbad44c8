"""Packs `builder/checks` into the zipapp that is copied into containers."""

from __future__ import annotations

import ast
import hashlib
import importlib.resources
import io
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from importlib.abc import Traversable

_MAIN = b"""import sys

from builder.checks.controller import main

if __name__ == "__main__":
    sys.exit(main())
"""


@dataclass(frozen=True, kw_only=True)
class Suite:
    """The program that judges images.

    Attributes:
        archive: a zip that `python3` runs.
        sha256: of the archive, in hex; part of a check's evidence, never of an image's key.
        checks: the names of its checks: a result that lacks one is no result.
    """

    archive: bytes
    sha256: str
    checks: frozenset[str]


@cache
def suite() -> Suite:
    """The suite of this imgbuild; the same bytes wherever and whenever it is packed."""
    return pack(modules_in(importlib.resources.files("builder") / "checks"))


def pack(sources: Mapping[str, bytes]) -> Suite:
    """Packs modules, by path relative to `checks/`, under the names they have here, with an entry for `python3`."""
    members = {f"builder/checks/{path}": data for path, data in sources.items()}
    members["builder/__init__.py"] = b""
    members["__main__.py"] = _MAIN
    stream = io.BytesIO()
    # Stored, not deflated: what deflate puts out depends on the zlib that Python was built with.
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(members):
            entry = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
            entry.create_system = 3
            entry.external_attr = 0o100644 << 16
            archive.writestr(entry, members[name])
    data = stream.getvalue()
    return Suite(archive=data, sha256=hashlib.sha256(data).hexdigest(), checks=_names(sources))


def _names(sources: Mapping[str, bytes]) -> frozenset[str]:
    """The names in every `@GROUP.check("name", …)`, read from the source: the suite is never imported here."""
    return frozenset(
        call.args[0].value
        for path, source in sources.items()
        if path.startswith("groups/")
        for call in ast.walk(ast.parse(source))
        if isinstance(call, ast.Call)
        and isinstance(call.func, ast.Attribute)
        and call.func.attr == "check"
        and call.args
        and isinstance(call.args[0], ast.Constant)
        and isinstance(call.args[0].value, str)
    )


def modules_in(directory: Traversable, prefix: str = "") -> dict[str, bytes]:
    """Every Python module below a directory, by its path relative to it."""
    found: dict[str, bytes] = {}
    for entry in directory.iterdir():
        if entry.is_dir():
            if entry.name != "__pycache__":
                found |= modules_in(entry, f"{prefix}{entry.name}/")
        elif entry.name.endswith(".py"):
            found[prefix + entry.name] = entry.read_bytes()
    return found
