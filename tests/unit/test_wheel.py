"""What ships: the wheel holds the default matrix, the templates and the check, and works in an empty folder."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("wheel")
    # The back end itself, without an isolated environment: that would be fetched from an index.
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", directory],
        cwd=ROOT,
        check=True,
        capture_output=True,
        timeout=120,
    )
    (built,) = directory.glob("*.whl")
    return built


def test_the_wheel_holds_what_a_checkout_has(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        shipped = {name for name in archive.namelist() if not name.endswith("/")}
    for path in (ROOT / "dockerfiles").rglob("*"):
        if path.is_file():
            assert f"builder/data/dockerfiles/{path.relative_to(ROOT / 'dockerfiles')}" in shipped
    for path in (ROOT / "builder").rglob("*.py"):
        assert str(path.relative_to(ROOT)) in shipped
    assert {"builder/data/matrix.yaml", "builder/py.typed"} <= shipped
    assert not [name for name in shipped if "__pycache__" in name or name.startswith("tests/")]


def test_an_installed_imgbuild_works_in_an_empty_folder(wheel: Path, tmp_path: Path) -> None:
    site, folder = tmp_path / "site", tmp_path / "empty"
    folder.mkdir()
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", site, wheel]
    subprocess.run(install, check=True, capture_output=True, timeout=120)
    program = (
        "import builder.cli, builder.check, sys\n"
        f"assert builder.cli.__file__.startswith({str(site)!r}), builder.cli.__file__\n"
        "print(builder.check.suite().sha256)\n"
        "sys.argv = ['imgbuild', *sys.argv[1:]]\n"
        "builder.cli.main()"
    )

    def run(*arguments: str) -> str:
        return subprocess.run(
            [sys.executable, "-c", program, *arguments],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(site)},
            check=True,
            capture_output=True,
            text=True,
            timeout=60,
        ).stdout

    from builder.check import suite

    out = run("matrix")
    assert out.splitlines()[0] == suite().sha256, "the suite is the same from a wheel and from a checkout"
    assert "torch-2.13.0-cpu-py3.11-horovod" in out
    run("render", "-o", "rendered")
    assert (folder / "rendered/torch-2.13.0-cpu-py3.11.Dockerfile").is_file()
    run("init", "project")
    first = (folder / "project/matrix.yaml").read_text().splitlines()[0]
    assert (folder / "project" / first.split("$schema=")[1]).is_file(), "editors find the schema"
    assert os.access(folder / "project/dockerfiles/files/entrypoint", os.X_OK)
