"""Which evidence counts: signed with a trusted key, unchanged, about this very image, and not too old.

Nothing of a payload is read before its signature is verified. What is refused is refused for one reason, which is said.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone

from builder.attest.bundle import Bundle, parse
from builder.attest.claims import CheckStatement, Statement, parse_check, parse_statement
from builder.attest.dsse import IN_TOTO
from builder.attest.keys import PublicKey
from builder.attest.refusal import Refusal, Refused
from builder.attest.statement import TEST_RESULT, TestResult

SKEW = timedelta(hours=1)
"""How far ahead another machine's clock may be. Ages are counted in days, so an hour decides nothing."""

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


@dataclass(frozen=True, kw_only=True)
class Verified:
    """Evidence that counts.

    Attributes:
        statement: what was signed: subjects, and the predicate as decoded JSON.
        predicate_type: of the statement.
        key_id: of the trusted key whose signature it bears.
        key: that key.
        payload: the statement's bytes, as they were signed.
        sha256: of `payload`; other statements cite it by this.
        check: the statement on a run of the suite, when it is one.
    """

    statement: Statement
    predicate_type: str
    key: PublicKey
    payload: bytes
    check: CheckStatement | None

    @property
    def key_id(self) -> str:
        """The id of the key whose signature it bears."""
        return self.key.id

    @property
    def sha256(self) -> str:
        """The hash of the signed statement."""
        return hashlib.sha256(self.payload).hexdigest()


def verify(
    bundle: bytes,
    keys: Iterable[PublicKey],
    *,
    subject_digest: str,
    predicate_type: str | None = None,
    max_age_days: int | None = None,
    now: datetime | None = None,
) -> Verified:
    """Reads evidence and decides whether it counts.

    Args:
        bundle: a sigstore bundle.
        keys: those that are trusted.
        subject_digest: `sha256:…` of the image that it must be about.
        predicate_type: what it must be; None for any.
        max_age_days: refuses a check that ended longer ago. A reused result is as old as the run that it cites. One
            that failed is refused neither for its age nor for a time that is still to come.
        now: the time to count from; None for this machine's clock.

    Raises:
        Refused: it does not count; an `EvidenceRefused` that also names the reason for programs.
        ValueError: `subject_digest` is no SHA-256 digest.
    """
    if not _DIGEST.fullmatch(subject_digest):
        raise ValueError(f"{subject_digest!r} is no sha256 digest")
    wanted = subject_digest.removeprefix("sha256:")
    found = parse(bundle)
    key = _signed_by(found, tuple(keys))
    payload = found.envelope.payload
    statement = parse_statement(payload)
    if all(subject.sha256 != wanted for subject in statement.subjects):
        about = ", ".join(f"sha256:{subject.sha256[:12]}…" for subject in statement.subjects[:3])
        raise Refused(
            Refusal.OTHER_SUBJECT, f"the evidence is about another image: {about}, not {subject_digest[:19]}…"
        )
    if predicate_type is not None and statement.predicate_type != predicate_type:
        raise Refused(
            Refusal.OTHER_PREDICATE,
            f"the evidence is of type {statement.predicate_type}, expected {predicate_type}",
        )
    check = parse_check(statement) if statement.predicate_type == TEST_RESULT else None
    if check is not None:
        _in_time(check, max_age_days, now or datetime.now(timezone.utc))
    return Verified(statement=statement, predicate_type=statement.predicate_type, key=key, payload=payload, check=check)


def _signed_by(bundle: Bundle, keys: tuple[PublicKey, ...]) -> PublicKey:
    """The trusted key whose signature the bundle bears."""
    if not keys:
        raise Refused(
            Refusal.NO_TRUSTED_KEY,
            "no key is trusted here, so no evidence can count",
            hint="name public keys in `trusted-keys` of the site settings, in IMGBUILD_TRUSTED_KEYS or with --key",
        )
    envelope = bundle.envelope
    if envelope.payload_type != IN_TOTO:
        raise Refused(
            Refusal.PAYLOAD_TYPE, f"the evidence's payload is of type {envelope.payload_type!r}, expected {IN_TOTO!r}"
        )
    named = next((key for key in keys if key.id == bundle.hint), None)
    # The hint is not signed: it says whom to blame, not whom to trust. Other tools may write hints of their own.
    for key in (named,) if named is not None else keys:
        if key.verifies(envelope.signature, envelope.signed):
            return key
    if named is not None:
        raise Refused(
            Refusal.TAMPERED,
            f"the signature does not verify with the key {named.id} that the evidence names: the statement, its type "
            "or the signature was changed",
        )
    raise Refused(
        Refusal.OTHER_KEY,
        f"the evidence is signed with the key {bundle.hint or 'of no name'}, which is not trusted here",
        hint=f"trusted {'is' if len(keys) == 1 else 'are'} {', '.join(key.id for key in keys)}",
    )


def too_old(check: CheckStatement, max_age_days: int | None, now: datetime) -> Refused | None:
    """The refusal of a run that ended longer ago than is allowed; None of one that did not, or that failed: what was
    found broken stays so, however long ago that was, until a later run passes."""
    if (
        max_age_days is None
        or check.result is TestResult.FAILED
        or now - check.finished <= timedelta(days=max_age_days)
    ):
        return None
    return Refused(
        Refusal.TOO_OLD,
        f"the check ended on {check.finished:%Y-%m-%d}, {(now - check.finished).days} days ago; at most {max_age_days} "
        "are allowed",
        hint="`imgbuild check --recheck` runs it again",
    )


def _in_time(check: CheckStatement, max_age_days: int | None, now: datetime) -> None:
    # A failure counts whatever its clock says: else a machine with a wrong one could only ever find images good.
    if check.result is TestResult.FAILED:
        return
    if max(check.finished, check.stated) > now + SKEW:
        raise Refused(
            Refusal.IN_THE_FUTURE,
            f"the evidence is of {max(check.finished, check.stated):%Y-%m-%d %H:%M} UTC, which is still to come",
            hint="one of the two machines' clocks is wrong",
        )
    late = too_old(check, max_age_days, now)
    if late is not None:
        raise late
