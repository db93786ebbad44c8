"""`imgcheck`: its release file, its table, and what it advises for faults that were injected."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from builder.check.judge import required_checks
from builder.check.release import make, read
from builder.check.suite import modules_in, suite
from builder.checks import advice, imgcheck
from builder.checks.advice import Situation
from builder.checks.contract import LEVELS
from builder.checks.groups.tensorflow import PROJECTS
from builder.errors import ConfigError
from builder.project import shipped_data

PINNED = shipped_data() / "dockerfiles" / "files" / "imgcheck.pyz"
CHECKS = Path(imgcheck.__file__).parent

#: A container in which nothing is wrong: an H200's, of a user whom the image knows.
FINE = Situation(
    uid=1000,
    gid=1000,
    known=True,
    home="/home/user",
    home_writable=True,
    shm_bytes=16 << 30,
    read_only=False,
    temporary=True,
    devices=("/dev/nvidia0",),
    visible="all",
    driver="580.65.06",
    network=True,
    named=True,
)
CUDA13 = {"builds": {"torch": {"version": "2.13.0+cu130", "cuda": "13.0"}}}
CPU = {"builds": {"torch": {"version": "2.13.0+cpu", "cuda": None}}}


def row(name: str, status: str, reason: str = "", level: str = "cpu", **measured: object) -> dict[str, Any]:
    return {"name": name, "status": status, "reason": reason, "level": level, "seconds": 0.1, "measured": measured}


def causes(here: Situation, rows: list[dict[str, Any]], facts: Mapping[str, Any]) -> list[str]:
    return [one.cause for one in advice.advise(here, rows, facts)]


# The release


def test_the_pinned_file_is_a_whole_release(capsys: pytest.CaptureFixture[str]) -> None:
    data = PINNED.read_bytes()
    found = read(data)
    with capsys.disabled():
        print(f" [imgcheck {found.version}, {found.checks} checks, {len(data):,} bytes, suite {found.suite[:12]}]")
    assert found.checks >= 30
    assert len(data) < 300_000
    assert PINNED.stat().st_mode & 0o111


def test_the_pinned_file_runs_and_says_what_it_is(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-I", "-S", PINNED, "--version"], capture_output=True, text=True, timeout=60)
    found = read(PINNED.read_bytes())
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"imgcheck {found.version} (suite {found.suite})\n"
    listed = subprocess.run([sys.executable, "-I", "-S", PINNED, "--list"], capture_output=True, text=True, timeout=60)
    assert listed.returncode == 0, listed.stderr
    assert len(listed.stdout.splitlines()) == found.checks


def test_a_release_is_the_same_every_time_and_names_the_suite() -> None:
    assert make() == make()
    assert read(make()).suite == suite().sha256


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda data: data[10:], "does not begin with its interpreter"),
        (lambda data: data[:-30], "this is no imgcheck"),
        (lambda data: data[:200], "this is no imgcheck"),
        (lambda data: make({**modules_in(CHECKS), "more.py": b"x = 1\n"}).replace(b"more.py", b"mere.py"), "changed"),
    ],
    ids=["no-interpreter", "cut", "nearly-empty", "changed"],
)
def test_what_is_no_release_is_refused(change: Any, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        read(change(make()))


KEYS = """
import json
from builder.lock import BasePin, Bases
from builder.matrix import load_matrix
from builder.project import shipped_data
from builder.render import render_all
data = shipped_data()
cells = [cell for cell in load_matrix(data / "matrix.yaml").cells if cell.framework.name == "torch"]
recipes = render_all(cells, data / "dockerfiles", data / "dockerfiles")
pin = BasePin(name="bookworm", source=Bases.REGISTRY, reference="d@sha256:1", identity="registry:sha256:1", why="")
print(json.dumps({recipe.name: [recipe.key(pin), recipe.dockerfile] for recipe in recipes}))
"""


def keys(root: Path) -> dict[str, list[str]]:
    done = subprocess.run(
        [sys.executable, "-c", KEYS],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=root,
        env={"PYTHONPATH": str(root)},
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, list[str]] = json.loads(done.stdout)
    return found


def test_an_edited_check_changes_no_key_and_a_new_release_changes_every_key(tmp_path: Path) -> None:
    shipped = shipped_data()
    for name in ("builder", "dockerfiles"):
        shutil.copytree(shipped / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(shipped / "matrix.yaml", tmp_path)
    before = keys(tmp_path)
    assert before
    edited = tmp_path / "builder/checks/groups/static/user.py"
    edited.write_text(edited.read_text() + "# edited\n")
    assert keys(tmp_path) == before
    # The positive twin: the same edit, released.
    pinned = tmp_path / "dockerfiles/files/imgcheck.pyz"
    pinned.write_bytes(make(modules_in(tmp_path / "builder/checks")))
    after = keys(tmp_path)
    assert {name: dockerfile for name, (_, dockerfile) in after.items()} == {
        name: dockerfile for name, (_, dockerfile) in before.items()
    }
    assert all(after[name][0] != before[name][0] for name in before)


# What it advises


def test_where_all_passed_there_is_no_advice() -> None:
    assert causes(FINE, [row("torch.data", "passed")], CUDA13) == []


@pytest.mark.parametrize(
    "reason",
    [
        "RuntimeError: DataLoader worker (pid 77) is killed by signal: Bus error.",
        "RuntimeError: unable to write to file </torch_77>: No space left on device (/dev/shm)",
        "the workers of a DataLoader need 288 MiB of shared memory, /dev/shm has 64 MiB",
    ],
)
def test_small_shared_memory(reason: str) -> None:
    small = replace(FINE, shm_bytes=64 << 20)
    found = advice.advise(small, [row("torch.data", "failed", reason)], CPU)
    assert [one.cause for one in found] == ["shm"]
    assert "64 MiB" in found[0].sentence
    assert "--ipc=host" in found[0].sentence
    assert advice.corrected(small, found) == "docker run --rm --gpus all --shm-size=16g IMAGE"


def test_shared_memory_is_not_to_blame_where_there_is_enough_or_for_another_failure() -> None:
    assert causes(FINE, [row("torch.data", "failed", "Bus error")], CPU) == []
    small = replace(FINE, shm_bytes=64 << 20)
    assert causes(small, [row("torch.data", "failed", "the loss does not fall")], CPU) == []


def test_an_unknown_user_without_a_home() -> None:
    stranger = replace(FINE, uid=12345, gid=100, known=False, home="/", home_writable=False, devices=())
    rows = [row("static.caches", "failed", "TORCH_HOME is /.cache/torch (the default with HOME=/): …")]
    found = advice.advise(stranger, rows, CPU)
    assert [one.cause for one in found] == ["user"]
    assert found[0].sentence == "the image has no user 12345 and HOME=/ cannot be written to"
    line = advice.corrected(stranger, found)
    assert line == "docker run --rm --shm-size=16384m -u 12345:100 -e HOME=/tmp -e USER=uid12345 IMAGE"


def test_a_name_that_only_a_library_asks_for() -> None:
    stranger = replace(FINE, known=False)
    rows = [row("torch.compile", "failed", "KeyError: 'getpwuid(): uid not found: 12345'")]
    assert causes(stranger, rows, CPU) == ["user"]
    assert causes(FINE, rows, CPU) == []


def test_an_old_driver_is_named_with_the_one_that_is_needed() -> None:
    old = replace(FINE, driver="535.104.05")
    rows = [row("torch.gpu.device", "not_run", "torch.cuda.is_available() is False", "gpu")]
    found = advice.advise(old, rows, CUDA13)
    assert [one.cause for one in found] == ["driver"]
    assert "driver 580.65.06 or later, this host has 535.104.05" in found[0].sentence
    assert found[0].options == ()
    assert causes(replace(old, driver="580.65.06"), rows, CUDA13) == []


def test_a_driver_that_only_a_failure_tells_of() -> None:
    rows = [row("torch.gpu.device", "failed", "CUDA driver version is insufficient for CUDA runtime version", "gpu")]
    unseen = replace(FINE, driver="")
    assert causes(unseen, rows, CUDA13) == ["driver"]
    assert causes(unseen, rows, CPU) == []


def test_a_gpu_image_without_a_gpu() -> None:
    bare = replace(FINE, devices=(), driver="")
    rows = [row("torch.gpu.train.amp", "not_run", "no GPU was given to the check", "gpu")]
    found = advice.advise(bare, rows, CUDA13)
    assert [one.cause for one in found] == ["gpus"]
    assert advice.corrected(bare, found) == "docker run --rm --shm-size=16384m --gpus all IMAGE"
    assert causes(bare, rows, CPU) == []
    hidden = advice.advise(replace(bare, visible="void"), rows, CUDA13)
    assert "NVIDIA_VISIBLE_DEVICES=void" in hidden[0].sentence


def test_several_causes_give_one_line() -> None:
    bad = replace(FINE, shm_bytes=64 << 20, devices=(), driver="", read_only=True, network=False, named=False)
    rows = [
        row("torch.data", "failed", "Bus error"),
        row("horovod.ranks", "failed", "rank 0 reported nothing"),
        row("torch.gpu.device", "not_run", "no GPU", "gpu"),
    ]
    found = advice.advise(bad, rows, CUDA13)
    assert [one.cause for one in found] == ["shm", "gpus", "hostname"]
    assert advice.corrected(bad, found) == (
        "docker run --rm --read-only --tmpfs /tmp:exec --network none "
        "--shm-size=16g --gpus all --hostname localhost IMAGE"
    )


def test_the_drivers_are_those_of_the_facts() -> None:
    table = yaml.safe_load((shipped_data() / "builder/compat/tables/cuda.yaml").read_text())
    # From 11.1 on, one driver runs all minor versions of a major one.
    found: dict[int, set[str]] = {}
    for entry in table["rows"]:
        major, minor = map(int, entry["version"].split("."))
        if (major, minor) >= (11, 1) and entry.get("minor_driver"):
            found.setdefault(major, set()).add(entry["minor_driver"])
    assert {major: {driver} for major, driver in advice.DRIVERS.items()} == found


# The table and the exit code


def test_the_table_says_why_and_cuts_only_what_did_not_run() -> None:
    long = "x" * 300
    lines = imgcheck.table([row("a.b", "passed"), row("long.name", "failed", long), row("c.d", "not_run", long)])
    assert lines[0] == "passed   a.b           0.1 s"
    assert lines[1] == f"FAILED   long.name     0.1 s  {long}"
    assert lines[2] == f"not run  c.d           0.1 s  {'x' * 99}…"


@pytest.mark.parametrize(
    ("rows", "required", "code"),
    [
        ([row("a.a", "passed")], {"a.a"}, 0),
        ([row("a.a", "passed"), row("a.b", "failed", "x")], {"a.a"}, 10),
        ([row("a.a", "passed"), row("a.b", "not_run", "x")], {"a.a", "a.b"}, 11),
        ([row("a.a", "passed"), row("a.b", "not_run", "x")], {"a.a"}, 0),
        ([row("a.a", "passed")], {"a.a", "gone.b"}, 11),
        ([row("a.a", "passed")], set(), 11),
    ],
)
def test_the_exit_code(rows: list[dict[str, Any]], required: set[str], code: int) -> None:
    assert imgcheck.verdict(rows, required) == code


def test_what_is_asked_follows_from_the_packages() -> None:
    plain = {check.name for check in imgcheck.asked({}, "gpu")}
    torch = {check.name for check in imgcheck.asked({"torch": "2", "pip": "26"}, "gpu")}
    assert "static.user" in plain
    assert not {"torch.train.amp", "static.pip-check", "static.readonly"} & plain
    assert {"torch.train.amp", "torch.gpu.train.amp", "static.pip-check"} <= torch
    assert "torch.gpu.train.amp" not in {check.name for check in imgcheck.asked({"torch": "2"}, "cpu")}


@pytest.mark.parametrize("project", [*PROJECTS, "torch", "tf-keras"])
def test_an_image_is_asked_inside_what_its_packages_are_asked_from_outside(project: str) -> None:
    packages = {project: "2.21.0", "horovod": "0.28.1"}
    inside = {check.name for check in imgcheck.asked(packages, LEVELS[-1])}
    assert inside == required_checks(packages) - set(imgcheck.HOST_ASKS)
    assert ("tensorflow.train.amp" in inside) is (project in PROJECTS)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--level", "gpus"], "invalid choice"),
        (["--json", "/nowhere/x.json"], "no directory /nowhere"),
        (["x"], "unrec"),
    ],
)
def test_a_wrong_command_line_is_refused_before_anything_runs(arguments: list[str], says: str) -> None:
    done = subprocess.run(
        [sys.executable, "-I", "-S", PINNED, *arguments], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert says in done.stderr
