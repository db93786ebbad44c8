"""What a rank tells of itself while it works, whatever framework it works with; `ranks` reads it from outside."""

from __future__ import annotations

import os
import socket
import struct
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from builder.checks.contract import one_line, short, write_json

Section = Callable[[], Mapping[str, Any]]


def connections() -> list[str]:
    """The addresses of this process's established TCP connections, from the kernel's own tables."""
    own = set()
    for entry in Path("/proc/self/fd").iterdir():
        try:
            own.add(os.readlink(entry))  # noqa: PTH115 - what it leads to is no path
        except OSError:
            continue  # closed meanwhile
    found = set()
    for name, family in (("tcp", socket.AF_INET), ("tcp6", socket.AF_INET6)):
        try:
            rows = Path("/proc/self/net", name).read_text(encoding="ascii").splitlines()[1:]
        except OSError:
            continue
        for row in rows:
            columns = row.split()
            if columns[3] == "01" and f"socket:[{columns[9]}]" in own:  # 01: established
                words = bytes.fromhex(columns[2].partition(":")[0])
                # The kernel prints the address as words of the machine's byte order.
                count = len(words) // 4
                packed = struct.pack(f"={count}I", *struct.unpack(f">{count}I", words))
                found.add(f"tcp {socket.inet_ntop(family, packed)}")
    return sorted(found)


def process_number(rank: int) -> int:
    """The launcher's own number of this process, horovodrun's or mpirun's; its rank where neither started it."""
    for name in ("HOROVOD_RANK", "OMPI_COMM_WORLD_RANK"):
        if os.environ.get(name, "").isdecimal():
            return int(os.environ[name])
    return rank


def horovod_ways(hvd: Any) -> dict[str, dict[str, bool]]:
    """What a Horovod that was initialized is built with, and by which controller its ranks coordinate."""
    built = {name: bool(getattr(hvd, f"{name}_built")()) for name in ("gloo", "mpi", "nccl")}
    return {"built": built, "enabled": {name: bool(getattr(hvd, f"{name}_enabled")()) for name in ("gloo", "mpi")}}


def run_sections(directory: Path, process: int, report: dict[str, Any], sections: Mapping[str, Section]) -> bool:
    """Runs a rank's sections and writes its report after each; stops at the first that fails.

    The other rank is then waiting in its own.

    Args:
        directory: gets `rank-PROCESS.json`.
        process: the launcher's number of this process: with something broken, two might claim to be rank 0.
        report: `rank`, `size` and what else is to be told.
        sections: by name.

    Returns:
        Whether all went well.
    """
    path = directory / f"rank-{process}.json"
    report.update({"pid": os.getpid(), "sections": {}, "error": None, "connections": []})
    write_json(path, report)
    for name, section in sections.items():
        try:
            report["sections"][name] = section()
        except Exception as error:  # noqa: BLE001 - whatever a broken image raises is the finding
            detail = short(traceback.format_exc())
            report["error"] = {"section": name, "reason": one_line(error), "detail": detail}
        report["connections"] = sorted({*report["connections"], *connections()})
        write_json(path, report)
        if report["error"] is not None:
            return False
    return True
