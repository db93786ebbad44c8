"""The evidence that a registry holds of one image, what of it counts, and what it comes to.

A level is reached when a trusted statement says so and no trusted statement of a later run says that a check failed: a
failure that was found last outweighs whatever passed before it, at every level. Run the check again to outweigh it in
turn. Which run is later is told by the clocks of the machines that checked. A clock that is wrong may make a run that
passed count for nothing, but never one that failed: neither its age nor a time that is still to come takes it away, and
only a run that ends later by what it says outweighs it. What failed when the image was held to a cell is outweighed
only by a run that is held to the same cell: one that is held to none asks for less, such as no package and no CUDA.

Evidence that does not count is kept beside, with the reason: nobody should have to guess why an image is not verified.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timezone

from builder.attest import PublicKey, Refusal, Refused, Verified, verify
from builder.attest.bundle import CAP
from builder.attest.claims import CheckStatement
from builder.attest.refusal import malformed
from builder.attest.statement import TEST_RESULT, References, TestResult
from builder.attest.trust import SKEW, too_old
from builder.engine.errors import NotInRegistry
from builder.errors import EvidenceRefused, NotVerified
from builder.matrix import Level
from builder.registry.artifacts import BUNDLE_PREDICATE, BUNDLE_TYPE, Artifact, attached, payload
from builder.registry.client import RepositoryLike


@dataclass(frozen=True, kw_only=True)
class Trusted:
    """Evidence that counts, and the artifact that it came in."""

    artifact: str
    verified: Verified

    @property
    def check(self) -> CheckStatement | None:
        """What it says of a run of the suite, when that is what it is about."""
        return self.verified.check


@dataclass(frozen=True, kw_only=True)
class Doubtful:
    """Evidence that does not count.

    Attributes:
        artifact: that it came in.
        claimed: what it says that it is.
        why: it does not count.
        aged: the same as evidence that counts, where nothing but its age speaks against it; else None.
    """

    artifact: str
    claimed: str
    why: Refused
    aged: Trusted | None = None


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """All that is attached to an image.

    Attributes:
        reference: the repository, with the digest.
        digest: of the image's manifest.
        trusted: what counts; statements on checks come first, the latest run first.
        doubtful: what does not.
    """

    reference: str
    digest: str
    trusted: tuple[Trusted, ...]
    doubtful: tuple[Doubtful, ...]

    @property
    def checks(self) -> tuple[CheckStatement, ...]:
        """The trusted statements on runs of the suite, the latest run first."""
        return tuple(item.check for item in self.trusted if item.check is not None)

    @property
    def failure(self) -> CheckStatement | None:
        """The last run in which something failed: what passed before it does not count any more. One that no later run
        outweighs goes before one that is outweighed.
        """
        failed = [check for check in self.checks if check.result is TestResult.FAILED]
        return next((check for check in failed if not self._outweighed(check)), failed[0] if failed else None)

    def failed_since(self, when: datetime) -> bool:
        """Whether trusted evidence says of a run that ended in this second or later that something failed."""
        second = when.replace(microsecond=0)
        return any(check.result is TestResult.FAILED and check.finished >= second for check in self.checks)

    def _outweighed(self, failed: CheckStatement) -> bool:
        """Whether a later run passed that was held to as much."""
        checks = self.checks
        return any(
            check.result is not TestResult.FAILED and check.reached is not None and failed.cell in ("", check.cell)
            for check in checks[: checks.index(failed)]
        )

    @property
    def best(self) -> CheckStatement | None:
        """The run that reached the highest level since the last failure, the latest of several; None without one, and
        while a failure is not outweighed.
        """
        if self.failure is not None and not self._outweighed(self.failure):
            return None
        found: CheckStatement | None = None
        for check in self.checks:
            if check.result is TestResult.FAILED:
                break
            if check.reached is not None and (found is None or found.reached is None or found.reached < check.reached):
                found = check
        return found

    @property
    def stated(self) -> References | None:
        """What the latest statement about a cell lets the image be called, and for what; None without one. A run that
        failed gives no names.
        """
        about = [
            check
            for check in self.checks
            if check.result is not TestResult.FAILED and (check.references.public or check.references.verified)
        ]
        # By when it was said, not by when the suite ran: a policy that changed says so about the same run again.
        return max(about, key=lambda check: check.stated).references if about else None

    def within_age(self, days: int | None, *, now: datetime | None = None) -> Evidence:
        """Without the runs that ended more days ago, apart from those that failed.

        Args:
            days: None for what the latest statement about a cell allows, for a machine that has no matrix.
            now: the time to count from; None for this machine's clock.
        """
        if days is None and self.stated is not None:
            days = self.stated.max_age_days
        at = now or datetime.now(timezone.utc)
        trusted: list[Trusted] = []
        doubtful = list(self.doubtful)
        for item in self.trusted:
            late = too_old(item.check, days, at) if item.check is not None else None
            if late is None:
                trusted.append(item)
            else:
                doubtful.append(Doubtful(artifact=item.artifact, claimed=TEST_RESULT, why=late, aged=item))
        return replace(self, trusted=tuple(trusted), doubtful=tuple(doubtful))

    def in_its_time(self) -> Evidence:
        """Without the failures that were outweighed, if all were, by a run that has become too old since. For what is
        said of an image, and not for what it may be called: what failed counts until a run passes that still counts.
        """
        aged = [item.aged for item in self.doubtful if item.aged is not None]
        if self.best is not None or replace(self, trusted=ordered([*self.trusted, *aged])).best is None:
            return self
        kept = (item for item in self.trusted if item.check is None or item.check.result is not TestResult.FAILED)
        return replace(self, trusted=tuple(kept))

    @property
    def reached(self) -> Level | None:
        """The level that the image has reached by what counts; None when it reached none."""
        return self.best.reached if self.best else None


def gather(
    repository: RepositoryLike,
    digest: str,
    keys: Iterable[PublicKey],
    *,
    max_age_days: int | None = None,
    now: datetime | None = None,
) -> Evidence:
    """Reads what is attached to an image, and decides what of it counts.

    Args:
        repository: that holds the image.
        digest: `sha256:…` of its manifest.
        keys: those that are trusted; without one nothing counts.
        max_age_days: how old a check may be; None for any age.
        now: the time to count from; None for this machine's clock.

    Raises:
        RegistryError: the registry refused, or gave other bytes than those of a digest.
    """
    known = tuple(keys)
    trusted: list[Trusted] = []
    doubtful: list[Doubtful] = []
    for artifact in attached(repository, digest, BUNDLE_TYPE):
        try:
            found = verify(_bundle(repository, artifact), known, subject_digest=digest, now=now)
        except Refused as refused:
            claimed = artifact.annotations.get(BUNDLE_PREDICATE, "")
            doubtful.append(Doubtful(artifact=artifact.digest, claimed=claimed, why=refused))
        else:
            trusted.append(Trusted(artifact=artifact.digest, verified=found))
    evidence = Evidence(
        reference=f"{repository.name}@{digest}",
        digest=digest,
        trusted=ordered(trusted),
        doubtful=tuple(doubtful),
    )
    return evidence if max_age_days is None else evidence.within_age(max_age_days, now=now)


def ordered(items: Iterable[Trusted]) -> tuple[Trusted, ...]:
    """Statements on checks first, the latest run before earlier ones."""
    return tuple(sorted(items, key=_latest_first))


def require(evidence: Evidence, level: Level, *, now: datetime | None = None) -> CheckStatement:
    """The run by which an image has reached a level.

    Args:
        now: this moment, for what is said of a failure that is still to come; None for this machine's clock.

    Raises:
        NotVerified: what counts does not reach it: there is none, it is not enough, or a check failed since.
        EvidenceRefused: nothing counts, and what is there was refused.
    """
    best = evidence.best
    if best is not None and best.reached is not None and not best.reached < level:
        return best
    evidence = evidence.in_its_time()
    if not evidence.checks:
        for item in evidence.doubtful:
            if item.why.refusal is Refusal.NO_TRUSTED_KEY:
                raise item.why
        if evidence.doubtful:
            reasons = sorted({item.why.message for item in evidence.doubtful})
            raise EvidenceRefused(
                f"no evidence of {evidence.reference} counts: {reasons[0]}",
                hint="\n  ".join([*reasons[1:], *_hints(evidence.doubtful)]),
            )
        raise NotVerified(
            f"nothing says that {evidence.reference} was checked",
            hint="`imgbuild check --image REPO@DIGEST --attach` checks it, and `imgbuild publish` what was built here",
        )
    uncounted = sorted({f"does not count: {item.why.message}" for item in evidence.doubtful})
    failed = evidence.failure
    uncounted += _still_to_come(evidence, (now or datetime.now(timezone.utc)) + SKEW)
    held = f"{failed.cell} " if failed is not None and failed.cell and best is None else ""
    again = f"imgbuild check {held}--image {evidence.reference} --level {level.value} --attach"
    raise NotVerified(
        f"{evidence.reference} is not verified at {level.value}: {_shortfall(evidence, level)}",
        hint="\n  ".join([*uncounted, f"`{again}` checks it"]),
    )


def covering(evidence: Evidence, *, suite: str, level: Level, device: str | None, cell: str) -> Trusted | None:
    """The trusted run that makes another one needless; None when there is none, or something failed since.

    Args:
        evidence: of the image, gathered with the age that is allowed.
        suite: SHA-256 of the suite that would run.
        level: up to which it would run.
        device: the kind of device that it would run on; None when nobody can say, and then nothing is needless.
        cell: that the image would be held to; empty for none, and then one that was held to any counts.
    """
    for item in evidence.trusted:
        check = item.check
        if check is None or check.result is TestResult.FAILED or device is None:
            return None
        same = (check.suite, check.level, check.environment.device) == (suite, level, device)
        if same and check.result is TestResult.PASSED and cell in ("", check.cell):
            return item
    return None


def not_run_by_reason(
    check: CheckStatement, *, above: Level | None = None, up_to: Level | None = None
) -> Mapping[str, tuple[str, ...]]:
    """What did not run, of the checks above one level and up to another, or of all: names by reason."""
    reasons: dict[str, list[str]] = {}
    for item in check.not_run:
        if (above is None or above < item.level) and (up_to is None or not up_to < item.level):
            reasons.setdefault(item.reason, []).append(item.name)
    return {reason: tuple(names) for reason, names in reasons.items()}


def _shortfall(evidence: Evidence, level: Level) -> str:
    failed, best = evidence.failure, evidence.best
    if failed is not None and best is None:
        name = failed.failed[0] if failed.failed else "a check"
        reason = failed.failures.get(name, "no reason is given")
        return f"it failed on {failed.finished:%Y-%m-%d %H:%M} UTC: {name}: {reason}"
    last = best or evidence.checks[0]
    reached = last.reached.value if last.reached else "no level"
    since = f" since it failed on {failed.finished:%Y-%m-%d %H:%M} UTC" if failed else ""
    missing = not_run_by_reason(last, above=last.reached, up_to=level)
    lacks = "; ".join(f"{', '.join(names)}: {reason}" for reason, names in missing.items())
    return f"it reached {reached}{since}" + (f". Not run: {lacks}" if lacks else "")


def _still_to_come(evidence: Evidence, after: datetime) -> Iterator[str]:
    """How to be rid of failures that end later than any run can, as their machines' clocks were ahead."""
    for item in evidence.trusted:
        if item.check is None or item.check.result is not TestResult.FAILED or item.check.finished <= after:
            continue
        artifact = f"{evidence.reference.partition('@')[0]}@{item.artifact}"
        yield (
            f"by its machine's clock the run that failed ended on {item.check.finished:%Y-%m-%d %H:%M} UTC, which is "
            f"still to come: it counts until a run ends later, or until its artifact {artifact} is deleted from the "
            f"registry, for example with `oras manifest delete {artifact}`, where the registry allows that"
        )


def _hints(doubtful: Iterable[Doubtful]) -> list[str]:
    return sorted({item.why.hint for item in doubtful if item.why.hint})


def _latest_first(item: Trusted) -> tuple[bool, float, bool, str]:
    check = item.check
    if check is None:
        return (True, 0.0, True, item.artifact)
    # Of two runs that ended in one second, the failure is the one to heed.
    return (False, -check.finished.timestamp(), check.result is not TestResult.FAILED, item.artifact)


def _bundle(repository: RepositoryLike, artifact: Artifact) -> bytes:
    """An artifact's bundle. One that is not there, or is no bundle by its size, must not hide the others."""
    if artifact.payload.size > CAP:
        raise malformed(f"it has {artifact.payload.size:,} bytes, more than the {CAP:,} of a bundle")
    try:
        return payload(repository, artifact, cap=CAP)
    except NotInRegistry as error:
        raise malformed(f"its content is missing in the registry: {error}") from error
