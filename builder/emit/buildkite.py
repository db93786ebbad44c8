"""Jobs as Buildkite pipelines, for `buildkite-agent pipeline upload`.

Buildkite takes 500 jobs from one upload, so more jobs are several documents, to be uploaded in their order: the last
one holds the gate, which depends on the groups of all of them. The text is JSON, which is YAML too.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from builder.emit.jobs import CELLS_TEXT, PROMOTION, Job, chunks
from builder.emit.records import RECORDS, RUNS
from builder.errors import ConfigError

JOBS_PER_UPLOAD = 500
_CLOSING = 2
"""The gate and the promotion, which are jobs too."""


def buildkite(jobs: Sequence[Job]) -> tuple[str, ...]:
    """The documents, one for each upload: a group for each environment; at the end the gate and the promotion.

    Raises:
        ConfigError: the gate cannot name so many jobs.
    """
    ids = " ".join(job.id for job in jobs)
    if len(ids) > CELLS_TEXT:
        raise ConfigError(
            f"{len(jobs)} jobs are more than one gate can name",
            where="--format buildkite",
            hint="pack cells with --max-jobs N, or let each of several pipelines take a part with --shard I/N",
        )
    pieces = chunks(jobs, JOBS_PER_UPLOAD - _CLOSING) or ((),)
    keys: list[object] = []
    documents = []
    for number, piece in enumerate(pieces, 1):
        groups: dict[str, list[object]] = {}
        for job in piece:
            groups.setdefault(job.environment, []).append(_step(job))
        steps: list[object] = []
        for place, (name, group) in enumerate(groups.items(), 1):
            key = f"images-{number}-{place}"
            keys.append(key)
            steps.append({"group": name, "key": key, "steps": group})
        if number == len(pieces):
            steps += _closing(ids, keys)
        what = f"upload {number} of {len(pieces)}, {sum(len(job.cells) for job in piece)} cells in {len(piece)} jobs"
        comment = f"# Written by `imgbuild matrix --format buildkite`: {what}."
        documents.append(f"{comment}\n{json.dumps({'steps': steps}, indent=2)}\n")
    return tuple(documents)


def _step(job: Job) -> object:
    return {
        "label": job.name,
        "key": f"job-{job.id}",
        "command": "imgbuild ci run",
        "env": {"IMGBUILD_JOB": job.id, "IMGBUILD_CELLS": job.argument},
        "artifact_paths": [f"{RECORDS}/*.json", f"{RECORDS}/{RUNS}/**/*"],
    }


def _closing(ids: str, keys: Sequence[object]) -> list[object]:
    if not ids:
        return [{"label": "gate", "key": "gate", "command": "imgbuild ci gate --jobs ''"}]
    download = f'buildkite-agent artifact download "{RECORDS}/*.json" .'
    return [
        {
            "label": "gate",
            "key": "gate",
            # A step whose dependency failed does not run, and Buildkite then fails the build.
            "depends_on": list(keys),
            "env": {"IMGBUILD_JOBS": ids},
            "command": [download, "imgbuild ci gate"],
        },
        {
            "label": "promote",
            "key": "promote",
            "depends_on": ["gate"],
            "env": {"IMGBUILD_JOBS": ids},
            "command": [download, "imgbuild ci promote"],
            # The group is the organization's. In order, each would wait for all of the builds that began before it.
            "concurrency": 1,
            "concurrency_group": PROMOTION,
            "concurrency_method": "eager",
        },
    ]
