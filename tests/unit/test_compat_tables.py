"""The committed fact tables: their form, and what must hold between them. Each rule has a twin that breaks it."""

from __future__ import annotations

import copy
import functools
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.version import Version

from builder.compat.load import TABLES, facts_from, load_facts
from builder.compat.model import CPU, Build, Facts, Project, Row
from builder.compat.refresh.canonical import dump, version_key
from builder.compat.refresh.command import counts_of
from builder.errors import ConfigError

PATHS = sorted(path.relative_to(TABLES) for path in TABLES.rglob("*.yaml"))
SCHEMA = json.loads((TABLES / "schema.json").read_text())
Edit = Callable[[Any], None]


def kind_of(path: Path) -> str:
    return "project" if path.parent.name == "projects" else path.stem


@functools.cache
def text_of(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def parsed(text: str) -> Any:
    return yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))


def schema_problems(path: Path, table: Any) -> list[str]:
    part = {"$ref": f"#/$defs/table_{kind_of(path)}", "$defs": SCHEMA["$defs"]}
    errors = jsonschema.Draft202012Validator(part).iter_errors(table)
    return [f"{path.name}: {'/'.join(map(str, error.absolute_path))}: {error.message}" for error in errors]


def source_problems(path: Path, table: Any) -> Iterator[str]:
    used: set[str] = set()

    def walk(value: Any) -> None:
        for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
            walk(item)
        if isinstance(value, dict):
            used.update(value.get("source", ()), value.get("arch_source", ()))

    walk({key: value for key, value in table.items() if key != "sources"})
    for name in sorted(set(table["sources"]) ^ used):
        yield f"{path.name}: source {name} is not named, or never used"


def facts_problems(facts: Facts, kind: str, name: str) -> Iterator[str]:
    if kind == "project":
        yield from project_problems(facts, facts.projects[name])
    elif kind == "cuda":
        yield from toolkit_problems(facts)
    elif kind == "images":
        yield from image_problems(facts)
    elif kind == "gpus":
        names = [name for gpu in facts.gpus for name in gpu.names]
        yield from duplicates("GPU", names)
        yield from duplicates("capability", [gpu.capability for gpu in facts.gpus])
        yield from (
            f"{gpu.capability}: {set(gpu.data_center) - set(gpu.names)}"
            for gpu in facts.gpus
            if set(gpu.data_center) - set(gpu.names)
        )
    elif kind == "systems":
        for system in facts.systems.values():
            yield from (f"{system.name}: Python {python}" for python in system.pythons if python not in facts.pythons)
    elif kind == "adaptations":
        for adaptation in facts.horovod:
            for text in (adaptation.horovod, adaptation.specifier, adaptation.pythons):
                SpecifierSet(text)


def duplicates(what: str, values: list[str]) -> Iterator[str]:
    yield from (f"{what} {value} stands twice" for value in sorted({v for v in values if values.count(v) > 1}))


def project_problems(facts: Facts, project: Project) -> Iterator[str]:
    releases = [release for row in project.rows for release in row.releases]
    yield from duplicates("release", releases)
    for release in releases:
        if str(Version(release)) != release:
            yield f"{release} is not in normal form"
    if sorted(releases, key=Version) != releases:
        yield "releases are not in order"
    if project.newest != max(releases, key=Version) or project.oldest != min(releases, key=Version):
        yield f"newest {project.newest} or oldest {project.oldest} is not"
    for row in project.rows:
        yield from (f"{row.series}: {problem}" for problem in row_problems(facts, project, row))


def row_problems(facts: Facts, project: Project, row: Row) -> Iterator[str]:
    SpecifierSet(row.requires_python)
    known = set(row.releases)
    for release in known:
        if ".".join(release.split(".")[:2]) != row.series:
            yield f"release {release} is of another series"
        for python in row.pythons_of(release) or ():
            if python.removesuffix("t") not in facts.pythons:
                yield f"Python {python} is unknown"
            # A wheel can be there although its own Requires-Python refuses the Python, but not the other way round.
    for build in row.builds:
        yield from build_problems(facts, row, build)
    for absent in row.absent:
        if absent.cuda != CPU and absent.cuda not in facts.toolkits:
            yield f"there is no CUDA {absent.cuda} that could be absent"
        if any(build.cuda == absent.cuda for build in row.builds):
            yield f"has a build for {absent.cuda} and has none"
    for release in known:
        plain = [
            build for build in row.builds if build.default and (build.versions is None or release in build.versions)
        ]
        if len(plain) > 1:
            yield f"{release} has {len(plain)} default builds"
    for extra in row.extras:
        yield from (f"extra {extra.name} of {release}" for release in (extra.versions or set()) - known)
        for text in extra.requires:
            Requirement(text)
    for release, by_project in row.companions.items():
        if release and release not in known:
            yield f"companions of {release}, which is not a release"
        for companion in by_project.values():
            SpecifierSet(companion.specifier)
            other = facts.projects.get(companion.project)
            there = {name for one in other.rows for name in one.releases} if other is not None else set()
            for version in companion.versions or ():
                if other is not None and "+" not in version and version not in there:
                    yield f"companion {companion.project} {version} is not a release"


