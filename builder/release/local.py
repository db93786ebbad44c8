"""The evidence that this machine itself holds of an image of its engine: the bundles in the directories of its runs."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from builder.attest import PublicKey, Refusal, Refused, verify
from builder.attest.bundle import CAP
from builder.check import content_id
from builder.engine.connection import Engine
from builder.engine.errors import ImageMissing
from builder.engine.images import inspect
from builder.release.evidence import Doubtful, Evidence, Trusted, ordered
from builder.release.ledger import BUNDLE_FILE
from builder.runs import Stored, latest, runs_directory
from builder.site import Site


def gather_local(
    site: Site,
    reference: str,
    keys: Iterable[PublicKey],
    *,
    max_age_days: int | None = None,
    now: datetime | None = None,
) -> Evidence:
    """What the runs on this machine say of an image of the engine, or of another one with the same content.

    Args:
        site: this machine's settings.
        reference: the image's name or id.
        keys, max_age_days, now: as `evidence.gather`.

    Raises:
        ImageMissing: the engine holds no such image.
        EngineUnavailable: no engine answers.
        StateError: the runs cannot be read.
    """
    with Engine.connect(site.engine) as engine:
        image = inspect(engine, reference)
    if image is None:
        raise ImageMissing(
            f"this engine holds no image {reference}",
            hint="name the registry to see what is attached there; that of Docker Hub is docker.io",
        )
    known, content = tuple(keys), content_id(image)
    trusted: list[Trusted] = []
    doubtful: list[Doubtful] = []
    for run in latest(runs_directory(site.state_dir), image_id=image.id, content_id=content):
        try:
            # The statement is about the image that the suite ran in; one of the same content is as good.
            found = verify(_bundle(run), known, subject_digest=run.run.image_id, max_age_days=max_age_days, now=now)
        except Refused as refused:
            doubtful.append(Doubtful(artifact=run.path.name, claimed="", why=refused))
            continue
        if run.run.image_id != image.id and (found.check is None or found.check.content != content):
            # The run's own record is not signed: what makes the two images one must stand in the statement.
            other = Refused(Refusal.OTHER_SUBJECT, f"the evidence is about {run.run.image_id}, with other content")
            doubtful.append(Doubtful(artifact=run.path.name, claimed=found.predicate_type, why=other))
            continue
        trusted.append(Trusted(artifact=run.path.name, verified=found))
    return Evidence(reference=reference, digest=image.id, trusted=ordered(trusted), doubtful=tuple(doubtful))


def _bundle(run: Stored) -> bytes:
    try:
        with (run.path / BUNDLE_FILE).open("rb") as stream:
            return stream.read(CAP + 1)
    except OSError:
        raise Refused(
            Refusal.SIGNATURES,
            f"the run {run.path} is not signed: {run.run.status.value}, "
            f"level {run.run.reached.value if run.run.reached else 'none'}",
            hint="with a `signing-key` in the site settings every check signs a statement",
        ) from None
