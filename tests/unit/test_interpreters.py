"""`interpreter`: where a cell's Python comes from, what that renders, and what is refused."""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
from pathlib import Path

import pytest
from fake_locks import write_fake_locks

from builder.errors import ConfigError, NotLocked
from builder.lock.conda import CHANNEL, conda_file, conda_text, parse_conda
from builder.matrix import Cell, load_matrix
from builder.project import shipped_data
from builder.render import Recipe, Renderer
from builder.site import build_secrets, load_site

EXAMPLE = Path(__file__).parents[2] / "docs/examples/interpreters"
UV, CONDA = "torch-2.14.1-cpu-py3.13-horovod", "torch-2.13.0-cpu-py3.12-conda"
TRIXIE, OWN = "tensorflow-2.21.0-cpu-py3.12-conda-trixie", "tensorflow-2.21.0-cpu-py3.11-distribution"

MATRIX = """\
version: 1
repository: imgbuild
axes: {framework: [torch==2.13.0], cuda: [cpu], python: ["3.11"], extras: [[]]}
bases:
  bookworm: {image: "debian:bookworm-slim", python: ["3.11"]}
  trixie: {image: "debian:trixie-slim", python: ["3.13"]}
frameworks: {torch: {image: pytorch, template: pytorch.Dockerfile.j2, facts: none}}
defaults: {base: bookworm}
tags: ["{version}-py{python}{interpreter}-{base}"]
"""


def a_list(python: str, *lines: str) -> str:
    package = f"{CHANNEL}/linux-64/python-{python}.9-h9e4cc4f_1_cpython.conda#{'a' * 64}"
    return "\n".join(("# made for a test", "@EXPLICIT", package, *lines)) + "\n"


TZDATA = f"{CHANNEL}/noarch/tzdata-2025b-h78e105d_0.conda#sha256:{'b' * 64}"


@pytest.fixture(scope="module")
def cells() -> dict[str, Cell]:
    return {cell.id: cell for cell in load_matrix(EXAMPLE / "matrix.yaml").cells}


@pytest.fixture(scope="module")
def recipes(cells: dict[str, Cell], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Recipe]:
    directory, shipped = tmp_path_factory.mktemp("interpreters"), shipped_data() / "dockerfiles"
    write_fake_locks(cells.values(), directory, shipped)
    (directory / "locks" / conda_file("3.12")).write_text(a_list("3.12", TZDATA))
    renderer = Renderer(directory, shipped)
    return {id: renderer.render(cell) for id, cell in cells.items()}


def matrix_of(tmp_path: Path, old: str = "", new: str = "") -> dict[str, Cell]:
    assert old in MATRIX
    path = tmp_path / "matrix.yaml"
    path.write_text(MATRIX.replace(old, new) if old else MATRIX)
    return {cell.id: cell for cell in load_matrix(path).cells}


def stages(recipe: Recipe) -> dict[str, tuple[str, str]]:
    found = re.split(r"^FROM (\S+) AS (\S+)\n", recipe.dockerfile, flags=re.MULTILINE)[1:]
    return {name: (below, text) for below, name, text in zip(found[::3], found[1::3], found[2::3], strict=True)}


def include(interpreter: str, python: str, base: str = "bookworm") -> str:
    entry = f'framework: torch==2.13.0, cuda: cpu, python: "{python}", base: {base}'
    return f"include: [{{{entry}, interpreter: {interpreter}}}]\ndefaults:"


def test_ids_and_tags_name_what_is_not_the_default(cells: dict[str, Cell], tmp_path: Path) -> None:
    assert [cells[id].interpreter for id in (UV, CONDA, OWN)] == ["uv", "conda", "distribution"]
    assert cells[OWN].tags == ("2.21.0-cpu-py3.11-bookworm",)
    assert cells[CONDA].tags == ("2.13.0-cpu-py3.12-conda-bookworm",)
    found = matrix_of(tmp_path, "defaults:", include("uv", "3.11"))
    assert list(found) == ["torch-2.13.0-cpu-py3.11", "torch-2.13.0-cpu-py3.11-uv"]
    assert [cell.interpreter for cell in found.values()] == ["distribution", "uv"]


def test_an_override_changes_the_interpreter_and_not_the_id(tmp_path: Path) -> None:
    override = 'overrides: [{match: "*-py3.11", set: {interpreter: conda}}]\ndefaults:'
    (cell,) = matrix_of(tmp_path, "defaults:", override).values()
    assert (cell.id, cell.interpreter) == ("torch-2.13.0-cpu-py3.11", "conda")
    override = 'overrides: [{match: "*-uv", set: {interpreter: conda}}]\n' + include("uv", "3.11")
    with pytest.raises(ConfigError, match=r"`conda` cannot replace the interpreter of .*-uv, whose id names it"):
        matrix_of(tmp_path, "defaults:", override)


