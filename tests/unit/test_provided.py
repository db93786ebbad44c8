"""Wheels without code, and what is locked where one stands for a project."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
from fake_locks import fake_package, write_fake_locks
from packaging.utils import parse_wheel_filename

from builder.errors import ConfigError, NotLocked, RenderError
from builder.lock.file import LOCKS, Locks, environment_name, missing_python, write_environment
from builder.lock.model import EnvironmentLock, PythonRequest, Requests
from builder.matrix import Cell, Extra, load_matrix
from builder.project import find_project, shipped_data
from builder.render import Recipe, Renderer
from builder.render.provided import provided_wheel, wheel_name
from builder.resolve.indexes import Sources
from builder.resolve.plan import survey
from builder.resolve.target import Target
from builder.resolve.uv import Uv
from builder.site import Site

TEMPLATE = """\
FROM x
# {{ python(["tensorflow-cpu==2.21.0", "tf-keras==2.21.*"]) }}
COPY {{ provided("tensorflow==2.21.0", by="tensorflow-cpu==2.21.0") }} {{ pins() }} /
"""


@pytest.fixture
def cell() -> Cell:
    matrix = load_matrix(shipped_data() / "matrix.yaml")
    return next(cell for cell in matrix.cells if cell.id == "tensorflow-2.21.0-cpu-py3.11-horovod")


def render(directory: Path, cell: Cell, text: str) -> Recipe:
    directory.mkdir(exist_ok=True)
    (directory / cell.framework.template).write_text(text)
    write_fake_locks([cell], directory)
    return Renderer(directory).render(cell)


# The wheel


def test_the_wheel_is_one() -> None:
    name = wheel_name("tensorflow", "2.21.0")
    assert parse_wheel_filename(name)[:2] == ("tensorflow", parse_wheel_filename("a-2.21.0-py3-none-any.whl")[1])
    data = provided_wheel("tensorflow", "2.21.0", "tensorflow-cpu==2.21.0")
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        files = {entry: archive.read(entry) for entry in archive.namelist()}
    info = "tensorflow-2.21.0.dist-info"
    assert sorted(files) == [f"{info}/METADATA", f"{info}/RECORD", f"{info}/WHEEL"]
    metadata = files[f"{info}/METADATA"].decode().splitlines()
    assert {"Name: tensorflow", "Version: 2.21.0", "Requires-Dist: tensorflow-cpu==2.21.0"} < set(metadata)
    for path, digest, size in csv.reader(files[f"{info}/RECORD"].decode().splitlines()):
        if path.endswith("RECORD"):
            continue
        encoded = base64.urlsafe_b64encode(hashlib.sha256(files[path]).digest()).rstrip(b"=").decode()
        assert (digest, int(size)) == (f"sha256={encoded}", len(files[path]))


def test_the_wheel_is_the_same_every_time_and_another_for_another_version() -> None:
    first = provided_wheel("tensorflow", "2.21.0", "tensorflow-cpu==2.21.0")
    assert provided_wheel("tensorflow", "2.21.0", "tensorflow-cpu==2.21.0") == first
    assert provided_wheel("tensorflow", "2.20.0", "tensorflow-cpu==2.20.0") != first


# Rendering


def test_what_is_provided_is_pinned_and_in_the_context(tmp_path: Path, cell: Cell) -> None:
    cell = replace(cell, extras=())
    recipe = render(tmp_path / "dockerfiles", cell, TEMPLATE)
    files = {file.path: file.data for file in recipe.files}
    path = "provided/tensorflow-2.21.0-py3-none-any.whl"
    assert f"COPY {path} " in recipe.dockerfile
    assert files[path] == provided_wheel("tensorflow", "2.21.0", "tensorflow-cpu==2.21.0")
    assert recipe.constraints["tensorflow"] == "2.21.0"
    (pins,) = (data.decode() for name, data in files.items() if "/pins-" in name)
    assert "tensorflow==2.21.0\n" in pins


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{{ provided("tensorflow", by="tensorflow-cpu") }}', "'tensorflow' is not of the form name==version"),
        ('{{ provided("tensorflow==2.*", by="tensorflow-cpu") }}', "is not of the form name==version"),
        ('{{ provided("tensorflow==2.1", by="no requirement!") }}', "is not a requirement"),
        ('{{ pins() }} {{ provided("a==1", by="b==1") }}', "comes after pins()"),
    ],
)
def test_what_a_template_may_not_ask(tmp_path: Path, cell: Cell, text: str, message: str) -> None:
    with pytest.raises(RenderError) as caught:
        render(tmp_path / "dockerfiles", replace(cell, extras=()), TEMPLATE.replace("FROM x", f"FROM x\n# {text}"))
    assert message in caught.value.message
    assert ":2:1" in caught.value.where


def test_a_lock_that_installs_what_is_provided_is_refused(tmp_path: Path, cell: Cell) -> None:
    cell, directory = replace(cell, extras=()), tmp_path / "dockerfiles"
    render(directory, cell, TEMPLATE)
    locks = Locks(directory / LOCKS)
    lock = locks.environment(environment_name(cell))
    assert lock is not None
    both = {**lock.packages, "tensorflow": fake_package("tensorflow==2.21.0")}
    installs = {request: tuple(sorted({*names, "tensorflow"})) for request, names in lock.installs.items()}
    write_environment(locks, replace(lock, packages=both, installs=installs))
    with pytest.raises(NotLocked, match="installs tensorflow, which something else stands for"):
        Renderer(directory).render(cell)


# Locking


def test_a_lock_is_made_again_when_something_begins_to_stand_for_a_package() -> None:
    request = PythonRequest(requirements=("tf-keras",), after=())
    lock = EnvironmentLock(
        name="x",
        constraints="",
        packages={name: fake_package(f"{name}==2") for name in ("tensorflow", "tf-keras")},
        installs={request: ("tensorflow", "tf-keras")},
    )
    asked = Requests(python=(request,), debian=(), constraints="")
    assert missing_python(lock, {"cell": asked}) == ()
    (sentence,) = missing_python(lock, {"cell": replace(asked, provided=("tensorflow",))})
    assert sentence == "tensorflow is locked, and something else stands for it now"


@pytest.mark.parametrize("provided", [(), ("tensorflow",)])
def test_uv_resolves_nothing_to_what_is_provided(tmp_path: Path, provided: tuple[str, ...]) -> None:
    program = tmp_path / "uv"
    program.write_text('#!/bin/sh\nfor word; do case $word in */overrides.txt) cat "$word";; esac; done\n')
    program.chmod(0o755)
    sources = Sources(indexes=(), links=())
    site = Site(state_dir=tmp_path / "state", config=tmp_path / "site.yaml")
    uv = Uv(program=str(program), site=site, sources=sources, target=Target(python="3.11", glibc=(2, 36)))
    said = replace(uv, provided=provided)._run(tmp_path, ["tf-keras"], "", [])
    assert said == "".join(f"{name} ; python_version < '0'\n" for name in provided)


def test_cells_of_one_environment_have_the_same_provided(tmp_path: Path, cell: Cell) -> None:
    (tmp_path / "dockerfiles").mkdir()
    (tmp_path / "dockerfiles" / cell.framework.template).write_text(
        TEMPLATE.replace("COPY", "{% if extras.horovod is defined %}\nCOPY") + "{% endif %}\n"
    )
    one, other = replace(cell, extras=(), id="one"), cell
    (tmp_path / "matrix.yaml").touch()
    project = find_project(tmp_path / "matrix.yaml", tmp_path)
    with pytest.raises(ConfigError, match="only one of them has something that stands for tensorflow"):
        survey([one, other], [one, other], project)
    assert survey([one], [one], project).environments


# The shipped template


def shipped(tmp_path: Path, cell: Cell, *extras: Extra, name: str = "tensorflow", cuda: str = "cpu") -> Recipe:
    wanted = replace(cell, extras=extras, cuda=cuda, framework=replace(cell.framework, name=name))
    write_fake_locks([wanted], tmp_path / "own", shipped_data() / "dockerfiles")
    return Renderer(tmp_path / "own", shipped_data() / "dockerfiles").render(wanted)


def an_extra(name: str, *packages: str, version: str | None = None, controller: str | None = None) -> Extra:
    return Extra(name=name, packages=packages or (name,), version=version, controller=controller, named=True)


HOROVOD = an_extra("horovod", version="0.28.1", controller="gloo")


def test_tf_keras_is_of_the_series_of_the_cells_tensorflow(tmp_path: Path, cell: Cell) -> None:
    recipe = shipped(tmp_path, cell, HOROVOD)
    assert recipe.constraints["tensorflow-cpu"] == recipe.constraints["tensorflow"] == cell.framework.version
    assert recipe.constraints["tf-keras"] == "2.21"
    assert "files/horovod-tensorflow.patch" in [file.path for file in recipe.files]
    assert "patch" not in shipped(tmp_path, cell).dockerfile


@pytest.mark.parametrize(
    ("extras", "fields", "message"),
    [
        ((), {"cuda": "12.5"}, "this template makes images for CPUs, not for CUDA 12.5"),
        ((), {"name": "torch"}, "this template installs tensorflow, not torch"),
        ((HOROVOD, replace(HOROVOD, name="ring")), {}, "one image has room for one Horovod"),
        ((replace(HOROVOD, version=None),), {}, "this template patches Horovod 0.28.1 and no other"),
        ((replace(HOROVOD, version="0.29.0"),), {}, "this template patches Horovod 0.28.1 and no other"),
        ((replace(HOROVOD, packages=("horovod", "dask")),), {}, "must bring the package horovod and no other"),
        ((an_extra("ring", "dask", "horovod"),), {}, "the extra ring must bring the package horovod and no"),
    ],
)
def test_what_the_template_cannot_do(
    tmp_path: Path, cell: Cell, extras: tuple[Extra, ...], fields: dict[str, str], message: str
) -> None:
    with pytest.raises(RenderError) as caught:
        shipped(tmp_path, cell, *extras, **fields)
    assert message in caught.value.message
    assert "tensorflow.Dockerfile.j2:" in caught.value.where
