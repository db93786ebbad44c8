"""Rendering: what a template may do, what it may not, and what a key is made of."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fake_locks import VERSION, write_fake_locks

from builder.errors import RenderError
from builder.lock import BasePin, Bases
from builder.matrix import Cell, Extra, load_matrix
from builder.project import shipped_data
from builder.render import Recipe, Renderer, channel_variable, parse_constraints, render_all

PIN = BasePin(name="bookworm", source=Bases.REGISTRY, reference="debian@sha256:1", identity="registry:sha256:1", why="")
CONSTRAINTS = "torch==2.13.0+cpu\ntensorboard==2.21.0\ndask==2026.8.0\ndistributed==2026.8.0\nhorovod==0.28.1\n"
USES_CONSTRAINTS = "{{ file(cell.framework.constraints) }}\n"


CONSTRAINTS_FILE = "constraints/pins.txt"


@pytest.fixture
def cell() -> Cell:
    """A cell of a template that does without a lock."""
    matrix = load_matrix(shipped_data() / "matrix.yaml")
    found = next(cell for cell in matrix.cells if any(extra.name == "horovod" for extra in cell.extras))
    return replace(found, framework=replace(found.framework, constraints=CONSTRAINTS_FILE))


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    root = tmp_path / "dockerfiles"
    constraints = root / CONSTRAINTS_FILE
    constraints.parent.mkdir(parents=True)
    constraints.write_text(CONSTRAINTS)
    return root


def write(directory: Path, cell: Cell, text: str) -> Renderer:
    (directory / cell.framework.template).write_text(text + USES_CONSTRAINTS)
    return Renderer(directory)


def render(directory: Path, cell: Cell, text: str) -> Recipe:
    return write(directory, cell, text).render(cell)


def test_a_template_sees_the_cell_and_its_extras(directory: Path, cell: Cell) -> None:
    recipe = render(directory, cell, "FROM x\n# {{ cell.id }} {{ extras.horovod.version }} {{ template }}\n")
    assert f"# {cell.id} 0.28.1 {cell.framework.template}" in recipe.dockerfile


def test_files_that_the_template_names_belong_to_the_recipe(directory: Path, cell: Cell) -> None:
    (directory / "run.sh").write_text("#!/bin/sh\n")
    (directory / "run.sh").chmod(0o700)
    (directory / "unused").write_text("x")
    recipe = render(directory, cell, "COPY {{ file('run.sh') }} /\n")
    assert [(file.path, file.mode) for file in recipe.files] == [
        (CONSTRAINTS_FILE, 0o644),
        ("run.sh", 0o755),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{{ undefined_name }}", "'undefined_name' is undefined"),
        ("{{ cell.no_such_field }}", "no_such_field"),
        ("{{ ''.__class__.__mro__ }}", "unsafe"),
        ("{{ [1].index(1) }}{{ [1].append(2) }}", "unsafe"),
        ("{% for name in ('index', 'append', 'append') %}{{ [1][name] }}{% endfor %}", "unsafe"),
        ("{{ cell.__init__.__globals__ }}", "unsafe"),
        ("{% if %}", "Expected an expression"),
        ("{{ file('../secret') }}", "is not below dockerfiles/"),
        ("{{ file('/etc/passwd') }}", "is not below dockerfiles/"),
        ("{{ file('no-such-file') }}", "there is no no-such-file"),
        ("{% include 'no-such-template.j2' %}", "there is no no-such-template.j2"),
        ("{{ 1 / 0 }}", "ZeroDivisionError"),
        ("{{ cell.id + 1 }}", "TypeError"),
    ],
)
def test_what_a_template_may_not_do(directory: Path, cell: Cell, text: str, message: str) -> None:
    with pytest.raises(RenderError) as caught:
        render(directory, cell, text)
    assert message in caught.value.message
    assert cell.framework.template in caught.value.where


def test_an_error_names_the_line_of_the_template(directory: Path, cell: Cell) -> None:
    with pytest.raises(RenderError) as caught:
        render(directory, cell, "FROM x\n\n{{ nothing_here }}\n")
    assert caught.value.where.endswith(f"{cell.framework.template}:3:1")


def test_a_template_can_refuse_a_cell(directory: Path, cell: Cell) -> None:
    text = "FROM x\n\n{% if cell.python == '3.11' %}{{ fail('no ' ~ cell.python) }}{% endif %}\n"
    with pytest.raises(RenderError) as caught:
        render(directory, cell, text)
    assert caught.value.message == f"cell {cell.id}: no 3.11"
    assert caught.value.where.endswith(f"{cell.framework.template}:3:1")
    assert "FROM x" in render(directory, replace(cell, python="3.13"), text).dockerfile


Shipped = Callable[..., Recipe]


@pytest.fixture
def shipped(cell: Cell, tmp_path: Path) -> Shipped:
    """Renders the shipped template for the cell with these extras, with a lock that has all that it asks for."""

    def render(*extras: Extra, name: str = "torch", **fields: str) -> Recipe:
        framework = replace(cell.framework, name=name, constraints=None)
        wanted = replace(cell, framework=framework, extras=extras, **fields)
        directory = tmp_path / "own"
        write_fake_locks([wanted], directory, shipped_data() / "dockerfiles")
        return Renderer(directory, shipped_data() / "dockerfiles").render(wanted)

    return render


def an_extra(name: str, *packages: str, version: str | None = None, controller: str | None = None) -> Extra:
    return Extra(name=name, packages=packages or (name,), version=version, controller=controller, named=True)


@pytest.mark.parametrize("controller", [None, "gloo"])
@pytest.mark.parametrize("version", [None, "0.28.1"])
def test_the_shipped_template_leaves_horovods_version_to_the_lock(
    shipped: Shipped, version: str | None, controller: str | None
) -> None:
    recipe = shipped(an_extra("horovod", version=version, controller=controller))
    assert "HOROVOD_WITH_GLOO=1" in recipe.dockerfile
    assert recipe.constraints["horovod"] == (version or VERSION)
    assert "None" not in recipe.dockerfile


def test_the_shipped_template_imports_by_distribution(shipped: Shipped) -> None:
    recipe = shipped(an_extra("board", "tensorboard-data-server", "typing-extensions"), an_extra("dask"))
    assert "python /run/warm-up tensorboard-data-server typing-extensions dask\n" in recipe.dockerfile
    assert "files/warm-up" in [file.path for file in recipe.files]
    assert "warm-up" not in shipped().dockerfile


@pytest.mark.parametrize(
    ("extras", "fields", "message"),
    [
        ((), {"cuda": "12.6"}, "whose names it knows for CUDA 13, not for CUDA 12.6"),
        ((an_extra("horovod"), an_extra("ring", "horovod")), {}, "one image has room for one Horovod"),
        ((an_extra("horovod", "horovod", "dask"),), {}, "must bring the package horovod and no other"),
        ((an_extra("ring", "dask", "horovod"),), {}, "the extra ring must bring the package horovod and no"),
        ((), {"name": "numpy"}, "this template installs torch, not numpy"),
    ],
)
def test_what_the_shipped_template_cannot_do(
    shipped: Shipped, extras: tuple[Extra, ...], fields: dict[str, str], message: str
) -> None:
    with pytest.raises(RenderError) as caught:
        shipped(*extras, **fields)
    assert message in caught.value.message
    assert re.search(r"pytorch\.Dockerfile\.j2:\d+:1$", caught.value.where)
    assert "AS image" in shipped().dockerfile


def test_a_link_that_leaves_the_directory_is_refused(directory: Path, cell: Cell, tmp_path: Path) -> None:
    (tmp_path / "outside").write_text("secret")
    (directory / "link").symlink_to(tmp_path / "outside")
    (directory / "inside").write_text("fine")
    (directory / "good").symlink_to("inside")
    with pytest.raises(RenderError, match="leaves dockerfiles/"):
        render(directory, cell, "{{ file('link') }}\n")
    assert render(directory, cell, "{{ file('good') }}\n").files[-1].data == b"fine"


def test_own_files_win_over_shipped_ones(directory: Path, cell: Cell, tmp_path: Path) -> None:
    shipped = tmp_path / "shipped"
    shipped.mkdir()
    (shipped / "a").write_text("shipped")
    (shipped / "b").write_text("shipped")
    (directory / "a").write_text("own")
    (directory / cell.framework.template).write_text("{{ file('a') }}{{ file('b') }}" + USES_CONSTRAINTS)
    recipe = Renderer(directory, shipped).render(cell)
    assert {file.path: file.data for file in recipe.files if file.path in "ab"} == {"a": b"own", "b": b"shipped"}


def test_the_key_counts_what_decides_the_image(directory: Path, cell: Cell) -> None:
    (directory / "data").write_text("1")
    recipe = render(directory, cell, "COPY {{ file('data') }} /\n")
    key = recipe.key(PIN)
    assert key == render(directory, cell, "COPY {{ file('data') }} /\n").key(PIN)
    assert key != recipe.key(replace(PIN, identity="registry:sha256:2"))
    assert key != render(directory, cell, "COPY {{ file('data') }} /new\n").key(PIN)
    (directory / "data").write_text("2")
    assert key != render(directory, cell, "COPY {{ file('data') }} /\n").key(PIN)


def test_the_key_does_not_count_where_when_and_how_it_was_written(tmp_path: Path, cell: Cell) -> None:
    keys = set()
    for name, mode, moment in (("one", 0o600, 1), ("elsewhere/two", 0o664, 2_000_000_000)):
        root = tmp_path / name
        (root / "constraints").mkdir(parents=True)
        (root / CONSTRAINTS_FILE).write_text(CONSTRAINTS)
        (root / "data").write_text("1")
        (root / "data").chmod(mode)
        os.utime(root / "data", (moment, moment))
        keys.add(render(root, cell, "COPY {{ file('data') }} /\n").key(PIN))
    assert len(keys) == 1


def test_the_repository_prefix_is_not_in_the_key(tmp_path: Path) -> None:
    data = shipped_data()
    keys = []
    for repository in ("imgbuild", "registry.example.com/team"):
        matrix = load_matrix(data / "matrix.yaml", repository=repository)
        write_fake_locks(matrix.cells, tmp_path, data / "dockerfiles")
        keys.append([recipe.key(PIN) for recipe in render_all(matrix.cells, tmp_path, data / "dockerfiles")])
    assert keys[0] == keys[1]
    assert len(set(keys[0])) == len(keys[0])


def test_constraints_are_exact_pins() -> None:
    assert parse_constraints("# all\nTorch==2.13.0+cpu  # CPU\n\ntyping_extensions==4.16.0\n", "c.txt") == {
        "torch": "2.13.0+cpu",
        "typing-extensions": "4.16.0",
    }


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("torch>=2", "does not pin an exact version"),
        ("torch==2.*", "does not pin an exact version"),
        ("torch", "does not pin an exact version"),
        ("torch==2.13.0; python_version > '3'", "does not pin an exact version"),
        ("torch @ https://example.com/torch.whl", "does not pin an exact version"),
        ("-r other.txt", "not a requirement"),
        ("a==1\nA==2", "a is pinned twice"),
    ],
)
def test_constraints_that_are_not(line: str, message: str) -> None:
    with pytest.raises(RenderError, match=message) as caught:
        parse_constraints(line, "c.txt")
    assert caught.value.where.startswith("c.txt:")


def test_constraints_must_agree_with_the_cell(directory: Path, cell: Cell) -> None:
    (directory / CONSTRAINTS_FILE).write_text(CONSTRAINTS.replace("2.13.0+cpu", "2.12.0+cpu"))
    with pytest.raises(RenderError, match=r"torch is pinned to 2\.12\.0\+cpu, and cell .* says 2\.13\.0"):
        render(directory, cell, "FROM x\n")
    (directory / CONSTRAINTS_FILE).write_text(CONSTRAINTS.replace("dask==2026.8.0\n", ""))
    with pytest.raises(RenderError, match="dask is not pinned"):
        render(directory, cell, "FROM x\n")
    (directory / CONSTRAINTS_FILE).write_text(CONSTRAINTS)
    assert render(directory, cell, "FROM x\n").constraints["torch"] == "2.13.0+cpu"


def test_files_that_cannot_be_read_are_named(directory: Path, cell: Cell, monkeypatch: pytest.MonkeyPatch) -> None:
    (directory / "part.j2").write_bytes(b"first\n\xff\n")
    with pytest.raises(RenderError, match="not UTF-8") as caught:
        render(directory, cell, "{% include 'part.j2' %}\n")
    assert caught.value.where == "part.j2:2:1"
    (directory / "part.j2").write_bytes(b"first\nsecond\n")
    assert "second" in render(directory, cell, "{% include 'part.j2' %}\n").dockerfile

    # Root may read everything, so a refusal has to be played.
    (directory / "secret").write_text("x")
    assert [file.path for file in render(directory, cell, "{{ file('secret') }}\n").files][-1] == "secret"
    read_bytes = Path.read_bytes

    def refusing(path: Path) -> bytes:
        if path.name == "secret":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return read_bytes(path)

    monkeypatch.setattr(Path, "read_bytes", refusing)
    with pytest.raises(RenderError, match="cannot be read: Permission denied") as caught:
        render(directory, cell, "{{ file('secret') }}\n")
    assert caught.value.where == str(directory / "secret")


def test_a_template_that_may_not_be_read_is_named(directory: Path, cell: Cell, monkeypatch: pytest.MonkeyPatch) -> None:
    renderer = write(directory, cell, "FROM x\n")
    path = str(directory / cell.framework.template)

    def refusing(file: object, *arguments: Any, **options: Any) -> Any:
        if file == path:
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return open(file, *arguments, **options)  # type: ignore[call-overload]  # noqa: PTH123

    monkeypatch.setattr("jinja2.loaders.open", refusing, raising=False)
    with pytest.raises(RenderError, match="cannot be read: Permission denied") as caught:
        renderer.render(cell)
    assert caught.value.where == path
    monkeypatch.undo()
    assert "FROM x" in renderer.render(cell).dockerfile


def test_text_that_no_file_can_hold_is_refused(directory: Path, cell: Cell) -> None:
    with pytest.raises(RenderError, match="UnicodeEncodeError"):
        render(directory, cell, "FROM x\n# {{ '\\ud800' }}\n")


def test_channel_variables_are_shell_names() -> None:
    assert channel_variable("pytorch-cpu") == "IMGBUILD_CHANNEL_PYTORCH_CPU"
