"""What one run of the check suite found, as an in-toto statement.

Statement v1 (in-toto/attestation, spec/v1/statement.md) with the predicate `test-result/v0.1`
(spec/predicates/test-result.md). The predicate knows results, names of passed, warned and failed tests, and the
configuration; what it has no place for stands in one field of our own, `EXTENSION`, as in-toto's parsing rules allow.

The result is

- `PASSED` when every check that was required up to the level ran and passed;
- `FAILED` when anything failed;
- `WARNED` when nothing failed and something that was required did not run. It is never `PASSED`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum

from builder.attest.reading import canonical, rfc3339
from builder.check import CheckOutcome, Status, Verdict, VerdictStatus
from builder.engine.urls import redact_urls
from builder.matrix import Level

STATEMENT = "https://in-toto.io/Statement/v1"
TEST_RESULT = "https://in-toto.io/attestation/test-result/v0.1"
EXTENSION = "https://imgbuild.io/check/v1"

_SHA256 = re.compile(r"[0-9a-f]{64}")
_LINE_CAP = 4000
"""Characters; less than what a reader takes (`reading.Reader.text`)."""


class TestResult(Enum):
    """The three results that the predicate has."""

    __test__ = False  # pytest takes classes of such names for tests

    PASSED = "PASSED"
    WARNED = "WARNED"
    FAILED = "FAILED"


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What a statement is about.

    Attributes:
        name: unique in one statement; the repository for the digest of a manifest, `image-id` for an engine's id.
        sha256: 64 hexadecimal digits.
    """

    name: str
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Resource:
    """A file or another thing that had its part in the run, by name and hash: a resource descriptor of in-toto."""

    name: str
    sha256: str


@dataclass(frozen=True, kw_only=True)
class NotRun:
    """A check that did not run, the level that it belongs to, and why."""

    name: str
    level: Level
    reason: str


@dataclass(frozen=True, kw_only=True)
class References:
    """The names that the image may bear: its public tags and aliases, and its `-verified` ones.

    Attributes:
        public, verified: references, with their repository.
        public_level, verified_level: what the image must have reached to bear them.
        max_age_days: for how many days a check of it counts towards that; None for ever.
    """

    public: tuple[str, ...] = ()
    verified: tuple[str, ...] = ()
    public_level: Level = Level.CPU
    verified_level: Level = Level.GPU
    max_age_days: int | None = None


@dataclass(frozen=True, kw_only=True)
class Losses:
    """The loss of one training.

    Attributes:
        first, last: at its first and its last step, in nats for the language model.
        steps: how many.
    """

    first: float
    last: float
    steps: int


@dataclass(frozen=True, kw_only=True)
class Environment:
    """On what the suite ran. Empty or 0 where that is not known. No address of anything is in it.

    Attributes:
        engine: the Docker engine's version.
        kernel: the engine's kernel, as `uname -r` has it.
        architecture: as images spell it.
        cpu: the processor's model.
        cpus: how many the engine has.
        memory_bytes: of the engine's machine.
        gpus: the model of each GPU that the container was given.
        driver: version of the NVIDIA driver.
        cuda: the CUDA version of the driver.
        user: user and group id that the suite ran as.
        device: the kind of device of the run: `cpu`, or the GPU's model and compute capability.
    """

    engine: str = ""
    kernel: str = ""
    architecture: str = ""
    cpu: str = ""
    cpus: int = 0
    memory_bytes: int = 0
    gpus: tuple[str, ...] = ()
    driver: str = ""
    cuda: str = ""
    user: str = ""
    device: str = ""


@dataclass(frozen=True, kw_only=True)
class Checked:
    """One run of the suite, and all that is to be said of it.

    Attributes:
        subjects: the image; at least one, the digest of its manifest first where it has one.
        verdict: of the run.
        reached: the highest level up to which every required check ran and passed; None when there is none.
        suite_sha256: of the suite that ran.
        started, finished: when it ran. For a reused result, when the run took place that is reused.
        stated: when the statement is made.
        cell: id of the cell that the image was held to; empty for an image that is no cell's.
        configuration: matrix, lock, recipe and so on, by hash. The suite is added.
        environment: on what it ran.
        content: the image's content id, a SHA-256 in hexadecimal digits over layers and runtime configuration; empty
            when not known.
        references: what names it may bear.
        reused: SHA-256 of the statement whose result is taken over without another run; None when it ran.
        url: of the CI job, where there is one; without credentials.
    """

    subjects: tuple[Subject, ...]
    verdict: Verdict
    reached: Level | None
    suite_sha256: str
    started: datetime
    finished: datetime
    stated: datetime
    cell: str = ""
    configuration: tuple[Resource, ...] = ()
    environment: Environment = field(default_factory=Environment)
    content: str = ""
    references: References = field(default_factory=References)
    reused: str | None = None
    url: str = ""


