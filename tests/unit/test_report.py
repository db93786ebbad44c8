"""Reports: text, JSON, and the exit code that speaks for a run."""

from __future__ import annotations

import json

import pytest

from builder.report import CheckLine, Outcome, Report, Status

GOOD = Outcome(cell="good", status=Status.VERIFIED, image_id="sha256:" + "ab" * 32, built=True, checked=True)


def bad(code: int) -> Outcome:
    return Outcome(cell=f"bad-{code}", status=Status.FAILED, exit_code=code, reasons=("because",))


@pytest.mark.parametrize(
    ("codes", "expected"),
    [((), 0), ((9,), 9), ((10,), 10), ((10, 9), 9), ((11, 10), 10), ((9, 12), 12), ((9, 7), 7), ((130, 9), 130)],
)
def test_one_exit_code_speaks_for_the_run(codes: tuple[int, ...], expected: int) -> None:
    assert Report(outcomes=(GOOD, *(bad(code) for code in codes))).exit_code == expected


def test_one_failure_among_many_keeps_both_in_the_report() -> None:
    report = Report(outcomes=(GOOD, bad(9)), seconds=1.25)
    text = report.to_text()
    assert "verified   good abababababab: built in 0.0 s, checked in 0.0 s" in text
    assert "failed     bad-9: nothing built, nothing checked\n    because\n" in text
    assert text.endswith("2 cells: 1 good, 1 not; 1 built, 1 checked, in 1.2 s\n")
    document = json.loads(report.to_json())
    assert [cell["status"] for cell in document["cells"]] == ["verified", "failed"]
    assert document["exit_code"] == 9


def test_checks_that_did_not_run_are_shown_with_their_reason() -> None:
    checks = (
        CheckLine(name="torch.train", status="passed", reason="", seconds=1),
        CheckLine(name="gpu.train", status="not_run", reason="no GPU", seconds=0),
        CheckLine(name="gpu.scaler", status="not_run", reason="no GPU", seconds=0),
        CheckLine(name="static.pip", status="failed", reason="numpy is missing", seconds=0),
    )
    outcome = Outcome(cell="c", status=Status.VERIFIED, checks=checks, stale=(("r:t", "sha256:" + "1" * 64),))
    text = Report(outcomes=(outcome,)).to_text()
    assert "    1 checks passed\n    failed: static.pip: numpy is missing\n" in text
    assert "    not run: gpu.train, gpu.scaler: no GPU\n" in text
    assert "stale: r:t still points to 111111111111" in text
    document = json.loads(Report(outcomes=(outcome,)).to_json())
    assert [check["name"] for check in document["cells"][0]["checks"]] == [
        "torch.train",
        "gpu.train",
        "gpu.scaler",
        "static.pip",
    ]


def test_what_is_missing_for_verified_is_in_every_form() -> None:
    line = "not verified: reached cpu, `-verified` needs gpu: torch.gpu.train.amp did not run: no GPU"
    outcome = Outcome(
        cell="c",
        status=Status.PASSED,
        checked=True,
        level="cpu",
        reached="cpu",
        public="cpu",
        verified="gpu",
        unverified=(line,),
        references=("r:t",),
    )
    report = Report(outcomes=(outcome,))
    assert report.exit_code == 0
    assert f"passed     c: checked in 0.0 s\n    {line}\n    r:t\n" in report.to_text()
    (cell,) = json.loads(report.to_json())["cells"]
    assert cell["unverified"] == [line]
    assert (cell["level"], cell["reached"], cell["require"]) == ("cpu", "cpu", {"public": "cpu", "verified": "gpu"})
    assert cell["reused"] is None


def test_a_check_that_was_not_made_again_says_when_and_as_what_it_was() -> None:
    outcome = Outcome(
        cell="c", status=Status.VERIFIED, built=True, reused=("2026-11-23T12:00:00Z", "sha256:" + "ab" * 32)
    )
    report = Report(outcomes=(outcome,))
    assert "built in 0.0 s, reused, checked 2026-11-23T12:00:00Z as abababababab\n" in report.to_text()
    (cell,) = json.loads(report.to_json())["cells"]
    assert cell["reused"] == {"checked": "2026-11-23T12:00:00Z", "image_id": "sha256:" + "ab" * 32}
    assert cell["checked"] is False


def test_a_failure_is_said_once() -> None:
    row = CheckLine(name="run.result", status="failed", reason="no result", seconds=0)
    outcome = Outcome(cell="c", status=Status.FAILED, exit_code=10, reasons=("run.result: no result",), checks=(row,))
    assert Report(outcomes=(outcome,)).to_text().count("run.result") == 1
