"""Publishes the image of one cell: in its registry, proven, with its evidence, and under the names that it has earned.

In this order, so that nobody ever sees a name on an image without its evidence:

1. the candidate is pushed, unless the registry has it, and everything after goes by its digest;
2. the digest is proven to be the image that was checked;
3. statements are signed and attached to the digest, those that are not attached yet;
4. what is attached is read back and verified, and the names are put by what that says.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone

from builder.attest import MEDIA_TYPE, PublicKey, SigningKey, sign, statement_sha256
from builder.attest.claims import parse_statement
from builder.attest.reading import rfc3339
from builder.engine.errors import EngineError
from builder.errors import ImgbuildError
from builder.matrix import Level
from builder.registry.artifacts import BUNDLE_CONTENT, BUNDLE_PREDICATE, BUNDLE_TYPE, CREATED, attach
from builder.registry.client import RepositoryLike
from builder.registry.images import put_image
from builder.registry.values import Descriptor
from builder.release.evidence import Evidence, gather
from builder.release.promotion import Name, Promotion, promote
from builder.release.show import kind_of
from builder.release.statements import same_but_for_time

SCHEMA = "imgbuild.publication/1"

assert MEDIA_TYPE == BUNDLE_TYPE


@dataclass(frozen=True, kw_only=True)
class Attached:
    """A statement beside an image.

    Attributes:
        kind: `check`, `provenance` or `sbom`.
        statement: its SHA-256.
        artifact: the digest of the artifact that it is in.
        new: whether it was attached now.
    """

    kind: str
    statement: str
    artifact: str
    new: bool


@dataclass(frozen=True, kw_only=True)
class Publication:
    """What came of one cell.

    Attributes:
        cell: its id.
        exit_code: 0, or the code of what went wrong.
        reasons: what went wrong, or is not as one could wish; the most important first.
        reference: the candidate, by its tag; empty when there is none.
        digest: of the image in its registry; empty when it is not there.
        image_id: the engine's.
        pushed: whether it was pushed now.
        attached: its statements.
        reached: the level that it has reached by what counts of its evidence.
        promotion: of its names; None when none was made.
    """

    cell: str
    exit_code: int = 0
    reasons: tuple[str, ...] = ()
    reference: str = ""
    digest: str = ""
    image_id: str = ""
    pushed: bool = False
    attached: tuple[Attached, ...] = ()
    reached: Level | None = None
    promotion: Promotion | None = None

    @property
    def changed(self) -> bool:
        """Whether anything in the registry is different than before."""
        moved = self.promotion is not None and bool(self.promotion.moved)
        return self.pushed or moved or any(item.new for item in self.attached)

    @property
    def status(self) -> str:
        """`published`, `unchanged`, or `failed`."""
        if self.exit_code:
            return "failed"
        return "published" if self.changed else "unchanged"

    def to_lines(self) -> Iterable[str]:
        """What a reader sees."""
        digest = f" {self.digest}" if self.digest else ""
        yield f"{self.status:<10} {self.cell}{digest}"
        yield from (f"    {reason}" for reason in self.reasons)
        if self.digest:
            yield f"    {'pushed' if self.pushed else 'there already'}: {self.reference}"
        for item in self.attached:
            yield f"    {'attached' if item.new else 'attached already'}: {item.kind}, statement {item.statement[:12]}…"
        if self.promotion is not None:
            yield f"    level: {self.promotion.level.value}"
            yield from (f"    moved: {reference}" for reference in self.promotion.moved)
            yield from (f"    unchanged: {reference}" for reference in self.promotion.unchanged)
            yield from (f"    withheld: {reference}: {reason}" for reference, reason in self.promotion.withheld)

    def to_document(self) -> Mapping[str, object]:
        """The same for programs."""
        done = self.promotion
        return {
            "cell": self.cell,
            "status": self.status,
            "exit_code": self.exit_code,
            "reasons": list(self.reasons),
            "candidate": self.reference or None,
            "digest": self.digest or None,
            "image_id": self.image_id or None,
            "pushed": self.pushed,
            "attached": [
                {"kind": item.kind, "statement": item.statement, "artifact": item.artifact, "new": item.new}
                for item in self.attached
            ],
            "reached": self.reached.value if self.reached else None,
            "moved": list(done.moved) if done else [],
            "unchanged": list(done.unchanged) if done else [],
            "withheld": [{"reference": name, "reason": reason} for name, reason in done.withheld] if done else [],
        }


def to_json(publications: Iterable[Publication], exit_code: int) -> str:
    """What `imgbuild publish --format json` prints."""
    cells = [item.to_document() for item in publications]
    return json.dumps({"schema": SCHEMA, "exit_code": exit_code, "cells": cells}, indent=2)


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """An image that is to be published.

    Attributes:
        cell: the cell's id.
        reference: its immutable name, with a tag.
        image_id: the engine's id of the image that passed.
        os, architecture: of the image.
        push: pushes it under `reference`; gives the digest that the engine says.
        make: the statements about it once its digest is known, by predicate type; one that is not known is left out.
        lacking: why a statement is not made, one line each.
        names: that it may bear, in the order in which they are put.
        max_age_days: how old a check may be; None for any age.
    """

    cell: str
    reference: str
    image_id: str
    os: str
    architecture: str
    push: Callable[[], str]
    make: Mapping[str, Callable[[str], bytes]]
    lacking: tuple[str, ...] = ()
    names: tuple[Name, ...] = ()
    max_age_days: int | None = None

    @property
    def tag(self) -> str:
        """The tag in `reference`."""
        return self.reference.rpartition(":")[2]


@dataclass(frozen=True, kw_only=True)
class Publisher:
    """Publishes candidates with one key.

    Attributes:
        key: signs.
        trusted: whose evidence counts, the key's own public half among them.
        names: whether names are put at all.
        note: is told what is being done, by cell.
    """

    key: SigningKey
    trusted: tuple[PublicKey, ...]
    names: bool = True
    note: Callable[[str, str], None] = field(default=lambda cell, text: None)

    def publish(self, repository: RepositoryLike, candidate: Candidate) -> Publication:
        """Publishes an image. The same again does nothing.

        Raises:
            RegistryError: the registry refused, or holds another image under the candidate's name.
            EngineError: the engine could not push.

        What keeps a pushed image from its names, such as a later failure in its evidence, is in what is returned.
        """
        subject, pushed = self._put(repository, candidate)
        attached = self._attach(repository, subject, candidate)
        evidence = gather(repository, subject.digest, self.trusted, max_age_days=candidate.max_age_days)
        done = Publication(
            cell=candidate.cell,
            reasons=candidate.lacking,
            reference=candidate.reference,
            digest=subject.digest,
            image_id=candidate.image_id,
            pushed=pushed,
            attached=attached,
            reached=evidence.reached,
        )
        if not self.names or not candidate.names:
            return done
        try:
            return replace(done, promotion=promote(repository, evidence, candidate.names))
        except (ImgbuildError, EngineError) as error:
            said = tuple(text for text in (error.message, error.hint) if text)
            return replace(done, exit_code=error.exit_code, reasons=(*said, *candidate.lacking))

    def _put(self, repository: RepositoryLike, candidate: Candidate) -> tuple[Descriptor, bool]:
        """Makes sure that the registry has the image; returns its manifest, proven, and whether it was pushed now."""

        def push() -> str:
            self.note(candidate.cell, f"pushing {candidate.reference}")
            return candidate.push()

        found, pushed = put_image(
            repository,
            candidate.tag,
            push,
            image_id=candidate.image_id,
            os=candidate.os,
            architecture=candidate.architecture,
        )
        return found.subject, pushed

    def _attach(self, repository: RepositoryLike, subject: Descriptor, candidate: Candidate) -> tuple[Attached, ...]:
        """Attaches the statements that are not there yet, signed with this very key."""
        own = gather(repository, subject.digest, (self.key.public,))
        return tuple(
            _already(own, predicate, make, subject.digest)
            or attach_statement(repository, subject, make(subject.digest), self.key)
            for predicate, make in candidate.make.items()
        )


def attach_statement(repository: RepositoryLike, subject: Descriptor, statement: bytes, key: SigningKey) -> Attached:
    """Signs a statement and attaches it to an image.

    Raises:
        RegistryError: the registry refused.
    """
    predicate = parse_statement(statement).predicate_type
    made = attach(
        repository,
        subject,
        artifact_type=BUNDLE_TYPE,
        payload=sign(statement, key),
        payload_type=BUNDLE_TYPE,
        annotations={
            BUNDLE_CONTENT: "dsse-envelope",
            BUNDLE_PREDICATE: predicate,
            CREATED: rfc3339(datetime.now(timezone.utc)),
        },
    )
    return Attached(kind=kind_of(predicate), statement=statement_sha256(statement), artifact=made.digest, new=True)


def _already(own: Evidence, predicate: str, make: Callable[[str], bytes], digest: str) -> Attached | None:
    """What says the same already; None when nothing does."""
    there = [item for item in own.trusted if item.verified.predicate_type == predicate]
    if not there:
        return None
    # An SBOM takes reading the whole image, and one digest has one content.
    wanted = make(digest) if kind_of(predicate) != "sbom" else None
    for item in there:
        if wanted is None or same_but_for_time(item.verified.payload, wanted):
            return Attached(kind=kind_of(predicate), statement=item.verified.sha256, artifact=item.artifact, new=False)
    return None
