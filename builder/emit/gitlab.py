"""Jobs as a GitLab child pipeline, for `trigger: include: artifact` with `strategy: depend`.

Each job is written out: `parallel: matrix` takes 200 entries and puts every value into the job's name, of which GitLab
keeps 255 characters. The text is JSON, which is YAML too: PyYAML takes a minute for 10,000 jobs without its C library.
How a job gets imgbuild, an engine and a login is the project's to say, in `.gitlab/imgbuild.yml`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from builder.emit.jobs import CELLS_TEXT, PROMOTION, Job
from builder.emit.records import RECORDS, RUNS
from builder.errors import ConfigError

JOBS = 200
"""How many jobs a child pipeline has at most unless `--max-jobs` asks for more."""

ARTIFACT_BYTES = 5_000_000
"""The largest artifact that GitLab takes as a child pipeline."""

SETTINGS = "/.gitlab/imgbuild.yml"
"""The project's file that defines `.imgbuild`, from which every job extends."""


def gitlab(jobs: Sequence[Job]) -> str:
    """The child pipeline: a job for each job, a gate that demands the record of each, and the promotion of the tags.

    Without jobs there is a gate alone, since GitLab refuses a pipeline without any.

    Raises:
        ConfigError: the pipeline is larger than GitLab takes.
    """
    ids = " ".join(job.id for job in jobs)
    document: dict[str, object] = {
        "include": [{"local": SETTINGS}],
        "stages": ["images", "gate", "promote"],
        ".cells": {
            "extends": ".imgbuild",
            "stage": "images",
            "script": ["imgbuild ci run"],
            "artifacts": {
                "when": "always",
                "paths": [f"{RECORDS}/"],
                "reports": {"junit": f"{RECORDS}/{RUNS}/*/junit.xml"},
            },
        },
        "gate": {
            "extends": ".imgbuild",
            "stage": "gate",
            "when": "always",
            "variables": {"IMGBUILD_JOBS": ids},
            # An empty variable counts as none.
            "script": ["imgbuild ci gate" + ("" if jobs else " --jobs ''")],
        },
    }
    if jobs:
        document["promote"] = {
            "extends": ".imgbuild",
            "stage": "promote",
            "resource_group": PROMOTION,
            "variables": {"IMGBUILD_JOBS": ids},
            "script": ["imgbuild ci promote"],
        }
    for job in jobs:
        document[job.name] = {
            "extends": ".cells",
            "variables": {"IMGBUILD_JOB": job.id, "IMGBUILD_CELLS": job.argument},
        }
    count = sum(len(job.cells) for job in jobs)
    comment = f"# Written by `imgbuild matrix --format gitlab`: {count} cells in {len(jobs)} jobs."
    text = f"{comment}\n{json.dumps(document, indent=2)}\n"
    if len(text) > ARTIFACT_BYTES or len(ids) > CELLS_TEXT:
        raise ConfigError(
            f"{len(jobs)} jobs are more than one child pipeline holds",
            where="--format gitlab",
            hint="pack cells with --max-jobs N, or trigger several child pipelines, each with --shard I/N",
        )
    return text