def build_problems(facts: Facts, row: Row, build: Build) -> Iterator[str]:
    toolkits = facts.toolkits
    if build.cuda.isdigit():
        if not any(version.startswith(f"{build.cuda}.") and toolkit.exists for version, toolkit in toolkits.items()):
            yield f"there is no CUDA {build.cuda}"
    elif build.cuda != "cpu":
        toolkit = toolkits.get(build.cuda)
        if toolkit is None or not toolkit.exists:
            yield f"there is no CUDA {build.cuda}"
        elif toolkit.sass is not None and not set(build.sass or ()) <= set(toolkit.sass):
            yield f"CUDA {build.cuda} makes no code for {set(build.sass or ()) - set(toolkit.sass)}"
        if build.label and build.label != f"cu{build.cuda.replace('.', '')}":
            yield f"label {build.label} is not of CUDA {build.cuda}"
    yield from (f"build {build.cuda} of {release}" for release in (build.versions or set()) - set(row.releases))


def toolkit_problems(facts: Facts) -> Iterator[str]:
    released = [version for version, toolkit in facts.toolkits.items() if toolkit.exists]
    if facts.newest_toolkit != released[-1]:
        yield f"newest {facts.newest_toolkit} is not"
    yield from (f"{version} exists" for version in ("12.7", "12.10") if facts.toolkits[version].exists)
    for version, toolkit in facts.toolkits.items():
        yield from (f"{patch} is not of {version}" for patch in toolkit.patches if not patch.startswith(f"{version}."))
        drivers = [Version(driver) for driver in toolkit.drivers.values()]
        if drivers != sorted(drivers):
            yield f"{version}: a later patch has an older driver"
        if toolkit.exists and toolkit.minor_driver and any(d < Version(toolkit.minor_driver) for d in drivers):
            yield f"{version}: its own driver is older than the oldest"


def image_problems(facts: Facts) -> Iterator[str]:
    for version, images in facts.images.items():
        toolkit = facts.toolkits.get(version.rpartition(".")[0])
        if toolkit is None or not toolkit.exists:
            yield f"{version}: there is no such toolkit"
        elif version not in toolkit.patches:
            yield f"{version} is not among the patches of its toolkit"
        has_cudnn = any("cudnn" in flavour for flavours in images.tags.values() for flavour in flavours)
        if images.complete and has_cudnn != (images.cudnn is not None):
            yield f"{version}: flavours and version of cuDNN disagree"


def problems(directory: Path, path: Path) -> list[str]:
    """What is wrong with one table, given the others beside it."""
    text = text_of(directory / path)
    table = parsed(text)
    found = schema_problems(path, table)
    if found:
        return found
    try:
        facts = facts_from(directory)
        found = [*source_problems(path, table), *facts_problems(facts, kind_of(path), path.stem)]
    except ConfigError as error:
        return [str(error)]
    if not found and dump(table) != text:
        found.append(f"{path.name} is not in canonical form: run python -m builder.compat.refresh --format --write")
    return found


@pytest.mark.parametrize("path", PATHS, ids=str)
def test_every_table_holds(path: Path) -> None:
    assert problems(TABLES, path) == []


def test_the_schema_is_a_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    assert {kind_of(path) for path in PATHS} == {
        key.removeprefix("table_") for key in SCHEMA["$defs"] if "table" in key
    }


def test_a_table_fits_exactly_one_kind() -> None:
    """An editor validates against the whole schema, which has to tell the kinds apart."""
    validator = jsonschema.Draft202012Validator(SCHEMA)
    for path in (Path("gpus.yaml"), Path("projects/mxnet.yaml")):
        table = parsed(text_of(TABLES / path))
        assert validator.is_valid(table)
        assert not validator.is_valid({**table, "kind": "systems"})


