"""What is wrong with an image before anything is trained: packages, libraries, user, entrypoint."""

from __future__ import annotations

from corpus.variant import Base, Broken, Settings, patch, replace

#: What a torch that cannot be imported takes along.
_NO_TORCH = ("torch.*",)
#: Checks of what an import does: not run where it fails for a reason that another one tells.
_IMPORTS = ("static.home", "static.mapped", "static.processes")


def _entrypoint(line: str, last: str = 'exec "$@"') -> str:
    """Shell lines that put a line before the end of the image's entrypoint, and another end in the place of its own."""
    return (
        "sed -i '$d' /opt/imgbuild/entrypoint\n"
        f"cat >> /opt/imgbuild/entrypoint <<'END_OF_TEXT'\n{line}\n{last}\nEND_OF_TEXT\n"
    )


def _metadata(directory: str, name: str, version: str) -> str:
    """Shell lines that make the metadata of a package in a directory."""
    where = f'"{directory}/{name}-{version}.dist-info"'
    text = f"Metadata-Version: 2.1\\nName: {name}\\nVersion: {version}\\n"
    return f"mkdir {where}\nprintf '{text}' > {where}/METADATA\n"


PACKAGES = (
    Broken(
        id="two-numpys-in-one-directory",
        kind="two numpy versions",
        breaks="Two versions of numpy are installed over each other in one directory.",
        check="static.versions",
        reason="numpy is installed twice",
        script=_metadata("$SITE", "numpy", "1.26.4"),
        also=("cell.packages",),
    ),
    Broken(
        id="two-numpys-in-two-directories",
        kind="two numpy versions",
        breaks="A second numpy lies in a directory of its own, further back on Python's path.",
        check="static.versions",
        reason="numpy is installed twice: 2.",
        script="mkdir -p /opt/old/numpy\n"
        + _metadata("/opt/old", "numpy", "1.26.4")
        + """echo '__version__ = "1.26.4"' > /opt/old/numpy/__init__.py\necho /opt/old > "$SITE/old.pth"\n""",
    ),
    Broken(
        id="metadata-lies",
        kind="wrong framework version",
        breaks="torch's metadata says another version than its code.",
        check="torch.version",
        reason="its metadata says 2.0.1",
        base=Base.PLAIN,
        script="""sed -i 's/^Version: .*/Version: 2.0.1/' "$SITE"/torch-*.dist-info/METADATA""",
        also=("cell.packages",),
    ),
    Broken(
        id="contradicting-packages",
        kind="pip check broken",
        breaks="A package requires another numpy than the one that is installed.",
        check="static.pip-check",
        reason="has requirement numpy<1",
        script="""sed -i '/^Name: /a Requires-Dist: numpy<1' "$SITE"/jinja2-*.dist-info/METADATA""",
    ),
    Broken(
        id="another-python-on-path",
        kind="python is not python3",
        breaks="`python` is the system's interpreter, `python3` the environment's.",
        check="static.python",
        reason="python on PATH is",
        # Horovod's own programs are started by `python`.
        base=Base.PLAIN,
        script=replace("/opt/venv/bin/python", '#!/bin/sh\nexec /usr/bin/python3 "$@"'),
    ),
)

LIBRARIES = (
    Broken(
        id="shadowed-library",
        kind="a shadowed shared library",
        breaks="LD_LIBRARY_PATH leads to another copy of the OpenMP library than the one that torch brought.",
        check="static.libraries",
        reason="gets /opt/shadow/libgomp.so.1 from LD_LIBRARY_PATH instead of torch/lib/libgomp.so.1",
        base=Base.PLAIN,
        script="""
            mkdir /opt/shadow
            cp "$SITE/torch/lib/libgomp.so.1" /opt/shadow/
        """,
        settings=Settings(environment={"LD_LIBRARY_PATH": "/opt/shadow"}),
        also=("static.mapped", "torch.numerics"),
    ),
    Broken(
        id="missing-libgomp",
        kind="a missing libgomp",
        breaks="The OpenMP library is gone, which torch's own libraries need.",
        check="static.libraries",
        reason="needs libgomp.so.1, which nobody has",
        base=Base.PLAIN,
        script='rm "$SITE/torch/lib/libgomp.so.1"',
        also=(*_IMPORTS, "static.network", "static.readonly", *_NO_TORCH),
    ),
)

