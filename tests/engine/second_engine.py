"""A Docker engine of a test's own, on a small disk in memory, beside the one that the other tests use.

It shares nothing with the first engine: it has a disk, a state directory, a socket, a bridge and a containerd of its
own, and leaves the machine's firewall rules alone. What is started here is ended by its process id, and what is
mounted here is unmounted, whatever happens in between.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import docker
import pytest
from docker.errors import DockerException

_ADDRESS = "192.0.2.1/24"
"""Of the bridge. Reserved for documentation, so that no real network is hidden behind it."""

_PATIENCE = 60.0
"""Seconds that starting and ending the engine may take."""


def needed() -> str:
    """What this machine lacks for an engine of a test's own; empty when nothing."""
    if os.geteuid() != 0:
        return "a second engine on a small disk needs root, to mount the disk and to start dockerd"
    lacking = [program for program in ("dockerd", "containerd", "ip", "mount") if shutil.which(program) is None]
    return f"a second engine needs {', '.join(lacking)} on this machine" if lacking else ""


@contextmanager
def small_engine(megabytes: int) -> Iterator[str]:
    """Runs an engine whose disk has `megabytes`; gives its address as in DOCKER_HOST."""
    with ExitStack() as stack:
        # Not pytest's own directory: the path of a socket may have 107 bytes.
        root = Path(tempfile.mkdtemp(prefix="imgbuild-engine-"))
        stack.callback(_remove, root)
        disk = root / "disk"
        disk.mkdir()
        _run("mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=711", "imgbuild-test", str(disk))
        stack.callback(_unmount_below, root)
        # Made beforehand: told to have none, dockerd removes docker0, which is the first engine's. At most 15 bytes.
        bridge = f"ib{root.name[-8:]}"
        _run("ip", "link", "add", "name", bridge, "type", "bridge")
        stack.callback(_run, "ip", "link", "delete", bridge)
        _run("ip", "address", "add", _ADDRESS, "dev", bridge)
        _run("ip", "link", "set", bridge, "up")
        address = f"unix://{root}/docker.sock"
        command = [
            "dockerd",
            f"--host={address}",
            f"--data-root={disk}",
            f"--exec-root={root}/exec",
            f"--pidfile={root}/pid",
            f"--bridge={bridge}",
            "--iptables=false",
            "--ip-masq=false",
            # The one of this machine is the first engine's.
            f"--config-file={root}/daemon.json",
        ]
        (root / "daemon.json").write_text("{}")
        log = stack.enter_context((root / "log").open("wb"))
        # Its own containerd, because it is told of no other, dies with it.
        process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True)
        stack.callback(_end, process, root)
        _await(lambda: _answers(process, address, root), f"the engine at {address} answers")
        yield address


def _answers(process: subprocess.Popen[bytes], address: str, root: Path) -> bool:
    if process.poll() is not None:
        last = "\n".join((root / "log").read_text(errors="replace").splitlines()[-20:])
        pytest.fail(f"dockerd ended with {process.returncode}:\n{last}", pytrace=False)
    try:
        client = docker.DockerClient(base_url=address, timeout=5)
    except DockerException:
        return False
    try:
        return bool(client.ping())
    except DockerException:
        return False
    finally:
        client.close()


def _end(process: subprocess.Popen[bytes], root: Path) -> None:
    process.terminate()
    try:
        process.wait(_PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    # What it started and did not end itself: shims and its containerd name this directory in their commands.
    for pid in _processes_of(root):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    _await(lambda: not _processes_of(root), "its processes end")


def _processes_of(root: Path) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:
            continue
        pid = int(path.parent.name)
        if pid != os.getpid() and any(os.fsencode(root) in word for word in words):
            found.append(pid)
    return found


def _unmount_below(root: Path) -> None:
    """Unmounts everything below a directory, what was mounted last first."""
    for path in reversed(_mounts_below(root)):
        if subprocess.run(["umount", path], capture_output=True, check=False).returncode != 0:
            _run("umount", "--lazy", path)


def _mounts_below(root: Path) -> list[str]:
    lines = Path("/proc/self/mountinfo").read_text(errors="surrogateescape").splitlines()
    # The fifth word is the place; blanks and the like are written in octal.
    places = [re.sub(r"\\(\d{3})", lambda m: chr(int(m[1], 8)), line.split()[4]) for line in lines]
    return [place for place in places if place.startswith(f"{root}/")]


def _remove(root: Path) -> None:
    # Never through a mount that is left: a lazy one would be emptied, and its files may be somebody's.
    assert _mounts_below(root) == []
    shutil.rmtree(root)


def _await(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + _PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"waited {_PATIENCE:g} s in vain: {what}", pytrace=False)
        time.sleep(0.1)


def _run(*command: str) -> None:
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    if ran.returncode != 0:
        pytest.fail(f"{' '.join(command)}: {ran.stderr.strip()}", pytrace=False)
