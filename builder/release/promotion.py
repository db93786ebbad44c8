"""Puts the names that an image has earned on its digest, in its registry: nothing is built, pulled or sent again.

The names and the levels that they need are those of the signed evidence, so that a machine that only checks and
promotes needs no matrix.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from builder.attest.claims import CheckStatement
from builder.attest.statement import References
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
    given = evidence.stated
    return named(given) if given else ()


def named(given: References) -> tuple[Name, ...]:
    """The names of a cell with what each needs, public ones before the verified ones."""
    public = [Name(reference=item, level=given.public_level) for item in given.public]
    return (*public, *(Name(reference=item, level=given.verified_level) for item in given.verified))


def promote(
    repository: RepositoryLike, evidence: Evidence, names: Iterable[Name], *, level: Level | None = None
) -> Promotion:
    """Names an image by what its evidence allows.

    Args:
        repository: that holds the image.
        evidence: of the image; only what counts in it is heeded.
        names: wanted, in the order in which they are put; the strongest claim last.
        level: what the image must have reached for any name to move, beside the lowest that a name needs; None for
            that alone.

    Raises:
        NotVerified: it has not reached the level.
        EvidenceRefused: there is evidence, and none of it counts.
        ConfigError: a name is in another repository, or there is none.
        RegistryError: the registry refused, or a name does not read back as the digest. Names before it have moved;
            the same promotion again completes it.
    """
    wanted = tuple(names)
    by = earned(repository.name, evidence, wanted, level=level)
    assert by.reached is not None
    moved: list[str] = []
    unchanged: list[str] = []
    withheld: list[tuple[str, str]] = []
    for item in wanted:
        if by.reached < item.level:
            reason = f"it needs level {item.level.value}, and {by.reached.value} is reached"
            withheld.append((item.reference, reason))
            continue
        put = name(repository, evidence.digest, item.reference.rpartition(":")[2])
        (moved if put else unchanged).append(item.reference)
    return Promotion(
        digest=evidence.digest,
        level=by.reached,
        by=by,
        moved=tuple(moved),
        unchanged=tuple(unchanged),
        withheld=tuple(withheld),
    )


def earned(
    repository: str, evidence: Evidence, wanted: tuple[Name, ...], *, level: Level | None = None
) -> CheckStatement:
    """The run by which an image has earned at least one of the names; nothing is moved.

    Args:
        repository: that holds the image.
        evidence, wanted, level: as for `promote`.

    Raises:
        NotVerified, EvidenceRefused, ConfigError: as for `promote`.
    """
    if not wanted:
        require(evidence, level or Level.STATIC)
        raise ConfigError(
            f"no name is known for {evidence.reference}: no trusted statement about a cell names one",
            hint="name one with --tag",
        )
    for item in wanted:
        if item.reference.rpartition(":")[0] != repository:
            raise ConfigError(
                f"{item.reference} is in another repository than {evidence.reference}",
                hint="name the image as its evidence does, or give the tags with --tag",
            )
    lowest = min(item.level for item in wanted)
    return require(evidence, max(lowest, level or lowest))


def promoted_lines(done: Promotion) -> Iterator[str]:
    """What came of a promotion, a line for each name."""
    yield from (f"moved     {reference} {done.digest}" for reference in done.moved)
    yield from (f"unchanged {reference} {done.digest}" for reference in done.unchanged)
    yield from (f"withheld  {reference}: {reason}" for reference, reason in done.withheld)


def chosen(tags: Iterable[str], repository: str, evidence: Evidence, level: Level | None) -> Iterator[Name]:
    """Names for tags that somebody gave on the command line.

    A tag that the latest trusted statement about a cell gives the image needs what that says, and one that ends in
    `-verified` no less than the cell's, whatever level was asked for.

    Raises:
        ConfigError: a tag is malformed.
    """
    stated = evidence.stated or References()
    known = {item.reference: item.level for item in named(stated)}
    for tag in tags:
        reference = f"{repository}:{tag}"
        try:
            Reference(repository=repository, tag=tag)
        except InvalidReference as error:
            raise ConfigError(str(error), where="--tag") from None
        needed = level or stated.public_level
        needed = max(needed, known.get(reference, needed))
        if tag.endswith(VERIFIED_SUFFIX):
            needed = max(needed, stated.verified_level)
        yield Name(reference=reference, level=needed)
