"""The suite's controller, run as it runs in an image, with groups that crash, hang and raise."""

from __future__ import annotations

import ast
import importlib.resources
import io
import json
import os
import secrets
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import pytest

from builder.check.result import Status, parse_result
from builder.check.suite import modules_in, pack, suite
from builder.checks import controller

CHECKS = importlib.resources.files("builder") / "checks"
HEAD = "from builder.checks.contract import Group, NotRun, check, expect, fail\nimport os, signal, sys, time\n"

#: Source by path below `checks/`.
Files = dict[str, str]


#: Not a fixed one: what a check leaves behind is found, and ended, by its nonce, on all of the machine.
NONCE = secrets.token_hex(16)


def group(name: str, *checks: str, shared: str = "GROUP = Group()\n") -> Files:
    """The files of a group: `shared` in its `__init__`, and what `check` made, each in the file of its name."""
    files = {f"groups/{name}/__init__.py": HEAD + shared}
    for text in checks:
        own = ast.literal_eval(text[len("@check(") : text.index(",")])
        files[f"groups/{name}/{own.partition('.')[2].replace('.', '_').replace('-', '_')}.py"] = HEAD + text
    return files


def check(name: str, body: str, *, level: str = "cpu", deadline: float = 30) -> str:
    """The source of one check."""
    return f"@check({name!r}, level={level!r}, deadline={deadline}, catches='x')\ndef run(state):\n    {body}\n"


def run(
    tmp_path: Path, *groups: Files, timeout: float = 60, **asked: object
) -> tuple[dict[str, dict[str, Any]], bytes]:
    """Runs the real controller over these groups; returns the checks by name, and the result."""
    sources = {name: data for name, data in modules_in(CHECKS).items() if not name.startswith("groups/")}
    sources["groups/__init__.py"] = b""
    for files in groups:
        sources |= {path: text.encode() for path, text in files.items()}
    archive = tmp_path / "suite.pyz"
    archive.write_bytes(pack(sources).archive)
    request = {"schema": "imgbuild.check-request/1", "nonce": NONCE, "level": "cpu", **asked}
    (tmp_path / "request.json").write_text(json.dumps(request))
    results = tmp_path / "results"
    results.mkdir()
    done = subprocess.run(
        [sys.executable, "-I", "-S", archive, "--request", tmp_path / "request.json", "--results", results],
        capture_output=True,
        text=True,
        timeout=timeout,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert [path.name for path in results.iterdir()] == ["result.json"]
    raw = (results / "result.json").read_bytes()
    return {item["name"]: item for item in json.loads(raw)["checks"]}, raw


GOOD = group("good", check("good.one", "return {'value': 1}"))


def test_passing_checks_give_a_result_the_host_reads(tmp_path: Path) -> None:
    _, raw = run(tmp_path, GOOD)
    result = parse_result(raw, NONCE)
    assert [(item.name, item.status, item.measured) for item in result.checks] == [
        ("good.one", Status.PASSED, {"value": 1})
    ]
    assert result.facts.packages["pytest"] == pytest.__version__
    assert result.facts.uid == os.getuid()
    assert result.facts.python == ".".join(map(str, sys.version_info[:3]))
    assert result.facts.torch is None


def test_a_crash_costs_only_the_check_that_crashed(tmp_path: Path) -> None:
    bad = group(
        "bad",
        check("bad.a", "return {}"),
        check("bad.b", "sys.stderr.write('last words'); os.kill(os.getpid(), signal.SIGSEGV); time.sleep(9)"),
        check("bad.c", "return {'attempt': os.path.basename(os.getcwd())}"),
    )
    checks, _ = run(tmp_path, bad, GOOD)
    assert {name: item["status"] for name, item in checks.items()} == {
        "bad.a": "passed",
        "bad.b": "failed",
        "bad.c": "passed",
        "good.one": "passed",
    }
    assert checks["bad.b"]["reason"] == "the check was killed by SIGSEGV"
    assert "last words" in checks["bad.b"]["measured"]["detail"]
    assert checks["bad.c"]["measured"] == {"attempt": "bad-2"}


def test_a_hang_is_killed_with_its_children(tmp_path: Path) -> None:
    body = (
        "import subprocess; child = subprocess.Popen(['sleep', '1234'], start_new_session=True); "
        f"open({str(tmp_path / 'pid')!r}, 'w').write(str(child.pid)); time.sleep(1234)"
    )
    hang = group("hang", check("hang.a", body, deadline=1), check("hang.b", "return {}"))
    started = time.monotonic()
    checks, _ = run(tmp_path, hang)
    assert time.monotonic() - started < 30
    assert checks["hang.a"]["status"] == "failed"
    assert checks["hang.a"]["reason"] == "the check did not end within 1 s and was killed"
    assert checks["hang.b"]["status"] == "passed"
    assert ended(tmp_path)


def test_a_hang_is_killed_with_what_has_lost_its_parent(tmp_path: Path) -> None:
    # The shell ends at once: what it started is then nobody's child that the hanging process could be known by.
    write = f"setsid sleep 1234 & echo -n $! > {tmp_path / 'pid'}"
    body = f"import subprocess; subprocess.run(['sh', '-c', {write!r}]); time.sleep(1234)"
    checks, _ = run(tmp_path, group("hang", check("hang.a", body, deadline=1)), PROCESSES)
    assert checks["hang.a"]["reason"] == "the check did not end within 1 s and was killed"
    assert ended(tmp_path)


def test_what_a_crashed_worker_leaves_behind_is_ended(tmp_path: Path) -> None:
    body = (
        "import subprocess; child = subprocess.Popen(['sleep', '1234']); "
        f"open({str(tmp_path / 'pid')!r}, 'w').write(str(child.pid)); os.abort()"
    )
    checks, _ = run(tmp_path, group("one", check("one.check", body)))
    assert checks["one.check"]["reason"] == "the check was killed by SIGABRT"
    assert ended(tmp_path)


def ended(tmp_path: Path) -> bool:
    """Whether the process whose id a check wrote down is gone, or waits for its parent as a zombie."""
    stat = Path("/proc") / (tmp_path / "pid").read_text() / "stat"
    return not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] == "Z"


