"""Evidence for people and for programs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from builder.attest import TEST_RESULT, Verified
from builder.attest.claims import CheckStatement
from builder.attest.reading import rfc3339
from builder.release.evidence import Evidence, not_run_by_reason

SCHEMA = "imgbuild.evidence/1"

_KINDS = {
    TEST_RESULT: "check",
    "https://slsa.dev/provenance/v1": "provenance",
    "https://cyclonedx.org/bom": "sbom",
}


def kind_of(predicate_type: str) -> str:
    """A short word for what a statement is, or its own type."""
    return _KINDS.get(predicate_type, predicate_type or "unknown")


def to_document(evidence: Evidence) -> Mapping[str, object]:
    """What `imgbuild evidence --format json` prints."""
    return {
        "schema": SCHEMA,
        "image": evidence.reference,
        "digest": evidence.digest,
        "reached": evidence.reached.value if evidence.reached else None,
        "trusted": [
            {
                "artifact": item.artifact,
                "kind": kind_of(item.verified.predicate_type),
                "predicate_type": item.verified.predicate_type,
                "signed_by": item.verified.key_id,
                "key": item.verified.key.origin or None,
                "statement": item.verified.sha256,
                "check": _check(item.check) if item.check else None,
            }
            for item in evidence.trusted
        ],
        "doubtful": [
            {
                "artifact": item.artifact,
                "claimed": item.claimed or None,
                "refused": item.why.refusal.value,
                "reason": item.why.message,
            }
            for item in evidence.doubtful
        ],
    }


def to_lines(evidence: Evidence) -> Iterator[str]:
    """What `imgbuild evidence` prints."""
    yield evidence.reference
    yield f"level: {evidence.reached.value if evidence.reached else 'none'}"
    if evidence.failure is not None:
        yield f"it failed on {evidence.failure.finished:%Y-%m-%d %H:%M} UTC; what passed before that does not count"
    for item in evidence.trusted:
        yield ""
        if item.check is None:
            yield f"{kind_of(item.verified.predicate_type)} {_by(item.verified)}"
        else:
            yield from _check_lines(item.check, item.verified)
    for doubtful in evidence.doubtful:
        yield ""
        yield f"does not count: {kind_of(doubtful.claimed)} {doubtful.artifact[:19]}…"
        yield f"    {doubtful.why.message}"


def _by(verified: Verified) -> str:
    origin = f" ({verified.key.origin})" if verified.key.origin else ""
    return f"signed by {verified.key_id}{origin}"


def _check_lines(check: CheckStatement, verified: Verified) -> Iterator[str]:
    cell = f" as {check.cell}" if check.cell else ""
    again = f", reused from statement {check.reused[:12]}…" if check.reused else ""
    yield f"check {check.result.value}{cell}, level {check.reached.value if check.reached else 'none'}{again}"
    yield f"    {_by(verified)}"
    seconds = (check.finished - check.started).total_seconds()
    yield f"    ran on {check.finished:%Y-%m-%d %H:%M} UTC in {seconds:.0f} s, suite {check.suite[:12]}…"
    where = check.environment
    machine = (
        where.device,
        *where.gpus,
        f"driver {where.driver}" if where.driver else "",
        f"CUDA {where.cuda}" if where.cuda else "",
        f"{where.cpus} × {where.cpu}" if where.cpu else "",
        f"kernel {where.kernel}" if where.kernel else "",
        f"Docker {where.engine}" if where.engine else "",
        f"as {where.user}" if where.user else "",
    )
    yield f"    on {', '.join(item for item in machine if item) or 'a machine that nothing is said of'}"
    yield f"    {len(check.passed)} checks passed"
    for name in check.failed:
        yield f"    failed: {name}: {check.failures.get(name, '')}"
    for reason, names in not_run_by_reason(check).items():
        yield f"    not run: {', '.join(names)}: {reason}"
    for name, losses in check.losses.items():
        yield f"    {name}: loss {losses.first:.3f} to {losses.last:.3f} in {losses.steps} steps"


def _check(check: CheckStatement) -> Mapping[str, object]:
    return {
        "result": check.result.value,
        "level": check.level.value,
        "reached": check.reached.value if check.reached else None,
        "cell": check.cell or None,
        "suite": check.suite,
        "started": rfc3339(check.started),
        "finished": rfc3339(check.finished),
        "passed": list(check.passed),
        "failed": [{"name": name, "reason": check.failures.get(name, "")} for name in check.failed],
        "not_run": [{"name": item.name, "level": item.level.value, "reason": item.reason} for item in check.not_run],
        "reasons": list(check.reasons),
        "reused": check.reused,
        "device": check.environment.device or None,
        "gpus": list(check.environment.gpus),
        "losses": {
            name: {"first": item.first, "last": item.last, "steps": item.steps} for name, item in check.losses.items()
        },
        "durations": dict(check.durations),
        "references": {
            "public": list(check.references.public),
            "verified": list(check.references.verified),
            "max_age_days": check.references.max_age_days,
        },
    }
