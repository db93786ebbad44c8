"""From runs and builds that this machine knows to the statements that are signed about an image."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path

from builder import __version__
from builder.attest import (
    EXTENSION,
    Checked,
    Environment,
    References,
    Resource,
    Subject,
    check_statement,
)
from builder.attest.provenance import Built, provenance
from builder.attest.reading import canonical, instant
from builder.builds import BuildRecord, lock_hashes
from builder.engine.connection import EngineInfo
from builder.errors import StateError
from builder.matrix import Cell, Level
from builder.matrix.forms import VERIFIED_SUFFIX
from builder.memory import Checked as Run
from builder.project import Project
from builder.render import Recipe

IMAGE_ID = "image-id"
"""The name of the subject that is an engine's own id of the image."""

PROC_DRIVER = Path("/proc/driver/nvidia/version")
"""Where NVIDIA's kernel module says its version."""

_DRIVER = re.compile(r"Kernel Module\s+(?:for \S+\s+)?(\d+(?:\.\d+)+)")
_KERNEL = re.compile(r"Linux-(.+?)-(?:x86_64|aarch64|ppc64le|s390x|riscv64|i686|armv7l)\b")
_COMMIT = re.compile(r"([0-9a-f]{40}|[0-9a-f]{64})(-dirty)?")
_DEVICE = "torch.gpu.device"


def subjects(image_id: str, *, repository: str = "", digest: str = "") -> tuple[Subject, ...]:
    """What a statement about an image is about: its manifest's digest in a repository, if it is in one, and its id."""
    own = Subject(name=IMAGE_ID, sha256=image_id.removeprefix("sha256:"))
    return (Subject(name=repository, sha256=digest.removeprefix("sha256:")), own) if digest else (own,)


def configuration(project: Project, recipe: Recipe, key: str | None = None) -> tuple[Resource, ...]:
    """The hashes of what decided the image: matrix file, lock files, rendered Dockerfile and, when known, the key.

    Raises:
        StateError: the matrix file cannot be read any more.
    """
    try:
        matrix = project.matrix.read_bytes()
    except OSError as error:
        raise StateError(f"{project.matrix} cannot be read: {error.strerror or error}") from error
    hashes = {
        # A file's name may have bytes that are no UTF-8, which no JSON can hold.
        os.fsencode(project.matrix.name).decode("utf-8", "replace"): hashlib.sha256(matrix).hexdigest(),
        **lock_hashes(project, recipe),
        "Dockerfile": hashlib.sha256(recipe.dockerfile.encode()).hexdigest(),
    }
    if key:
        hashes["key"] = key
    return tuple(Resource(name=name, sha256=value) for name, value in hashes.items())


def references(cell: Cell, repository: str = "") -> References:
    """The names that an image of a cell may bear, and what it must have reached for them.

    Args:
        repository: that holds the image, which may be a mirror of the cell's; empty for the cell's own.
    """
    place = repository or cell.repository
    plain = tuple(f"{place}:{tag}" for tag in (*cell.tags, *cell.aliases))
    return References(
        public=plain,
        verified=tuple(name + VERIFIED_SUFFIX for name in plain),
        public_level=cell.policy.public,
        verified_level=cell.policy.verified,
        max_age_days=cell.policy.max_age_days,
    )


def environment(run: Run, info: EngineInfo, *, driver_file: Path = PROC_DRIVER) -> Environment:
    """On what the suite ran: what the engine says of itself, and what was found in the container, whose kernel is the
    engine's.

    Args:
        driver_file: where the driver says its version; heeded for a run on a GPU of this machine's own engine.
    """
    verdict = run.run.verdict
    facts = verdict.facts
    kernel = _KERNEL.match(facts.platform) if facts else None
    on_gpu = verdict.level >= Level.GPU
    measured = next((check.measured for check in verdict.checks if check.name == _DEVICE), {})
    return Environment(
        engine=info.version,
        kernel=kernel[1] if kernel else "",
        architecture=info.architecture,
        cpu=facts.cpu if facts else "",
        cpus=info.cpus,
        memory_bytes=info.memory_bytes,
        gpus=_gpus(measured) if on_gpu else (),
        driver=_driver(driver_file) if on_gpu and info.local else "",
        cuda=_cuda(measured.get("driver_cuda")) if on_gpu else "",
        user=run.user,
        device=run.device or "",
    )


