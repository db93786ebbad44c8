"""Children of a good image, each broken in one way that needs no training to be seen, and healthy ones beside them."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import docker
import pytest

from builder.check import CheckRun, Status, check_image
from builder.engine.connection import Engine
from builder.matrix import Level

pytestmark = pytest.mark.engine

#: Seconds; the level `static` takes about 5 on two idle cores.
DEADLINE = 300.0

#: What the children are called; a run that was killed leaves them behind by that name.
REPOSITORY = "imgbuild-test/static"

WHERE = "SITE=$(python3 -c 'import sysconfig; print(sysconfig.get_path(\"purelib\"))')"
ENTRYPOINT = "/opt/entrypoint"


@dataclass(frozen=True, kw_only=True)
class Change:
    """How a child differs: commands that run as root, variables, and its entrypoint (None: as it was)."""

    script: str = "true"
    environment: dict[str, str] = field(default_factory=dict)
    entrypoint: list[str] | None = None


Build = Callable[[Change], str]


@pytest.fixture(scope="module")
def child(good_image: str) -> Iterator[Build]:
    """Makes a child of the good image under a name of its own; returns that name."""
    client = docker.from_env(timeout=600)
    made: list[str] = []
    configuration = client.images.get(good_image).attrs["Config"]

    def make(change: Change) -> str:
        words = " && ".join([WHERE, *(line.strip() for line in change.script.strip().splitlines())])
        container = client.containers.create(
            good_image, entrypoint=["/bin/sh", "-c"], command=[words], user="0:0", network_mode="none"
        )
        conf = {**configuration, "Env": [*configuration["Env"], *(f"{k}={v}" for k, v in change.environment.items())]}
        if change.entrypoint is not None:
            conf["Entrypoint"] = change.entrypoint
        try:
            container.start()
            assert container.wait()["StatusCode"] == 0, container.logs().decode()
            tag = uuid.uuid4().hex
            container.commit(REPOSITORY, tag, conf=conf)
        finally:
            container.remove(force=True)
        made.append(f"{REPOSITORY}:{tag}")
        return made[-1]

    yield make
    for name in made:
        client.images.remove(name, noprune=True)
    client.close()


def static(engine: Engine, image: str) -> CheckRun:
    run = check_image(engine, image, None, deadline=DEADLINE, level=Level.STATIC)
    assert run.result is not None, (run.verdict.reasons, run.log_tail)
    return run


def outcomes(run: CheckRun, status: Status) -> dict[str, str]:
    """The reasons of the static checks with a status, by name."""
    assert run.result is not None
    found = {item.name: item.reason for item in run.result.checks if item.status is status}
    return {name: reason for name, reason in found.items() if name.startswith("static.")}


def write(path: str, text: str, *, append: bool = False) -> str:
    """A shell command that writes a file; `text` may have no single quotes."""
    escaped = text.replace("\\", "\\\\").replace("%", "%%").replace("\n", "\\n")
    return f"printf '{escaped}' {'>>' if append else '>'} {path}"


def on_import(python: str) -> str:
    """A shell command after which importing torch does this at its end."""
    return write("$SITE/torch/__init__.py", f"\n{python}\n", append=True)


def entrypoint(body: str) -> Change:
    """An image with a shell script as its entrypoint, behind the init that it had."""
    script = write(ENTRYPOINT, f"#!/bin/sh\n{body}\n") + f"\nchmod 755 {ENTRYPOINT}"
    return Change(script=script, entrypoint=["/usr/bin/tini", "-s", "-g", "--", ENTRYPOINT])


def metadata(directory: str, name: str, version: str, more: str = "") -> str:
    """Shell commands that install nothing but the metadata of a package."""
    where = f"{directory}/{name}-{version}.dist-info"
    text = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{more}"
    return f"mkdir -p {where}\n" + write(f"{where}/METADATA", text)


HOME = "HOME=/tmp/home; mkdir -p /tmp/home; export HOME\n"

FORK = "import os as _os, time as _time\nif _os.fork() == 0:\n    _os._exit(0)\n_time.sleep(0.1)"
SLEEP = 'import subprocess as _s\n_s.Popen(["sleep", "1234"], start_new_session=True)'
CONNECT = 'import socket as _s\n_s.create_connection(("192.0.2.1", 443), 2).close()'
TOLERANT = 'import socket as _s\ntry:\n    _s.getaddrinfo("telemetry.example", 443)\nexcept OSError:\n    pass'

#: What is done to the image, which checks fail for it, and how the reason of the first of them begins.
BROKEN = {
    "two numpy versions in two directories": (
        Change(script=metadata("/opt/old", "numpy", "1.26.4"), environment={"PYTHONPATH": "/opt/old"}),
        ["static.versions"],
        "numpy is installed twice: 1.26.4 in /opt/old and ",
    ),
    "two versions in one directory": (
        Change(script=metadata("$SITE", "numpy", "1.0")),
        ["static.versions"],
        "numpy is installed twice in /opt/venv/",
    ),
    "a module without metadata in the way": (
        Change(
            script="mkdir -p /opt/old/yaml\n" + write("/opt/old/yaml/__init__.py", "x = 1\n"),
            environment={"PYTHONPATH": "/opt/old"},
        ),
        ["static.versions"],
        "import yaml gives /opt/old/yaml/__init__.py, not /opt/venv/",
    ),
    "libgomp is missing": (
        Change(script="rm $SITE/torch/lib/libgomp*"),
        ["static.libraries", "static.mapped"],
        "torch/lib/libshm.so needs libgomp.so.1, which nobody has (and ",
    ),
    "LD_LIBRARY_PATH leads to a copy": (
        Change(
            script="mkdir /opt/shadow\ncp $SITE/torch/lib/libc10.so /opt/shadow/",
            environment={"LD_LIBRARY_PATH": "/opt/shadow"},
        ),
        ["static.libraries", "static.mapped"],
        "horovod/torch/mpi_lib_v2.cpython-311-x86_64-linux-gnu.so gets /opt/shadow/libc10.so from LD_LIBRARY_PATH ",
    ),
    "LD_PRELOAD puts a copy in the way": (
        Change(
            script="mkdir /opt/shadow\ncp $SITE/torch/lib/libgomp.so.1 /opt/shadow/",
            environment={"LD_PRELOAD": "/opt/shadow/libgomp.so.1"},
        ),
        ["static.libraries", "static.mapped"],
        "LD_PRELOAD puts /opt/shadow/libgomp.so.1 in the place of ",
    ),
    "LD_PRELOAD names nothing": (
        Change(environment={"LD_PRELOAD": "libnothing.so.1"}),
        ["static.entrypoint", "static.libraries"],
        "the entrypoint prints to standard error: ",
    ),
    "needs HOME": (
        Change(script=on_import('import os as _os\n_os.makedirs(_os.path.expanduser("~/.needs-home"))')),
        ["static.home"],
        "importing torch needs a home directory or a user name: ",
    ),
    "needs a user name": (
        Change(script=on_import('import os as _os\n_os.environ["USER"]')),
        ["static.home"],
        "importing torch needs a home directory or a user name: KeyError: ",
    ),
    "needs the network": (
        Change(script=on_import(CONNECT)),
        ["static.network"],
        "importing torch asks the network: socket.connect 192.0.2.1:443",
    ),
    "asks the network and does without": (
        Change(script=on_import(TOLERANT)),
        ["static.network"],
        "importing torch asks the network: socket.getaddrinfo telemetry.example",
    ),
    "files only root may read": (
        Change(script="chmod 600 $SITE/torch/functional.py"),
        ["static.user"],
        "user 12345 may not read torch/functional.py",
    ),
    "needs root": (
        Change(script="mkdir -m 700 /opt/secret\n" + on_import('open("/opt/secret/key")')),
        ["static.user"],
        "importing torch needs rights that user 12345 has not: PermissionError",
    ),
    "writes into the image": (
        Change(script=on_import('open(__file__ + ".log", "w").close()')),
        ["static.readonly"],
        "importing torch writes to /opt/venv/",
    ),
    "cannot be imported": (
        Change(script=on_import('raise RuntimeError("no licence")')),
        ["static.mapped"],
        "importing torch: RuntimeError: no licence",
    ),
    "a cache of root's": (
        Change(script="mkdir /opt/cache", environment={"HF_HOME": "/opt/cache/hf"}),
        ["static.caches"],
        "HF_HOME is /opt/cache/hf (set by the image): user 12345 may not write to /opt/cache",
    ),
    "pip check": (
        Change(script=metadata("$SITE", "needy", "1.0", "Requires-Dist: nobody-has-this\n")),
        ["static.pip-check"],
        "pip check: needy 1.0 requires nobody-has-this",
    ),
    "no python beside python3": (
        Change(script="rm -f /opt/venv/bin/python\nrm -f /usr/bin/python"),
        ["static.python"],
        "python is not on PATH",
    ),
    "prints to stdout": (
        entrypoint(HOME + 'echo Welcome\nexec "$@"'),
        ["static.entrypoint"],
        "the entrypoint prints to standard output: 'Welcome'",
    ),
    "prints to stderr": (
        entrypoint(HOME + 'echo Welcome >&2\nexec "$@"'),
        ["static.entrypoint"],
        "the entrypoint prints to standard error: 'Welcome'",
    ),
    "swallows the exit code": (
        entrypoint(HOME + '"$@"\nexit 0'),
        ["static.entrypoint"],
        "the entrypoint made exit code 0 of a program",
    ),
    "splits arguments": (
        entrypoint(HOME + "exec $@"),
        ["static.entrypoint"],
        "the entrypoint changed the arguments ",
    ),
    "keeps SIGTERM": (
        entrypoint(HOME + '"$@" &\nwait $!'),
        ["static.entrypoint"],
        "SIGTERM ",
    ),
    "reaps no orphans": (
        Change(entrypoint=["/opt/imgbuild/entrypoint"]),
        ["static.reaping"],
        "an orphaned process stays a zombie: its new parent, ",
    ),
    "leaves a zombie": (
        Change(script=on_import(FORK)),
        ["static.processes"],
        "importing torch leaves a zombie: python3",
    ),
    "leaves a process": (
        Change(script=on_import(SLEEP)),
        ["static.processes"],
        "importing torch leaves processes running: sleep",
    ),
}


@pytest.mark.parametrize("name", list(BROKEN))
def test_what_is_broken_is_named(engine: Engine, child: Build, name: str) -> None:
    change, checks, reason = BROKEN[name]
    failed = outcomes(static(engine, child(change)), Status.FAILED)
    assert sorted(failed) == checks, failed
    assert failed[checks[0]].startswith(reason)


#: Healthy images that look unusual.
HEALTHY = {
    "as it was": Change(),
    "a cache below /tmp": Change(environment={"HF_HOME": "/tmp/hf", "XDG_CACHE_HOME": "/tmp/cache"}),
    "a cache for everybody": Change(script="mkdir -m 1777 /opt/cache", environment={"TORCH_HOME": "/opt/cache/torch"}),
    "a library path that leads nowhere": Change(environment={"LD_LIBRARY_PATH": "/usr/local/nvidia/lib64"}),
    "own code on PYTHONPATH": Change(
        script="mkdir -p /opt/code/mine\n" + write("/opt/code/mine/__init__.py", "x = 1\n"),
        environment={"PYTHONPATH": "/opt/code"},
    ),
    "the same version twice": Change(
        script="mkdir /opt/more\ncp -r $SITE/packaging* /opt/more/", environment={"PYTHONPATH": "/opt/more"}
    ),
    "an entrypoint that does more": entrypoint(HOME + 'MORE=1; export MORE\nexec "$@"'),
    "a helper that ends by itself": Change(script=on_import(SLEEP.replace("1234", "0.3"))),
    "a lookup of itself": Change(
        script=on_import("import socket as _s\n_s.getaddrinfo(_s.gethostname(), 80)\n_s.getaddrinfo(None, 80)")
    ),
}


@pytest.mark.parametrize("name", list(HEALTHY))
def test_what_is_healthy_passes(engine: Engine, child: Build, name: str) -> None:
    run = static(engine, child(HEALTHY[name]))
    assert outcomes(run, Status.FAILED) == {}
    assert outcomes(run, Status.NOT_RUN) == {}


def test_without_an_entrypoint_its_checks_do_not_run_and_are_no_gap(engine: Engine, child: Build) -> None:
    run = static(engine, child(Change(entrypoint=[], environment={"HOME": "/tmp"})))
    assert outcomes(run, Status.FAILED) == {}
    assert outcomes(run, Status.NOT_RUN) == {
        "static.entrypoint": "the image has no entrypoint",
        "static.reaping": "the image has no entrypoint that could reap: start it with `docker run --init`",
    }


def test_the_libraries_are_read_quickly(engine: Engine, good_image: str) -> None:
    """The bound is the task's: headers only, less than 2 s on an image of 1 GB. The best of three: others work here."""
    times = []
    for _ in range(3):
        run = static(engine, good_image)
        assert run.result is not None
        found = {item.name: item for item in run.result.checks}["static.libraries"]
        assert isinstance(found.measured["libraries"], int)
        assert found.measured["libraries"] > 50
        times.append(found.seconds)
    assert min(times) < 2
