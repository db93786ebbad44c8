"""One check of one image, with everything that its files say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone

from builder.check import CheckOutcome, CheckRun, Status, VerdictStatus
from builder.matrix import Level, Policy


@dataclass(frozen=True, kw_only=True)
class Run:
    """One check of one image.

    Attributes:
        name: the cell's id, or the reference of an image that was not held to a cell.
        image_id: of the image.
        content_id: of the image's layers and configuration; empty when unknown.
        digest: of the image's manifest in a registry; empty when it is in none.
        suite: SHA-256 of the suite, in hex.
        nonce: what the result had to repeat; empty when nothing was asked.
        level: up to which the suite was asked to go.
        reached: the highest level up to which everything required passed; None when there is none.
        policy: what the cell's tags need; None where there is no cell.
        status: of the verdict.
        reasons: why it did not pass, the worst first.
        unverified: what it lacks for `-verified` although it passed.
        checks: every check with its outcome, in the order in which they ran.
        environment: what it ran on, such as the engine and the processor, by name.
        started: when, UTC.
        seconds: how long the container ran.
    """

    name: str
    image_id: str
    content_id: str = ""
    digest: str = ""
    suite: str
    nonce: str
    level: Level
    reached: Level | None
    policy: Policy | None = None
    status: VerdictStatus
    reasons: tuple[str, ...]
    unverified: tuple[str, ...] = ()
    checks: tuple[CheckOutcome, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    started: datetime
    seconds: float

    def with_status(self, status: Status) -> tuple[CheckOutcome, ...]:
        """The checks of one status, in their order."""
        return tuple(check for check in self.checks if check.status is status)


def run_of(
    check: CheckRun,
    *,
    name: str,
    image_id: str,
    content_id: str = "",
    digest: str = "",
    policy: Policy | None = None,
    environment: Mapping[str, str] | None = None,
    started: datetime | None = None,
) -> Run:
    """What `check_image` returned, as a run.

    Args:
        name, image_id, content_id, digest, policy: as in `Run`.
        environment: more of what it ran on; what the result says of it is there already.
        started: when the container was started; None for `check.seconds` ago.
    """
    begun = started or datetime.now(timezone.utc) - timedelta(seconds=check.seconds)
    return Run(
        name=name,
        image_id=image_id,
        content_id=content_id,
        digest=digest,
        suite=check.suite_sha256,
        nonce=check.nonce,
        level=check.verdict.level,
        reached=check.verdict.reached,
        policy=policy,
        status=check.verdict.status,
        reasons=check.verdict.reasons,
        unverified=check.verdict.unverified,
        checks=check.verdict.checks,
        environment={**_found(check), **(environment or {})},
        started=begun.astimezone(timezone.utc),
        seconds=check.seconds,
    )


def _found(check: CheckRun) -> dict[str, str]:
    """What the container said of the machine that it ran on."""
    facts = check.verdict.facts
    if facts is None:
        return {}
    found = {
        "python": facts.python,
        "system": facts.system,
        "platform": facts.platform,
        "cpu": facts.cpu,
        "uid": str(facts.uid),
        "devices": ", ".join(facts.devices),
    }
    return {name: value for name, value in found.items() if value}


def by_reason(checks: tuple[CheckOutcome, ...]) -> dict[str, tuple[CheckOutcome, ...]]:
    """Checks by the reason that they share, in the order in which the reasons appear."""
    grouped: dict[str, tuple[CheckOutcome, ...]] = {}
    for check in checks:
        grouped[check.reason] = (*grouped.get(check.reason, ()), check)
    return grouped