def result_of(checked: Checked) -> TestResult:
    """The result as the predicate has it; never PASSED when the run was incomplete, or no check passed or no level."""
    verdict = checked.verdict
    if verdict.status is VerdictStatus.FAILED or any(check.status is Status.FAILED for check in verdict.checks):
        return TestResult.FAILED
    if verdict.status is VerdictStatus.PASSED and not verdict.reasons and _reached(checked) is not None:
        return TestResult.PASSED
    return TestResult.WARNED


def check_statement(checked: Checked) -> bytes:
    """The statement on a run, as canonical JSON.

    Raises:
        ValueError: there is no subject, a hash is none, or two subjects share a name: a defect of the caller.
    """
    result = result_of(checked)
    checks = checked.verdict.checks
    predicate: dict[str, object] = {
        "result": result.value,
        "configuration": [
            _resource(item) for item in (*checked.configuration, Resource(name="suite", sha256=checked.suite_sha256))
        ],
        "passedTests": [check.name for check in checks if check.status is Status.PASSED],
        "warnedTests": [],
        "failedTests": [check.name for check in checks if check.status is Status.FAILED],
        EXTENSION: _extension(checked, result),
    }
    if checked.url:
        predicate["url"] = redact_urls(checked.url)
    return statement(checked.subjects, TEST_RESULT, predicate)


def statement(subjects: tuple[Subject, ...], predicate_type: str, predicate: Mapping[str, object]) -> bytes:
    """An in-toto statement v1, as canonical JSON.

    Raises:
        ValueError: there is no subject, a hash is none, or two subjects share a name.
    """
    if not subjects or len({subject.name for subject in subjects}) != len(subjects):
        raise ValueError("a statement needs at least one subject, each of a name of its own")
    return canonical(
        {
            "_type": STATEMENT,
            "subject": [{"name": item.name, "digest": {"sha256": _hash(item.sha256)}} for item in subjects],
            "predicateType": predicate_type,
            "predicate": predicate,
        }
    )


def statement_sha256(statement_json: bytes) -> str:
    """The hash by which another statement cites this one: of the signed payload, whoever signed it."""
    return hashlib.sha256(statement_json).hexdigest()


def _extension(checked: Checked, result: TestResult) -> dict[str, object]:
    verdict = checked.verdict
    losses = {check.name: _losses(check) for check in verdict.checks}
    reached = None if result is TestResult.FAILED else _reached(checked)
    return {
        "level": verdict.level.value,
        "reached": None if reached is None else reached.value,
        "cell": checked.cell,
        "started": rfc3339(checked.started),
        "finished": rfc3339(checked.finished),
        "stated": rfc3339(checked.stated),
        "reasons": [_line(reason) for reason in verdict.reasons],
        "not_run": [
            {"name": check.name, "level": check.level.value, "reason": _line(check.reason)}
            for check in verdict.checks
            if check.status is Status.NOT_RUN
        ],
        "failures": {check.name: _line(check.reason) for check in verdict.checks if check.status is Status.FAILED},
        "environment": _plain(checked.environment),
        "durations": {check.name: round(check.seconds, 3) for check in verdict.checks},
        "losses": {name: _plain(found) for name, found in losses.items() if found is not None},
        "facts": None if verdict.facts is None else _plain(verdict.facts),
        "reused": None if checked.reused is None else {"sha256": _hash(checked.reused)},
        "references": _plain(checked.references),
        "content": checked.content,
    }


def _reached(checked: Checked) -> Level | None:
    """The level that was reached; none by a run in which no check passed."""
    return checked.reached if any(check.status is Status.PASSED for check in checked.verdict.checks) else None


def _line(text: str) -> str:
    """One printable line: a reason may hold the end of what a broken image wrote."""
    clean = "".join(character if character.isprintable() else " " for character in text[:_LINE_CAP])
    return " ".join(clean.split())


def _resource(item: Resource) -> dict[str, object]:
    return {"name": item.name, "digest": {"sha256": _hash(item.sha256)}}


def _hash(value: str) -> str:
    if not _SHA256.fullmatch(value):
        raise ValueError(f"{value!r} is no SHA-256 in hexadecimal digits")
    return value


def _losses(check: CheckOutcome) -> Losses | None:
    """The ends of the training curve that a check measured; None when it measured none."""
    curve = check.series.get("loss")
    if not curve:
        return None
    first, last = curve[0], curve[-1]
    if not (math.isfinite(first) and math.isfinite(last)):
        return None
    return Losses(first=first, last=last, steps=len(curve))


def _plain(value: object) -> object:
    """A frozen value as JSON; texts as one line, a number that is not finite as text, since JSON has none."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {item.name: _plain(getattr(value, item.name)) for item in dataclasses.fields(value)}
    if isinstance(value, Enum):
        return _plain(value.value)
    if isinstance(value, Mapping):
        return {_line(str(key)): _plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list | set | frozenset):
        items = sorted(value) if isinstance(value, set | frozenset) else value
        return [_plain(item) for item in items]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if value is None or isinstance(value, bool | int | float):
        return value
    return _line(str(value))
