"""Keys and runs of the suite for the tests of evidence."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta, timezone
from functools import cache
from pathlib import Path

from builder.attest import (
    Checked,
    Environment,
    KeyKind,
    References,
    Resource,
    SigningKey,
    Subject,
    generate,
    load_signing_key,
)
from builder.check import CheckOutcome, Facts, Status, TorchFacts, Verdict, VerdictStatus
from builder.check.result import Scalar
from builder.matrix import Level

DIGEST = "a" * 64
IMAGE_ID = "b" * 64
SUITE = "c" * 64
NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=timezone.utc)


@cache
def signing_key(directory: Path, kind: KeyKind = KeyKind.ECDSA_P256, name: str = "own") -> SigningKey:
    """A key of its own for each directory, kind and name."""
    private, _ = generate(kind)
    path = directory / f"{name}-{kind.value}.key"
    path.write_bytes(private)
    path.chmod(0o600)
    return load_signing_key(path)


def outcome(
    name: str,
    status: Status = Status.PASSED,
    level: Level = Level.CPU,
    reason: str = "",
    measured: Mapping[str, Scalar] | None = None,
    series: Mapping[str, tuple[float, ...]] | None = None,
) -> CheckOutcome:
    return CheckOutcome(
        name=name,
        level=level,
        status=status,
        reason=reason or ("" if status is Status.PASSED else "why"),
        seconds=1.23456,
        measured=measured or {},
        series=series or {},
    )


FACTS = Facts(
    python="3.11.2",
    platform="Linux-6.1 x86_64 glibc2.36",
    system="Debian GNU/Linux 12",
    uid=12345,
    packages={"torch": "2.13.0+cpu", "numpy": "2.4.0"},
    cpu="A processor",
    devices=(),
    torch=TorchFacts(version="2.13.0+cpu", cuda=None, num_threads=2, capability="AVX2"),
    horovod=None,
)


def verdict(
    status: VerdictStatus = VerdictStatus.PASSED,
    checks: tuple[CheckOutcome, ...] | None = None,
    reasons: tuple[str, ...] = (),
    level: Level = Level.CPU,
) -> Verdict:
    if checks is None:
        series = {"loss": (4.2, 1.5, 0.7), "step_seconds": (0.1, 0.1, 0.1)}
        checks = (
            outcome("static.python", level=Level.STATIC),
            outcome("torch.train.amp", series=series),
            outcome("torch.gpu.train.amp", Status.NOT_RUN, Level.GPU, "no GPU was given"),
        )
    return Verdict(status=status, level=level, checks=checks, facts=FACTS, reasons=reasons, reached=None)


def checked(**changes: object) -> Checked:
    """A run that passed at level cpu, an hour ago, with what `changes` says otherwise."""
    values: dict[str, object] = {
        "subjects": (
            Subject(name="registry.example/imgbuild/pytorch", sha256=DIGEST),
            Subject(name="image-id", sha256=IMAGE_ID),
        ),
        "verdict": verdict(),
        "reached": Level.CPU,
        "suite_sha256": SUITE,
        "started": NOW - timedelta(hours=1, minutes=1),
        "finished": NOW - timedelta(hours=1),
        "stated": NOW - timedelta(minutes=59),
        "cell": "torch-2.13.0-cpu-py3.11-bookworm",
        "configuration": (Resource(name="matrix.yaml", sha256="d" * 64), Resource(name="recipe", sha256="e" * 64)),
        "environment": Environment(engine="20.10.24", kernel="6.1.0", cpu="A processor", cpus=2, device="cpu"),
        "content": "sha256:" + "f" * 64,
        "references": References(public=("registry.example/imgbuild/pytorch:latest",)),
    }
    return Checked(**{**values, **changes})  # type: ignore[arg-type]
