"""Templates and lock files: what a template asks for, what it gets, and what it gets nothing for."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from fake_locks import fake_package, write_fake_locks

from builder.errors import ConfigError, NotLocked, RenderError
from builder.lock.file import LOCKS
from builder.lock.model import DebianRequest, PythonRequest
from builder.matrix import Cell, load_matrix
from builder.project import find_project, shipped_data
from builder.render import Recipe, Renderer, collect, iter_recipes, locked_recipes

ALL = """\
FROM x
# {{ python(["torch==2.13.0+cpu", "Dask", "distributed", "tensorboard"]) }}
{%- set horovod = python(["horovod==0.28.1"], after=["torch==2.13.0+cpu"], deps=False) %}
# {{ horovod }} {{ wheels(horovod) }}
# {{ debian(["tini", "g++"], after=["python3"]) }}
COPY {{ pins() }} /constraints.txt
"""


@pytest.fixture
def cell() -> Cell:
    matrix = load_matrix(shipped_data() / "matrix.yaml")
    return next(cell for cell in matrix.cells if any(extra.name == "horovod" for extra in cell.extras))


@pytest.fixture
def directory(tmp_path: Path, cell: Cell) -> Path:
    """Templates with their lock files."""
    root = tmp_path / "dockerfiles"
    root.mkdir()
    (root / cell.framework.template).write_text(ALL)
    write_fake_locks([cell], root)
    return root


def python_lock(directory: Path) -> Path:
    (path,) = (directory / LOCKS).glob("*.python.json")
    return path


def base_lock(directory: Path) -> Path:
    (path,) = (directory / LOCKS).glob("*.base.json")
    return path


def texts(recipe: Recipe) -> dict[str, str]:
    """Generated files by what they are."""
    return {file.path.partition("/")[2].partition("-")[0]: file.data.decode() for file in recipe.files}


def test_requests_are_gathered_without_a_lock(directory: Path, cell: Cell) -> None:
    for path in (directory / LOCKS).iterdir():
        path.unlink()
    asked = Renderer(directory).collect(cell)
    assert asked.python == (
        PythonRequest(requirements=("dask", "distributed", "tensorboard", "torch==2.13.0+cpu"), after=()),
        PythonRequest(requirements=("horovod==0.28.1",), after=("torch==2.13.0+cpu",), deps=False),
    )
    assert asked.debian == (DebianRequest(packages=("g++", "tini"), after=("python3",)),)
    assert asked.constraints == ""


def test_a_request_gives_exactly_what_the_lock_says(directory: Path, cell: Cell) -> None:
    recipe = Renderer(directory).render(cell)
    horovod = fake_package("horovod==0.28.1")
    generated = {file.path: file.data.decode() for file in recipe.files}
    assert f"horovod==0.28.1 --hash=sha256:{horovod.sha256}\n" in generated.values()
    assert texts(recipe)["debian"].split("\n\n") == [
        f"Package: {name}\nPin: version 1.5-1\nPin-Priority: 1001{end}"
        for name, end in (("g++", ""), ("libg++", ""), ("tini", "\n"))
    ]
    assert texts(recipe)["pins"].splitlines() == [
        "dask==1.5",
        "distributed==1.5",
        "horovod==0.28.1",
        "tensorboard==1.5",
        "torch==2.13.0+cpu",
    ]
    assert recipe.constraints["torch"] == "2.13.0+cpu"
    (wheels,) = recipe.wheels
    assert wheels.packages == (horovod,)
    # Everything that was generated is named by the Dockerfile.
    assert all(path in recipe.dockerfile for path in generated)


def test_the_same_content_has_the_same_path(directory: Path, cell: Cell) -> None:
    """Cells of two environments that install the same share the layer."""
    other = replace(cell, python="3.12", id="other")
    write_fake_locks([cell, other], directory)
    renderer = Renderer(directory)
    assert [file.path for file in renderer.render(cell).files] == [file.path for file in renderer.render(other).files]
    path = next(path for path in (directory / LOCKS).glob("*py3.12*"))
    document = json.loads(path.read_text())
    document["packages"]["horovod"]["sha256"] = "a" * 64
    path.write_text(json.dumps(document))
    changed = {file.path for file in Renderer(directory).render(other).files}
    assert len(changed - {file.path for file in Renderer(directory).render(cell).files}) == 1


def refused(directory: Path, cell: Cell) -> NotLocked:
    with pytest.raises(NotLocked) as caught:
        Renderer(directory).render(cell)
    assert caught.value.exit_code == 19
    assert "imgbuild lock" in caught.value.hint
    return caught.value


def test_without_a_lock_file_nothing_is_rendered(directory: Path, cell: Cell) -> None:
    path, text = python_lock(directory), python_lock(directory).read_text()
    path.unlink()
    error = refused(directory, cell)
    assert cell.id in error.message
    assert error.where == str(path)
    path.write_text(text)
    base, text = base_lock(directory), base_lock(directory).read_text()
    base.unlink()
    error = refused(directory, cell)
    assert cell.id in error.message
    assert error.where == str(base)
    base.write_text(text)
    assert "FROM x" in Renderer(directory).render(cell).dockerfile


def test_what_a_lock_lacks_is_named(directory: Path, cell: Cell) -> None:
    template = directory / cell.framework.template
    template.write_text(ALL + '# {{ debian(["cmake"]) }}\n')
    assert f"{cell.id} installs cmake on the base bookworm, which is not locked" in refused(directory, cell).message
    template.write_text('# {{ python(["numpy"]) }}\n' + ALL)
    assert f"cell {cell.id} asks for numpy, which is not locked" in refused(directory, cell).message
    write_fake_locks([cell], directory)
    assert "numpy==1.5" in texts(Renderer(directory).render(cell))["pins"]


def test_constraints_that_changed_since_it_was_locked(directory: Path, cell: Cell) -> None:
    limited = replace(cell, framework=replace(cell.framework, constraints="caps.txt"))
    (directory / "caps.txt").write_text("numpy<3\n")
    assert "locked under other constraints than caps.txt" in refused(directory, limited).message
    write_fake_locks([limited], directory)
    assert Renderer(directory).collect(limited).constraints == "numpy<3\n"
    # A limit is no pin: the versions are the lock's, and the file need not be in the image.
    assert Renderer(directory).render(limited).constraints["dask"] == "1.5"
    (directory / "caps.txt").write_text("numpy<2\n")
    refused(directory, limited)


def test_a_tampered_lock_is_refused(directory: Path, cell: Cell) -> None:
    path = python_lock(directory)
    text = path.read_text()
    path.write_text(text.replace('"dask-1.5-', '"dask-1.6-'))
    with pytest.raises(ConfigError) as caught:
        Renderer(directory).render(cell)
    assert caught.value.exit_code == 5
    assert caught.value.where.startswith(str(path))
    path.write_text(text)
    assert "FROM x" in Renderer(directory).render(cell).dockerfile


def test_the_lock_of_another_base_is_refused(directory: Path, cell: Cell) -> None:
    moved = replace(cell, base=replace(cell.base, image="debian:trixie-slim"))
    assert "locks the image debian:bookworm-slim" in refused(directory, moved).message
    write_fake_locks([moved], directory)
    assert Renderer(directory).render(moved).cell == moved


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ('python("numpy")', "TypeError: a list is needed"),
        ('python(["numpy; x"])', "ValueError: 'numpy; x' is not a requirement"),
        ('python(["a @ https://example.com/a.whl"])', "URLs and markers have no place here"),
        ('debian(["G++"])', "ValueError: 'G++' is no name of a distribution's package"),
        ('debian(["x\\nPackage: *"])', "is no name of a distribution's package"),
        ('pins() ~ python(["dask"])', "python(…) comes after pins()"),
    ],
)
def test_what_cannot_be_asked_for(directory: Path, cell: Cell, call: str, message: str) -> None:
    template = directory / cell.framework.template
    template.write_text(f"FROM x\n{{{{ {call} }}}}\n")
    with pytest.raises(RenderError) as caught:
        Renderer(directory).render(cell)
    assert message in caught.value.message
    assert caught.value.where.endswith(f"{template.name}:2:1")


def test_the_lock_must_agree_with_the_cell(directory: Path, cell: Cell) -> None:
    newer = replace(cell.framework, version="2.14.0")
    # The template's own request says 2.13.0+cpu, whatever the cell is.
    moved = replace(cell, framework=newer)
    write_fake_locks([moved], directory)
    with pytest.raises(RenderError, match=r"torch is pinned to 2\.13\.0\+cpu, and cell .* says 2\.14\.0"):
        Renderer(directory).render(moved)
    (directory / cell.framework.template).write_text(ALL.replace('"Dask", ', ""))
    write_fake_locks([cell], directory)
    with pytest.raises(RenderError, match="dask is not pinned") as caught:
        Renderer(directory).render(cell)
    assert "python(…)" in caught.value.hint


def test_a_template_without_requests_needs_no_lock_and_no_constraints(tmp_path: Path, cell: Cell) -> None:
    (tmp_path / cell.framework.template).write_text("FROM x\n")
    recipe = Renderer(tmp_path).render(cell)
    assert (recipe.locked, dict(recipe.constraints), recipe.files) == (None, {}, ())


def test_cells_are_rendered_one_by_one(tmp_path: Path, cell: Cell) -> None:
    (tmp_path / "matrix.yaml").write_text((shipped_data() / "matrix.yaml").read_text())
    (tmp_path / "dockerfiles").mkdir()
    text = "FROM x\n{% if cell.id == 'last' %}{{ fail('no') }}{% endif %}{{ debian(['tini']) }}\n"
    (tmp_path / "dockerfiles" / cell.framework.template).write_text(text)
    project = find_project(None, tmp_path)
    cells = [replace(cell, id=str(number)) for number in range(3)] + [replace(cell, id="last")]
    write_fake_locks(cells[:1], project.dockerfiles)
    recipes = iter_recipes(cells, project)
    assert [next(recipes).cell.id for _ in range(3)] == ["0", "1", "2"]
    with pytest.raises(RenderError, match="cell last: no"):
        next(recipes)
    assert [asked.debian for _, asked in collect(cells[:2], project)] == [
        (DebianRequest(packages=("tini",), after=()),)
    ] * 2


def test_a_cell_that_is_not_locked_is_in_nobody_elses_way(tmp_path: Path) -> None:
    project = find_project(None, tmp_path)
    cells = load_matrix(project.matrix).cells
    new = replace(cells[0], id="torch-2.13.0-cpu-py3.12", python="3.12")
    rendered = locked_recipes([new, *cells], {cells[0].id}, project)
    assert [recipe.cell.id for recipe in rendered] == [cell.id for cell in cells]
    with pytest.raises(NotLocked, match=new.id):
        tuple(locked_recipes([new, *cells], {new.id}, project))


def test_the_shipped_locks_have_what_the_shipped_matrix_asks_for() -> None:
    project = find_project(None, Path(shipped_data().anchor))
    recipes = tuple(iter_recipes(load_matrix(project.matrix).cells, project))
    assert recipes
    for recipe in recipes:
        framework = recipe.cell.framework
        assert recipe.constraints[framework.name].partition("+")[0] == framework.version
        for line in (line for file in recipe.files if "/python-" in file.path for line in file.data.splitlines()):
            assert re.fullmatch(rb"[a-z0-9-]+==\S+ --hash=sha256:[0-9a-f]{64}", line)


@pytest.mark.parametrize("framework", ["torch", "tensorflow"])
def test_cells_with_other_extras_share_the_layers_below(tmp_path: Path, framework: str) -> None:
    """Whatever comes before the extras is the same text with the same files, with and without Horovod, of any kind."""
    every = load_matrix(shipped_data() / "matrix.yaml").cells
    cells = [cell for cell in every if (cell.framework.name, cell.cuda, cell.python) == (framework, "cpu", "3.11")]
    write_fake_locks(cells, tmp_path, shipped_data() / "dockerfiles")

    def stages(cell: Cell) -> dict[str, str]:
        renderer = Renderer(tmp_path, shipped_data() / "dockerfiles")
        parts = re.split(r"^(FROM .+)$", renderer.render(cell).dockerfile, flags=re.MULTILINE)[1:]
        return {name.rpartition(" ")[2]: text for name, text in zip(parts[::2], parts[1::2], strict=True)}

    plain, horovod, *further = (stages(cell) for cell in cells)
    assert set(plain) < set(horovod)
    for other in (horovod, *further):
        for stage in ("system", "tools"):
            assert plain[stage] == other[stage]
        # Comments may follow a stage's last step.
        assert other["framework"].startswith(plain["framework"].rstrip())
    fewer = cells[1]
    fewer = replace(fewer, extras=tuple(extra for extra in fewer.extras if extra.name != "dask"))
    write_fake_locks([fewer], tmp_path, shipped_data() / "dockerfiles")
    other = {name: text for name, text in stages(fewer).items() if name not in ("extras", "image")}
    assert {name: horovod[name] for name in other} == other
