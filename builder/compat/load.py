"""Reads the fact tables field by field into their types. The tables are our own data, so anything odd is an error.

A project's table is read when it is first asked for, and so is each of the others but the small ones.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final, TypeVar

from builder.compat.model import (
    Absent,
    Adaptation,
    Build,
    Companion,
    Compiler,
    Confidence,
    Extra,
    Facts,
    Gpu,
    ImageTags,
    Origin,
    Project,
    PythonRelease,
    Row,
    System,
    Toolkit,
)
from builder.compat.values import Value, read_table

TABLES: Final = Path(__file__).parent / "tables"
PROJECTS: Final = "projects"

_V = TypeVar("_V")


@functools.cache
def load_facts() -> Facts:
    """The tables that imgbuild ships.

    Raises:
        ConfigError: a table breaks its form; `where` names file and path, such as "torch.yaml: rows[3].builds[0].cuda".
    """
    return facts_from(TABLES)


def facts_from(directory: Path) -> Facts:
    """The tables below a directory laid out as `builder/compat/tables`; the rest is as for `load_facts`."""
    cuda = _table(directory / "cuda.yaml", "cuda")
    toolkits = {toolkit.version: toolkit for toolkit in map(_toolkit, cuda.field("rows").items())}
    adaptations = _table(directory / "adaptations.yaml", "adaptations")
    return Facts(
        date=cuda.field("date").text(),
        projects=_Lazy(
            {path.stem: functools.partial(_project, path) for path in sorted((directory / PROJECTS).glob("*.yaml"))}
        ),
        toolkits=toolkits,
        newest_toolkit=cuda.field("newest").text(),
        images=_LazyTable(lambda: _rows(directory / "images.yaml", "images", _image, lambda row: row.version)),
        gpus=tuple(map(_gpu, _table(directory / "gpus.yaml", "gpus").field("rows").items())),
        systems=_LazyTable(lambda: _rows(directory / "systems.yaml", "systems", _system, lambda row: row.name)),
        pythons=_rows(directory / "python.yaml", "python", _python, lambda row: row.version),
        horovod=tuple(map(_adaptation, adaptations.field("rows").items())),
        compilers={one.cxx: one for one in map(_compiler, adaptations.field("compilers").items())},
    )


class _Lazy(Mapping[str, _V]):
    """Values that are made when they are first asked for, and then kept."""

    def __init__(self, makers: Mapping[str, Callable[[], _V]]) -> None:
        self._makers = makers
        self._made: dict[str, _V] = {}

    def __getitem__(self, key: str) -> _V:
        if key not in self._made:
            self._made[key] = self._makers[key]()
        return self._made[key]

    def __contains__(self, key: object) -> bool:
        return key in self._makers

    def __iter__(self) -> Iterator[str]:
        return iter(self._makers)

    def __len__(self) -> int:
        return len(self._makers)


class _LazyTable(Mapping[str, _V]):
    """A whole table that is read when anything of it is first asked for."""

    def __init__(self, read: Callable[[], Mapping[str, _V]]) -> None:
        self._read = functools.cache(read)

    def __getitem__(self, key: str) -> _V:
        return self._read()[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._read())

    def __len__(self) -> int:
        return len(self._read())


def _table(path: Path, kind: str) -> Value:
    table = read_table(path)
    table.field("kind").one_of((kind,))
    return table


def _rows(path: Path, kind: str, read: Callable[[Value], _V], name: Callable[[_V], str]) -> Mapping[str, _V]:
    rows = map(read, _table(path, kind).field("rows").items())
    return {name(row): row for row in rows}


def _origin(value: Value, prefix: str = "") -> Origin:
    confidence = value.field(f"{prefix}confidence").one_of(tuple(member.value for member in Confidence))
    return Origin(sources=value.sources(f"{prefix}source"), confidence=Confidence(confidence))


def _arch_origin(value: Value) -> Origin | None:
    return _origin(value, "arch_") if value.has("arch_source") else None


def _project(path: Path) -> Project:
    table = _table(path, "project")
    table.known("schema", "kind", "date", "project", "sdist_only", "oldest", "newest", "sources", "rows")
    name = table.field("project").one_of((path.stem,))
    return Project(
        name=name,
        rows=tuple(_row(row, name) for row in table.field("rows").items()),
        newest=table.field("newest").text(),
        oldest=table.field("oldest").text(),
        sdist_only=table.flag("sdist_only"),
    )


def _row(value: Value, project: str) -> Row:
    value.known(
        *("series", "releases", "requires_python", "pythons", "glibc", "cxx"),
        *("builds", "absent", "extras", "companions", "broken_pythons", "notes", "source", "confidence"),
    )
    releases = value.field("releases").mapping()
    for release in releases.values():
        release.known("date", "pythons", "requires_python", "glibc", "yanked")
    companions: dict[str, dict[str, Companion]] = {}
    for item in value.list_of("companions"):
        for release_name in item.texts("releases") or ("",):
            companion = _companion(item)
            companions.setdefault(release_name, {})[companion.project] = companion
    return Row(
        project=project,
        series=value.field("series").text(),
        releases={version: release.optional("date") for version, release in releases.items()},
        pythons=_pythons(value.field("pythons")),
        requires_python=value.optional("requires_python") or "",
        glibc=value.optional("glibc"),
        cxx=value.optional("cxx"),
        builds=tuple(map(_build, value.list_of("builds"))),
        absent=tuple(map(_absent, value.list_of("absent"))),
        extras=tuple(map(_extra, value.list_of("extras"))),
        companions=companions,
        broken_pythons=value.text_mapping("broken_pythons"),
        own_pythons={
            version: _pythons(release.field("pythons"))
            for version, release in releases.items()
            if release.has("pythons")
        },
        own_requires_python={
            version: release.field("requires_python").text()
            for version, release in releases.items()
            if release.has("requires_python")
        },
        own_glibc={
            version: release.field("glibc").text() for version, release in releases.items() if release.has("glibc")
        },
        yanked=frozenset(version for version, release in releases.items() if release.flag("yanked")),
        notes=value.texts("notes") or (),
        origin=_origin(value),
    )


def _pythons(value: Value) -> frozenset[str] | None:
    return None if value.raw == "any" else frozenset(item.text() for item in value.items())


def _build(value: Value) -> Build:
    value.known(
        *("cuda", "label", "channels", "distribution", "extra", "versions", "pythons", "glibc", "driver", "cudnn"),
        *("min_capability", "sass", "ptx", "arch_source", "arch_confidence", "default", "source", "confidence"),
    )
    return Build(
        cuda=value.field("cuda").text(),
        label=value.optional("label") or "",
        channels=frozenset(item.one_of(("pypi", "pytorch")) for item in value.field("channels").items()),
        distribution=value.optional("distribution") or "",
        extra=value.optional("extra") or "",
        versions=_set(value.texts("versions")),
        pythons=_set(value.texts("pythons")),
        sass=value.texts("sass"),
        ptx=value.texts("ptx"),
        glibc=value.optional("glibc"),
        driver=value.optional("driver"),
        cudnn=value.optional("cudnn"),
        min_capability=value.optional("min_capability"),
        arch_origin=_arch_origin(value),
        default=value.flag("default"),
        origin=_origin(value),
    )


def _absent(value: Value) -> Absent:
    value.known("cuda", "source", "confidence")
    return Absent(cuda=value.field("cuda").text(), origin=_origin(value))


def _extra(value: Value) -> Extra:
    value.known("name", "versions", "installable", "pythons", "why", "requires", "source", "confidence")
    return Extra(
        name=value.field("name").text(),
        versions=_set(value.texts("versions")),
        installable=value.flag("installable", default=True),
        pythons=_set(value.texts("pythons")),
        why=value.optional("why") or "",
        requires=value.texts("requires") or (),
        origin=_origin(value),
    )


def _companion(value: Value) -> Companion:
    value.known("project", "releases", "versions", "specifier", "known", "note", "source", "confidence")
    return Companion(
        project=value.field("project").text(),
        versions=value.texts("versions"),
        specifier=value.optional("specifier") or "",
        known=value.flag("known", default=True),
        note=value.optional("note") or "",
        origin=_origin(value),
    )


def _toolkit(value: Value) -> Toolkit:
    value.known(
        *("version", "exists", "patches", "drivers", "minor_driver", "forward_branches", "sass"),
        *("arch_source", "arch_confidence", "why", "source", "confidence"),
    )
    branches = value.field("forward_branches").items() if value.has("forward_branches") else None
    return Toolkit(
        version=value.field("version").text(),
        exists=value.flag("exists", default=True),
        drivers=value.text_mapping("drivers"),
        minor_driver=value.optional("minor_driver"),
        sass=value.texts("sass"),
        patches=value.texts("patches") or (),
        forward_branches=None if branches is None else tuple(item.whole() for item in branches),
        arch_origin=_arch_origin(value),
        why=value.optional("why") or "",
        origin=_origin(value),
    )


def _image(value: Value) -> ImageTags:
    value.known("version", "complete", "removed", "cudnn", "own_cudnn", "tags", "source", "confidence")
    tags = value.field("tags").mapping()
    return ImageTags(
        version=value.field("version").text(),
        tags={system: frozenset(item.text() for item in flavours.items()) for system, flavours in tags.items()},
        complete=value.flag("complete"),
        removed=value.flag("removed") if value.has("removed") else None,
        cudnn=value.optional("cudnn"),
        own_cudnn=value.text_mapping("own_cudnn"),
        origin=_origin(value),
    )


def _gpu(value: Value) -> Gpu:
    value.known("names", "capability", "architecture", "data_center", "last_driver", "source", "confidence")
    served = value.field("data_center").mapping() if value.has("data_center") else {}
    return Gpu(
        names=value.texts("names") or (),
        capability=value.field("capability").text(),
        architecture=value.field("architecture").text(),
        data_center={name: item.truth() for name, item in served.items()},
        last_driver=value.field("last_driver").whole() if value.has("last_driver") else None,
        origin=_origin(value),
    )


def _system(value: Value) -> System:
    value.known(
        *("name", "codename", "glibc", "gcc", "cmake", "pythons", "end_of_life", "source", "confidence"),
    )
    return System(
        name=value.field("name").text(),
        codename=value.optional("codename") or "",
        glibc=value.field("glibc").text(),
        gcc=value.optional("gcc"),
        cmake=value.optional("cmake"),
        pythons=value.texts("pythons") or (),
        end_of_life=value.optional("end_of_life"),
        origin=_origin(value),
    )


def _python(value: Value) -> PythonRelease:
    value.known("version", "first_release", "end_of_life", "source", "confidence")
    return PythonRelease(
        version=value.field("version").text(),
        first_release=value.optional("first_release"),
        end_of_life=value.optional("end_of_life"),
        origin=_origin(value),
    )


def _adaptation(value: Value) -> Adaptation:
    value.known(
        *("horovod", "framework", "specifier", "pythons", "works", "steps", "warning", "source", "confidence"),
    )
    return Adaptation(
        horovod=value.field("horovod").text(),
        framework=value.field("framework").one_of(("torch", "tensorflow", "mxnet")),
        specifier=value.field("specifier").text(),
        pythons=value.optional("pythons") or "",
        works=value.flag("works") if value.has("works") else None,
        steps=value.texts("steps") or (),
        warning=value.optional("warning") or "",
        origin=_origin(value),
    )


def _compiler(value: Value) -> Compiler:
    value.known("cxx", "gcc", "source", "confidence")
    return Compiler(cxx=value.field("cxx").text(), gcc=value.field("gcc").text(), origin=_origin(value))


def _set(texts: tuple[str, ...] | None) -> frozenset[str] | None:
    return None if texts is None else frozenset(texts)
