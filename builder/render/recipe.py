"""What one cell is built from: a Dockerfile, the files that it uses, and the key that they give."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from builder.errors import RenderError

if TYPE_CHECKING:
    from builder.lock import BasePin, LockedPackage
    from builder.matrix import Cell

KEY_FORMAT = "imgbuild-key/2"
"""Part of every key: changed when the meaning of a recipe's fields changes."""


@dataclass(frozen=True, kw_only=True)
class ContextFile:
    """A file that a Dockerfile copies or mounts.

    Attributes:
        path: POSIX path in the build context; for a file of the project also relative to `dockerfiles/`.
        data: its bytes.
        mode: permission bits; only the executable bit is kept, so that a checkout's umask changes nothing.
    """

    path: str
    data: bytes
    mode: int


@dataclass(frozen=True, kw_only=True)
class WheelDirectory:
    """A context directory for packages that the site itself supplies.

    Attributes:
        path: POSIX path in the build context.
        packages: the locked files that belong there; None where the cell's constraints say which versions do.
    """

    path: str
    packages: tuple[LockedPackage, ...] | None


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What one cell is built from, apart from its base.

    Attributes:
        cell: the cell.
        dockerfile: the rendered text.
        files: what the Dockerfile takes from the context, sorted by path.
        wheels: directories for the site's own packages, sorted by path; what is in them is in no key.
        locked: what its requests for Python packages install, by name; None when its template makes none.
    """

    cell: Cell
    dockerfile: str
    files: tuple[ContextFile, ...]
    wheels: tuple[WheelDirectory, ...]
    locked: Mapping[str, LockedPackage] | None

    @property
    def name(self) -> str:
        """The Dockerfile's name among those of the matrix."""
        return f"{self.cell.id}.Dockerfile"

    @functools.cached_property
    def constraints(self) -> Mapping[str, str]:
        """The one version of everything that may be installed, by normalised project name.

        From the lock where the template asks for locked packages, or else from the cell's constraints file. Empty
        when there is neither: then nothing is promised.

        Raises:
            RenderError: a line of the constraints file is not `name==version`, or not UTF-8; or the template uses
                neither a lock nor the constraints file that the matrix names.
        """
        if self.locked is not None:
            return {name: package.version for name, package in self.locked.items()}
        path = self.cell.framework.constraints
        if path is None:
            return {}
        for file in self.files:
            if file.path == path:
                try:
                    return parse_constraints(file.data.decode(), path)
                except UnicodeDecodeError as error:
                    raise not_utf8(error, path) from None
        raise RenderError(
            f"the template does not use the cell's constraints {path}",
            where=self.cell.framework.template,
            hint="install what python(…) gives, or with `--constraint` what file(cell.framework.constraints) gives",
        )

    def key(self, base: BasePin) -> str:
        """The content key on this base: SHA-256 in hex over everything that decides what the image is."""
        digest = hashlib.sha256()

        def add(*fields: bytes) -> None:
            # Lengths first, so that no two different sequences give the same bytes.
            for field in fields:
                digest.update(b"%d:" % len(field))
                digest.update(field)

        add(KEY_FORMAT.encode(), self.cell.id.encode(), base.identity.encode(), self.dockerfile.encode())
        for file in self.files:
            add(file.path.encode(), b"%o" % file.mode, file.data)
        return digest.hexdigest()


def parse_constraints(text: str, name: str) -> dict[str, str]:
    """Reads a constraints file in which every line pins one project exactly.

    Args:
        text: lines `name==version`, blank lines and `#` comments.
        name: the file's name, for messages.

    Returns:
        versions by normalised project name.

    Raises:
        RenderError: a line pins nothing exactly, or a project twice.
    """
    from packaging.requirements import InvalidRequirement, Requirement
    from packaging.utils import canonicalize_name

    pins: dict[str, str] = {}
    for number, raw in enumerate(text.splitlines(), 1):
        line = raw.split("#", 1)[0].strip()
        if not line:
            continue
        where = f"{name}:{number}:1"
        try:
            requirement = Requirement(line)
        except InvalidRequirement as error:
            raise RenderError(f"not a requirement: {line!r} ({error})", where=where) from None
        specifiers = list(requirement.specifier)
        exact = len(specifiers) == 1 and specifiers[0].operator == "==" and "*" not in specifiers[0].version
        if not exact or requirement.url or requirement.marker or requirement.extras:
            raise RenderError(
                f"{line!r} does not pin an exact version",
                where=where,
                hint=f"write {requirement.name}==VERSION; extras, markers and URLs have no place here",
            )
        project = canonicalize_name(requirement.name)
        if project in pins:
            raise RenderError(f"{project} is pinned twice", where=where)
        pins[project] = specifiers[0].version
    return pins


def agree(recipe: Recipe) -> None:
    """Refuses a cell whose versions are not those that are pinned, before pip finds out in the middle of a build.

    Raises:
        RenderError: a pin is missing, or is another version than the cell's.
    """
    from packaging.version import InvalidVersion, Version

    cell, pins = recipe.cell, recipe.constraints
    if not pins and recipe.locked is None:
        return
    wanted: list[tuple[str, str | None]] = [(cell.framework.name, cell.framework.version)]
    wanted += [(package, extra.version) for extra in cell.extras for package in extra.packages]
    where = cell.framework.template if recipe.locked is not None else cell.framework.constraints or ""
    for name, version in wanted:
        pinned = pins.get(_normal(name))
        if pinned is None:
            hint = f"add {name}==VERSION" if recipe.locked is None else f"ask for it with python(…): {name}"
            raise RenderError(f"{name} is not pinned, and cell {cell.id} installs it", where=where, hint=hint)
        try:
            # A local version such as `+cpu` says how a release was built, and is the pins' to say.
            agrees = version is None or Version(pinned).public == Version(version).public
        except InvalidVersion as error:
            raise RenderError(f"{name}: {error}", where=where) from None
        if not agrees:
            raise RenderError(
                f"{name} is pinned to {pinned}, and cell {cell.id} says {version}",
                where=where,
                hint="change one of the two",
            )


def _normal(name: str) -> str:
    from packaging.utils import canonicalize_name

    return canonicalize_name(name)


def not_utf8(error: UnicodeDecodeError, name: str) -> RenderError:
    """The error for a file that is no text."""
    line = error.object[: error.start].count(b"\n") + 1
    return RenderError("not UTF-8", where=f"{name}:{line}:1", hint="write the file in that encoding")
