"""Jobs as outputs of a GitHub step.

GitHub takes 256 jobs from one matrix, and 1 MB (of UTF-16) for one output of a job. A matrix of groups, each of which
calls a reusable workflow with a matrix of its own, reaches 256 times 256.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from builder.emit.jobs import Job, chunks
from builder.errors import ConfigError

JOBS_PER_MATRIX = 256
OUTPUT_BYTES = 1 << 20

_ADVICE = "pack cells with --max-jobs N, or let each of several workflows take a part with --shard I/N"


def github(jobs: Sequence[Job]) -> str:
    """Lines for `$GITHUB_OUTPUT`, each of the form `name=value`:

    - `has_jobs`: `true` or `false`, for an `if:`, because GitHub refuses an empty matrix;
    - `groups`: `{"include": [{"id", "name", "matrix"}]}`, one entry for up to 256 jobs, whose `matrix` is JSON text;
    - `matrix`: `{"include": [{"id", "name", "cells"}]}`, all jobs; only when one matrix can hold them.

    Raises:
        ConfigError: more jobs than groups of matrices hold, or more text than an output takes.
    """
    if len(jobs) > JOBS_PER_MATRIX**2:
        raise ConfigError(
            f"{len(jobs)} jobs are more than the {JOBS_PER_MATRIX**2} that nested matrices hold",
            where="--format github",
            hint=_ADVICE,
        )
    groups = chunks(jobs, JOBS_PER_MATRIX)
    digits = len(str(len(groups)))
    outer = [
        {
            "id": f"group-{number:0{digits}d}",
            "name": f"{number} of {len(groups)}",
            "matrix": _compact({"include": [_row(job) for job in group]}),
        }
        for number, group in enumerate(groups, 1)
    ]
    outputs = {"has_jobs": "true" if jobs else "false", "groups": _compact({"include": outer})}
    if len(jobs) <= JOBS_PER_MATRIX:
        outputs["matrix"] = _compact({"include": [_row(job) for job in jobs]})
    for name, value in outputs.items():
        size = len(value.encode("utf-16-le"))
        if size > OUTPUT_BYTES:
            raise ConfigError(
                f"the output `{name}` would have {size / OUTPUT_BYTES:.1f} MB in UTF-16, and GitHub takes 1",
                where="--format github",
                hint=_ADVICE,
            )
    return "\n".join(f"{name}={value}" for name, value in outputs.items())


def _row(job: Job) -> dict[str, str]:
    # No registry and no repository: GitHub drops an output in which it finds a masked value, the owner's name maybe.
    return {"id": job.id, "name": job.name, "cells": job.argument}


def _compact(value: Mapping[str, object]) -> str:
    return json.dumps(value, separators=(",", ":"))