def test_a_tag_that_two_interpreters_would_have_names_the_placeholder(tmp_path: Path) -> None:
    text = MATRIX.replace("{interpreter}", "").replace("defaults:", include("uv", "3.11"))
    (tmp_path / "matrix.yaml").write_text(text)
    with pytest.raises(ConfigError, match="would be both") as caught:
        load_matrix(tmp_path / "matrix.yaml")
    assert "`{interpreter}`" in caught.value.hint


def test_uv_and_conda_bring_a_python_that_no_base_carries(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"does not carry Python 3\.12") as caught:
        matrix_of(tmp_path, "defaults:", include("distribution", "3.12"))
    assert "`interpreter: uv` or `interpreter: conda` brings it to any base" in caught.value.hint
    for interpreter in ("uv", "conda"):
        assert len(matrix_of(tmp_path, "defaults:", include(interpreter, "3.12"))) == 2
    with pytest.raises(ConfigError, match=r"cannot have Python 3\.8 from `uv`: `imgcheck`.* needs 3\.9"):
        matrix_of(tmp_path, "defaults:", include("uv", "3.8"))


@pytest.mark.parametrize("name", ["conda-forge", "python-build-standalone"])
def test_names_of_where_pythons_come_from_are_no_channels(name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no channel of wheels"):
        matrix_of(tmp_path, "defaults:", f"channels: {{{name}: 'https://wheels.example.org/x'}}\ndefaults:")
    assert matrix_of(tmp_path, "defaults:", "channels: {other: 'https://wheels.example.org/x'}\ndefaults:")


def test_uv_installs_python_in_a_stage_of_its_own(recipes: dict[str, Recipe]) -> None:
    found = stages(recipes[UV])
    assert [found[name][0] for name in ("ground", "interpreter", "system", "tools", "framework")] == [
        "${BASE}",
        "ground",
        "ground",
        "system",
        "system",
    ]
    assert "uv python install" in found["interpreter"][1]
    assert "cpython-3.13-linux-x86_64-gnu" in found["interpreter"][1]
    assert '${mirror:+--mirror "$mirror"}' in found["interpreter"][1]
    assert found["system"][1].startswith("COPY --from=interpreter /opt/python /opt/python\n")
    assert (
        "/opt/python/3.13/bin/python3 -m venv --without-pip --system-site-packages /opt/venv" in found["framework"][1]
    )
    # Neither the image nor what is compiled for it has the distribution's Python.
    for name in ("ground", "tools", "horovod-build"):
        assert not re.search(r"^ +python3\S* \\$", found[name][1], re.MULTILINE), name
    assert re.search(r"^ +python3-venv \\$", found["interpreter"][1], re.MULTILINE)


def test_conda_installs_the_packages_of_the_list(recipes: dict[str, Recipe]) -> None:
    found = stages(recipes[CONDA])
    text = found["interpreter"][1]
    assert "${IMGBUILD_CHANNEL_CONDA_FORGE-https://conda.anaconda.org/conda-forge}" in text
    (listed,) = [file for file in recipes[CONDA].files if file.path.startswith("locked/conda-")]
    assert f"source={listed.path},target=/run/conda.txt" in text
    assert listed.data.decode().splitlines() == [
        f"linux-64/python-3.12.9-h9e4cc4f_1_cpython.conda {'a' * 64}",
        f"noarch/tzdata-2025b-h78e105d_0.conda {'b' * 64}",
    ]
    assert found["system"][1].startswith("COPY --from=interpreter /opt/conda /opt/conda\n")
    assert "/opt/conda/bin/python3 -m venv --without-pip" in found["framework"][1]
    assert re.search(r"^ +passwd \\$", stages(recipes[TRIXIE])["ground"][1], re.MULTILINE)


def test_the_distributions_python_is_as_it_was(recipes: dict[str, Recipe]) -> None:
    found = stages(recipes[OWN])
    assert "ground" not in found
    assert "interpreter" not in found
    assert re.search(r"^ +python3 \\$", found["system"][1], re.MULTILINE)
    assert "/opt/python" not in recipes[OWN].dockerfile


def test_hadolint_passes_every_interpreter(recipes: dict[str, Recipe], tmp_path: Path) -> None:
    program = Path(sys.executable).with_name("hadolint")
    for id, recipe in recipes.items():
        path = tmp_path / f"{id}.Dockerfile"
        path.write_text(recipe.dockerfile)
        ran = subprocess.run([program, "--no-color", path], capture_output=True, text=True, timeout=60, check=False)
        assert (ran.returncode, ran.stdout) == (0, ""), id


def test_without_a_list_conda_says_how_to_make_one(cells: dict[str, Cell], tmp_path: Path) -> None:
    write_fake_locks([cells[CONDA]], tmp_path, shipped_data() / "dockerfiles")
    with pytest.raises(NotLocked, match=r"takes Python 3\.12 from conda-forge, and no list says") as caught:
        Renderer(tmp_path, shipped_data() / "dockerfiles").render(cells[CONDA])
    assert caught.value.where == str(tmp_path / "locks/python3.12.conda.txt")
    assert "conda list --name py --explicit --sha256" in caught.value.hint


def test_a_list_is_read_strictly() -> None:
    pip = f"{CHANNEL}/noarch/pip-25.0-pyh8b19718_0.conda#{'c' * 64}"
    packages = parse_conda(a_list("3.12", TZDATA, pip).encode(), "list", "3.12")
    assert [(package.name, package.version) for package in packages] == [("python", "3.12.9"), ("tzdata", "2025b")]
    assert parse_conda((a_list("3.12") + TZDATA).encode(), "list", "3.12") == packages
    assert conda_text(packages).endswith(f"noarch/tzdata-2025b-h78e105d_0.conda {'b' * 64}\n")


@pytest.mark.parametrize(
    ("text", "where", "message"),
    [
        (a_list("3.12", TZDATA.partition("#")[0]), "list:4:1", "not a package of conda-forge"),
        (a_list("3.12", TZDATA.replace("sha256:" + "b" * 64, "b" * 32)), "list:4:1", "with its SHA-256"),
        (a_list("3.12", TZDATA.replace(CHANNEL, "https://example.org/x")), "list:4:1", "not a package of conda-forge"),
        (a_list("3.12", TZDATA.replace("noarch", "osx-64")), "list:4:1", "for linux-64"),
        (a_list("3.12", TZDATA.replace("noarch/", "noarch/../")), "list:4:1", "not a package of conda-forge"),
        (a_list("3.12", TZDATA, TZDATA), "list:5:1", "tzdata is there twice"),
        (a_list("3.11"), "list", "the list is for Python 3.12 and holds Python 3.11.9"),
        (a_list("3.1"), "list", "the list is for Python 3.12 and holds Python 3.1.9"),
        ("@EXPLICIT\n", "list", "the list is for Python 3.12 and holds no Python"),
        ("\xff\n", "list:1:1", "not a package of conda-forge"),
    ],
)
def test_what_is_no_list(text: str, where: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_conda(text.encode("latin-1"), "list", "3.12")
    assert caught.value.where == where
    assert message in caught.value.message


def test_a_sites_mirrors_reach_the_build(tmp_path: Path) -> None:
    home = {"HOME": str(tmp_path), "PIP_CONFIG_FILE": "/dev/null"}
    mirror = {"UV_PYTHON_INSTALL_MIRROR": "https://mirror.example.org/python"}
    site = load_site({**home, **mirror}, prefix=tmp_path, root=tmp_path)
    assert site.channels == {"python-build-standalone": "https://mirror.example.org/python"}
    assert site.origins["channels"] == "UV_PYTHON_INSTALL_MIRROR"
    own = {"IMGBUILD_CHANNEL_PYTHON_BUILD_STANDALONE": "https://own.example.org", "IMGBUILD_CHANNEL_CONDA_FORGE": "x"}
    both = load_site({**home, **mirror, **own}, prefix=tmp_path, root=tmp_path)
    assert both.channels == {"python-build-standalone": "https://own.example.org", "conda-forge": "x"}
    assert build_secrets(load_site(home, prefix=tmp_path, root=tmp_path), {}) == {}


def test_the_installer_takes_no_other_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it does with packages, rattler does; here stands what comes before that."""
    (tmp_path / "rattler").mkdir()
    (tmp_path / "rattler/__init__.py").write_text("PackageRecord = RepoDataRecord = install = None\n")
    (tmp_path / "rattler/package_streaming.py").write_text("def extract(*_): raise SystemExit('extracted')\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (tmp_path / "linux-64").mkdir()
    name = "linux-64/python-3.12.9-h9e4cc4f_1_cpython.conda"
    (tmp_path / name).write_bytes(b"a package")
    program = shipped_data() / "dockerfiles/files/conda-install"

    def run(sha256: str, file: str = name) -> str:
        (tmp_path / "list").write_text(f"{file} {sha256}\n")
        arguments = [sys.executable, str(program), f"{tmp_path}/list", tmp_path.as_uri(), f"{tmp_path}/conda"]
        ran = subprocess.run(arguments, capture_output=True, text=True, timeout=60, check=False)
        assert ran.returncode == 1
        return ran.stderr

    right = hashlib.sha256(b"a package").hexdigest()
    assert run(right) == "extracted\n"
    assert run("0" * 64) == f"conda-install: {name} has SHA-256 {right}, the list says {'0' * 64}\n"
    assert "cannot be had" in run(right, "linux-64/missing-1-0.conda")


def test_the_example_says_of_each_cell_what_it_needs(cells: dict[str, Cell]) -> None:
    readme = (EXAMPLE / "README.md").read_text()
    assert [id for id in cells if f"| `{id}`" not in readme] == []
