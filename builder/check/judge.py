"""Judges a result against what the cell promises. Pure: the same result and expectation give the same verdict."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from fnmatch import fnmatchcase

from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from builder.check.result import CheckOutcome, CheckResult, Facts, Status
from builder.errors import ConfigError
from builder.matrix import CPU, Level

_APPLICABLE: Mapping[str, frozenset[str]] = {
    "static.python": frozenset(),
    "static.versions": frozenset(),
    "static.user": frozenset(),
    "static.home": frozenset(),
    "static.pip-check": frozenset({"pip"}),
    "torch.*": frozenset({"torch"}),
    "tensorboard.*": frozenset({"torch", "tensorboard"}),
    "horovod.*": frozenset({"torch", "horovod"}),
    "dask.*": frozenset({"dask", "distributed"}),
}
"""Which checks an image must pass, by the packages that it has."""

_TRAINING = "*.train.*"


class VerdictStatus(Enum):
    """The three states of an image."""

    PASSED = "passed"
    FAILED = "failed"
    INCOMPLETE = "incomplete"


@dataclass(frozen=True, kw_only=True)
class Expectation:
    """What a cell promises of its image.

    Attributes:
        packages: exact version by name of everything that may be installed; empty when nothing is known of it.
        promised: names of packages that must be installed.
        python: major and minor version, such as `3.11`; empty when nothing is promised.
        cuda: `cpu` or the CUDA version that the framework is built for; empty when nothing is promised.
        level: up to which checks count.
        required: names of checks, or globs, that must run and pass; those above `level` do not count.
    """

    packages: Mapping[str, str] = field(default_factory=dict)
    promised: frozenset[str] = frozenset()
    python: str = ""
    cuda: str = ""
    level: Level
    required: frozenset[str]


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What is known of one image.

    Attributes:
        status: PASSED when all that is required ran and passed and the facts are those promised; FAILED when anything
            failed; INCOMPLETE when something required did not run.
        level: up to which it was judged; an image that passed at `cpu` is not known to work on a GPU.
        checks: every check, in the order in which they ran; empty when there was no result.
        facts: what was found in the image; None when there was no result.
        reasons: why it did not pass, one line each, the worst first; empty when it passed.
    """

    status: VerdictStatus
    level: Level
    checks: tuple[CheckOutcome, ...]
    facts: Facts | None
    reasons: tuple[str, ...]


def required_checks(packages: Iterable[str]) -> frozenset[str]:
    """The checks (globs among them) that an image with these packages must pass, at every level."""
    names = {canonicalize_name(name) for name in packages}
    return frozenset(check for check, needs in _APPLICABLE.items() if needs <= names)


def judge(expectation: Expectation | None, result: CheckResult) -> Verdict:
    """The verdict; without an expectation, for an image that was not built here, what it has decides what it must pass.

    Raises:
        ConfigError: the expectation requires no check at all.
    """
    if expectation is None:
        required = required_checks(result.facts.packages)
        expectation = Expectation(level=result.level, required=required)
        missing = [] if _trained(result) else ["nothing to train with was found"]
    elif not expectation.required:
        raise ConfigError("no check is required, so that any image would pass")
    else:
        missing = []
    failed = [f"{check.name}: {check.reason}" for check in result.checks if check.status is Status.FAILED]
    failed += _differences(expectation, result.facts)
    missing += _not_run(expectation, result)
    if failed:
        status = VerdictStatus.FAILED
    elif missing:
        status = VerdictStatus.INCOMPLETE
    else:
        status = VerdictStatus.PASSED
    return Verdict(
        status=status,
        level=expectation.level,
        checks=result.checks,
        facts=result.facts,
        reasons=(*failed, *missing),
    )


def failed_verdict(level: Level, *reasons: str) -> Verdict:
    """The verdict on an image whose check brought no result."""
    return Verdict(status=VerdictStatus.FAILED, level=level, checks=(), facts=None, reasons=reasons)


def _trained(result: CheckResult) -> bool:
    return any(check.status is not Status.NOT_RUN and fnmatchcase(check.name, _TRAINING) for check in result.checks)


def _not_run(expectation: Expectation, result: CheckResult) -> Iterator[str]:
    """What is required and did not run, one reason for each check or for each glob that nothing answers to."""
    counted = 0
    for glob in sorted(expectation.required):
        matching = [check for check in result.checks if fnmatchcase(check.name, glob)]
        if not matching:
            yield f"{glob}: required, but the suite has no such check"
        for check in matching:
            if expectation.level < check.level:
                continue
            counted += 1
            if check.status is Status.NOT_RUN:
                yield f"{check.name}: did not run: {check.reason}"
    if not counted:
        yield f"none of the required checks belongs to level {expectation.level.value}"
    if result.level < expectation.level:
        yield f"the checks went up to {result.level.value}, required is {expectation.level.value}"


def _differences(expectation: Expectation, facts: Facts) -> Iterator[str]:
    """Where the image is not what the cell promises."""
    python = ".".join(facts.python.split(".")[:2])
    if expectation.python and python != expectation.python:
        yield f"Python is {facts.python}, the cell says {expectation.python}"
    yield from _package_differences(expectation, facts)
    yield from _cuda_difference(expectation, facts)


def _package_differences(expectation: Expectation, facts: Facts) -> Iterator[str]:
    pins = {canonicalize_name(name): version for name, version in expectation.packages.items()}
    for promise in sorted(canonicalize_name(name) for name in expectation.promised):
        if promise not in facts.packages:
            yield f"{promise} is promised and not installed"
    if not pins:
        return
    unpinned = []
    for name, found in facts.packages.items():
        expected = pins.get(canonicalize_name(name))
        if expected is None:
            unpinned.append(f"{name} {found}")
        elif not _same(found, expected):
            yield f"{name} is {found}, the cell says {expected}"
    if unpinned:
        yield f"installed but not pinned: {', '.join(unpinned)}"
    pinned = pins.get(canonicalize_name("torch"))
    if facts.torch is not None and pinned is not None and not _same(facts.torch.version, pinned):
        yield f"torch says it is {facts.torch.version}, the cell says {pinned}"


def _cuda_difference(expectation: Expectation, facts: Facts) -> Iterator[str]:
    promised = {canonicalize_name(name) for name in expectation.promised}
    if not expectation.cuda or "torch" not in promised or expectation.level is Level.STATIC:
        return
    if facts.torch is None:
        yield "torch could not be asked which CUDA it is built for"
        return
    found = facts.torch.cuda or CPU
    expected = expectation.cuda
    if expected != CPU:
        expected = ".".join(expected.split(".")[:2])
    if found != expected:
        yield f"torch is built for CUDA {found}, the cell says {expectation.cuda}"


def _same(found: str, expected: str) -> bool:
    """Whether two versions are one, such as 2026.08.0 and 2026.8.0; a local part (`+cpu`) counts."""
    try:
        return Version(found) == Version(expected)
    except InvalidVersion:
        return found == expected
