"""Images with evidence in a repository in memory, for the tests of what they may be called."""

from __future__ import annotations

import json
from datetime import timedelta

from attesting import NOW, checked, verdict
from memory_repository import MemoryRepository

from builder.attest import References, SigningKey, Subject, check_statement, sign
from builder.check import VerdictStatus
from builder.matrix import Level
from builder.registry.artifacts import BUNDLE_CONTENT, BUNDLE_PREDICATE, BUNDLE_TYPE, attach
from builder.registry.values import Manifest

REPOSITORY = "registry.example/team/image"

NAMES = References(
    public=(f"{REPOSITORY}:1.0", f"{REPOSITORY}:latest"),
    verified=(f"{REPOSITORY}:1.0-verified", f"{REPOSITORY}:latest-verified"),
    public_level=Level.CPU,
    verified_level=Level.GPU,
)


def statement(
    digest: str,
    *,
    reached: Level | None = Level.CPU,
    level: Level | None = None,
    days: float = 0.5,
    cell: str = "a-cell",
    names: References = NAMES,
    failed: bool = False,
    **changes: object,
) -> bytes:
    """A statement on a run that ended some days before NOW."""
    asked = level or reached or Level.CPU
    found = verdict(level=asked)
    if failed:
        from attesting import outcome

        from builder.check import Status

        found = verdict(
            VerdictStatus.FAILED, (outcome("torch.train.amp", Status.FAILED, reason="NaN"),), ("NaN",), level=asked
        )
        reached = None
    finished = NOW - timedelta(days=days)
    values: dict[str, object] = {
        "subjects": (Subject(name=REPOSITORY, sha256=digest.removeprefix("sha256:")),),
        "verdict": found,
        "reached": reached,
        "started": finished - timedelta(minutes=1),
        "finished": finished,
        "stated": finished,
        "cell": cell,
        "references": names,
    }
    return check_statement(checked(**{**values, **changes}))


def put(repository: MemoryRepository, image: Manifest, made: bytes, key: SigningKey, *, tamper: bool = False) -> str:
    """Signs a statement and attaches it; returns the artifact's digest."""
    bundle = sign(made, key)
    if tamper:
        import base64

        document = json.loads(bundle)
        payload = base64.b64decode(document["dsseEnvelope"]["payload"]).replace(b'"cpu"', b'"gpu"')
        document["dsseEnvelope"]["payload"] = base64.b64encode(payload).decode()
        bundle = json.dumps(document).encode()
    return attach(
        repository,
        image.descriptor,
        artifact_type=BUNDLE_TYPE,
        payload=bundle,
        payload_type=BUNDLE_TYPE,
        annotations={
            BUNDLE_CONTENT: "dsse-envelope",
            BUNDLE_PREDICATE: "https://in-toto.io/attestation/test-result/v0.1",
        },
    ).digest
