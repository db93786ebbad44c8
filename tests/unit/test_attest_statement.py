"""What a statement says of a run, and that it never says more than the run showed."""

from __future__ import annotations

import itertools
import json
import math
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from attesting import DIGEST, IMAGE_ID, NOW, SUITE, checked, outcome, signing_key, verdict

from builder.attest import (
    EXTENSION,
    CheckStatement,
    Environment,
    Losses,
    NotRun,
    References,
    Resource,
    Subject,
    TestResult,
    check_statement,
    sign,
    statement_sha256,
    verify,
)
from builder.attest.reading import canonical, instant, rfc3339
from builder.attest.statement import Checked
from builder.check import Status, VerdictStatus
from builder.matrix import Level


def decoded(value: Checked) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(check_statement(value))
    return found


def read_back(value: Checked, directory: Path) -> CheckStatement:
    key = signing_key(directory)
    found = verify(sign(check_statement(value), key), [key.public], subject_digest=f"sha256:{DIGEST}", now=NOW)
    assert found.check is not None
    return found.check


def test_the_shape_of_the_specification() -> None:
    document = decoded(checked())
    assert set(document) == {"_type", "subject", "predicateType", "predicate"}
    assert document["_type"] == "https://in-toto.io/Statement/v1"
    assert document["predicateType"] == "https://in-toto.io/attestation/test-result/v0.1"
    assert document["subject"] == [
        {"name": "registry.example/imgbuild/pytorch", "digest": {"sha256": DIGEST}},
        {"name": "image-id", "digest": {"sha256": IMAGE_ID}},
    ]
    predicate = document["predicate"]
    assert set(predicate) == {"result", "configuration", "passedTests", "warnedTests", "failedTests", EXTENSION}
    assert predicate["result"] == "PASSED"
    assert predicate["configuration"] == [
        {"name": "matrix.yaml", "digest": {"sha256": "d" * 64}},
        {"name": "recipe", "digest": {"sha256": "e" * 64}},
        {"name": "suite", "digest": {"sha256": SUITE}},
    ]
    assert predicate["passedTests"] == ["static.python", "torch.train.amp"]
    own = predicate[EXTENSION]
    assert own["not_run"] == [{"name": "torch.gpu.train.amp", "level": "gpu", "reason": "no GPU was given"}]
    assert (own["level"], own["reached"]) == ("cpu", "cpu")
    assert own["facts"]["torch"]["version"] == "2.13.0+cpu"
    assert own["durations"]["torch.train.amp"] == 1.235


def test_it_is_read_back_as_it_was(tmp_path: Path) -> None:
    value = checked(reused="1" * 64, url="https://ci.example/job/7")
    found = read_back(value, tmp_path)
    assert found.result is TestResult.PASSED
    assert (found.level, found.reached, found.cell, found.suite) == (Level.CPU, Level.CPU, value.cell, SUITE)
    assert (found.started, found.finished, found.stated) == (value.started, value.finished, value.stated)
    assert found.passed == ("static.python", "torch.train.amp")
    assert found.not_run == (NotRun(name="torch.gpu.train.amp", level=Level.GPU, reason="no GPU was given"),)
    assert found.configuration == {"matrix.yaml": "d" * 64, "recipe": "e" * 64, "suite": SUITE}
    assert found.environment == value.environment
    assert found.losses == {"torch.train.amp": Losses(first=4.2, last=0.7, steps=3)}
    assert found.reused == "1" * 64
    assert found.references == References(public=("registry.example/imgbuild/pytorch:latest",))
    assert (found.content, found.url) == (value.content, value.url)
    assert found.facts["python"] == "3.11.2"


def test_it_is_the_same_bytes_every_time() -> None:
    first, second = check_statement(checked()), check_statement(checked())
    assert first == second
    assert statement_sha256(first) != statement_sha256(check_statement(checked(cell="another")))
    assert first == canonical(json.loads(first))


FAILED = outcome("torch.train.scaler", Status.FAILED, reason="the loss is NaN")
MISSING = outcome("torch.train.scaler", Status.NOT_RUN, reason="it ran out of time")
PASSED = outcome("torch.train.amp")


@pytest.mark.parametrize(
    ("status", "reached", "checks", "reasons"),
    list(
        itertools.product(
            VerdictStatus,
            (None, Level.STATIC, Level.CPU),
            ((), (PASSED,), (PASSED, MISSING), (PASSED, FAILED)),
            ((), ("torch.train.scaler: did not run",)),
        )
    ),
)
def test_it_never_says_passed_of_what_did_not(
    tmp_path: Path, status: VerdictStatus, reached: Level | None, checks: tuple[Any, ...], reasons: tuple[str, ...]
) -> None:
    value = checked(verdict=verdict(status, checks, reasons), reached=reached)
    result = decoded(value)["predicate"]["result"]
    ran = bool(checks) and FAILED not in checks
    good = status is VerdictStatus.PASSED and reached is not None and not reasons and ran
    assert (result == "PASSED") == good
    if FAILED in checks or status is VerdictStatus.FAILED:
        assert result == "FAILED"
        assert decoded(value)["predicate"][EXTENSION]["reached"] is None
    assert read_back(value, tmp_path).result.value == result


