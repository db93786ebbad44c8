"""Programs in containers of an image that is not trusted: limits, results, and that nothing is left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from builder.engine import fields
from builder.engine.connection import Engine
from builder.engine.containers import RunRequest, RunResult, run
from builder.engine.errors import ContainerError, ImageMissing, RunCancelled
from builder.engine.owner import leftovers, owner_labels, reap

pytestmark = pytest.mark.engine

_RESULTS = "/imgbuild-check/results"


class Runner:
    """Runs shell scripts in containers of the tests' base image."""

    def __init__(self, engine: Engine, image: str, labels: dict[str, str]) -> None:
        self.engine, self.image, self.labels = engine, image, labels

    def __call__(self, script: str, *, cancel: threading.Event | None = None, **options: object) -> RunResult:
        parts = {
            "image": self.image,
            "entrypoint": ("/bin/sh", "-c"),
            "command": (script,),
            "deadline": 60.0,
            "labels": self.labels,
            **options,
        }
        return run(self.engine, RunRequest(**parts), cancel=cancel)  # type: ignore[arg-type]


@pytest.fixture
def shell(engine: Engine, prefix: str, tiny_base: str) -> Iterator[Runner]:
    """Runs scripts; afterwards the test must have left no container and no volume."""
    labels = {"imgbuild-test-run": prefix}
    volumes = _volumes(engine)
    yield Runner(engine, tiny_base, labels)
    assert _containers(engine, prefix) == []
    assert _volumes(engine) <= volumes | _volumes_in_use(engine)


def _containers(engine: Engine, prefix: str) -> list[str]:
    filters = json.dumps({"label": [f"imgbuild-test-run={prefix}"]})
    answer = engine.call_json(
        "GET", "/containers/json", doing="list containers", params={"all": True, "filters": filters}
    )
    return [fields.text(fields.mapping(item).get("Id")) for item in fields.sequence(answer)]


def _volumes(engine: Engine) -> set[str]:
    answer = fields.mapping(engine.call_json("GET", "/volumes", doing="list volumes"))
    return {fields.text(fields.mapping(item).get("Name")) for item in fields.sequence(answer.get("Volumes"))}


def _volumes_in_use(engine: Engine) -> set[str]:
    """Volumes of containers that others run on the same engine."""
    answer = engine.call_json("GET", "/containers/json", doing="list containers", params={"all": True})
    mounts = (
        mount for item in fields.sequence(answer) for mount in fields.sequence(fields.mapping(item).get("Mounts"))
    )
    return {fields.text(fields.mapping(mount).get("Name")) for mount in mounts}


def test_files_go_in_and_results_come_out_as_any_user(shell: Runner) -> None:
    result = shell(
        f"cat /imgbuild-check/a/b.txt; id -u; echo found > {_RESULTS}/r; echo oops >&2; exit 3",
        files={"a/b.txt": b"content\n"},
        output=("r", "missing"),
        user="12345:54321",
    )
    assert (result.exit_code, result.timed_out, result.oom_killed) == (3, False, False)
    assert result.outputs == {"r": b"found\n"}
    assert (result.oversize, result.refused) == ((), ())
    assert sorted(result.log_tail.splitlines()) == ["12345", "content", "oops"]


def test_root_is_read_only_and_the_volume_closed_but_for_results(shell: Runner) -> None:
    script = f"touch /x; touch /imgbuild-check/y; touch /tmp/z && echo tmpfs; touch {_RESULTS}/w && echo results"
    result = shell(script, user="12345", tmpfs={"/tmp": "size=1m,mode=1777"})
    assert "touch: /x: Read-only file system" in result.log_tail
    assert "touch: /imgbuild-check/y: Permission denied" in result.log_tail
    assert result.log_tail.count("tmpfs\n") == result.log_tail.count("results\n") == 1
    assert "Read-only" not in shell("touch /x", read_only=False).log_tail


