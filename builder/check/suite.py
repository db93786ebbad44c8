"""Packs `builder/checks` into the zipapp that is copied into containers."""

from __future__ import annotations

import ast
import hashlib
import importlib.resources
import io
import re
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from importlib.abc import Traversable

_DECLARATION = re.compile(r"^(?:@|GROUP = )((?:check|Group)\((?:[^\n]*\)$|.*?^\)))", re.MULTILINE | re.DOTALL)
"""A declaration in one line, or up to the line that begins with its closing parenthesis."""

_MAIN = b"""import sys

from builder.checks.controller import main

if __name__ == "__main__":
    sys.exit(main())
"""


@dataclass(frozen=True, kw_only=True)
class Spec:
    """What the suite says of one of its checks.

    Attributes:
        name: for instance `torch.train.amp`.
        level: the one it belongs to, as in a result.
        needs: the packages that an image must have for the check to be asked of it.
        optional: whether not running it is never a gap.
        controller: the controller of Horovod that a cell must have asked for, as `Check.controller`; mostly empty.
        deadline: seconds.
        catches: one sentence.
    """

    name: str
    level: str
    needs: frozenset[str]
    optional: bool
    controller: str
    deadline: float
    catches: str


@dataclass(frozen=True, kw_only=True)
class Suite:
    """The program that judges images.

    Attributes:
        archive: a zip that `python3` runs.
        sha256: of the archive, in hex; part of a check's evidence, never of an image's key.
        checks: its checks by name: a result that lacks one is no result.
    """

    archive: bytes
    sha256: str
    checks: Mapping[str, Spec]


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
    return Suite(archive=data, sha256=hashlib.sha256(data).hexdigest(), checks=_specs(sources))


def _specs(sources: Mapping[str, bytes]) -> dict[str, Spec]:
    """Every `@check("name", …)` of the groups, read from the source: the suite is never imported here."""
    shared: dict[str, frozenset[str]] = {}
    found: dict[str, tuple[str, dict[str, object]]] = {}
    for path, source in sorted(sources.items()):
        if not path.startswith("groups/") or path.count("/") != 2:
            continue
        directory = path.split("/")[1]
        for call in _declarations(source.decode()):
            given = {word.arg: _literal(word.value) for word in call.keywords if word.arg}
            if not call.args and path.endswith("/__init__.py"):
                shared[directory] = _names(given.get("needs"))
            elif call.args:
                found[str(_literal(call.args[0]))] = (directory, given)
    return {
        name: Spec(
            name=name,
            level=str(given.get("level")),
            needs=shared.get(directory, frozenset()) | _names(given.get("needs")),
            optional=given.get("optional") is True,
            controller=str(given.get("controller") or ""),
            deadline=deadline if isinstance(deadline := given.get("deadline"), int | float) else 0.0,
            catches=str(given.get("catches")),
        )
        for name, (directory, given) in found.items()
    }


def _declarations(source: str) -> Iterator[ast.Call]:
    """The calls of `check` and `Group` at the top of a module. To parse all of every module would take 80 ms."""
    for match in _DECLARATION.finditer(source):
        call = ast.parse(match[1], mode="eval").body
        if isinstance(call, ast.Call):
            yield call


def _literal(node: ast.expr) -> object:
    try:
        value: object = ast.literal_eval(node)
    except ValueError:
        return None
    return value


def _names(value: object) -> frozenset[str]:
    return frozenset(map(str, value)) if isinstance(value, tuple) else frozenset()


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
