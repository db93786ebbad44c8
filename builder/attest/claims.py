"""Reads statements back, field by field. What contradicts itself is refused, also when its signature is good."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from builder.attest.reading import Reader, decode
from builder.attest.refusal import Refusal, Refused, malformed
from builder.attest.statement import (
    EXTENSION,
    STATEMENT,
    TEST_RESULT,
    Environment,
    Losses,
    NotRun,
    References,
    Resource,
    Subject,
    TestResult,
)
from builder.matrix import Level

_MOST_DAYS = 36500
"""What `--max-age` takes too."""


@dataclass(frozen=True, kw_only=True)
class Statement:
    """An in-toto statement.

    Attributes:
        subjects: with a SHA-256; at least one.
        predicate_type: a URI.
        predicate: decoded JSON.
    """

    subjects: tuple[Subject, ...]
    predicate_type: str
    predicate: Mapping[str, object]


@dataclass(frozen=True, kw_only=True)
class CheckStatement:
    """What a signed statement says of a run of the suite.

    Attributes:
        result: PASSED only when everything required up to `level` ran and passed.
        level: up to which checks were asked for.
        reached: the highest level up to which all that was required ran and passed; None when there is none.
        cell: the cell that the image was held to; empty for none.
        suite: SHA-256 of the suite.
        started, finished: when the run took place.
        stated: when this was written; later than the run for a reused result.
        passed, warned, failed: names of checks.
        failures: why, by name of the failed check.
        not_run: the others.
        reasons: why the result is not PASSED.
        configuration: hashes by name.
        environment: on what it ran.
        durations: seconds by name of the check.
        losses: by name of the check.
        facts: what was found in the image, as decoded JSON; empty when there was no result.
        reused: SHA-256 of the statement that this one cites; None when the suite ran for this one.
        references: names that the image may bear.
        content: the image's content id; empty when not known.
        url: of the CI job; empty for none.
    """

    result: TestResult
    level: Level
    reached: Level | None
    cell: str
    suite: str
    started: datetime
    finished: datetime
    stated: datetime
    passed: tuple[str, ...]
    warned: tuple[str, ...]
    failed: tuple[str, ...]
    failures: Mapping[str, str]
    not_run: tuple[NotRun, ...]
    reasons: tuple[str, ...]
    configuration: Mapping[str, str]
    environment: Environment
    durations: Mapping[str, float]
    losses: Mapping[str, Losses]
    facts: Mapping[str, object]
    reused: str | None
    references: References
    content: str
    url: str


def parse_statement(payload: bytes) -> Statement:
    """Reads an in-toto statement v1. Subjects without a SHA-256 are left out.

    Raises:
        Refused: it is no such statement.
    """
    document = decode(payload, "the statement")
    if not isinstance(document, dict) or document.get("_type") != STATEMENT:
        raise Refused(Refusal.NOT_IN_TOTO, f"what is signed is no in-toto statement of type {STATEMENT}")
    top = Reader(document, "statement")
    subjects = []
    for reader in top.readers("subject"):
        digest = reader.reader("digest")
        if digest.has("sha256"):
            name = reader.text("name") if reader.has("name") else ""
            subjects.append(Subject(name=name, sha256=digest.sha256("sha256")))
    if not subjects:
        raise malformed("the statement is about nothing: no subject has a sha256")
    predicate = top.raw("predicate")
    if not isinstance(predicate, dict):
        raise malformed("statement.predicate is not an object")
    return Statement(
        subjects=tuple(subjects),
        predicate_type=top.text("predicateType"),
        predicate={str(key): value for key, value in predicate.items()},
    )


def parse_check(statement: Statement) -> CheckStatement:
    """Reads the predicate of a test result.

    Raises:
        Refused: it is none, it was not written by imgbuild, or it contradicts itself.
    """
    if statement.predicate_type != TEST_RESULT:
        raise Refused(Refusal.OTHER_PREDICATE, f"the statement is of type {statement.predicate_type}")
    top = Reader(dict(statement.predicate), "predicate")
    own = top.reader(EXTENSION)
    configuration = {item.name: item.sha256 for item in map(_resource, top.readers("configuration"))}
    if "suite" not in configuration:
        raise malformed("predicate.configuration does not name the suite")
    failures = own.reader("failures")
    losses = own.reader("losses")
    facts = own.raw("facts")
    found = CheckStatement(
        result=_result(top),
        level=own.level("level"),
        reached=own.level("reached") if own.has("reached") else None,
        cell=own.text("cell"),
        suite=configuration["suite"],
        started=own.instant("started"),
        finished=own.instant("finished"),
        stated=own.instant("stated"),
        passed=top.texts("passedTests"),
        warned=top.texts("warnedTests"),
        failed=top.texts("failedTests"),
        failures={name: failures.text(name) for name in failures.names},
        not_run=tuple(
            NotRun(name=item.text("name"), level=item.level("level"), reason=item.text("reason"))
            for item in own.readers("not_run")
        ),
        reasons=own.texts("reasons"),
        configuration=configuration,
        environment=_environment(own.reader("environment")),
        durations=own.numbers("durations"),
        losses={name: _losses(losses.reader(name)) for name in losses.names},
        facts={str(key): value for key, value in facts.items()} if isinstance(facts, dict) else {},
        reused=own.reader("reused").sha256("sha256") if own.has("reused") else None,
        references=_references(own.reader("references")),
        content=own.text("content"),
        url=top.text("url") if top.has("url") else "",
    )
    _consistent(found)
    return found


def _consistent(found: CheckStatement) -> None:
    """Refuses what says more than it can know."""
    wrong = ""
    if found.result is TestResult.PASSED:
        if found.failed or found.reasons:
            wrong = "it says PASSED, and names what did not pass"
        elif found.reached is None:
            wrong = "it says PASSED, and no level is reached"
    elif found.failed and found.result is not TestResult.FAILED:
        wrong = f"it says {found.result.value}, and {found.failed[0]} failed"
    if found.result is TestResult.FAILED and found.reached is not None:
        wrong = "it says FAILED, and a level is reached"
    if found.reached is not None and not found.passed:
        wrong = "a level is reached, and no check passed"
    if found.reached is not None and found.level < found.reached:
        wrong = "the level that is reached is above the one that was asked for"
    if found.finished < found.started or found.stated < found.finished:
        wrong = "it ended before it began"
    states = [*found.passed, *found.warned, *found.failed, *(item.name for item in found.not_run)]
    if len(set(states)) != len(states):
        wrong = "one check is in two states"
    if wrong:
        raise Refused(Refusal.CONTRADICTION, f"the evidence contradicts itself: {wrong}")


def _result(reader: Reader) -> TestResult:
    text = reader.text("result")
    for result in TestResult:
        if result.value == text:
            return result
    raise malformed(f"predicate.result is {text[:40]!r}, none of the three")


def _resource(reader: Reader) -> Resource:
    return Resource(name=reader.text("name"), sha256=reader.reader("digest").sha256("sha256"))


def _environment(reader: Reader) -> Environment:
    return Environment(
        engine=reader.text("engine"),
        kernel=reader.text("kernel"),
        architecture=reader.text("architecture"),
        cpu=reader.text("cpu"),
        cpus=int(reader.number("cpus")),
        memory_bytes=int(reader.number("memory_bytes")),
        gpus=reader.texts("gpus"),
        driver=reader.text("driver"),
        cuda=reader.text("cuda"),
        user=reader.text("user"),
        device=reader.text("device"),
    )


def _losses(reader: Reader) -> Losses:
    return Losses(first=reader.number("first"), last=reader.number("last"), steps=int(reader.number("steps")))


def _days(reader: Reader) -> int:
    days = reader.number("max_age_days")
    if not (0 <= days <= _MOST_DAYS and days.is_integer()):
        raise malformed(f"max_age_days is {days:g}, no number of days")
    return int(days)


def _references(reader: Reader) -> References:
    return References(
        public=reader.texts("public"),
        verified=reader.texts("verified"),
        public_level=reader.level("public_level"),
        verified_level=reader.level("verified_level"),
        max_age_days=_days(reader) if reader.has("max_age_days") else None,
    )