def test_no_capabilities_no_new_privileges_no_network(shell: Runner) -> None:
    script = "grep -E '^(CapBnd|NoNewPrivs):' /proc/self/status; ls /sys/class/net; hostname 2>/dev/null; uname -n"
    lines = shell(script, hostname="here").log_tail.split()
    assert lines[lines.index("CapBnd:") + 1] == "0" * 16
    assert lines[lines.index("NoNewPrivs:") + 1] == "1"
    assert "eth0" not in lines
    assert lines[-1] == "here"
    open_ones = shell(script, cap_drop=(), no_new_privileges=False, network="bridge").log_tail.split()
    assert open_ones[open_ones.index("CapBnd:") + 1] != "0" * 16
    assert open_ones[open_ones.index("NoNewPrivs:") + 1] == "0"
    assert "eth0" in open_ones


def test_deadline_ends_what_ignores_sigterm(shell: Runner) -> None:
    began = time.monotonic()
    script = f"trap '' TERM INT HUP; echo part > {_RESULTS}/r; echo started; while :; do sleep 1; done"
    result = shell(script, deadline=1.0, output=("r",))
    assert (result.exit_code, result.timed_out) == (None, True)
    assert result.log_tail == "started\n"
    assert result.outputs == {"r": b"part\n"}
    assert time.monotonic() - began < 15
    assert 1 <= result.seconds < 10


def test_cancel_ends_it_at_once(shell: Runner) -> None:
    cancel = threading.Event()
    timer = threading.Timer(1, cancel.set)
    timer.start()
    began = time.monotonic()
    with pytest.raises(RunCancelled):
        shell("trap '' TERM; sleep 60", cancel=cancel)
    assert time.monotonic() - began < 15


def test_huge_and_sparse_results_are_not_read(shell: Runner) -> None:
    script = (
        f"cd {_RESULTS}; dd if=/dev/zero of=huge bs=1048576 count=64 2>/dev/null; "
        "dd if=/dev/zero of=sparse bs=1 count=1 seek=8589934592 2>/dev/null; "
        "dd if=/dev/zero of=edge bs=1000 count=1 2>/dev/null; dd if=/dev/zero of=over bs=1001 count=1 2>/dev/null"
    )
    began = time.monotonic()
    result = shell(script, output=("huge", "sparse", "edge", "over"), output_cap_bytes=1000)
    assert result.oversize == ("huge", "sparse", "over")
    assert result.outputs == {"edge": bytes(1000)}
    assert time.monotonic() - began < 30


def test_only_regular_files_are_results(shell: Runner) -> None:
    script = (
        f"cd {_RESULTS}; ln -s /etc/passwd link; ln -s none dangling; mkdir d; mkfifo f; "
        "echo x > plain; chmod 4000 plain"
    )
    result = shell(script, output=("link", "dangling", "d", "f", "plain"))
    assert result.refused == ("link", "dangling", "d", "f")
    assert result.outputs == {"plain": b"x\n"}


def test_results_directory_behind_a_link_is_not_followed_to_the_machine(shell: Runner) -> None:
    """A link in place of the directory is resolved inside the container, never on the engine's machine."""
    script = f"cd /imgbuild-check; rmdir results; ln -s /etc results; ls {_RESULTS}/"
    result = shell(script, output=("passwd", "shadow"))
    assert set(result.outputs) <= {"passwd"}
    assert result.outputs.get("passwd", b"root:x:0:0:root:/root:/bin/sh\n") == b"root:x:0:0:root:/root:/bin/sh\n"


def test_end_of_a_long_log_is_kept(shell: Runner) -> None:
    result = shell("seq 1 200000; echo end", log_cap_bytes=20)
    assert result.log_tail == "8\n199999\n200000\nend\n"
    assert shell("echo x", log_cap_bytes=0).log_tail == ""


def test_out_of_memory_is_told(shell: Runner) -> None:
    result = shell(
        "x=$(dd if=/dev/zero bs=1048576 count=256 2>/dev/null | tr '\\0' x); echo ${#x}", memory_bytes=32 << 20
    )
    assert result.exit_code != 0
    assert result.oom_killed