def test_a_crash_at_the_end_of_a_process_fails_the_last_check_that_passed(tmp_path: Path) -> None:
    crash = "import atexit; atexit.register(os.abort); return {'value': 1}"
    one = group(
        "one", check("one.a", crash), check("one.b", "return {'value': 2}"), check("one.c", "raise NotRun('x')")
    )
    checks, _ = run(tmp_path, one, GOOD)
    assert {name: item["status"] for name, item in checks.items()} == {
        "one.a": "passed",
        "one.b": "failed",
        "one.c": "not_run",
        "good.one": "passed",
    }
    assert checks["one.b"]["reason"] == "what it checked is right, but afterwards its process was killed by SIGABRT"
    assert checks["one.b"]["measured"]["value"] == 2


#: What the controller adds to when a group leaves something behind; by itself it finds nothing.
PROCESSES = group("static", check("static.processes", "return {}", level="static"))

LEAVE = "import subprocess; subprocess.Popen(['sleep', '1234'], start_new_session=True); return {}"


def test_a_process_that_a_group_leaves_running_fails_a_check_and_is_ended(tmp_path: Path) -> None:
    body = LEAVE.replace("subprocess.Popen", "child = subprocess.Popen")
    body = body.replace("return", f"open({str(tmp_path / 'pid')!r}, 'w').write(str(child.pid)); return")
    checks, _ = run(tmp_path, group("one", check("one.check", body)), PROCESSES, GOOD)
    assert checks["one.check"]["status"] == checks["good.one"]["status"] == "passed"
    assert checks["static.processes"]["status"] == "failed"
    pid = (tmp_path / "pid").read_text()
    assert checks["static.processes"]["reason"] == f"the group one left running sleep (process {pid})"
    assert ended(tmp_path)


def test_a_process_that_ends_soon_after_its_group_is_not_left_behind(tmp_path: Path) -> None:
    checks, _ = run(tmp_path, group("one", check("one.check", LEAVE.replace("1234", "0.5"))), PROCESSES)
    assert checks["static.processes"]["status"] == "passed"


def test_a_zombie_for_which_its_parent_is_about_to_wait_is_not_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    looks = [{7: "old", 8: "helper"}, {7: "old", 8: "helper"}, {7: "old"}]
    monkeypatch.setattr(controller, "_zombies", lambda: looks.pop(0))
    assert controller._new_zombies({7: "old"}) == {}
    assert looks == []


def test_a_zombie_that_stays_is_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(controller, "LEAVING", 0.1)
    monkeypatch.setattr(controller, "_zombies", lambda: {7: "old", 8: "helper"})
    assert controller._new_zombies({7: "old"}) == {8: "helper"}