def check_of(
    run: Run,
    *,
    about: tuple[Subject, ...],
    where: Environment,
    stated: datetime,
    project: Project | None = None,
    recipe: Recipe | None = None,
    key: str | None = None,
    repository: str = "",
    reused: str | None = None,
    url: str = "",
) -> bytes:
    """The statement on a run of the suite.

    Args:
        run: what was found, when, and in which image.
        about: the image; another than the run's where the result is reused.
        where: on what it ran.
        stated: now.
        project, recipe: of the cell that the image was held to; None for an image that was held to none.
        key: the cell's content key; None when it is not known.
        repository: as for `references`.
        reused: SHA-256 of the statement on the run, where `about` is another image.
        url: of the CI job; empty for none.
    """
    verdict = run.run.verdict
    held = project is not None and recipe is not None
    return check_statement(
        Checked(
            subjects=about,
            verdict=verdict,
            reached=verdict.reached,
            suite_sha256=run.run.suite_sha256,
            started=run.when - timedelta(seconds=run.run.seconds),
            finished=run.when,
            stated=max(stated, run.when),
            cell=recipe.cell.id if recipe is not None else "",
            configuration=configuration(project, recipe, key) if held and project and recipe else (),
            environment=where,
            content=run.content,
            references=references(recipe.cell, repository) if recipe is not None else References(),
            reused=reused,
            url=url,
        )
    )


def provenance_of(record: BuildRecord, cell: Cell, info: EngineInfo, *, about: tuple[Subject, ...]) -> bytes:
    """The statement on a build that this machine remembers.

    Args:
        record: the build.
        cell: the cell that it was for.
        info: the engine's.
        about: the image.
    """
    commit = _COMMIT.fullmatch(record.revision)
    files = {**record.files, **record.locks}
    return provenance(
        Built(
            subjects=about,
            cell=record.cell or cell.id,
            axes=cell.axes,
            interpreter=cell.interpreter,
            repository=cell.repository,
            key=record.key,
            dockerfile=record.dockerfile,
            base=record.base,
            base_name=cell.base.image,
            files=tuple(Resource(name=name, sha256=value) for name, value in sorted(files.items())),
            commit=commit[1] if commit else "",
            dirty=bool(commit and commit[2]),
            version=__version__,
            engine=info.version,
            platform=f"{info.os}/{info.architecture}",
            started=instant(record.started),
            finished=instant(record.finished),
        )
    )


def job_url(environ: Mapping[str, str]) -> str:
    """The address of the CI job that this is, as its system says; empty outside of one."""
    server, repository, run = (environ.get(f"GITHUB_{name}", "") for name in ("SERVER_URL", "REPOSITORY", "RUN_ID"))
    if server and repository and run:
        return f"{server}/{repository}/actions/runs/{run}"
    return environ.get("CI_JOB_URL", "") or environ.get("BUILDKITE_BUILD_URL", "")


def same_but_for_time(one: bytes, other: bytes) -> bool:
    """Whether two statements on runs of the suite say the same, whenever they were made."""
    return _timeless(one) == _timeless(other)


def _timeless(statement: bytes) -> bytes:
    document: object = json.loads(statement)
    if isinstance(document, dict):
        predicate = document.get("predicate")
        own = predicate.get(EXTENSION) if isinstance(predicate, dict) else None
        if isinstance(own, dict):
            own.pop("stated", None)
        if isinstance(predicate, dict):
            # Another job that says the same of the same run says nothing new.
            predicate.pop("url", None)
    return canonical(document)


def _gpus(measured: Mapping[str, object]) -> tuple[str, ...]:
    text = measured.get("devices")
    try:
        found: object = json.loads(text) if isinstance(text, str) else None
    except ValueError:
        found = None
    return tuple(item for item in found if isinstance(item, str)) if isinstance(found, list) else ()


def _cuda(driver: object) -> str:
    """CUDA's version from the driver's number for it, 1000 major + 10 minor."""
    if not isinstance(driver, int) or isinstance(driver, bool) or driver < 1000:
        return ""
    return f"{driver // 1000}.{driver % 1000 // 10}"


def _driver(path: Path) -> str:
    try:
        match = _DRIVER.search(path.read_text(encoding="utf-8", errors="replace"))
    except OSError:
        return ""
    return match[1] if match else ""
