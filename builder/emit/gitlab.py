"""Jobs as a GitLab child pipeline, for `trigger: include: artifact` with `strategy: depend`.

Each job is written out: `parallel: matrix` takes 200 entries and puts every value into the job's name, of which GitLab
keeps 255 characters. How a job gets imgbuild, an engine and a login is the project's to say, in `.gitlab/imgbuild.yml`.
"""

from __future__ import annotations

from collections.abc import Sequence

from builder.emit.jobs import CELLS_TEXT, Job
from builder.emit.text import Value, to_yaml
from builder.errors import ConfigError

JOBS = 200
"""How many jobs a child pipeline has at most unless `--max-jobs` asks for more."""

ARTIFACT_BYTES = 5_000_000
"""The largest artifact that GitLab takes as a child pipeline."""

SETTINGS = "/.gitlab/imgbuild.yml"
"""The project's file that defines `.imgbuild`, from which every job extends."""

RECORDS = "imgbuild-records"
"""The directory in which the jobs of all systems leave their records."""


def gitlab(jobs: Sequence[Job]) -> str:
    """The child pipeline: a job for each job, a gate that demands the record of each, and the promotion of the tags.

    Without jobs there is a gate alone, since GitLab refuses a pipeline without any.

    Raises:
        ConfigError: the pipeline is larger than GitLab takes.
    """
    ids = " ".join(job.id for job in jobs)
    document: dict[str, Value] = {
        "include": [{"local": SETTINGS}],
        "stages": ["images", "gate", "promote"],
        ".cells": {
            "extends": ".imgbuild",
            "stage": "images",
            "script": ["python3 -m builder.emit.steps run"],
            "artifacts": {"when": "always", "paths": [f"{RECORDS}/"]},
        },
        "gate": {
            "extends": ".imgbuild",
            "stage": "gate",
            "when": "always",
            "variables": {"IMGBUILD_JOBS": ids},
            # An empty variable counts as none.
            "script": ["python3 -m builder.emit.steps gate" + ("" if jobs else " --jobs ''")],
        },
    }
    if jobs:
        document["promote"] = {
            "extends": ".imgbuild",
            "stage": "promote",
            "variables": {"IMGBUILD_JOBS": ids},
            "script": ["python3 -m builder.emit.steps promote"],
        }
    for job in jobs:
        document[job.name] = {
            "extends": ".cells",
            "variables": {"IMGBUILD_JOB": job.id, "IMGBUILD_CELLS": job.argument},
        }
    count = sum(len(job.cells) for job in jobs)
    text = to_yaml(document, f"Written by `imgbuild matrix --format gitlab`: {count} cells in {len(jobs)} jobs.")
    if len(text) > ARTIFACT_BYTES or len(ids) > CELLS_TEXT:
        raise ConfigError(
            f"{len(jobs)} jobs are more than one child pipeline holds",
            where="--format gitlab",
            hint="pack cells with --max-jobs N, or trigger several child pipelines, each with --shard I/N",
        )
    return text
