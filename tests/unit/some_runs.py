"""Runs of the suite for tests, as `check_image` returns them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timezone
from typing import Any

from builder.check import CheckOutcome, CheckResult, CheckRun, Facts, Status, Verdict, VerdictStatus
from builder.matrix import Level, Policy
from builder.runs import Run, run_of

STARTED = datetime(2026, 11, 23, 12, 0, 0, tzinfo=timezone.utc)
IMAGE = "sha256:" + "ab" * 32

UNVERIFIED = "not verified: reached cpu, `-verified` needs gpu: torch.gpu.train.amp did not run: no GPU at hand"

FACTS = Facts(
    python="3.11.2",
    platform="Linux-6.1-x86_64-with-glibc2.36",
    system="Debian GNU/Linux 12 (bookworm)",
    uid=12345,
    packages={"torch": "2.13.0+cpu"},
    cpu="some processor",
    devices=(),
    torch=None,
    horovod=None,
)


def outcome(name: str, status: Status = Status.PASSED, reason: str = "", **changes: Any) -> CheckOutcome:
    plain = CheckOutcome(
        name=name,
        level=Level.CPU,
        status=status,
        reason=reason or ("" if status is Status.PASSED else "because"),
        seconds=1.5,
        measured={},
    )
    return replace(plain, **changes)


CURVES = {"loss": (4.25, 3.5, 2.125), "step_seconds": (0.5, 0.25, 0.5), "loss_scale": (65536.0, 65536.0, 32768.0)}

CHECKS = (
    outcome("static.python", level=Level.STATIC, measured={"python": "3.11.2"}),
    outcome("torch.train.amp", series=CURVES, measured={"dtype": "bfloat16"}),
    outcome("torch.gpu.train.amp", Status.NOT_RUN, "no GPU at hand", level=Level.GPU, seconds=0.0),
    outcome("torch.gpu.train.scaler", Status.NOT_RUN, "no GPU at hand", level=Level.GPU, seconds=0.0),
)


def check_run(
    checks: Sequence[CheckOutcome] = CHECKS,
    *,
    status: VerdictStatus = VerdictStatus.PASSED,
    reasons: tuple[str, ...] = (),
    reached: Level | None = Level.CPU,
    raw: bytes = json.dumps({"as": "written"}).encode(),
    readable: bool = True,
    log: str = "one line\n",
) -> CheckRun:
    """A run that ended; without `readable`, one whose result was refused."""
    facts = FACTS if readable else None
    result = CheckResult(level=Level.CPU, started="2026", seconds=3.0, facts=FACTS, checks=tuple(checks) or CHECKS)
    verdict = Verdict(
        status=status,
        level=Level.CPU,
        reached=reached,
        checks=tuple(checks),
        facts=facts,
        reasons=reasons,
        unverified=(UNVERIFIED,) if status is VerdictStatus.PASSED else (),
    )
    return CheckRun(
        verdict=verdict,
        result=result if readable else None,
        suite_sha256="5" * 64,
        nonce="0123456789abcdef",
        log_tail=log,
        raw=raw,
        seconds=4.5,
    )


def a_run(check: CheckRun | None = None, **changes: Any) -> Run:
    """The run of a CUDA cell on a machine without a GPU, unless it is told otherwise."""
    parts: dict[str, Any] = {
        "name": "torch-2.13.0-cu126-py3.11",
        "image_id": IMAGE,
        "content_id": "c" * 64,
        "policy": Policy(public=Level.CPU, verified=Level.GPU, max_age_days=30),
        "environment": {"engine": "20.10.24"},
        "started": STARTED,
    }
    return run_of(check or check_run(), **{**parts, **changes})


def failed(*checks: CheckOutcome, reasons: tuple[str, ...] = ("torch.train.amp: loss is nan",)) -> CheckRun:
    """A run that failed."""
    return check_run(checks or CHECKS, status=VerdictStatus.FAILED, reasons=reasons, reached=None)
