"""Runs the suite of `builder/checks` in a container of an image, and judges its result against the cell."""

from __future__ import annotations

from builder.check.judge import Expectation, Verdict, VerdictStatus, judge, required_checks
from builder.check.result import (
    CheckOutcome,
    CheckResult,
    Facts,
    HorovodFacts,
    NoResult,
    Status,
    TorchFacts,
    parse_result,
)
from builder.check.run import DEFAULT_USER, CheckRun, check_image
from builder.check.suite import Suite, suite

__all__ = [
    "DEFAULT_USER",
    "CheckOutcome",
    "CheckResult",
    "CheckRun",
    "Expectation",
    "Facts",
    "HorovodFacts",
    "NoResult",
    "Status",
    "Suite",
    "TorchFacts",
    "Verdict",
    "VerdictStatus",
    "check_image",
    "judge",
    "parse_result",
    "required_checks",
    "suite",
]
