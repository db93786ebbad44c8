"""Runs the suite of `builder/checks` in a container of an image, and judges its result against the cell."""

from __future__ import annotations

from builder.check.content import content_id
from builder.check.facts import BuildFacts, Facts, HorovodFacts, TensorflowFacts, TorchFacts
from builder.check.host import HOST_CHECKS, Promise
from builder.check.judge import Expectation, Verdict, VerdictStatus, judge, required_checks
from builder.check.reach import Reach
from builder.check.result import CheckOutcome, CheckResult, NoResult, Status, parse_result
from builder.check.run import DEFAULT_USER, CheckRun, check_image
from builder.check.suite import Suite, suite

__all__ = [
    "DEFAULT_USER",
    "HOST_CHECKS",
    "BuildFacts",
    "CheckOutcome",
    "CheckResult",
    "CheckRun",
    "Expectation",
    "Facts",
    "HorovodFacts",
    "NoResult",
    "Promise",
    "Reach",
    "Status",
    "Suite",
    "TensorflowFacts",
    "TorchFacts",
    "Verdict",
    "VerdictStatus",
    "check_image",
    "content_id",
    "judge",
    "parse_result",
    "required_checks",
    "suite",
]
