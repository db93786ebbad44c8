"""Cells into recipes: Jinja2 templates into Dockerfiles, the files that they use, and the content key.

A template sees a frozen `Cell` and a few functions, and nothing of the site or the engine:

- `file(path)` names a file below `dockerfiles/` that the Dockerfile copies or mounts; it becomes part of the context
  and of the key.
- `wheels(constraints)` names the context directory where the site's own wheels for those constraints will be. The
  site may have none; then the directory is empty. It is never part of the key.
- `fail(message)` refuses a cell that the template cannot make.
- `template` is the name of the template itself.

Templates run in Jinja2's sandbox with undefined names as errors.
"""

from __future__ import annotations

import hashlib
import stat
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, NoReturn

from builder.errors import RenderError

if TYPE_CHECKING:
    from builder.lock import BasePin
    from builder.matrix import Cell, Channel

KEY_FORMAT = "imgbuild-key/1"
"""Part of every key: changed when the meaning of a recipe's fields changes."""


@dataclass(frozen=True, kw_only=True)
class ContextFile:
    """A file that a Dockerfile copies or mounts, below `dockerfiles/`.

    Attributes:
        path: POSIX path, relative to `dockerfiles/` and to the build context alike.
        data: its bytes.
        mode: permission bits; only the executable bit is kept, so that a checkout's umask changes nothing.
    """

    path: str
    data: bytes
    mode: int


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What one cell is built from, apart from its base.

    Attributes:
        cell: the cell.
        dockerfile: the rendered text.
        files: what the Dockerfile takes from the context, sorted by path.
        wheels: context directories for the site's wheels, each with the constraints file that says which.
    """

    cell: Cell
    dockerfile: str
    files: tuple[ContextFile, ...]
    wheels: tuple[tuple[str, str], ...]

    @property
    def name(self) -> str:
        """The Dockerfile's name among those of the matrix."""
        return f"{self.cell.id}.Dockerfile"

    @property
    def constraints(self) -> Mapping[str, str]:
        """Pinned versions by normalised project name, from the cell's constraints file.

        Raises:
            RenderError: a line is not `name==version`, or not UTF-8.
        """
        path = self.cell.framework.constraints
        for file in self.files:
            if file.path == path:
                try:
                    return parse_constraints(file.data.decode(), path)
                except UnicodeDecodeError as error:
                    raise _not_utf8(error, path) from None
        raise RenderError(
            f"the template does not use the cell's constraints {path}",
            where=self.cell.framework.template,
            hint="install with `--constraint` and name the file with file(cell.framework.constraints)",
        )

    def key(self, base: BasePin) -> str:
        """The content key on this base: SHA-256 in hex over everything that decides what the image is."""
        digest = hashlib.sha256()

        def add(*fields: bytes) -> None:
            # Lengths first, so that no two different sequences give the same bytes.
            for field in fields:
                digest.update(b"%d:" % len(field))
                digest.update(field)

        add(KEY_FORMAT.encode(), base.identity.encode(), self.dockerfile.encode())
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


@dataclass(frozen=True, kw_only=True)
class ChannelView:
    """A wheel channel as a template sees it: its default URL, and the variable by which a site replaces it."""

    name: str
    url: str
    variable: str


def channel_variable(name: str) -> str:
    """The environment variable by which a site replaces a channel's URL, or switches it off when empty."""
    return "IMGBUILD_CHANNEL_" + name.upper().replace("-", "_").replace(".", "_")


