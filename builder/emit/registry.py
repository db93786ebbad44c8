"""Candidates between an engine and a registry, and tags in the registry.

Pulling and pushing are the docker command's; which digest a name has is asked of the registry itself, before and after.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from builder.emit.manifests import Manifests
from builder.emit.records import CellRecord
from builder.engine.auth import DockerLogins
from builder.engine.connection import Engine
from builder.engine.errors import NotInRegistry, RegistryError
from builder.engine.images import inspect, registry_digest
from builder.errors import ConfigError
from builder.matrix.forms import VERIFIED_SUFFIX

AT_ONCE = 8
"""Requests to a registry at once."""

_PATIENCE = 3600.0
"""Seconds for one pull or push of an image."""


def held_digest(engine: Engine, reference: str) -> str | None:
    """The digest that the registry has under a name; None when it has none, or does not let us see one.

    A login that is missing will show itself when something is pushed.

    Raises:
        RegistryError: the registry failed, or none answered.
    """
    try:
        return registry_digest(engine, reference, DockerLogins())
    except NotInRegistry:
        return None


def fetch(engine: Engine, candidates: Iterable[str]) -> Iterator[str]:
    """Pulls those candidates that their registry holds, and names them.

    An image that passed before is then found by its key and only checked again, and what is promoted stays the very
    digest that is there.
    """
    for candidate in candidates:
        if held_digest(engine, candidate):
            _docker("pull", "--quiet", candidate)
            yield candidate


def push(engine: Engine, cell: CellRecord) -> CellRecord:
    """Pushes the candidate of a cell; returns its record with the digest.

    Raises:
        RegistryError: the registry refused, or holds another image under this name, which is never replaced.
    """
    held = held_digest(engine, cell.candidate)
    if held is None:
        _docker("push", "--quiet", cell.candidate)
        digest = registry_digest(engine, cell.candidate, DockerLogins())
        if not _is(engine, cell.candidate, digest):
            raise RegistryError(f"{cell.candidate} does not read back as what was pushed: {digest}")
        return replace(cell, digest=digest)
    if not _is(engine, cell.candidate, held):
        raise RegistryError(
            f"the registry holds another image as {cell.candidate}: {held}",
            hint="another run pushed it meanwhile; run this job again, and it will take and check that one",
        )
    return replace(cell, digest=held)


def _is(engine: Engine, reference: str, digest: str) -> bool:
    """Whether the engine's image was pushed or pulled as this digest, in whatever way the engine writes its name."""
    image = inspect(engine, reference)
    return image is not None and any(name.endswith(f"@{digest}") for name in image.digests)


def promote(engine: Engine, cells: Iterable[CellRecord], *, ca_bundle: Path | None = None) -> Iterator[str]:
    """Names digests in their registry, public references before the verified ones; yields a line for each.

    Raises:
        RegistryError: a candidate is no longer the digest that passed (then nothing was named), or a name does not
            read back as its digest.
    """
    cells = tuple(cells)
    with ThreadPoolExecutor(max_workers=AT_ONCE, thread_name_prefix="registry") as pool:
        held = pool.map(lambda cell: held_digest(engine, cell.candidate), cells)
        for cell, now in zip(cells, held, strict=True):
            if now != cell.digest:
                raise RegistryError(
                    f"{cell.candidate} is {now or 'not in the registry'}, and {cell.digest} passed the check",
                    hint="nothing was promoted; run the jobs again",
                )
        for verified in (False, True):
            names = [(name, cell) for cell in cells for name in cell.references if _verified(name) is verified]
            yield from pool.map(lambda pair: _name(engine, pair[0], pair[1], ca_bundle), names)


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


def _verified(reference: str) -> bool:
    return reference.endswith(VERIFIED_SUFFIX)


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
