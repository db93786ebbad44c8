"""Candidates between an engine and a registry, and tags in the registry.

Pulling and pushing are the docker command's; which digest a name has is asked of the registry itself, before and after.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import click

from builder.emit.manifests import Manifests
from builder.emit.records import CellRecord
from builder.engine import fields
from builder.engine.auth import DockerLogins
from builder.engine.connection import Engine
from builder.engine.errors import RegistryError, RegistryUnreachable
from builder.engine.images import inspect, registry_digest
from builder.errors import ConfigError
from builder.matrix.forms import CANDIDATE_PREFIX, VERIFIED_SUFFIX

_PATIENCE = 3600.0
"""Seconds for one pull or push of an image."""


def held_digest(engine: Engine, reference: str) -> str | None:
    """The digest that the registry has under a name; None when it has none, or does not let us see one.

    Raises:
        RegistryUnreachable: no registry answered.
    """
    try:
        return registry_digest(engine, reference, DockerLogins())
    except RegistryUnreachable:
        raise
    except RegistryError:
        # Registries answer "denied" for a repository that does not exist yet; a login that is missing will show itself
        # when something is pushed.
        return None


def fetch(engine: Engine, plan: str) -> None:
    """Pulls the candidates that the registry holds for what a plan would build.

    An image that passed before is then found by its key and only checked again, and what is promoted stays the very
    digest that is there.

    Args:
        engine: pulls.
        plan: what `imgbuild build --dry-run --format json` printed.
    """
    try:
        document = fields.mapping(json.loads(plan))
    except ValueError as error:
        raise ConfigError(f"the plan is not JSON: {error}", where="imgbuild build --dry-run") from None
    for action in map(fields.mapping, fields.sequence(document.get("actions"))):
        key, tags = fields.text(action.get("key")), fields.texts(action.get("tags"))
        if not key or not tags or action.get("image_id"):
            continue
        candidate = f"{_repository(tags[0])}:{CANDIDATE_PREFIX}{key}"
        if held_digest(engine, candidate):
            _docker("pull", "--quiet", candidate)
            click.echo(f"pulled {candidate}")


def push(engine: Engine, cell: CellRecord) -> CellRecord:
    """Pushes the candidate of a cell; returns its record with the digest.

    Raises:
        RegistryError: the registry refused, or holds another image under this name, which is never replaced.
    """
    held = held_digest(engine, cell.candidate)
    if held is not None:
        image = inspect(engine, cell.candidate)
        if image is None or f"{_repository(cell.candidate)}@{held}" not in image.digests:
            raise RegistryError(
                f"the registry holds another image as {cell.candidate}: {held}",
                hint="another run pushed it meanwhile; run this job again, and it will take and check that one",
            )
        return replace(cell, digest=held)
    _docker("push", "--quiet", cell.candidate)
    digest = registry_digest(engine, cell.candidate, DockerLogins())
    image = inspect(engine, cell.candidate)
    if image is None or f"{_repository(cell.candidate)}@{digest}" not in image.digests:
        raise RegistryError(f"{cell.candidate} does not read back as what was pushed: {digest}")
    return replace(cell, digest=digest)


def promote(engine: Engine, cells: Iterable[CellRecord], *, ca_bundle: Path | None = None) -> Iterator[str]:
    """Names digests in their registry, public references before the verified ones; yields a line for each.

    Raises:
        RegistryError: a candidate is no longer the digest that passed (then nothing was named), or a name does not
            read back as its digest.
    """
    cells = tuple(cells)
    for cell in cells:
        now = held_digest(engine, cell.candidate)
        if now != cell.digest:
            raise RegistryError(
                f"{cell.candidate} is {now or 'not in the registry'}, and {cell.digest} passed the check",
                hint="nothing was promoted; run the jobs again",
            )
    for verified in (False, True):
        for cell in cells:
            for reference in cell.references:
                if reference.endswith(VERIFIED_SUFFIX) is verified:
                    yield _name(engine, reference, cell, ca_bundle)


def _name(engine: Engine, reference: str, cell: CellRecord, ca_bundle: Path | None) -> str:
    before = held_digest(engine, reference)
    if before == cell.digest:
        return f"unchanged {reference} {cell.digest}"
    if _repository(reference) != _repository(cell.candidate):
        raise ConfigError(f"{reference} is in another repository than {cell.candidate}", where=cell.cell)
    manifests = Manifests(repository=_repository(reference), logins=DockerLogins(), ca_bundle=ca_bundle)
    manifests.name(cell.digest, reference.rpartition(":")[2])
    after = registry_digest(engine, reference, DockerLogins())
    if after != cell.digest:
        raise RegistryError(f"{reference} reads back as {after}, and not as {cell.digest}, which passed the check")
    return f"moved     {reference} {cell.digest}"


def _repository(reference: str) -> str:
    return reference.rpartition(":")[0]


def _docker(*arguments: str) -> None:
    try:
        ran = subprocess.run(["docker", *arguments], capture_output=True, text=True, timeout=_PATIENCE, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise RegistryError(
            f"`docker {arguments[0]}` did not run: {error}", hint="install the docker command"
        ) from None
    if ran.returncode:
        said = (ran.stderr or ran.stdout).strip()
        raise RegistryError(f"`docker {' '.join(arguments)}` failed: {said}", hint="check `docker login`")
