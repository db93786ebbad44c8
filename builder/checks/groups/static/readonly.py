"""Imports on a root file system that nobody can write to."""

from __future__ import annotations

import os
from typing import Any

from builder.checks.contract import Measured, NotRun, check, fail
from builder.checks.groups.static import _imports


@check(
    "static.readonly",
    level="static",
    deadline=270,
    catches="A framework that must write into the image to be imported.",
)
def run(state: Any) -> Measured:
    if not os.statvfs("/").f_flag & os.ST_RDONLY:
        raise NotRun("the root file system of this container is writable")
    tried: list[str] = []
    for one in state.imports:
        if one.blame == _imports.READ_ONLY:
            fail(f"importing {one.module} writes to {one.path or 'the image'}: {one.error}", detail=one.detail)
        one.expect_imported(_imports.READ_ONLY)
        tried += one.writes
    return {"imported": [one.module for one in state.imports], "tried_in_vain": tried[:5]}
