"""The suite's controller, run as it runs in an image, with groups that crash, hang and raise."""

from __future__ import annotations

import ast
import importlib.resources
import io
import json
import os
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import pytest

from builder.check.result import Status, parse_result
from builder.check.suite import modules_in, pack, suite

CHECKS = importlib.resources.files("builder") / "checks"
HEAD = "from builder.checks.contract import Group, NotRun, expect, fail\nimport os, signal, sys, time\n"


def run(
    tmp_path: Path, groups: dict[str, str], *, level: str = "cpu", nonce: str = "n0nce", timeout: float = 60
) -> tuple[dict[str, dict[str, Any]], bytes]:
    """Runs the real controller over these groups; returns the checks by name, and the result."""
    sources = {name: data for name, data in modules_in(CHECKS).items() if not name.startswith("groups/")}
    sources["groups/__init__.py"] = b""
    for name, text in groups.items():
        sources[f"groups/{name}.py"] = (HEAD + text).encode()
    archive = tmp_path / "suite.pyz"
    archive.write_bytes(pack(sources).archive)
    request = {"schema": "imgbuild.check-request/1", "nonce": nonce, "level": level}
    (tmp_path / "request.json").write_text(json.dumps(request))
    results = tmp_path / "results"
    results.mkdir()
    done = subprocess.run(
        [sys.executable, archive, "--request", tmp_path / "request.json", "--results", results],
        capture_output=True,
        text=True,
        timeout=timeout,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert [path.name for path in results.iterdir()] == ["result.json"]
    raw = (results / "result.json").read_bytes()
    return {check["name"]: check for check in json.loads(raw)["checks"]}, raw


def check(name: str, body: str, *, level: str = "cpu", deadline: float = 30) -> str:
    function = name.replace(".", "_").replace("-", "_")
    return (
        f"@GROUP.check({name!r}, level={level!r}, deadline={deadline}, catches='x')\n"
        f"def {function}(state):\n    {body}\n"
    )


GOOD = "GROUP = Group('good')\n" + check("good.one", "return {'value': 1}")


def test_passing_checks_give_a_result_the_host_reads(tmp_path: Path) -> None:
    _, raw = run(tmp_path, {"good": GOOD})
    result = parse_result(raw, "n0nce")
    assert [(item.name, item.status, item.measured) for item in result.checks] == [
        ("good.one", Status.PASSED, {"value": 1})
    ]
    assert result.facts.packages["pytest"] == pytest.__version__
    assert result.facts.uid == os.getuid()
    assert result.facts.python == ".".join(map(str, sys.version_info[:3]))
    assert result.facts.torch is None


def test_a_crash_costs_only_the_check_that_crashed(tmp_path: Path) -> None:
    bad = (
        "GROUP = Group('bad')\n"
        + check("bad.before", "return {}")
        + check("bad.crash", "sys.stderr.write('last words'); os.kill(os.getpid(), signal.SIGSEGV); time.sleep(9)")
        + check("bad.after", "return {'attempt': os.path.basename(os.getcwd())}")
    )
    checks, _ = run(tmp_path, {"bad": bad, "good": GOOD})
    assert {name: item["status"] for name, item in checks.items()} == {
        "bad.before": "passed",
        "bad.crash": "failed",
        "bad.after": "passed",
        "good.one": "passed",
    }
    assert checks["bad.crash"]["reason"] == "the check was killed by SIGSEGV"
    assert "last words" in checks["bad.crash"]["measured"]["detail"]
    assert checks["bad.after"]["measured"] == {"attempt": "bad-2"}


def test_a_hang_is_killed_with_its_children(tmp_path: Path) -> None:
    body = (
        "import subprocess; child = subprocess.Popen(['sleep', '1234'], start_new_session=True); "
        f"open({str(tmp_path / 'pid')!r}, 'w').write(str(child.pid)); time.sleep(1234)"
    )
    hang = "GROUP = Group('hang')\n" + check("hang.forever", body, deadline=1) + check("hang.after", "return {}")
    started = time.monotonic()
    checks, _ = run(tmp_path, {"hang": hang})
    assert time.monotonic() - started < 30
    assert checks["hang.forever"]["status"] == "failed"
    assert checks["hang.forever"]["reason"] == "the check did not end within 1 s and was killed"
    assert checks["hang.after"]["status"] == "passed"
    assert ended(tmp_path)


def test_what_a_crashed_worker_leaves_behind_is_ended(tmp_path: Path) -> None:
    body = (
        "import subprocess; child = subprocess.Popen(['sleep', '1234']); "
        f"open({str(tmp_path / 'pid')!r}, 'w').write(str(child.pid)); os.abort()"
    )
    checks, _ = run(tmp_path, {"one": "GROUP = Group('one')\n" + check("one.check", body)})
    assert checks["one.check"]["reason"] == "the check was killed by SIGABRT"
    assert ended(tmp_path)


def ended(tmp_path: Path) -> bool:
    """Whether the process whose id a check wrote down is gone, or waits for its parent as a zombie."""
    stat = Path("/proc") / (tmp_path / "pid").read_text() / "stat"
    return not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] == "Z"


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
    checks, raw = run(tmp_path, {"one": "GROUP = Group('one')\n" + check("one.check", body)})
    assert (checks["one.check"]["status"], checks["one.check"]["reason"]) == (status, reason)
    parse_result(raw, "n0nce")
    if reason.startswith("ZeroDivision"):
        assert "1 / 0" in checks["one.check"]["measured"]["detail"]