class Renderer:
    """Renders cells with the templates of one `dockerfiles/` directory.

    Args:
        directory: the directory with templates, constraints and files.
        fallback: where to look for what `directory` lacks: the templates that imgbuild ships.
    """

    def __init__(self, directory: Path, fallback: Path | None = None) -> None:
        import jinja2
        from jinja2.sandbox import ImmutableSandboxedEnvironment

        class Loader(jinja2.FileSystemLoader):
            """Names the file that cannot be read, which need not be the one that is being rendered."""

            def get_source(self, environment: jinja2.Environment, template: str) -> tuple[str, str, Callable[[], bool]]:
                try:
                    return super().get_source(environment, template)
                except jinja2.TemplateNotFound:
                    raise
                except UnicodeDecodeError as error:
                    raise _not_utf8(error, template) from None
                except OSError as error:
                    raise RenderError(f"cannot be read: {error.strerror}", where=str(error.filename)) from None

        self._roots = tuple(path for path in (directory, fallback) if path is not None and path.is_dir())
        self._environment = ImmutableSandboxedEnvironment(
            loader=Loader([str(root) for root in self._roots]),
            undefined=jinja2.StrictUndefined,
            keep_trailing_newline=True,
            autoescape=False,
        )
        self._files: dict[str, ContextFile] = {}

    def render(self, cell: Cell) -> Recipe:
        """Renders one cell.

        Raises:
            RenderError: the template is missing, is not valid, reaches for what it may not have, or names a file
                that does not exist or cannot be read.
        """
        import jinja2

        used: dict[str, ContextFile] = {}
        wheels: dict[str, str] = {}

        def file(path: str) -> str:
            used[path] = self._read(path, cell.framework.template)
            return path

        def wheels_for(constraints: str) -> str:
            directory = f"wheels/{PurePosixPath(constraints).stem}"
            wheels[directory] = constraints
            return directory

        def fail(message: str) -> NoReturn:
            raise jinja2.TemplateRuntimeError(message)

        name = cell.framework.template
        try:
            text = self._environment.get_template(name).render(
                cell=cell,
                extras={extra.name: extra for extra in cell.extras},
                channel=_channel_view(cell.framework.channel),
                template=name,
                file=file,
                wheels=wheels_for,
                fail=fail,
            )
            text.encode()  # a template's literals can hold halves of characters, which no file can
        except jinja2.TemplateNotFound as error:
            raise self._missing(str(error.name or error), name, self._environment.list_templates()) from None
        except jinja2.TemplateSyntaxError as error:
            where = f"{error.filename or error.name or name}:{error.lineno}:1"
            raise RenderError(f"not a valid template: {error.message}", where=where) from None
        except jinja2.TemplateError as error:
            message = error.message or type(error).__name__
            raise RenderError(f"cell {cell.id}: {message}", where=_template_line(error, name)) from None
        except (TypeError, ValueError, ArithmeticError, LookupError) as error:
            where = _template_line(error, name)
            raise RenderError(f"cell {cell.id}: {type(error).__name__}: {error}", where=where) from None
        recipe = Recipe(
            cell=cell,
            dockerfile=_tidy(text),
            files=tuple(used[path] for path in sorted(used)),
            wheels=tuple(sorted(wheels.items())),
        )
        _agree(recipe)
        return recipe

    def _read(self, path: str, template: str) -> ContextFile:
        """Reads a context file once per matrix; keeps it below `dockerfiles/`."""
        known = self._files.get(path)
        if known is not None:
            return known
        parts = PurePosixPath(path).parts
        if not parts or path.startswith("/") or ".." in parts:
            raise RenderError(f"{path!r} is not below dockerfiles/", where=template)
        for root in self._roots:
            candidate = root / path
            try:
                if not candidate.is_file():
                    continue
                if not candidate.resolve().is_relative_to(root.resolve()):
                    raise RenderError(f"{path!r} is a link that leaves dockerfiles/", where=template)
                executable = candidate.stat().st_mode & stat.S_IXUSR
                found = ContextFile(path=path, data=candidate.read_bytes(), mode=0o755 if executable else 0o644)
            except OSError as error:
                raise RenderError(f"cannot be read: {error.strerror}", where=str(candidate)) from error
            self._files[path] = found
            return found
        raise self._missing(path, template, self._listing())

    def _listing(self) -> list[str]:
        return [
            file.relative_to(root).as_posix()
            for root in self._roots
            for file in sorted(root.rglob("*"))
            if file.is_file()
        ]

    def _missing(self, path: str, template: str, candidates: Iterable[str]) -> RenderError:
        from builder.source import nearest

        places = " or ".join(str(root) for root in self._roots) or "no directory"
        return RenderError(f"there is no {path} below {places}", where=template, hint=nearest(path, list(candidates)))


def _agree(recipe: Recipe) -> None:
    """Refuses a cell whose versions are not those of its constraints, before pip finds out in the middle of a build."""
    from packaging.version import InvalidVersion, Version

    cell, pins = recipe.cell, recipe.constraints
    wanted: list[tuple[str, str | None]] = [(cell.framework.name, cell.framework.version)]
    wanted += [(package, extra.version) for extra in cell.extras for package in extra.packages]
    for name, version in wanted:
        pinned = pins.get(name)
        where = cell.framework.constraints
        if pinned is None:
            raise RenderError(
                f"{name} is not pinned, and cell {cell.id} installs it", where=where, hint=f"add {name}==VERSION"
            )
        try:
            # A local version such as `+cpu` says how a release was built, and is the constraints' to say.
            agrees = version is None or Version(pinned).public == Version(version).public
        except InvalidVersion as error:
            raise RenderError(f"{name}: {error}", where=where) from None
        if not agrees:
            raise RenderError(
                f"{name} is pinned to {pinned}, and cell {cell.id} says {version}",
                where=where,
                hint="change one of the two",
            )


def _channel_view(channel: Channel | None) -> ChannelView | None:
    if channel is None:
        return None
    return ChannelView(name=channel.name, url=channel.url, variable=channel_variable(channel.name))


def _not_utf8(error: UnicodeDecodeError, name: str) -> RenderError:
    line = error.object[: error.start].count(b"\n") + 1
    return RenderError("not UTF-8", where=f"{name}:{line}:1", hint="write the file in that encoding")


def _template_line(error: BaseException, template: str) -> str:
    """The innermost line of a template in a traceback, as `file:line:1`."""
    where = template
    trace = error.__traceback__
    while trace is not None:
        filename = trace.tb_frame.f_code.co_filename
        if filename.endswith(".j2"):
            where = f"{filename}:{trace.tb_lineno}:1"
        trace = trace.tb_next
    return where


def _tidy(text: str) -> str:
    """No trailing blanks, no two empty lines in a row, one newline at the end: what Jinja2's blocks leave behind."""
    lines: list[str] = []
    for raw in text.splitlines():
        line = raw.rstrip()
        if line or (lines and lines[-1]):
            lines.append(line)
    return "\n".join(lines).strip() + "\n"


def render_all(cells: Iterable[Cell], directory: Path, fallback: Path | None = None) -> tuple[Recipe, ...]:
    """Renders cells with one environment, reading every file once.

    Raises:
        RenderError: the first cell that does not render.
    """
    renderer = Renderer(directory, fallback)
    return tuple(renderer.render(cell) for cell in cells)
