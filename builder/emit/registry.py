"""Candidates between an engine and a registry, and tags in the registry.

Pulling and pushing are the engine's; which digest a name has is asked of the registry itself, before and after.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from builder.attest import PublicKey
from builder.emit.records import CellRecord
from builder.engine.auth import DockerLogins
from builder.engine.connection import Engine
from builder.engine.errors import NotInRegistry, RegistryError
from builder.engine.images import inspect, registry_digest
from builder.engine.transfer import pull
from builder.engine.transfer import push as push_image
from builder.errors import ConfigError
from builder.matrix import Level
from builder.matrix.forms import VERIFIED_SUFFIX
from builder.registry.client import Repository
from builder.registry.images import name as put_name
from builder.release.evidence import Evidence, gather, require
from builder.release.promotion import Name, names_of, promoted_lines
from builder.release.promotion import promote as promote_image

AT_ONCE = 8
"""Requests to a registry at once."""


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
            pull(engine, candidate, DockerLogins())
            yield candidate


def push(engine: Engine, cell: CellRecord) -> CellRecord:
    """Pushes the candidate of a cell; returns its record with the digest.

    Raises:
        RegistryError: the registry refused, or holds another image under this name, which is never replaced.
    """
    held = held_digest(engine, cell.candidate)
    if held is None:
        pushed = push_image(engine, cell.candidate, DockerLogins())
        digest = registry_digest(engine, cell.candidate, DockerLogins())
        if digest != pushed:
            raise RegistryError(f"{cell.candidate} does not read back as what was pushed, {pushed}, but as {digest}")
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
                raise _moved(cell, now)
        for verified in (False, True):
            names = [(name, cell) for cell in cells for name in cell.references if _verified(name) is verified]
            yield from pool.map(lambda pair: _name(engine, pair[0], pair[1], ca_bundle), names)


def promote_by_evidence(
    cells: Iterable[CellRecord], keys: tuple[PublicKey, ...], *, ca_bundle: Path | None = None
) -> Iterator[str]:
    """Names digests in their registry by what signed evidence says of each; yields a line for each name.

    The records only say which digests to look at: what an image may be called, and what it reached, stand in its
    evidence. No engine is needed.

    Raises:
        RegistryError: a candidate is no longer the digest that passed, the registry refused, or a name does not read
            back as its digest.
        NotVerified, EvidenceRefused: the evidence of an image does not reach what its public names need.

    Nothing is named unless the evidence of every cell allows its public names.
    """
    with ExitStack() as opened:
        found: list[tuple[Repository, Evidence, tuple[Name, ...]]] = []
        for cell in cells:
            repository = opened.enter_context(Repository(_repository(cell.candidate), DockerLogins(), ca_bundle))
            held = repository.digest(cell.candidate.rpartition(":")[2])
            if held != cell.digest:
                raise _moved(cell, held)
            evidence = gather(repository, cell.digest, keys)
            names = names_of(evidence)
            require(evidence, min((name.level for name in names), default=Level.CPU))
            found.append((repository, evidence, names))
        for repository, evidence, names in found:
            yield from promoted_lines(promote_image(repository, evidence, names))


def _moved(cell: CellRecord, now: str | None) -> RegistryError:
    return RegistryError(
        f"{cell.candidate} is {now or 'not in the registry'}, and {cell.digest} passed the check",
        hint="nothing was promoted; run the jobs again",
    )


def _name(engine: Engine, reference: str, cell: CellRecord, ca_bundle: Path | None) -> str:
    before = held_digest(engine, reference)
    if before == cell.digest:
        return f"unchanged {reference} {cell.digest}"
    if _repository(reference) != _repository(cell.candidate):
        raise ConfigError(f"{reference} is in another repository than {cell.candidate}", where=cell.cell)
    with Repository(_repository(reference), DockerLogins(), ca_bundle) as repository:
        put_name(repository, cell.digest, reference.rpartition(":")[2])
    after = registry_digest(engine, reference, DockerLogins())
    if after != cell.digest:
        raise RegistryError(f"{reference} reads back as {after}, and not as {cell.digest}, which passed the check")
    return f"moved     {reference} {cell.digest}"


def _verified(reference: str) -> bool:
    return reference.endswith(VERIFIED_SUFFIX)


def _repository(reference: str) -> str:
    return reference.rpartition(":")[0]
