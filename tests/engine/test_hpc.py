"""An image where HPC runtimes flatten it into a directory and mount the user's home: Charliecloud, from Debian.

Needs Charliecloud on this machine (Debian: `apt-get install charliecloud`), and rights to become another user.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import docker
import pytest
from command import CELLS, Built
from contract_images import HERE, framework_of
from contract_wheels import contract_wheels

pytestmark = pytest.mark.engine

CELL = CELLS[0]
USER = 4321
NAME = "alice"

Start = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def tree(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The image as a directory, with its variables where Charliecloud looks for them, as ch-convert makes it."""
    folder = open_to_all(tmp_path_factory.mktemp("flattened")) / "tree"
    folder.mkdir(mode=0o755)
    client = docker.from_env(timeout=600)
    image = str(built.cell(CELL)["image_id"])
    container = client.containers.create(image)
    try:
        unpack = subprocess.Popen(["tar", "-x", "-C", folder, "--exclude=dev/*"], stdin=subprocess.PIPE)
        assert unpack.stdin is not None
        for chunk in container.export():
            unpack.stdin.write(bytes(chunk))
        unpack.stdin.close()
        assert unpack.wait() == 0
        variables = client.images.get(image).attrs["Config"]["Env"]
    finally:
        container.remove()
        client.close()
    (folder / "ch").mkdir()
    (folder / "ch/environment").write_text("".join(f"{variable}\n" for variable in variables))
    for number in range(3):  # places to mount something: the tree is read-only in a container
        (folder / f"mnt/{number}").mkdir()
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """The user's home, on this machine."""
    folder = open_to_all(tmp_path) / "home"
    folder.mkdir()
    os.chown(folder, USER, USER)
    return folder


@pytest.fixture
def start(tree: Path, home: Path, tmp_path_factory: pytest.TempPathFactory) -> Start:
    """Runs a command in a container, as the user, with only the user's variables."""
    wheels = contract_wheels(open_to_all(tmp_path_factory.mktemp("wheels")), framework_of(CELL))
    assert shutil.which("ch-run"), "these tests need Charliecloud: apt-get install charliecloud"

    def run(*command: str, options: tuple[str, ...]) -> subprocess.CompletedProcess[str]:
        words = [
            *([] if os.geteuid() == 0 else ["sudo", "-n"]),
            "setpriv",
            f"--reuid={USER}",
            f"--regid={USER}",
            "--clear-groups",
            "ch-run",
            "--private-tmp",
        ]
        words += [*options, "--bind", f"{wheels}:/mnt/0", "--bind", f"{HERE}:/mnt/1", str(tree), "--", *command]
        own = {"USER": NAME, "LOGNAME": NAME, "HOME": str(home), "PATH": os.defpath}
        return subprocess.run(words, env=own, capture_output=True, text=True, timeout=300)

    return run


def open_to_all(folder: Path) -> Path:
    """Lets other users pass through pytest's own directories, which are its user's alone."""
    for path in (folder, *folder.parents):
        if Path(tempfile.gettempdir()) in path.parents:
            path.chmod(path.stat().st_mode | 0o055)
    return folder


def variables(tree: Path, *more: str) -> tuple[str, ...]:
    return (f"--set-env={tree}/ch/environment", *(f"--set-env={variable}" for variable in more))


PROBE = ("python", "/mnt/1/contract_probe.py", "/mnt/0", framework_of(CELL))


@pytest.mark.parametrize("entrypoint", [(), ("/opt/imgbuild/entrypoint",)], ids=["past the entrypoint", "through it"])
def test_with_the_home_mounted(start: Start, tree: Path, home: Path, entrypoint: tuple[str, ...]) -> None:
    """As docs/contract.md says: what is installed lands in the user's own home, and is the user's."""
    options = ("--home", *variables(tree, f"HOME=/home/{NAME}"))
    ran = start(*entrypoint, *PROBE, options=options)
    assert ran.returncode == 0, ran.stderr
    found: dict[str, Any] = json.loads(ran.stdout)
    assert found["user"] == NAME
    assert found["home"] == f"/home/{NAME}"
    assert found["prefix"] == "/opt/venv"
    assert set(found["caches"].values()) == {""}
    assert found["installs"]["plain"][0] == 0
    assert found["installs"]["needs-framework"][0] == 0
    assert found["installs"]["needs-another"][0] != 0
    assert found["after"] == found["before"]
    assert found["plain"].startswith(f"/home/{NAME}/.local/")
    # Only the entrypoint can know of a home that is not the image's.
    assert found["program"] == (f"/home/{NAME}/.local/bin/plain" if entrypoint else None)
    (installed,) = home.glob(".local/lib/python3*/site-packages/plain/__init__.py")
    assert installed.stat().st_uid == USER
    assert found["sys_path"].index("/opt/venv/lib/" + installed.parts[-4] + "/site-packages") < found["sys_path"].index(
        f"/home/{NAME}/.local/lib/" + installed.parts[-4] + "/site-packages"
    )


def test_with_the_images_home_it_works_and_nothing_reaches_the_users(start: Start, tree: Path, home: Path) -> None:
    """The twin, and why the line has its second --set-env."""
    ran = start(*PROBE, options=("--home", *variables(tree)))
    assert ran.returncode == 0, ran.stderr
    found = json.loads(ran.stdout)
    assert found["home"] == "/home/user"
    assert set(found["caches"].values()) == {""}
    assert list(home.iterdir()) == []


def test_it_trains(start: Start, tree: Path) -> None:
    script = (
        "import torch; x = torch.linspace(-1, 1, 64)[:, None]; layer = torch.nn.Linear(1, 1)\n"
        "step = torch.optim.SGD(layer.parameters(), lr=0.5)\n"
        "for _ in range(100):\n"
        "    step.zero_grad(); loss = ((layer(x) - 3 * x - 1) ** 2).mean(); loss.backward(); step.step()\n"
        "print(round(layer.weight.item(), 2), round(layer.bias.item(), 2))"
    )
    ran = start("python", "-c", script, options=("--home", *variables(tree, f"HOME=/home/{NAME}")))
    assert (ran.returncode, ran.stdout) == (0, "3.0 1.0\n"), ran.stderr


def test_imgcheck_passes_in_the_flattened_image_and_fails_without_its_variables(start: Start, tree: Path) -> None:
    options = ("--home", *variables(tree, f"HOME=/home/{NAME}"))
    ran = start("imgcheck", "--level", "static", options=options)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "passed at level static in " in ran.stdout
    assert f" as user {USER} " in ran.stdout
    ran = start("python", "--version", options=("--home",))  # the host's PATH, in which the venv is not
    assert ran.returncode != 0
