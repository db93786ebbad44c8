"""Images in which the suite does not come to a result of its own, and images of another cell."""

from __future__ import annotations

import json

from builder.check import suite
from corpus.variant import Base, Broken, Cell, patch, replace

#: A deadline for what never ends: long enough for a container to start on a busy machine.
SHORT = 8.0


def _passing() -> str:
    """A whole result in which everything passed; only the request that it answers is another one."""
    rows = [
        {"name": name, "level": spec.level, "status": "passed", "reason": "", "seconds": 0.1, "measured": {}}
        for name, spec in suite().checks.items()
    ]
    facts = {"python": "3.11.2", "platform": "Linux", "system": "Debian", "uid": 12345, "packages": {"torch": "2.13.0"}}
    facts |= {"cpu": {"model": "unknown"}, "devices": []}
    document = {"schema": "imgbuild.check-result/1", "nonce": "of-another-request", "complete": True, "level": "cpu"}
    return json.dumps({**document, "started": "2026-01-01T00:00:00", "seconds": 1.0, "facts": facts, "checks": rows})


_RESULT = "/imgbuild-check/results/result.json"


def _python(body: str) -> str:
    """Shell lines that put a shell script in the place of the image's interpreter."""
    return replace('"$PYTHON"', f"#!/bin/sh\n{body}")


RUNS = (
    Broken(
        id="forged-on-stdout",
        kind="forged result on stdout",
        breaks="python3 prints a result in which everything passed, and ends with exit code 0.",
        check="run.result",
        reason="exit code 0 but no result was written",
        script=_python(f"echo '{_passing()}'"),
    ),
    Broken(
        id="result-of-another-run",
        kind="result file of another run",
        breaks="python3 leaves the result of an earlier request where this one's belongs.",
        check="run.result",
        reason="the result is the answer to another request",
        script=_python(f"echo '{_passing()}' > {_RESULT}"),
    ),
    Broken(
        id="silent",
        kind="exit 0 with no result",
        breaks="python3 ends with exit code 0 at once, whatever it is told to run.",
        check="run.result",
        reason="exit code 0 but no result was written",
        script=_python("exit 0"),
    ),
    Broken(
        id="hangs",
        kind="hangs",
        breaks="python3 never ends.",
        check="run.result",
        reason=f"the check did not end within {SHORT:g} s and was killed",
        script=_python("exec sleep 3600"),
        deadline=SHORT,
    ),
    Broken(
        id="eats-memory",
        kind="eats memory",
        breaks="python3 takes memory until there is none.",
        check="run.result",
        reason="the check was killed because it ran out of memory",
        # What `tail` reads has no end of line, so that it keeps all of it.
        script=_python("exec tail /dev/zero"),
        memory_bytes=256 << 20,
    ),
    Broken(
        id="import-eats-memory",
        kind="eats memory",
        breaks="Importing torch takes more memory than there is, so that the kernel kills one process of many.",
        check="run.result",
        reason="the check was killed because it ran out of memory",
        base=Base.PLAIN,
        script=patch("torch/__init__.py", '_hoard = b"x" * (2 << 30)'),
        memory_bytes=1 << 30,
    ),
    Broken(
        id="interpreter-fails",
        kind="crash",
        breaks="python3 ends with an error before it runs anything.",
        check="run.result",
        reason="the check ended with exit code 3: no such library",
        script=_python("echo no such library\nexit 3"),
    ),
    Broken(
        id="interpreter-crashes",
        kind="crash",
        breaks="python3 is killed by a signal before it runs anything.",
        check="run.result",
        reason="the check ended with exit code 139",
        script=_python("kill -SEGV $$"),
    ),
    Broken(
        id="no-python",
        kind="no interpreter",
        breaks="There is no python3.",
        check="run.result",
        reason="python3",
        script='rm -f "$PYTHON" /usr/bin/python3',
    ),
    Broken(
        id="garbage",
        kind="malformed result",
        breaks="python3 writes a result that is no JSON.",
        check="run.result",
        reason="the result is no JSON",
        script=_python(f"echo garbage > {_RESULT}"),
    ),
    Broken(
        id="huge",
        kind="malformed result",
        breaks="python3 writes a result of 2 MB.",
        check="run.result",
        reason="the result has more than 1048576 bytes",
        script=_python(f"head -c 2000000 /dev/zero > {_RESULT}"),
    ),
    Broken(
        id="link",
        kind="malformed result",
        breaks="python3 puts a link to another file where the result belongs.",
        check="run.result",
        reason="the result is not a regular file",
        script=_python(f"ln -s /etc/passwd {_RESULT}"),
    ),
    Broken(
        id="cpu-wheel-in-a-cuda-cell",
        kind="CPU wheel in a CUDA cell",
        breaks="The cell is one for CUDA 13.0, and its image has the torch that is built for CPUs.",
        check="cell.cuda",
        reason="torch is built for CUDA cpu, the cell says 13.0",
        base=Base.PLAIN,
        cell=Cell(cuda="13.0"),
    ),
    Broken(
        id="another-python",
        kind="wrong Python version",
        breaks="The cell is one for Python 3.12, and its image has 3.11.",
        check="cell.python",
        reason="Python is 3.11",
        cell=Cell(python="3.12"),
    ),
    Broken(
        id="older-framework",
        kind="wrong framework version",
        breaks="Another torch than the cell's is installed, and says so everywhere.",
        check="cell.packages",
        reason="torch is 2.0.1+cpu, the cell says",
        base=Base.PLAIN,
        script="""
            sed -i 's/^Version: .*/Version: 2.0.1+cpu/' "$SITE"/torch-*.dist-info/METADATA
            sed -i "s/^__version__ = .*/__version__ = '2.0.1+cpu'/" "$SITE/torch/version.py"
        """,
    ),
    Broken(
        id="unpinned-package",
        kind="package that nobody pinned",
        breaks="A package is installed that the cell's lock does not have.",
        check="cell.packages",
        reason="installed but not pinned: intruder 1.0",
        script="""
            mkdir "$SITE/intruder-1.0.dist-info"
            printf 'Metadata-Version: 2.1\\nName: intruder\\nVersion: 1.0\\n' > "$SITE/intruder-1.0.dist-info/METADATA"
        """,
    ),
    Broken(
        id="missing-package",
        kind="package that is missing",
        breaks="Horovod, which the cell promises, is not installed.",
        check="cell.packages",
        reason="horovod is promised and not installed",
        script='rm -r "$SITE"/horovod "$SITE"/horovod-*.dist-info',
        also=("horovod.*",),
    ),
)
