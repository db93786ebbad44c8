"""Puts the names that an image has earned on its digest, in its registry: nothing is built, pulled or sent again.

The names and the levels that they need are those of the signed evidence, so that a machine that only checks and
promotes needs no matrix.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from builder.attest.claims import CheckStatement
from builder.engine.reference import InvalidReference, Reference
from builder.errors import ConfigError
from builder.matrix import Level
from builder.matrix.forms import VERIFIED_SUFFIX
from builder.registry.client import RepositoryLike
from builder.registry.images import name
from builder.release.evidence import Evidence, require


@dataclass(frozen=True, kw_only=True)
class Name:
    """A reference, and the level that an image needs to bear it."""

    reference: str
    level: Level


@dataclass(frozen=True, kw_only=True)
class Promotion:
    """What came of a promotion.

    Attributes:
        digest: of the image.
        level: the one that the image has reached by what counts.
        by: the statement that says so.
        moved: references that now name the digest and did not before.
        unchanged: references that named it already.
        withheld: references that it has not earned, each with the reason.
    """

    digest: str
    level: Level
    by: CheckStatement
    moved: tuple[str, ...]
    unchanged: tuple[str, ...]
    withheld: tuple[tuple[str, str], ...]


def names_of(evidence: Evidence) -> tuple[Name, ...]:
    """The names that the latest statement about a cell gives the image, public ones before the verified ones."""
    for check in evidence.checks:
        given = check.references
        if given.public or given.verified:
            public = [Name(reference=item, level=given.public_level) for item in given.public]
            return (*public, *(Name(reference=item, level=given.verified_level) for item in given.verified))
    return ()


def promote(
    repository: RepositoryLike, evidence: Evidence, names: Iterable[Name], *, level: Level | None = None
) -> Promotion:
    """Names an image by what its evidence allows.

    Args:
        repository: that holds the image.
        evidence: of the image; only what counts in it is heeded.
        names: wanted, in the order in which they are put; the strongest claim last.
        level: what the image must have reached for any name to move; None for the lowest that a name needs.

    Raises:
        NotVerified: it has not reached the level.
        EvidenceRefused: there is evidence, and none of it counts.
        ConfigError: a name is in another repository, or there is none.
        RegistryError: the registry refused, or a name does not read back as the digest. Names before it have moved;
            the same promotion again completes it.
    """
    wanted = tuple(names)
    if not wanted:
        require(evidence, level or Level.STATIC)
        raise ConfigError(
            f"no name is known for {evidence.reference}: no trusted statement about a cell names one",
            hint="name one with --tag",
        )
    for item in wanted:
        if _repository(item.reference) != repository.name:
            raise ConfigError(
                f"{item.reference} is in another repository than {evidence.reference}",
                hint="name the image as its evidence does, or give the tags with --tag",
            )
    by = require(evidence, level or min(item.level for item in wanted))
    assert by.reached is not None
    moved, unchanged, withheld = [], [], []
    for item in wanted:
        if by.reached < item.level:
            reason = f"it needs level {item.level.value}, and {by.reached.value} is reached"
            withheld.append((item.reference, reason))
            continue
        tag = item.reference.rpartition(":")[2]
        held = repository.manifest(tag)
        if held is not None and held.digest == evidence.digest:
            unchanged.append(item.reference)
            continue
        name(repository, evidence.digest, tag)
        moved.append(item.reference)
    return Promotion(
        digest=evidence.digest,
        level=by.reached,
        by=by,
        moved=tuple(moved),
        unchanged=tuple(unchanged),
        withheld=tuple(withheld),
    )


def promoted_lines(done: Promotion) -> Iterator[str]:
    """What came of a promotion, a line for each name."""
    yield from (f"moved     {reference} {done.digest}" for reference in done.moved)
    yield from (f"unchanged {reference} {done.digest}" for reference in done.unchanged)
    yield from (f"withheld  {reference}: {reason}" for reference, reason in done.withheld)


def chosen(tags: Iterable[str], repository: str, evidence: Evidence, level: Level | None) -> Iterator[Name]:
    """Names for tags that somebody gave on the command line.

    One that ends in `-verified` needs no less than what the latest trusted statement about a cell says, whatever
    level was asked for.

    Raises:
        ConfigError: a tag is malformed.
    """
    stated = next((check.references for check in evidence.checks if check.references.public), None)
    public = stated.public_level if stated else Level.CPU
    verified = stated.verified_level if stated else Level.GPU
    for tag in tags:
        reference = f"{repository}:{tag}"
        try:
            Reference(repository=repository, tag=tag)
        except InvalidReference as error:
            raise ConfigError(str(error), where="--tag") from None
        needed = level or public
        if tag.endswith(VERIFIED_SUFFIX):
            needed = max(needed, verified)
        yield Name(reference=reference, level=needed)


def _repository(reference: str) -> str:
    return reference.rpartition(":")[0]