def test_the_real_suite_has_the_check_that_tells_of_processes_left_behind() -> None:
    assert controller.LEFT_BEHIND == "static.processes"
    assert suite().checks["static.processes"].optional is False


def test_after_the_first_failure_nothing_more_runs_where_that_is_asked_for(tmp_path: Path) -> None:
    one = group("one", check("one.a", "return {}"), check("one.b", "fail('broken')"), check("one.c", "return {}"))
    last = group("two", check("two.a", "return {}"))
    checks, _ = run(tmp_path, one, last, fail_fast=True)
    assert [item["status"] for item in checks.values()] == ["passed", "failed", "not_run", "not_run"]
    assert "an earlier check failed" in checks["two.a"]["reason"]


def test_packages_are_known_where_no_process_of_the_suite_could_tell(tmp_path: Path) -> None:
    shared = "def prepare():\n    os.abort()\nGROUP = Group(prepare=prepare)\n"
    lost = group("static", check("static.versions", "return {}"), shared=shared)
    _, raw = run(tmp_path, lost)
    assert parse_result(raw, NONCE).facts.packages["pytest"] == pytest.__version__


@pytest.mark.parametrize(
    ("body", "status", "reason"),
    [
        ("1 / 0", "failed", "ZeroDivisionError: division by zero"),
        ("fail('the sum is wrong', found=3)", "failed", "the sum is wrong"),
        ("expect(False, 'not so')", "failed", "not so"),
        ("raise NotRun('no GPU')", "not_run", "no GPU"),
        ("import surely_not_installed", "failed", "ModuleNotFoundError: No module named 'surely_not_installed'"),
        ("raise ValueError('two\\nlines')", "failed", "ValueError: two lines"),
        ("os._exit(0)", "failed", "the check ended with exit code 0"),
        ("sys.exit(0)", "failed", "the check ended with exit code 0"),
        ("return 7", "failed", "TypeError: 'int' object is not iterable"),
    ],
)
def test_what_a_check_does_is_named(tmp_path: Path, body: str, status: str, reason: str) -> None:
    checks, raw = run(tmp_path, group("one", check("one.check", body)))
    assert (checks["one.check"]["status"], checks["one.check"]["reason"]) == (status, reason)
    parse_result(raw, NONCE)
    if reason.startswith("ZeroDivision"):
        assert "1 / 0" in checks["one.check"]["measured"]["detail"]


def test_nonsense_that_a_check_measured_still_makes_a_result(tmp_path: Path) -> None:
    body = "return {'nan': float('nan'), 'object': object, 'long': 'x' * 10**6, 'deep': [{'a': (1,)}]}"
    checks, raw = run(tmp_path, group("one", check("one.check", body)))
    measured = checks["one.check"]["measured"]
    assert measured["nan"] == "nan"
    assert len(measured["long"]) < 3000
    assert parse_result(raw, NONCE).checks[0].measured["deep"] == '[{"a": [1]}]'


@pytest.mark.parametrize(
    ("prepare", "deadline", "status", "reason"),
    [
        ("raise NotRun('torch is not installed')", 30, "not_run", "torch is not installed"),
        ("raise OSError('libx.so: cannot open')", 30, "failed", "OSError: libx.so: cannot open"),
        (
            "os.abort()",
            30,
            "failed",
            "preparing the group one failed: its process was killed by SIGABRT",
        ),
        (
            "time.sleep(1234)",
            1,
            "failed",
            "preparing the group one failed: its process did not end within 1 s and was killed",
        ),
    ],
)
def test_a_group_that_cannot_be_prepared(
    tmp_path: Path, prepare: str, deadline: float, status: str, reason: str
) -> None:
    shared = f"def prepare():\n    {prepare}\nGROUP = Group(prepare=prepare, deadline={deadline})\n"
    one = group("one", check("one.first", "return {}"), check("one.second", "return {}"), shared=shared)
    checks, _ = run(tmp_path, one, GOOD)
    for name in ("one.first", "one.second"):
        assert (checks[name]["status"], checks[name]["reason"]) == (status, reason)
    assert checks["good.one"]["status"] == "passed"


def test_facts_of_a_group_reach_the_result(tmp_path: Path) -> None:
    shared = "GROUP = Group(prepare=lambda: (5, {'extra': {'built': True}}))\n"
    checks, raw = run(tmp_path, group("one", check("one.check", "return {'state': state}"), shared=shared))
    assert checks["one.check"]["measured"] == {"state": 5}
    assert json.loads(raw)["facts"]["extra"] == {"built": True}


