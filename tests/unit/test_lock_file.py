"""Lock files: one text for one content, and nothing else is taken for a lock."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from builder.errors import ConfigError, NotLocked
from builder.lock.documents import (
    base_text,
    environment_text,
    parse_base,
    parse_environment,
)
from builder.lock.file import (
    Locks,
    constraints_sha256,
    environment_name,
    missing_python,
    python_packages,
    requirements_text,
    write_base,
    write_environment,
)
from builder.lock.model import (
    BaseLock,
    DebianRequest,
    EnvironmentLock,
    LockedPackage,
    MadeBase,
    PythonRequest,
    Requests,
)
from builder.lock.reading import LARGEST
from builder.matrix import Cell, load_matrix
from builder.project import shipped_data

NAME = "torch-2.13.0-cpu-py3.11-bookworm"


def package(name: str, version: str, file: str = "") -> LockedPackage:
    return LockedPackage(
        name=name, version=version, file=file or f"{name}-{version}-py3-none-any.whl", sha256=f"{len(name):064x}"
    )


ENVIRONMENT = EnvironmentLock(
    name=NAME,
    constraints=constraints_sha256("numpy<3\n"),
    packages={
        "torch": package("torch", "2.13.0+cpu", "torch-2.13.0+cpu-cp311-cp311-manylinux_2_28_x86_64.whl"),
        "numpy": package("numpy", "2.4.6"),
        "horovod": package("horovod", "0.28.1", "horovod-0.28.1.tar.gz"),
    },
    installs={
        PythonRequest(requirements=("horovod",), after=("numpy", "torch==2.13.0+cpu"), deps=False): ("horovod",),
        PythonRequest(requirements=("numpy", "torch==2.13.0+cpu"), after=()): ("numpy", "torch"),
    },
)
BASE = BaseLock(
    name="bookworm",
    image="debian:bookworm-slim",
    refreshed="2026-11-23",
    digest=None,
    why="no registry could be reached",
    made=MadeBase(recipe="a" * 64, packages={"libc6": "2.36-9+deb12u13", "dpkg": "1.21.22", "libx:amd64": "1:2~3"}),
    installs={
        DebianRequest(packages=("python3", "tini"), after=()): {"tini": "0.19.0-1", "python3": "3.11.2"},
    },
)


@pytest.fixture
def cell() -> Cell:
    return load_matrix(shipped_data() / "matrix.yaml").cells[0]


def edited(text: str, edit: Callable[[Any], None]) -> bytes:
    document = json.loads(text)
    edit(document)
    return json.dumps(document).encode()


def test_an_environment_survives_the_way_through_its_file() -> None:
    text = environment_text(ENVIRONMENT)
    again = parse_environment(text.encode(), "x.json", NAME)
    assert environment_text(again) == text
    assert again.packages == ENVIRONMENT.packages
    assert again.installs == ENVIRONMENT.installs
    assert text.endswith("}\n")


def test_a_base_survives_the_way_through_its_file() -> None:
    text = base_text(BASE)
    assert parse_base(text.encode(), "x.json", "bookworm") == dataclasses.replace(
        BASE,
        made=MadeBase(recipe="a" * 64, packages=dict(sorted(BASE.made.packages.items()))) if BASE.made else None,
    )
    pinned = dataclasses.replace(BASE, digest="sha256:" + "b" * 64, why="", made=None, installs={})
    assert parse_base(base_text(pinned).encode(), "x.json", "bookworm") == pinned


def test_the_text_does_not_depend_on_the_order_in_which_things_were_found() -> None:
    shuffled = dataclasses.replace(
        ENVIRONMENT,
        packages=dict(reversed(ENVIRONMENT.packages.items())),
        installs=dict(reversed(ENVIRONMENT.installs.items())),
    )
    assert environment_text(shuffled) == environment_text(ENVIRONMENT)


def test_a_package_is_a_line_so_that_a_change_of_one_shows_as_one() -> None:
    newer = {**ENVIRONMENT.packages, "numpy": package("numpy", "2.5.0")}
    before = environment_text(ENVIRONMENT).splitlines()
    after = environment_text(dataclasses.replace(ENVIRONMENT, packages=newer)).splitlines()
    assert len(before) == len(after)
    assert [line.split(":")[0].strip() for line, other in zip(before, after, strict=True) if line != other] == [
        '"numpy"'
    ]


def _set(*path: Any, value: Any) -> Callable[[Any], None]:
    def edit(document: Any) -> None:
        for step in path[:-1]:
            document = document[step]
        document[path[-1]] = value

    return edit


def _drop(*path: Any) -> Callable[[Any], None]:
    def edit(document: Any) -> None:
        for step in path[:-1]:
            document = document[step]
        del document[path[-1]]

    return edit


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (_set("format", value="imgbuild-python-lock/2"), "format is 'imgbuild-python-lock/2'"),
        (_set("environment", value="other"), "environment is 'other'"),
        (_set("constraints", value="abc"), "constraints is not a SHA-256"),
        (_set("surprise", value=1), "`surprise`, which does not belong there"),
        (_drop("packages"), "has no `packages`"),
        (_set("packages", value=[]), "packages is not an object"),
        (_set("packages", "numpy", "sha256", value="0" * 63), "packages.numpy.sha256"),
        (_set("packages", "numpy", "sha256", value="0" * 64 + "\n"), "packages.numpy.sha256"),
        (_set("packages", "numpy", "version", value="2.4.6\nevil"), "packages.numpy.version"),
        (_set("packages", "numpy", "version", value="2.4.6.0rc01"), "not in normal form"),
        (_set("packages", "numpy", "version", value="2.5.0"), "is no file of numpy 2.5.0"),
        (_set("packages", "numpy", "file", value="../numpy-2.4.6-py3-none-any.whl"), "packages.numpy.file"),
        (_set("packages", "numpy", "file", value="scipy-2.4.6-py3-none-any.whl"), "is no file of numpy"),
        (_set("packages", "numpy", "file", value="numpy-2.4.6.exe"), "packages.numpy"),
        (_set("packages", "numpy", "url", value="https://example.com"), "`url`, which does not belong there"),
        (_set("packages", "Num Py", value={}), "no name of a package"),
        (_drop("packages", "numpy"), "requests[0].installs[0] 'numpy' is not among `packages`"),
        (_set("architecture", value="arm64"), 'architecture is "arm64", and imgbuild locks for amd64 only'),
        (_drop("architecture"), "the file has no `architecture`"),
        (_set("requests", value={}), "requests is not a list"),
        (_set("requests", 0, "deps", value="yes"), "requests[0].deps is not true or false"),
        (_set("requests", 0, "requirements", value=["numpy", "numpy"]), "not sorted, or names something twice"),
        (_set("requests", 0, "requirements", value=["--index-url x"]), "is not a requirement"),
        (_set("requests", 0, "requirements", value=[7]), "requests[0].requirements[0] is 7"),
        (_set("requests", 1, "installs", value=[]), "packages.horovod is installed by no request"),
        (lambda document: document["requests"].append(document["requests"][0]), "requests[2] is there twice"),
    ],
)
def test_a_file_that_was_tampered_with_is_refused(edit: Callable[[Any], None], said: str) -> None:
    text = environment_text(ENVIRONMENT)
    parse_environment(text.encode(), "x.json", NAME)
    with pytest.raises(ConfigError) as caught:
        parse_environment(edited(text, edit), "locks/x.json", NAME)
    assert said in caught.value.message
    assert caught.value.where == "locks/x.json"
    assert "imgbuild lock" in caught.value.hint


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (_set("architecture", value="riscv64"), 'architecture is "riscv64", and imgbuild locks for amd64 only'),
        (_set("digest", value="sha256:12"), "digest is 'sha256:12'"),
        (_set("refreshed", value="yesterday"), "refreshed is 'yesterday'"),
        (_set("why", value="a\nb"), "why is"),
        (_set("made", "recipe", value=""), "made.recipe"),
        (_set("made", "packages", "libc6", value="1; rm -rf /"), "made.packages.libc6"),
        (_set("requests", 0, "installs", value={"$(id)": "1"}), "no name of a package"),
        (_set("requests", 0, "packages", value=["tini", "python3"]), "not sorted"),
    ],
)
def test_a_base_file_that_was_tampered_with_is_refused(edit: Callable[[Any], None], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_base(edited(base_text(BASE), edit), "locks/x.json", "bookworm")
    assert said in caught.value.message


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "is not JSON"),
        (environment_text(ENVIRONMENT).encode()[:-20], "is not JSON"),
        (b"\xff\xfe", "is not UTF-8"),
        (b"[]", "the file is not an object"),
        (b"null", "the file is not an object"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"a": 1, "a": 2}', "'a' is there twice"),
        (b" " * (LARGEST + 1), "at most"),
    ],
)
def test_what_is_no_lock_file_at_all_is_refused_in_a_sentence(data: bytes, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        parse_environment(data, "x.json", NAME)


def test_a_merge_that_stopped_half_way_is_told_as_what_it_is() -> None:
    lines = environment_text(ENVIRONMENT).splitlines(keepends=True)
    for mark in ("<<<<<<< ours\n", "=======\n", ">>>>>>> theirs\n"):
        for place in (0, 6, len(lines) - 1):
            with pytest.raises(ConfigError, match="marks of a merge") as caught:
                parse_environment("".join([*lines[:place], mark, *lines[place:]]).encode(), "x.json", NAME)
            assert caught.value.where == f"x.json:{place + 1}:1"
            assert "take either side" in caught.value.hint
    with pytest.raises(ConfigError, match="is not JSON"):
        parse_environment("".join([*lines[:6], "<<\n", *lines[6:]]).encode(), "x.json", NAME)


def test_locks_are_read_from_the_project_and_then_from_what_ships(tmp_path: Path) -> None:
    own, shipped = Locks(tmp_path / "own"), Locks(tmp_path / "shipped")
    write_environment(shipped, ENVIRONMENT)
    write_base(shipped, BASE)
    both = Locks(tmp_path / "own", tmp_path / "shipped")
    found = both.environment(NAME)
    assert found is not None
    assert both.base("bookworm") is not None
    assert (own.environment(NAME), own.base("bookworm"), own.own()) == (None, None, ())
    newer = dataclasses.replace(ENVIRONMENT, constraints="")
    assert write_environment(own, newer).read_text() == environment_text(newer)
    again = Locks(tmp_path / "own", tmp_path / "shipped").environment(NAME)
    assert again is not None
    assert again.constraints == ""


def test_a_lock_that_cannot_be_read_is_not_taken_for_one_that_is_missing(tmp_path: Path) -> None:
    locks = Locks(tmp_path)
    locks.python_path(NAME).symlink_to("nowhere")
    with pytest.raises(ConfigError, match="leads nowhere"):
        locks.environment(NAME)
    locks.base_path("bookworm").mkdir()
    with pytest.raises(ConfigError, match="cannot be read"):
        locks.base("bookworm")


def test_what_a_cell_installs_comes_with_hashes(cell: Cell) -> None:
    request = PythonRequest(requirements=("numpy", "torch==2.13.0+cpu"), after=())
    assert requirements_text(python_packages(ENVIRONMENT, request, cell)) == (
        f"numpy==2.4.6 --hash=sha256:{5:064x}\ntorch==2.13.0+cpu --hash=sha256:{5:064x}\n"
    )


@pytest.mark.parametrize(
    "request_",
    [
        PythonRequest(requirements=("numpy",), after=()),
        PythonRequest(requirements=("numpy", "torch==2.13.0+cpu"), after=("pip",)),
        PythonRequest(requirements=("numpy", "torch==2.13.0+cpu"), after=(), deps=False),
    ],
)
def test_a_request_that_is_not_locked_is_refused_with_the_command_that_locks_it(
    cell: Cell, request_: PythonRequest
) -> None:
    with pytest.raises(NotLocked) as caught:
        python_packages(ENVIRONMENT, request_, cell)
    assert caught.value.exit_code == 19
    assert cell.id in caught.value.message
    assert "imgbuild lock" in caught.value.hint


def test_what_is_missing_is_told_by_cell(cell: Cell, tmp_path: Path) -> None:
    asked = PythonRequest(requirements=("numpy", "torch==2.13.0+cpu"), after=())
    fits = Requests(python=(asked,), debian=(), constraints="numpy<3\n")
    assert missing_python(ENVIRONMENT, {cell.id: fits}) == ()
    assert missing_python(None, {cell.id: fits}) == ("there is no lock file",)
    changed = dataclasses.replace(fits, constraints="numpy<2\n")
    assert missing_python(ENVIRONMENT, {cell.id: changed, "b": changed}) == ("the constraints have changed since",)
    more = dataclasses.replace(fits, python=(asked, PythonRequest(requirements=("dask",), after=asked.requirements)))
    assert missing_python(ENVIRONMENT, {cell.id: more}) == (
        f"cell {cell.id} asks for dask after numpy, torch==2.13.0+cpu",
    )
    assert missing_python(ENVIRONMENT, {"a": more, "b": fits, "c": more, "d": more}) == (
        "cell a asks for dask after numpy, torch==2.13.0+cpu; so do 2 more",
    )
    with pytest.raises(NotLocked, match="is not locked"):
        Locks(tmp_path).required_environment(cell)
    assert environment_name(cell) == NAME
