"""Judges a result against what the cell promises. Pure: the same result and expectation give the same verdict."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from fnmatch import fnmatchcase

from packaging.utils import canonicalize_name

from builder.check.facts import Facts
from builder.check.host import HOST_CHECKS, Promise, host_rows, no_result
from builder.check.result import CheckOutcome, CheckResult, Status
from builder.check.suite import Spec, suite
from builder.errors import ConfigError
from builder.matrix import Level

_TRAINING = "*.train.*"

_STANDS_FOR = dict.fromkeys(
    ("tensorflow-cpu", "tensorflow-cpu-aws", "tensorflow-gpu", "tensorflow-intel", "tf-nightly"), "tensorflow"
)
"""Distributions that bring another one's module: what a check needs of the one, the other has."""


class VerdictStatus(Enum):
    """The three states of an image."""

    PASSED = "passed"
    FAILED = "failed"
    INCOMPLETE = "incomplete"


@dataclass(frozen=True, kw_only=True)
class Expectation(Promise):
    """What a cell promises of its image, and what the image must have shown.

    Attributes:
        level: that it must reach to pass, and so to get its tags.
        verified: that it must reach for `-verified` too; None for `level`.
        required: names of checks, or globs, that must run and pass, as far as they belong to these levels.
    """

    level: Level
    verified: Level | None = None
    required: frozenset[str]


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What is known of one image.

    Attributes:
        status: PASSED when it reached the level that it must reach, and the facts are those promised; FAILED when
            anything failed; INCOMPLETE when something required did not run.
        level: up to which the suite was asked to go; an image that passed at `cpu` is not known to work on a GPU.
        reached: the highest level up to which every required check ran and passed, with one at least at that level.
            None when there is none, and when anything failed.
        checks: every check, the host's before the suite's; of a run without a result, `run.result` alone.
        facts: what was found in the image; None when there was no result.
        reasons: why it did not pass, one line `name: reason` for each check, failures first; empty when it passed.
        unverified: what it lacks for `-verified` although it passed, one line each; empty when nothing.
    """

    status: VerdictStatus
    level: Level
    reached: Level | None
    checks: tuple[CheckOutcome, ...]
    facts: Facts | None
    reasons: tuple[str, ...]
    unverified: tuple[str, ...] = ()

    @property
    def verified(self) -> bool:
        """Whether it reached what `-verified` needs."""
        return self.status is VerdictStatus.PASSED and not self.unverified


def required_checks(
    packages: Iterable[str], checks: Mapping[str, Spec] | None = None, controllers: Iterable[str] = ()
) -> frozenset[str]:
    """The checks that an image with these packages must pass, at every level.

    Args:
        packages: names of what is installed.
        checks: of which suite; None for this imgbuild's.
        controllers: those of Horovod that a cell asks for, such as `mpi`.
    """
    installed: set[str] = {canonicalize_name(name) for name in packages}
    names = installed | {_STANDS_FOR[name] for name in installed & _STANDS_FOR.keys()}
    known = suite().checks if checks is None else checks
    asked = {"", *controllers}
    return frozenset(
        spec.name for spec in known.values() if spec.needs <= names and not spec.optional and spec.controller in asked
    )


def judge(expectation: Expectation | None, result: CheckResult, *, limit: str = "") -> Verdict:
    """The verdict; without an expectation, for an image that was not built here, what it has decides what it must pass.

    Args:
        expectation: what the image is held to.
        result: what the suite reports of it.
        limit: why the suite was asked to go no further than it did, such as that there is no GPU; takes the place of
            the suite's own words for what lies above.

    Raises:
        ConfigError: the expectation requires no check at all.
    """
    rows = (*host_rows(expectation, result), *(_limited(check, result.level, limit) for check in result.checks))
    lacking = []
    if expectation is None:
        required = required_checks(result.facts.packages)
        expectation = Expectation(level=result.level, required=required)
        lacking = [] if _trained(result) else ["nothing to train with was found"]
    elif not expectation.required:
        raise ConfigError("no check is required, so that any image would pass")
    else:
        promised = [row.name for row in rows if row.name in HOST_CHECKS and _promised(row, expectation)]
        expectation = replace(expectation, required=expectation.required.union(promised))
    failed = [f"{row.name}: {row.reason}" for row in rows if row.status is Status.FAILED]
    wanted = _matching(expectation.required, rows)
    gaps = {level: list(_gaps(wanted, level, result.level, limit)) for level in Level}
    reached = max((level for level in Level if not gaps[level]), default=None) if not failed else None
    if reached is None or reached < expectation.level:
        lacking += gaps[expectation.level]
    verified = expectation.verified or expectation.level
    unverified: list[str] = []
    if failed:
        status = VerdictStatus.FAILED
    elif lacking:
        status = VerdictStatus.INCOMPLETE
    else:
        status = VerdictStatus.PASSED
        if reached is not None and reached < verified:
            unverified = _unverified(wanted, reached, verified, gaps[verified])
    return Verdict(
        status=status,
        level=result.level,
        reached=reached,
        checks=rows,
        facts=result.facts,
        reasons=(*failed, *lacking),
        unverified=tuple(unverified),
    )


def failed_verdict(level: Level, *reasons: str) -> Verdict:
    """The verdict on an image whose check, asked to go up to `level`, brought no result; at least one reason why."""
    row = no_result(*reasons)
    return Verdict(
        status=VerdictStatus.FAILED,
        level=level,
        reached=None,
        checks=(row,),
        facts=None,
        reasons=(f"{row.name}: {row.reason}",),
    )


def _limited(check: CheckOutcome, level: Level, limit: str) -> CheckOutcome:
    above = limit and level < check.level and check.status is Status.NOT_RUN
    return replace(check, reason=limit) if above else check


def _trained(result: CheckResult) -> bool:
    return any(check.status is not Status.NOT_RUN and fnmatchcase(check.name, _TRAINING) for check in result.checks)


def _promised(row: CheckOutcome, promise: Promise) -> bool:
    """Whether one of the host's checks is asked of an image with this promise; `run.result` always is."""
    return {
        "cell.python": bool(promise.python),
        "cell.packages": bool(promise.packages or promise.promised),
        "cell.cuda": promise.asks_for_cuda,
    }.get(row.name, True)