def test_checks_above_the_level_do_not_run(tmp_path: Path) -> None:
    low, high = check("one.low", "return {}", level="static"), check("one.high", "return {}", level="gpu")
    checks, _ = run(tmp_path, group("one", low, high), level="static")
    assert checks["one.low"]["status"] == "passed"
    assert checks["one.high"]["status"] == "not_run"
    assert checks["one.high"]["reason"] == "the request goes up to level static"


def test_a_worker_gets_a_home_it_can_write_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/nonexistent")
    body = "return {'home': os.environ['HOME'], 'there': os.access(os.environ['HOME'], os.W_OK)}"
    own = group("own", check("own.check", body), shared="GROUP = Group(image_home=True)\n")
    checks, _ = run(tmp_path, group("one", check("one.check", body)), own)
    assert checks["one.check"]["measured"]["there"] is True
    assert checks["own.check"]["measured"] == {"home": "/nonexistent", "there": False}


@pytest.mark.parametrize(
    "request_text",
    ["", "[]", '{"schema": "other/1"}', '{"schema": "imgbuild.check-request/1", "level": "cpu", "nonce": ""}'],
)
def test_a_request_it_does_not_understand_gives_no_result(tmp_path: Path, request_text: str) -> None:
    (tmp_path / "suite.pyz").write_bytes(suite().archive)
    (tmp_path / "request.json").write_text(request_text)
    done = subprocess.run(
        [sys.executable, tmp_path / "suite.pyz", "--request", tmp_path / "request.json", "--results", tmp_path],
        capture_output=True,
        timeout=60,
    )
    assert done.returncode != 0
    assert not (tmp_path / "result.json").exists()


def test_the_real_checks_are_found_and_described(tmp_path: Path) -> None:
    (tmp_path / "suite.pyz").write_bytes(suite().archive)
    done = subprocess.run(
        [sys.executable, "-I", tmp_path / "suite.pyz", "--list"], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    rows = [line.split(" ", 1) for line in done.stdout.splitlines()]
    names = [name for name, _ in rows]
    assert len(set(names)) == len(names)
    for name in ("static.user", "torch.train.amp", "torch.gpu.train.amp", "horovod.weights", "dask.compute"):
        assert name in names
    assert names[0].startswith("static.")
    for name, rest in rows:
        sentence = rest.partition("] ")[2]
        assert sentence.endswith("."), name


def test_the_archive_is_the_same_every_time() -> None:
    again = pack(dict(reversed(list(modules_in(CHECKS).items()))))
    assert again == suite()
    with zipfile.ZipFile(io.BytesIO(suite().archive)) as archive:
        names = archive.namelist()
    assert names == sorted(names)
    assert not [name for name in names if "pycache" in name or not name.endswith(".py")]


def test_the_archive_changes_with_a_check() -> None:
    sources = modules_in(CHECKS)
    path = "groups/static/user.py"
    changed = pack({**sources, path: sources[path] + b"#\n"})
    assert changed.sha256 != suite().sha256


def test_the_suite_is_python_3_9_and_needs_only_the_standard_library() -> None:
    allowed = {"torch", "horovod", "distributed", "tensorboard", "tornado", "builder"}
    allowed |= {"numpy", "tensorflow", "keras", "tf_keras", "jax", "jaxlib", "mxnet"}
    for name, data in modules_in(CHECKS).items():
        tree = ast.parse(data, name, feature_version=(3, 9))
        for node in ast.walk(tree):
            modules = []
            if isinstance(node, ast.Import):
                modules = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                modules = [node.module or ""]
            for module in modules:
                top = module.partition(".")[0]
                assert top in sys.stdlib_module_names | allowed, f"{name} imports {module}"
                assert top != "builder" or module.startswith("builder.checks"), f"{name} imports {module}"
            if isinstance(node, ast.Call):
                newer = {"kw_only", "slots"} & {keyword.arg for keyword in node.keywords}
                if isinstance(node.func, ast.Name) and node.func.id == "zip":
                    newer |= {"strict"} & {keyword.arg for keyword in node.keywords}
                assert not newer, f"{name}:{node.lineno}: {newer} is newer than Python 3.9"
            assert not isinstance(node, ast.Match), f"{name} has a match statement"


def test_modules_outside_the_workers_import_no_framework() -> None:
    program = "import sys; from builder.checks.contract import groups; groups(); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "False", done.stderr