def test_nonsense_that_a_check_measured_still_makes_a_result(tmp_path: Path) -> None:
    body = "return {'nan': float('nan'), 'object': object, 'long': 'x' * 10**6, 'deep': [{'a': (1,)}]}"
    checks, raw = run(tmp_path, {"one": "GROUP = Group('one')\n" + check("one.check", body)})
    measured = checks["one.check"]["measured"]
    assert measured["nan"] == "nan"
    assert len(measured["long"]) < 3000
    assert parse_result(raw, "n0nce").checks[0].measured["deep"] == '[{"a": [1]}]'


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
    text = f"def prepare():\n    {prepare}\nGROUP = Group('one', prepare=prepare, deadline={deadline})\n"
    text += check("one.first", "return {}") + check("one.second", "return {}")
    checks, _ = run(tmp_path, {"one": text, "good": GOOD})
    for name in ("one.first", "one.second"):
        assert (checks[name]["status"], checks[name]["reason"]) == (status, reason)
    assert checks["good.one"]["status"] == "passed"


def test_facts_of_a_group_reach_the_result(tmp_path: Path) -> None:
    text = "GROUP = Group('one', prepare=lambda: (5, {'extra': {'built': True}}))\n"
    text += check("one.check", "return {'state': state}")
    checks, raw = run(tmp_path, {"one": text})
    assert checks["one.check"]["measured"] == {"state": 5}
    assert json.loads(raw)["facts"]["extra"] == {"built": True}


def test_checks_above_the_level_do_not_run(tmp_path: Path) -> None:
    text = "GROUP = Group('one')\n" + check("one.low", "return {}", level="static")
    text += check("one.high", "return {}", level="gpu")
    checks, _ = run(tmp_path, {"one": text}, level="static")
    assert checks["one.low"]["status"] == "passed"
    assert checks["one.high"]["status"] == "not_run"
    assert checks["one.high"]["reason"] == "the request goes up to level static"


def test_a_worker_gets_a_home_it_can_write_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/nonexistent")
    body = "return {'home': os.environ['HOME'], 'there': os.access(os.environ['HOME'], os.W_OK)}"
    own = "GROUP = Group('own', image_home=True)\n" + check("own.check", body)
    checks, _ = run(tmp_path, {"one": "GROUP = Group('one')\n" + check("one.check", body), "own": own})
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
    changed = pack({**sources, "groups/static.py": sources["groups/static.py"] + b"#\n"})
    assert changed.sha256 != suite().sha256


def test_the_suite_is_python_3_9_and_needs_only_the_standard_library() -> None:
    allowed = {"torch", "horovod", "distributed", "tensorboard", "builder"}
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
                newer = {"kw_only", "slots", "strict"} & {keyword.arg for keyword in node.keywords}
                assert not newer, f"{name}:{node.lineno}: {newer} is newer than Python 3.9"
            assert not isinstance(node, ast.Match), f"{name} has a match statement"


def test_modules_outside_the_workers_import_no_framework() -> None:
    program = "import sys; from builder.checks.contract import groups; groups(); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "False", done.stderr