def test_incomplete_keeps_the_level_that_was_reached(tmp_path: Path) -> None:
    value = checked(
        verdict=verdict(VerdictStatus.INCOMPLETE, reasons=("torch.gpu.train.amp: did not run",), level=Level.GPU),
        reached=Level.CPU,
    )
    found = read_back(value, tmp_path)
    assert (found.result, found.level, found.reached) == (TestResult.WARNED, Level.GPU, Level.CPU)
    assert found.reasons == ("torch.gpu.train.amp: did not run",)


def test_a_check_without_a_result_is_a_failure(tmp_path: Path) -> None:
    nothing = replace(verdict(VerdictStatus.FAILED, (), ("exit code 0 but no result was written",)), facts=None)
    found = read_back(checked(verdict=nothing, reached=None), tmp_path)
    assert (found.result, found.reached, found.facts) == (TestResult.FAILED, None, {})
    assert found.reasons == ("exit code 0 but no result was written",)


def test_what_a_broken_image_wrote_stays_readable(tmp_path: Path) -> None:
    dirty = "\x1b[31mred\x00" + "x" * 10_000 + "\ud800"
    failed = outcome("torch.train.amp", Status.FAILED, reason=dirty)
    found = read_back(checked(verdict=verdict(VerdictStatus.FAILED, (failed,), (dirty,)), reached=None), tmp_path)
    assert found.reasons[0].startswith("[31mred xxx")
    assert len(found.reasons[0]) <= 4000
    assert found.failures["torch.train.amp"] == found.reasons[0]


def test_what_a_broken_engine_says_stays_readable(tmp_path: Path) -> None:
    dirty = Environment(engine="20.10\x1b[31m\n", kernel="\ud800", gpus=("H\u2028200",), device="cpu")
    found = read_back(checked(environment=dirty), tmp_path).environment
    assert (found.engine, found.kernel, found.gpus) == ("20.10 [31m", "", ("H 200",))


@pytest.mark.parametrize("curve", [None, (), (math.nan, 1.0), (1.0, math.inf)])
def test_losses_that_are_none(curve: tuple[float, ...] | None) -> None:
    series = {"step_seconds": (0.1,)} if curve is None else {"loss": curve}
    check = outcome("torch.train.amp", series=series)
    assert decoded(checked(verdict=verdict(checks=(check,))))["predicate"][EXTENSION]["losses"] == {}


def test_a_url_loses_its_credentials() -> None:
    text = check_statement(checked(url="https://user:canary-secret@ci.example/job/7")).decode()
    assert "canary-secret" not in text
    assert "ci.example/job/7" in text


@pytest.mark.parametrize(
    "changes",
    [
        {"subjects": ()},
        {"subjects": (Subject(name="a", sha256=DIGEST), Subject(name="a", sha256=IMAGE_ID))},
        {"subjects": (Subject(name="a", sha256=f"sha256:{DIGEST}"),)},
        {"suite_sha256": ""},
        {"configuration": (Resource(name="x", sha256="abc"),)},
        {"reused": "sha256:1"},
        {"finished": datetime(2026, 3, 1)},
    ],
    ids=["no subject", "one name twice", "prefix", "suite", "configuration", "reused", "no zone"],
)
def test_defects_of_a_caller_are_not_signed(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"subject|SHA-256|time zone"):
        check_statement(checked(**changes))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-03-01T12:00:00Z", NOW),
        ("2026-03-01T12:00:00+00:00", NOW),
        ("2026-03-01T14:30:00+02:30", NOW),
        ("2026-03-01T12:00:00.5Z", NOW + timedelta(milliseconds=500)),
        ("2026-03-01T12:00:00.123456789Z", NOW + timedelta(microseconds=123456)),
        ("2026-03-01T12:00:00", None),
        ("2026-03-01 12:00:00Z", None),
        ("2026-02-30T12:00:00Z", None),
        ("0001-01-01T00:00:00+23:00", None),
        ("2026-03-01T12:00:00+99:00", None),
        ("now", None),
    ],
)
def test_moments(text: str, expected: datetime | None) -> None:
    assert instant(text) == expected


def test_a_moment_is_written_in_utc() -> None:
    east = timezone(timedelta(hours=5, minutes=30))
    assert rfc3339(NOW.astimezone(east)) == "2026-03-01T12:00:00Z"
    assert instant(rfc3339(NOW)) == NOW