CONFINEMENT = (
    Broken(
        id="unwritable-cache",
        kind="unwritable cache",
        breaks="XDG_CACHE_HOME is a directory in which only root can write.",
        check="static.caches",
        reason="user 12345 may not write to /opt/cache",
        script="mkdir -m 755 /opt/cache",
        settings=Settings(environment={"XDG_CACHE_HOME": "/opt/cache"}),
    ),
    Broken(
        id="files-of-root",
        kind="needs root",
        breaks="A part of a package that no training imports was installed so that only root can read it.",
        check="static.user",
        reason="user 12345 may not read mpmath/tests",
        base=Base.PLAIN,
        script='chmod -R go= "$SITE/mpmath/tests"',
    ),
    Broken(
        id="entrypoint-needs-root",
        kind="needs root",
        breaks="The entrypoint refuses to run as anybody but root.",
        check="run.result",
        reason="exit code 1: this image must run as root",
        script=_entrypoint('[ "$(id -u)" = 0 ] || { echo "this image must run as root" >&2; exit 1; }'),
    ),
    Broken(
        id="import-asks-the-network",
        kind="needs network",
        breaks="Importing torch asks a server, and fails where there is none.",
        check="static.network",
        reason="importing torch asks the network: socket.getaddrinfo settings.example",
        base=Base.PLAIN,
        script=patch("torch/__init__.py", '__import__("socket").create_connection(("settings.example", 443))'),
        also=(*_IMPORTS, "static.readonly", *_NO_TORCH),
    ),
    Broken(
        id="import-phones-home",
        kind="needs network",
        breaks="Importing torch tells a server of it, and hides that it could not.",
        check="static.network",
        reason="importing torch asks the network: socket.getaddrinfo telemetry.example",
        base=Base.PLAIN,
        script=patch(
            "torch/__init__.py",
            """
            import socket as _socket

            try:
                _socket.create_connection(("telemetry.example", 443), timeout=5)
            except OSError:
                pass
            """,
        ),
    ),
    Broken(
        id="import-needs-home",
        kind="needs HOME",
        breaks="Importing torch makes a directory in HOME, whatever HOME is.",
        check="static.home",
        reason="importing torch needs a home directory or a user name",
        base=Base.PLAIN,
        script=patch("torch/__init__.py", 'os.makedirs(os.path.expanduser("~/.torch-settings"), exist_ok=True)'),
    ),
    Broken(
        id="import-needs-a-name",
        kind="needs HOME",
        breaks="Importing torch asks for the user's name, which an unknown user id has not.",
        check="static.home",
        reason="importing torch needs a home directory or a user name",
        base=Base.PLAIN,
        script=patch("torch/__init__.py", "import getpass as _getpass\n_getpass.getuser()"),
    ),
    Broken(
        id="import-writes-into-the-image",
        kind="needs a writable root",
        breaks="Importing torch writes a file beside its own code.",
        check="static.readonly",
        reason="importing torch writes to",
        base=Base.PLAIN,
        script=patch("torch/__init__.py", 'open(os.path.join(os.path.dirname(__file__), "stamp"), "w").close()'),
        also=(*_IMPORTS, "static.network", *_NO_TORCH),
    ),
)

PROCESSES = (
    Broken(
        id="entrypoint-prints",
        kind="entrypoint that prints",
        breaks="The entrypoint greets on standard output, where a program's own output is read.",
        check="static.entrypoint",
        reason="the entrypoint prints to standard output: 'Welcome!'",
        script=_entrypoint("echo 'Welcome!'"),
    ),
    Broken(
        id="entrypoint-swallows-the-exit-code",
        kind="entrypoint that swallows the exit code",
        breaks="The entrypoint ends with exit code 0, whatever became of the program.",
        check="static.entrypoint",
        reason="the entrypoint made exit code 0 of a program's exit code 7",
        script=_entrypoint('"$@"', last="exit 0"),
    ),
    Broken(
        id="entrypoint-loses-arguments",
        kind="entrypoint that changes arguments",
        breaks="The entrypoint passes its arguments on without those that are empty.",
        check="static.entrypoint",
        reason="the entrypoint changed the arguments",
        script=_entrypoint('for word; do shift; [ -z "$word" ] || set -- "$@" "$word"; done'),
    ),
    Broken(
        id="entrypoint-keeps-signals",
        kind="entrypoint that keeps signals",
        breaks="The entrypoint waits for the program, and SIGTERM reaches the entrypoint alone.",
        check="static.entrypoint",
        reason="SIGTERM ended the entrypoint",
        script=_entrypoint('"$@"', last="exit $?"),
        settings=Settings(entrypoint=("/usr/bin/tini", "-s", "--", "/opt/imgbuild/entrypoint")),
        also=("static.processes",),
    ),
    Broken(
        id="no-init",
        kind="leaves a zombie",
        breaks="Nothing waits for orphaned processes: the entrypoint runs without an init.",
        check="static.reaping",
        reason="an orphaned process stays a zombie",
        settings=Settings(entrypoint=("/opt/imgbuild/entrypoint",)),
        also=("static.processes",),
    ),
    Broken(
        id="import-leaves-a-zombie",
        kind="leaves a zombie",
        breaks="Importing torch starts a program and never asks how it ended.",
        check="static.processes",
        reason="importing torch leaves a zombie: true",
        base=Base.PLAIN,
        script=patch(
            "torch/__init__.py",
            """
            import time as _time

            os.posix_spawn("/bin/true", ["true"], os.environ)
            _time.sleep(0.2)
            """,
        ),
    ),
    Broken(
        id="import-leaves-a-process",
        kind="leaves a process",
        breaks="Importing torch starts a process that outlives it.",
        check="static.processes",
        reason="importing torch leaves processes running: sleep",
        base=Base.PLAIN,
        script=patch("torch/__init__.py", 'os.posix_spawn("/bin/sleep", ["sleep", "3600"], os.environ, setsid=True)'),
    ),
)

STATIC = (*PACKAGES, *LIBRARIES, *CONFINEMENT, *PROCESSES)