def torch_row(table: Any) -> Any:
    return table["rows"][-2]


def set_in(key: str, value: Any, at: Callable[[Any], Any]) -> Edit:
    def edit(table: Any) -> None:
        at(table)[key] = value

    return edit


def without(key: str, at: Callable[[Any], Any]) -> Edit:
    def edit(table: Any) -> None:
        del at(table)[key]

    return edit


def twice(table: Any) -> None:
    table["rows"].append(copy.deepcopy(table["rows"][-1]))


TORCH, CUDA, IMAGES, GPUS = Path("projects/torch.yaml"), Path("cuda.yaml"), Path("images.yaml"), Path("gpus.yaml")
VISION = Path("projects/torchvision.yaml")
BROKEN: list[tuple[str, Path, Edit, str]] = [
    ("no source", TORCH, without("source", torch_row), "'source' is a required property"),
    ("empty source", TORCH, set_in("source", [], torch_row), "source"),
    ("unnamed source", TORCH, set_in("source", ["hearsay"], torch_row), "'hearsay' is not among"),
    (
        "unused source",
        TORCH,
        set_in("hearsay", "x", lambda t: t["sources"]),
        "source hearsay is not named, or never used",
    ),
    ("no confidence", GPUS, without("confidence", lambda t: t["rows"][0]), "'confidence' is a required property"),
    ("odd confidence", GPUS, set_in("confidence", "sure", lambda t: t["rows"][0]), "'sure' is not one of"),
    ("unknown key", TORCH, set_in("colour", "red", torch_row), "'colour' was unexpected"),
    (
        "absent without source",
        TORCH,
        set_in("absent", [{"cuda": "12.6", "confidence": "read"}], torch_row),
        "'source' is a required property",
    ),
    (
        "absent of no CUDA",
        TORCH,
        set_in("absent", [{"cuda": "twelve", "source": ["index"], "confidence": "read"}], torch_row),
        "twelve",
    ),
    (
        "absent and there",
        TORCH,
        set_in("absent", [{"cuda": "13.2", "source": ["index"], "confidence": "read"}], torch_row),
        "has a build for 13.2 and has none",
    ),
    ("CUDA 12.7", TORCH, set_in("cuda", "12.7", lambda t: torch_row(t)["builds"][1]), "12.7"),
    ("CUDA 12.11", TORCH, set_in("cuda", "12.11", lambda t: torch_row(t)["builds"][1]), "there is no CUDA 12.11"),
    ("label", TORCH, set_in("label", "cu128", lambda t: torch_row(t)["builds"][1]), "is not of CUDA"),
    ("no such code", TORCH, set_in("sass", ["3.5"], lambda t: torch_row(t)["builds"][1]), "makes no code for {'3.5'}"),
    ("version", TORCH, set_in("2.14.01", {}, lambda t: torch_row(t)["releases"]), "2.14.01"),
    ("normal form", TORCH, set_in("2.14.2.post01", {}, lambda t: torch_row(t)["releases"]), "is not in normal form"),
    ("series", TORCH, set_in("series", "2.99", torch_row), "of another series"),
    ("newest", TORCH, set_in("newest", "2.14.1", lambda t: t), "newest 2.14.1"),
    ("unquoted", TORCH, set_in("pythons", [3.1], torch_row), "3.1"),
    ("Python", TORCH, set_in("pythons", ["3.99"], torch_row), "Python 3.99 is unknown"),
    ("twice", TORCH, twice, "release 2.15.0 stands twice"),
    (
        "companion",
        TORCH,
        set_in("versions", ["9.9.9"], lambda t: torch_row(t)["companions"][-1]),
        "9.9.9 is not a release",
    ),
    ("of no release", VISION, set_in("versions", ["0.1.0"], lambda t: torch_row(t)["builds"][0]), "of 0.1.0"),
    ("not canonical", TORCH, lambda t: t["rows"].reverse(), "releases are not in order"),
    ("schema version", TORCH, set_in("schema", "imgbuild.facts/2", lambda t: t), "'imgbuild.facts/1' was expected"),
    (
        "12.7 exists",
        CUDA,
        without("exists", lambda t: next(r for r in t["rows"] if r["version"] == "12.7")),
        "12.7 exists",
    ),
    ("newest CUDA", CUDA, set_in("newest", "13.3", lambda t: t), "newest 13.3"),
    ("driver", CUDA, set_in("drivers", {"13.2.0": "1.0"}, lambda t: t["rows"][-3]), "older than the oldest"),
    ("image of 12.7", IMAGES, set_in("version", "12.7.0", lambda t: t["rows"][-1]), "there is no such toolkit"),
    ("flavour", IMAGES, set_in("ubuntu22.04", ["cudnn-base"], lambda t: t["rows"][0]["tags"]), "cudnn-base"),
    ("GPU twice", GPUS, set_in("names", ["H100", "A100"], lambda t: t["rows"][0]), "GPU A100 stands twice"),
]