def test_missing_image_program_and_gpu(shell: Runner, engine: Engine) -> None:
    with pytest.raises(ImageMissing, match="no image imgbuild-test/none"):
        shell("true", image="imgbuild-test/none:none")
    with pytest.raises(ContainerError, match="/none"):
        shell("true", entrypoint=("/none",))
    if not engine.info().gpu:
        with pytest.raises(ContainerError, match="gpu"):
            shell("true", gpus=True)


@pytest.mark.parametrize(
    "options",
    [
        {"files": {"../x": b""}},
        {"files": {"/x": b""}},
        {"files": {"results/x": b""}},
        {"output": ("../x",)},
        {"results_dir": ".."},
    ],
)
def test_paths_that_leave_the_volume_are_refused(shell: Runner, options: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"volume|results"):
        shell("true", **options)  # type: ignore[arg-type]


# Where the tests run in the background, a shell may have set SIGINT to be ignored.
_KILLED = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
from builder.engine.connection import Engine
from builder.engine.containers import RunRequest, run
run(Engine.connect(), RunRequest(image=sys.argv[1], entrypoint=("sleep",), command=("300",), deadline=300,
    labels={"imgbuild-test-run": sys.argv[2]}))
"""


def test_container_of_a_killed_process_is_reaped(shell: Runner, engine: Engine, prefix: str) -> None:
    child = subprocess.Popen([sys.executable, "-c", _KILLED, shell.image, prefix])
    try:
        mine = _until_running(engine, prefix)
        name = next(item.name for item in leftovers(engine) if item.id == mine)
        assert name not in reap(engine)
        assert _containers(engine, prefix) == [mine]
    finally:
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
    assert next(item.abandoned for item in leftovers(engine) if item.id == mine) is True
    assert name in reap(engine)
    assert _containers(engine, prefix) == []


def _until_running(engine: Engine, prefix: str) -> str:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        ours = set(_containers(engine, prefix))
        running = [item.id for item in leftovers(engine) if item.running and item.id in ours]
        if running:
            return running[0]
        time.sleep(0.05)
    raise AssertionError("the container did not start")


def test_interrupted_process_removes_its_container(shell: Runner, engine: Engine, prefix: str) -> None:
    child = subprocess.Popen([sys.executable, "-c", _KILLED, shell.image, prefix], stderr=subprocess.DEVNULL)
    _until_running(engine, prefix)
    child.send_signal(signal.SIGINT)
    assert child.wait(30) != 0
    assert _containers(engine, prefix) == []


@pytest.mark.parametrize(
    ("changes", "abandoned"),
    [
        ({}, False),
        ({"io.imgbuild.owner.host": "another"}, None),
        ({"io.imgbuild.owner.process": "other-boot/1/1"}, True),
        ({"io.imgbuild.owner.process": "junk"}, None),
    ],
)
def test_owner_is_told_by_machine_boot_and_start(
    engine: Engine, prefix: str, tiny_base: str, changes: dict[str, str], abandoned: bool | None
) -> None:
    name = f"imgbuild-run-{prefix}"
    body = {"Image": tiny_base, "Cmd": ["true"], "Labels": {**owner_labels(), **changes}}
    engine.call("POST", "/containers/create", doing="create", params={"name": name}, json=body).close()
    try:
        assert next(item.abandoned for item in leftovers(engine) if item.name == name) is abandoned
    finally:
        engine.call("DELETE", f"/containers/{name}", doing="remove", params={"v": True}).close()


def test_container_with_our_labels_and_another_name_is_left_alone(engine: Engine, prefix: str, tiny_base: str) -> None:
    """Labels come with an image that was committed from a container; names do not."""
    name = f"{prefix}-mine"
    labels = {**owner_labels(), "io.imgbuild.owner.process": "other-boot/1/1"}
    body = {"Image": tiny_base, "Cmd": ["true"], "Labels": labels}
    engine.call("POST", "/containers/create", doing="create", params={"name": name}, json=body).close()
    try:
        assert name not in {item.name for item in leftovers(engine)}
        assert name not in reap(engine)
        engine.call("GET", f"/containers/{name}/json", doing="look").close()
    finally:
        engine.call("DELETE", f"/containers/{name}", doing="remove", params={"v": True}).close()
