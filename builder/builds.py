"""Where images come from: labels that say so, and what this machine remembers of its builds, for statements."""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import re
import subprocess
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from builder.engine import fields
from builder.lock.file import BASE_SUFFIX, LOCKS, PYTHON_SUFFIX, environment_name, locks_of
from builder.plan import Action
from builder.project import Project
from builder.records import Records
from builder.render import Recipe

REVISION_LABEL = "org.opencontainers.image.revision"
"""The image label that carries the project's commit."""

SOURCE_LABEL = "org.opencontainers.image.source"
"""The image label that carries the address of the project's repository."""

BUILDS = "builds"
"""The kind of record that remembers how images were built here, by image id."""


def source_labels(project: Project) -> Mapping[str, str]:
    """Labels outside the key: when an image was made, and from which commit of what, where the project is a checkout.

    The revision is `git describe`'s: 40 hexadecimal digits, with `-dirty` when tracked files were changed since. The
    source is the address of its remote `origin`, without credentials. There is neither for the matrix that imgbuild
    ships, or for one that git does not track.
    """
    created = datetime.datetime.now(datetime.timezone.utc).replace(microsecond=0)
    labels = {"org.opencontainers.image.created": created.isoformat().replace("+00:00", "Z")}
    if not project.shipped and _git(project.root, "ls-files", "--error-unmatch", project.matrix.name):
        revision = _git(project.root, "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")
        if revision:
            labels[REVISION_LABEL] = revision
        source = public_address(_git(project.root, "remote", "get-url", "origin"))
        if source:
            labels[SOURCE_LABEL] = source
    return labels


def public_address(remote: str) -> str:
    """A git remote as a URL without credentials; empty for a path, which says nothing elsewhere.

    `git@example.org:team/project.git`, the form of scp, becomes `ssh://git@example.org/team/project.git`.
    """
    scp = re.fullmatch(r"([\w.-]+@[\w.-]+):(?!/)(\S+)", remote)
    if scp:
        return f"ssh://{scp[1]}/{scp[2]}"
    url = re.fullmatch(r"(https?|ssh|git)://(?:([^/@\s:]*)[^/\s]*@)?([^\s?#]+)\S*", remote)
    if not url:
        return ""
    # What stands before the host is a name for ssh, and may be a token for anything else.
    user = f"{url[2]}@" if url[1] == "ssh" and url[2] else ""
    return f"{url[1]}://{user}{url[3]}"


def _git(directory: Path, *arguments: str) -> str:
    """What git says, or nothing where there is no git or no repository."""
    command = ["git", "-C", str(directory), *arguments]
    try:
        # A path in what git says may have bytes that are no UTF-8.
        ran = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace", timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return ran.stdout.strip() if ran.returncode == 0 else ""


@dataclass(frozen=True, kw_only=True)
class BuildRecord:
    """How an image was built on this machine: what a statement about its origin is made of.

    Attributes:
        image_id: the image.
        key: its content key.
        cell: the cell's id.
        started, finished: UTC, ISO 8601.
        base: what the base counts as in the key.
        base_reference, base_source: which image that was, and whether of a registry or made here.
        template: the template's path below `dockerfiles/`.
        dockerfile: SHA-256 in hex of the rendered Dockerfile.
        files: SHA-256 in hex of each file that the Dockerfile takes from the context, by path.
        locks: SHA-256 in hex of each lock file that was used, by its name.
        revision: the project's commit, as the image's label says it; empty when unknown.
    """

    image_id: str
    key: str
    cell: str
    started: str
    finished: str
    base: str
    base_reference: str
    base_source: str
    template: str
    dockerfile: str
    files: Mapping[str, str]
    locks: Mapping[str, str]
    revision: str


def remember_build(
    records: Records,
    project: Project,
    action: Action,
    image_id: str,
    *,
    started: datetime.datetime,
    finished: datetime.datetime,
    labels: Mapping[str, str],
) -> BuildRecord:
    """Writes down how an image was built.

    Args:
        records: where.
        project: whose lock files were used.
        action: what was built; its base and key are known.
        image_id: what came of it.
        started, finished: with their time zone.
        labels: what the image got outside its key.

    Raises:
        StateError: it cannot be written.
    """
    recipe, base = action.recipe, action.base
    record = BuildRecord(
        image_id=image_id,
        key=action.key or "",
        cell=action.cell.id,
        started=_stamp(started),
        finished=_stamp(finished),
        base=base.identity if base else "",
        base_reference=base.reference if base else "",
        base_source=base.source.value if base else "",
        template=action.cell.framework.template,
        dockerfile=hashlib.sha256(recipe.dockerfile.encode()).hexdigest(),
        files={file.path: hashlib.sha256(file.data).hexdigest() for file in recipe.files},
        locks=lock_hashes(project, recipe),
        revision=labels.get(REVISION_LABEL, ""),
    )
    records.put(BUILDS, image_id, asdict(record))
    return record


def recall_build(records: Records, image_id: str) -> BuildRecord | None:
    """How an image was built here; None when it was not, or nothing is remembered of it."""
    document = records.get(BUILDS, image_id)
    if document is None or document.get("image_id") != image_id:
        return None

    def text(name: str) -> str:
        return fields.text(document.get(name))

    return BuildRecord(
        image_id=image_id,
        key=text("key"),
        cell=text("cell"),
        started=text("started"),
        finished=text("finished"),
        base=text("base"),
        base_reference=text("base_reference"),
        base_source=text("base_source"),
        template=text("template"),
        dockerfile=text("dockerfile"),
        files=fields.text_mapping(document.get("files")),
        locks=fields.text_mapping(document.get("locks")),
        revision=text("revision"),
    )


def lock_hashes(project: Project, recipe: Recipe) -> Mapping[str, str]:
    """SHA-256 in hex, by name, of the lock files that a cell's recipe and base come from.

    A file that neither the project nor imgbuild has is left out.
    """
    locks, found = locks_of(project), {}
    names = [recipe.cell.base.name + BASE_SUFFIX]
    if recipe.locked is not None:
        names.append(environment_name(recipe.cell) + PYTHON_SUFFIX)
    for name in names:
        for root in (locks.directory, project.shipped_dockerfiles / LOCKS):
            with contextlib.suppress(OSError):
                found[name] = hashlib.sha256((root / name).read_bytes()).hexdigest()
                break
    return found


def _stamp(when: datetime.datetime) -> str:
    return when.astimezone(datetime.timezone.utc).isoformat(timespec="seconds").replace("+00:00", "Z")
