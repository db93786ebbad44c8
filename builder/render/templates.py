"""Jinja2 templates and what they may do.

A template sees a frozen `Cell` and a few functions, and nothing of the site or the engine. They are described in
`docs/templates.md`. Templates run in Jinja2's sandbox with undefined names as errors.
"""

from __future__ import annotations

import functools
import re
import stat
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, NoReturn

from builder.errors import ImgbuildError, RenderError
from builder.lock.file import LOCKS, Locks
from builder.lock.model import DebianRequest, PythonRequest, Requests
from builder.render.locked import Answers, Gathering, Locked
from builder.render.recipe import ContextFile, Recipe, WheelDirectory, agree, not_utf8

if TYPE_CHECKING:
    import jinja2

    from builder.matrix import Cell, Channel

_DEBIAN_PACKAGE = re.compile(r"[a-z0-9][a-z0-9+.-]+")


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
    """Renders cells with the templates of one `dockerfiles/` directory. Every file is read once.

    Args:
        directory: the directory with templates, files and lock files.
        fallback: where to look for what `directory` lacks: what imgbuild ships.
    """

    def __init__(self, directory: Path, fallback: Path | None = None) -> None:
        self._roots = tuple(path for path in (directory, fallback) if path is not None and path.is_dir())
        self._environment = _environment(self._roots)
        self._files: dict[str, ContextFile] = {}
        self._locks = Locks(directory / LOCKS, fallback / LOCKS if fallback is not None else None)
        self._known: dict[object, ContextFile] = {}
        self._known_for = ""

    def render(self, cell: Cell) -> Recipe:
        """Renders one cell, with what its template asks for answered from the lock files.

        Raises:
            RenderError: the template is missing, is not valid, reaches for what it may not have, or names a file
                that does not exist or cannot be read.
            NotLocked: a lock file is missing, or lacks what the template asks for.
        """
        locked = Locked(cell, self._locks, self._constraints(cell), self._known_of(cell))
        recipe = self._render(cell, locked)
        agree(recipe)
        return recipe

    def collect(self, cell: Cell) -> Requests:
        """What the cell's template asks for, without any lock.

        Raises:
            RenderError: as `render`.
        """
        gathering = Gathering()
        self._render(cell, gathering)
        return Requests(
            python=tuple(gathering.python_requests),
            debian=tuple(gathering.debian_requests),
            constraints=self._constraints(cell),
            provided=tuple(sorted(gathering.provided_names)),
        )

    def render_text(self, name: str, **values: object) -> str:
        """Renders a template that belongs to no cell.

        Raises:
            RenderError: as `render`.
        """
        files: dict[str, ContextFile] = {}
        return self._text(name, name, {"file": functools.partial(self._file, files, name), **values})

    def read(self, path: str) -> ContextFile:
        """A file below `dockerfiles/`. Raises RenderError when there is none."""
        return self._read(path, path)

    def _known_of(self, cell: Cell) -> dict[object, ContextFile]:
        """What was generated for the cells before this one, as long as they can share it: matrices may be large."""
        environment = repr((cell.framework.name, cell.framework.version, cell.cuda, cell.python, cell.base.name))
        if environment != self._known_for:
            self._known, self._known_for = {}, environment
        return self._known

    def _constraints(self, cell: Cell) -> str:
        path = cell.framework.constraints
        if path is None:
            return ""
        try:
            return self._read(path, cell.framework.template).data.decode()
        except UnicodeDecodeError as error:
            raise not_utf8(error, path) from None

    def _render(self, cell: Cell, answers: Answers) -> Recipe:
        used: dict[str, ContextFile] = {}
        wheels: dict[str, WheelDirectory] = {}
        name = cell.framework.template

        def generated(file: ContextFile) -> str:
            used[file.path] = file
            return file.path

        def python(requirements: Iterable[str], after: Iterable[str] = (), deps: bool = True) -> str:
            request = PythonRequest(requirements=_requirements(requirements), after=_requirements(after), deps=deps)
            return generated(answers.python(request))

        def debian(packages: Iterable[str], after: Iterable[str] = ()) -> str:
            return generated(answers.debian(DebianRequest(packages=_packages(packages), after=_packages(after))))

        def provided(requirement: str, by: str) -> str:
            project, version = _pinned(requirement)
            return generated(answers.provided(project, version, _requirement(by)))

        def wheels_for(path: str) -> str:
            directory = answers.wheels(path)
            wheels[directory.path] = directory
            return directory.path

        text = self._text(
            name,
            f"cell {cell.id}",
            {
                "cell": cell,
                "extras": {extra.name: extra for extra in cell.extras},
                "channel": _channel_view(cell.framework.channel),
                "file": functools.partial(self._file, used, name),
                "python": python,
                "debian": debian,
                "provided": provided,
                "conda": lambda: generated(answers.conda()),
                "pins": lambda: generated(answers.pins()),
                "wheels": wheels_for,
            },
        )
        return Recipe(
            cell=cell,
            dockerfile=_tidy(text),
            files=tuple(used[path] for path in sorted(used)),
            wheels=tuple(wheels[path] for path in sorted(wheels)),
            locked=answers.packages if isinstance(answers, Locked) else None,
        )

    def _text(self, name: str, subject: str, values: Mapping[str, object]) -> str:
        import jinja2

        def fail(message: str) -> NoReturn:
            raise jinja2.TemplateRuntimeError(message)

        try:
            text = self._environment.get_template(name).render(template=name, fail=fail, **values)
            text.encode()  # a template's literals can hold halves of characters, which no file can
        except ImgbuildError:
            raise
        except jinja2.TemplateNotFound as error:
            raise self._missing(str(error.name or error), name, self._environment.list_templates()) from None
        except jinja2.TemplateSyntaxError as error:
            where = f"{error.filename or error.name or name}:{error.lineno}:1"
            raise RenderError(f"not a valid template: {error.message}", where=where) from None
        except jinja2.TemplateError as error:
            message = error.message or type(error).__name__
            raise RenderError(f"{subject}: {message}", where=_template_line(error, name)) from None
        except (TypeError, ValueError, ArithmeticError, LookupError) as error:
            where = _template_line(error, name)
            raise RenderError(f"{subject}: {type(error).__name__}: {error}", where=where) from None
        return text

    def _file(self, used: dict[str, ContextFile], template: str, path: str) -> str:
        used[path] = self._read(path, template)
        return path

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


