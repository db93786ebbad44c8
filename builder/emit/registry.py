"""Candidates between an engine and a registry, and tags in the registry.

Pulling and pushing are the engine's, and so is asking what may be there; what was pushed and named is proven by the
registry's own bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace

from builder.attest import PublicKey
from builder.emit.records import CellRecord
from builder.engine.auth import DockerLogins
from builder.engine.connection import Engine
from builder.engine.errors import ImageMissing, NotInRegistry, RegistryError
from builder.engine.images import inspect, registry_digest
from builder.engine.transfer import pull
from builder.engine.transfer import push as push_image
from builder.errors import ConfigError
from builder.matrix.forms import VERIFIED_SUFFIX
from builder.registry.client import Repository
from builder.registry.images import name as put_name
from builder.registry.images import put_image
from builder.release.evidence import Evidence, gather
from builder.release.promotion import Name, earned, names_of, promoted_lines
from builder.release.promotion import promote as promote_image
from builder.release.remote import open_repository
from builder.site import Site

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


def push(engine: Engine, cell: CellRecord, site: Site) -> CellRecord:
    """Pushes the candidate of a cell; returns its record with the digest.

    Raises:
        ImageMissing: the engine does not hold it any more, or another image as it.
        RegistryError: the registry refused, or holds another image under this name, which is never replaced.
    """
    image = inspect(engine, cell.candidate)
    if image is None:
        raise ImageMissing(f"{cell.candidate} is no longer on the engine", hint="run this job again")
    if cell.image_id and image.id != cell.image_id:
        raise ImageMissing(
            f"{cell.candidate} is now {image.id}, and not the image that passed, {cell.image_id}",
            hint="another process gave that name away; run this job again",
        )
    with open_repository(_repository(cell.candidate), site) as repository:
        found, _ = put_image(
            repository,
            _tag(cell.candidate),
            lambda: push_image(engine, cell.candidate, DockerLogins()),
            image_id=image.id,
            os=image.os,
            architecture=image.architecture,
        )
    return replace(cell, digest=found.subject.digest)


def promote(cells: Iterable[CellRecord], site: Site) -> Iterator[str]:
    """Names digests in their registry, public references before the verified ones; yields a line for each.

    Raises:
        RegistryError: a candidate is no longer the digest that passed (then nothing was named), or a name does not
            read back as its digest.
        ConfigError: a name is in another repository than its candidate; then nothing was named.
    """
    cells = tuple(cells)
    for cell in cells:
        for reference in cell.references:
            if _repository(reference) != _repository(cell.candidate):
                raise ConfigError(f"{reference} is in another repository than {cell.candidate}", where=cell.cell)
    with ExitStack() as opened, ThreadPoolExecutor(max_workers=AT_ONCE, thread_name_prefix="registry") as pool:
        places = dict.fromkeys(_repository(cell.candidate) for cell in cells)
        there = {place: opened.enter_context(open_repository(place, site)) for place in places}

        def held(cell: CellRecord) -> str | None:
            return there[_repository(cell.candidate)].digest(_tag(cell.candidate))

        for cell, now in zip(cells, pool.map(held, cells), strict=True):
            if now != cell.digest:
                raise _moved(cell, now)

        def put(pair: tuple[str, str]) -> str:
            reference, digest = pair
            moved = put_name(there[_repository(reference)], digest, _tag(reference))
            return f"{'moved    ' if moved else 'unchanged'} {reference} {digest}"

        for verified in (False, True):
            names = [(name, cell.digest) for cell in cells for name in cell.references if _verified(name) is verified]
            yield from pool.map(put, names)


def promote_by_evidence(cells: Iterable[CellRecord], keys: tuple[PublicKey, ...], site: Site) -> Iterator[str]:
    """Names digests in their registry by what signed evidence says of each; yields a line for each name.

    The records only say which digests to look at: what an image may be called, what it reached, and how old that may
    be, stand in its evidence. No engine is needed.

    Raises:
        RegistryError: a candidate is no longer the digest that passed, the registry refused, or a name does not read
            back as its digest.
        NotVerified, EvidenceRefused: the evidence of an image does not reach what its public names need.
        ConfigError: the evidence of an image names it in another repository, or not at all.

    Nothing is named unless the evidence of every cell allows its public names.
    """
    with ExitStack() as opened:
        found: list[tuple[Repository, Evidence, tuple[Name, ...]]] = []
        places: dict[str, Repository] = {}
        for cell in cells:
            place = _repository(cell.candidate)
            if place not in places:
                places[place] = opened.enter_context(open_repository(place, site))
            repository = places[place]
            held = repository.digest(_tag(cell.candidate))
            if held != cell.digest:
                raise _moved(cell, held)
            evidence = gather(repository, cell.digest, keys)
            names = names_of(evidence)
            evidence = evidence.within_age(None)
            earned(repository.name, evidence, names)
            found.append((repository, evidence, names))
        for repository, evidence, names in found:
            yield from promoted_lines(promote_image(repository, evidence, names))


def _moved(cell: CellRecord, now: str | None) -> RegistryError:
    return RegistryError(
        f"{cell.candidate} is {now or 'not in the registry'}, and {cell.digest} passed the check",
        hint="nothing was promoted; run the jobs again",
    )


def _verified(reference: str) -> bool:
    return reference.endswith(VERIFIED_SUFFIX)


def _repository(reference: str) -> str:
    return reference.rpartition(":")[0]


def _tag(reference: str) -> str:
    return reference.rpartition(":")[2]