@pytest.mark.parametrize(("path", "edit", "expected"), [case[1:] for case in BROKEN], ids=[case[0] for case in BROKEN])
def test_a_broken_table_is_refused(tmp_path: Path, path: Path, edit: Edit, expected: str) -> None:
    directory = tmp_path / "tables"
    shutil.copytree(TABLES, directory)
    table = parsed(text_of(TABLES / path))
    edit(table)
    (directory / path).write_text(json.dumps(table), encoding="utf-8")  # JSON is YAML, and quicker to write
    assert expected in "\n".join(problems(directory, path))


def test_a_hand_edited_table_is_put_into_form(tmp_path: Path) -> None:
    """The same facts in another order and layout are refused for their form alone, and `dump` mends that."""
    directory = tmp_path / "tables"
    shutil.copytree(TABLES, directory)
    table = parsed(text_of(TABLES / GPUS))
    (directory / GPUS).write_text(yaml.safe_dump({**table, "rows": table["rows"][::-1]}), encoding="utf-8")
    (found,) = problems(directory, GPUS)
    assert "canonical" in found
    assert dump({**table, "rows": table["rows"][::-1]}) == text_of(TABLES / GPUS)


@pytest.mark.parametrize(
    "texts", [["3.9", "3.10", "3.13", "3.13t", "3.14"], ["12.9", "12.10"], ["2.15.0", "2.15.0.post1", "2.15.1"]]
)
def test_versions_sort_as_a_person_would(texts: list[str]) -> None:
    shuffled = set(texts)
    assert sorted(shuffled, key=version_key) == texts


def test_the_facts_that_the_issue_names() -> None:
    """A handful of rows that are easy to get wrong, read through the loader as the rules read them."""
    facts = load_facts()
    by_series = {row.series: row for row in facts.projects["torch"].rows}
    builds = {build.label: build for build in by_series["2.6"].builds}
    assert (by_series["2.6"].glibc_of("2.6.0"), builds["cu126"].glibc) == ("2.17", "2.28")
    assert "3.13t" in (by_series["2.12"].pythons_of("2.12.0") or ())
    assert "3.13t" not in (by_series["2.12"].pythons_of("2.12.1") or ())
    audio = by_series["2.13"].companion("2.13.0", "torchaudio")
    vision = by_series["2.13"].companion("2.13.0", "torchvision")
    assert audio is not None
    assert not audio.known
    assert vision is not None
    assert vision.versions == ("0.28.0",)
    pypi = {
        release: build.cuda
        for row in facts.projects["torchvision"].rows
        for build in row.builds
        for release in build.versions or row.releases
        if "pypi" in build.channels
    }
    assert [pypi[release] for release in ("0.28.0", "0.29.1", "0.29.2")] == ["13.0", "13.0", "13.2"]
    extras = {
        (extra.name, release): extra
        for row in facts.projects["tensorflow"].rows
        for extra in row.extras
        for release in extra.versions or row.releases
    }
    assert not extras["and-cuda", "2.15.0"].installable
    assert extras["and-cuda", "2.15.1"].installable
    assert extras["and-cuda", "2.14.1"].pythons == {"3.9", "3.10"}
    assert not facts.toolkits["12.7"].exists
    assert "cudnn9-devel" in facts.images["12.3.2"].tags["ubuntu22.04"]
    assert "cudnn-devel" in facts.images["12.4.1"].tags["ubuntu22.04"]


def test_the_documented_counts_are_those_of_the_tables() -> None:
    text = (Path(__file__).parents[2] / "docs/facts.md").read_text(encoding="utf-8")
    assert counts_of(TABLES) in text, "run python -m builder.compat.refresh --counts and put it into docs/facts.md"
