"""Whom the check runs as, how confined, and what this user may read."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from builder.checks.contract import Measured, check, expect, fail
from builder.checks.groups.static import _imports
from builder.checks.groups.static._packages import shown


@check(
    "static.user",
    level="static",
    deadline=270,
    catches="What only root may read or do, an entrypoint that changes the user, a container confined less than asked.",
)
def run(state: Any) -> Measured:
    request = state.request
    for name, found in (("uid", os.getuid()), ("gid", os.getgid())):
        wanted = request.get(name)
        if wanted is not None:
            expect(found == wanted, f"the check runs with {name} {found}, {wanted} was asked for")
    if request.get("read_only"):
        flags = os.statvfs("/").f_flag
        expect(bool(flags & os.ST_RDONLY), "the root file system is writable")
    status = Path("/proc/self/status").read_text(encoding="utf-8", errors="replace")
    rows = (line.split(":", 1) for line in status.splitlines() if ":" in line)
    table = {key: value.strip() for key, value in rows}
    if request.get("confined"):
        # A sandbox with a kernel of its own may tell nothing of either.
        capabilities = int(table.get("CapEff") or "0", 16)
        expect(capabilities == 0, f"the check has capabilities ({capabilities:#x}), none were asked for")
        expect(table.get("NoNewPrivs", "1") == "1", "programs may gain privileges, which was to be prevented")
    files = state.files
    unreadable = [shown(path, files.roots) for path in files.unreadable]
    more = f" (and {len(unreadable) - 1} more)" if len(unreadable) > 1 else ""
    expect(not unreadable, f"user {os.getuid()} may not read {''.join(unreadable[:1])}{more}", files=unreadable[:10])
    for one in state.imports:
        if one.blame == _imports.USER:
            fail(f"importing {one.module} needs rights that user {os.getuid()} has not: {one.error}", detail=one.detail)
    return {
        "uid": os.getuid(),
        "gid": os.getgid(),
        "capabilities": table.get("CapEff", ""),
        "no_new_privileges": table.get("NoNewPrivs", ""),
        "files": files.count,
    }