def _matching(required: frozenset[str], rows: Sequence[CheckOutcome]) -> dict[str, tuple[CheckOutcome, ...]]:
    """The rows of each required name or glob, in their order."""
    by_name = {row.name: row for row in rows}
    return {
        glob: (by_name[glob],) if glob in by_name else tuple(row for row in rows if fnmatchcase(row.name, glob))
        for glob in sorted(required)
    }


def _gaps(wanted: Mapping[str, tuple[CheckOutcome, ...]], level: Level, asked: Level, limit: str) -> Iterator[str]:
    """Why an image did not reach a level, failures apart: one line for each check or glob; nothing when it did."""
    at_level = False
    for glob, rows in wanted.items():
        if not rows:
            yield f"{glob}: required, but the suite has no such check"
        for row in rows:
            at_level = at_level or (row.level is level and row.name not in HOST_CHECKS)
            if row.level <= level and row.status is Status.NOT_RUN:
                yield f"{row.name}: did not run: {row.reason}"
    if not at_level:
        yield f"none of the required checks belongs to level {level.value}"
    if asked < level:
        because = f": {limit}" if limit else ""
        yield f"the checks went up to {asked.value}, required is {level.value}{because}"


def _unverified(
    wanted: Mapping[str, tuple[CheckOutcome, ...]], reached: Level, verified: Level, gaps: Sequence[str]
) -> list[str]:
    """What is missing for `-verified`, checks that share a reason in one line."""
    start = f"not verified: reached {reached.value}, `-verified` needs {verified.value}"
    by_reason: dict[str, list[str]] = {}
    for row in (row for rows in wanted.values() for row in rows):
        if reached < row.level <= verified and row.status is Status.NOT_RUN:
            by_reason.setdefault(row.reason, []).append(row.name)
    lines = [f"{start}: {', '.join(names)} did not run: {reason}" for reason, names in by_reason.items()]
    return lines or [f"{start}: {gap}" for gap in gaps]
