"""The shipped script that imports what distributions bring, run over distributions that are made here."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from builder.project import shipped_data

Install = Callable[[str, Mapping[str, str]], None]


@pytest.fixture
def site(tmp_path: Path) -> Path:
    return tmp_path / "site-packages"


@pytest.fixture
def install(site: Path) -> Install:
    """Installs a distribution: its files, and the list of them as pip writes it."""

    def make(name: str, files: Mapping[str, str]) -> None:
        information = f"{name.replace('-', '_')}-1.dist-info"
        content = {**files, f"{information}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1\n"}
        record = "".join(f"{path},,\n" for path in (*content, f"{information}/RECORD", "../../bin/program.py"))
        for path, text in {**content, f"{information}/RECORD": record}.items():
            (site / path).parent.mkdir(parents=True, exist_ok=True)
            (site / path).write_text(text)

    return make


def warm_up(site: Path, *names: str) -> subprocess.CompletedProcess[str]:
    script = shipped_data() / "dockerfiles/files/warm-up"
    # -I would hide the PYTHONPATH; -S keeps the packages of the tests' own environment out.
    return subprocess.run(
        [sys.executable, "-S", script, *names],
        env={"PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize(
    ("name", "files", "compiled"),
    [
        ("plain", {"plain/__init__.py": "import plain.inner", "plain/inner.py": ""}, ["__init__", "inner"]),
        ("one-module", {"one_module.py": ""}, ["one_module"]),
        ("scikit-other", {"skother/__init__.py": ""}, ["__init__"]),
        ("deep.name-space", {"deep/name_space/__init__.py": ""}, ["__init__"]),
        ("with-tests", {"with_tests.py": "", "tests/__init__.py": "import no_such_module"}, ["with_tests"]),
        ("Odd.Name", {"odd_name.py": "", "helper.py": "raise SystemExit(3)"}, ["odd_name"]),
        ("two", {"first.py": "import no_such_module", "second.py": ""}, ["second"]),
        ("types-only", {"only-stubs/__init__.pyi": "", "only-stubs/odd.py": "1/0"}, []),
        ("meta", {}, []),
    ],
)
def test_what_an_import_needs_is_compiled(
    site: Path, install: Install, name: str, files: dict[str, str], compiled: list[str]
) -> None:
    install(name, files)
    ran = warm_up(site, name)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")
    found = {path.name.partition(".")[0] for path in site.rglob("*.pyc")}
    # A module is compiled before it runs, so those that fail afterwards leave bytecode too.
    assert set(compiled) <= found
    assert bool(compiled) == bool(found)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"broken.py": "import no_such_module", "other.py": ""}, "ModuleNotFoundError: No module named"),
        ({"broken/__init__.py": "raise SystemExit(0)"}, "SystemExit: 0"),
        ({"a.py": "1/0", "b.py": "raise OSError('no library')"}, "b: OSError: no library"),
    ],
)
def test_what_cannot_be_imported_is_named(site: Path, install: Install, files: dict[str, str], message: str) -> None:
    install("good", {"good.py": ""})
    install("broken", files)
    ran = warm_up(site, "good", "broken")
    assert ran.returncode == 1
    assert ran.stderr.startswith("broken is installed and cannot be imported: ")
    assert message in ran.stderr
    assert warm_up(site, "good").returncode == 0


def test_what_is_not_installed_is_named(site: Path, install: Install) -> None:
    install("good", {"good.py": ""})
    ran = warm_up(site, "good", "missing")
    assert ran.returncode == 1
    assert "missing" in ran.stderr.splitlines()[-1]
