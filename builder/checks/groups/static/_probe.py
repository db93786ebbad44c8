"""Imports one module in a process of its own and writes down what that did; run with `python -S -c`, never imported.

    python3 -S -c SOURCE MODULE REPORT

It begins without site-packages, so that the hook sees what `.pth` files and a `sitecustomize` do, too.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def main(module: str, report: str) -> None:
    """Imports `module` and writes what happened into the file `report`, as JSON."""
    network: list[list[str]] = []
    writes: list[str] = []
    programs: list[str] = []

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        if event in ("socket.connect", "socket.sendto", "socket.sendmsg"):
            if len(arguments) > 1 and isinstance(arguments[1], tuple):
                network.append([event, str(arguments[1][0]), str(arguments[1][1])])
        elif event in ("socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr"):
            network.append([event, str(arguments[0]), ""])
        elif event == "subprocess.Popen":
            programs.append(str(arguments[0]))
        elif event == "open" and isinstance(arguments[0], str) and flags(arguments[2]) & writing:
            writes.append(arguments[0])
        elif event == "os.mkdir":
            writes.append(str(arguments[0]))

    def flags(value: object) -> int:
        return value if isinstance(value, int) else 0

    # What the hook uses is imported before it listens.
    import json
    import os
    from pathlib import Path

    writing = os.O_WRONLY | os.O_RDWR | os.O_CREAT
    sys.path[:] = [entry for entry in sys.path if entry]  # not the working directory
    sys.addaudithook(hook)
    failed = None
    try:
        import site

        site.main()
        __import__(module)
    except BaseException as error:  # noqa: BLE001 - SystemExit is a way to fail an import, too
        import traceback

        cause: BaseException | None = error
        errno, path = None, ""
        while cause is not None and errno is None:
            errno, path = getattr(cause, "errno", None), str(getattr(cause, "filename", None) or "")
            cause = cause.__cause__ or cause.__context__
        failed = {
            "text": " ".join((f"{type(error).__name__}: {error}").split())[:400],
            "errno": errno if isinstance(errno, int) else None,
            "path": path,
            "detail": traceback.format_exc()[-2000:],
        }
    sys.stdout.flush()
    found: dict[str, object] = {"error": failed, "network": list(network), "writes": list(writes)}
    found["programs"] = list(programs)
    # From here on this program itself opens files.
    with Path("/proc/self/maps").open(encoding="utf-8", errors="replace") as file:
        lines = [line.split(None, 5) for line in file]
    found["mapped"] = sorted({parts[5].strip() for parts in lines if len(parts) == 6 and ".so" in parts[5]})
    found["children"] = children(Path("/proc"), os.getpid())
    Path(report).write_text(json.dumps(found), encoding="utf-8")


def children(processes: Path, pid: int) -> list[list[object]]:
    """Name, id and state of the processes that this one started and that are still there."""
    found: list[list[object]] = []
    for entry in processes.glob("[0-9]*/stat"):
        try:
            head, _, rest = entry.read_text(encoding="utf-8", errors="replace").rpartition(")")
        except OSError:
            continue
        state, parent = rest.split()[:2]
        if int(parent) == pid:
            found.append([head.partition("(")[2], int(entry.parent.name), state])
    return found


if __name__ == "__main__":
    main(*sys.argv[1:3])