def _environment(roots: tuple[Path, ...]) -> jinja2.Environment:
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
                raise not_utf8(error, template) from None
            except OSError as error:
                raise RenderError(f"cannot be read: {error.strerror}", where=str(error.filename)) from None

    class Sandbox(ImmutableSandboxedEnvironment):
        """Judges each attribute of a type once, of which Jinja2 looks at nothing else: a fifth of the time it takes."""

        judged: dict[tuple[type, str], bool]

        def is_safe_attribute(self, obj: object, attr: str, value: object) -> bool:
            key = (type(obj), attr)
            safe = self.judged.get(key)
            if safe is None:
                safe = self.judged[key] = super().is_safe_attribute(obj, attr, value)
            return safe

    sandbox = Sandbox(
        loader=Loader([str(root) for root in roots]),
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
        autoescape=False,
        auto_reload=False,
    )
    sandbox.judged = {}
    return sandbox


def _requirements(values: Iterable[str]) -> tuple[str, ...]:
    """Requirements in their normal form, each once, sorted."""
    return tuple(sorted({_requirement(value) for value in _several(values)}))


@functools.lru_cache(maxsize=4096)
def _requirement(value: str) -> str:
    from packaging.requirements import InvalidRequirement, Requirement
    from packaging.utils import canonicalize_name

    try:
        requirement = Requirement(value)
    except InvalidRequirement as error:
        raise ValueError(f"{value!r} is not a requirement ({error})") from None
    if requirement.url or requirement.marker:
        raise ValueError(f"{value!r}: URLs and markers have no place here")
    extras = f"[{','.join(sorted(canonicalize_name(extra) for extra in requirement.extras))}]"
    return f"{canonicalize_name(requirement.name)}{extras if requirement.extras else ''}{requirement.specifier}"


def _pinned(value: str) -> tuple[str, str]:
    """The project and the version of a requirement `name==version`."""
    name, _, version = _requirement(value).partition("==")
    if not re.fullmatch(r"[0-9][A-Za-z0-9.+!]*", version):
        raise ValueError(f"{value!r} is not of the form name==version")
    return name, version


def _packages(values: Iterable[str]) -> tuple[str, ...]:
    """Names of the distribution's packages, each once, sorted."""
    names = set(_several(values))
    for name in sorted(names):
        if not _DEBIAN_PACKAGE.fullmatch(name):
            raise ValueError(f"{name!r} is no name of a distribution's package")
    return tuple(sorted(names))


def _several(values: Iterable[str]) -> Iterable[str]:
    if isinstance(values, str):
        raise TypeError(f"a list is needed, and {values!r} is a text")
    return values


def _channel_view(channel: Channel | None) -> ChannelView | None:
    if channel is None:
        return None
    return ChannelView(name=channel.name, url=channel.url, variable=channel_variable(channel.name))


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
