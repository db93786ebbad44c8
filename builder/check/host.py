"""The checks that the host itself makes of what the suite reports: is there a result, and is the image its cell's.

They are rows like the suite's own, so that every failure names a check.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from builder.check.facts import Facts, TensorflowFacts, TorchFacts
from builder.check.result import CheckOutcome, CheckResult, Scalar, Status
from builder.matrix import CPU, Level

RUN_RESULT = "run.result"
CELL_PYTHON = "cell.python"
CELL_PACKAGES = "cell.packages"
CELL_CUDA = "cell.cuda"

HOST_CHECKS: Mapping[str, tuple[Level, str]] = {
    RUN_RESULT: (
        Level.STATIC,
        "A check that hangs, runs out of memory, ends without a result, or whose result is forged or another run's.",
    ),
    CELL_PYTHON: (Level.STATIC, "Another Python than the cell's."),
    CELL_PACKAGES: (Level.STATIC, "Packages that are missing, not pinned, or of another version than the cell's."),
    CELL_CUDA: (
        Level.CPU,
        "A framework built for another CUDA than the cell's, or none; a Horovod for CUDA without NCCL.",
    ),
}
"""The host's checks: the level of each, and what it catches."""

FRAMEWORKS = frozenset({"torch", "tensorflow", "jax"})
"""The projects of which it is known for which CUDA they are: two say it, JAX computes on the CUDA beside its plugin."""

_JAX_PLUGIN = re.compile(r"jax-cuda(\d+)-plugin")

_NO_CELL = "the image is held to no cell of a matrix"
_MOST_NAMED = 12


@dataclass(frozen=True, kw_only=True)
class Promise:
    """What a cell says that is in its image.

    Attributes:
        packages: exact version by name of everything that may be installed; empty when nothing is known of it.
        promised: names of packages that must be installed.
        python: major and minor version, such as `3.11`; empty when nothing is promised.
        cuda: `cpu` or the CUDA version that the framework is built for; empty when nothing is promised.
    """

    packages: Mapping[str, str] = field(default_factory=dict)
    promised: frozenset[str] = frozenset()
    python: str = ""
    cuda: str = ""

    @property
    def names(self) -> frozenset[str]:
        """The promised packages by their normalised names."""
        return frozenset(canonicalize_name(name) for name in self.promised)

    @property
    def asks_for_cuda(self) -> bool:
        """Whether it says for which CUDA a framework is built."""
        return bool(self.cuda) and bool(self.names & FRAMEWORKS)


def no_result(*reasons: str) -> CheckOutcome:
    """The one row of a run that brought no result that can be taken for one."""
    return _row(RUN_RESULT, Status.FAILED, "; ".join(reasons))


def host_rows(promise: Promise | None, result: CheckResult) -> tuple[CheckOutcome, ...]:
    """The host's rows beside those of a result that could be read; what nobody promised is not run.

    Args:
        promise: the cell's; None for an image that is held to none.
        result: what the suite reports.
    """
    read = _row(RUN_RESULT, Status.PASSED, measured={"checks": len(result.checks), "seconds": result.seconds})
    if promise is None:
        return (read, *(_row(name, Status.NOT_RUN, _NO_CELL) for name in (CELL_PYTHON, CELL_PACKAGES, CELL_CUDA)))
    return (read, _python(promise, result.facts), _packages(promise, result), _cuda(promise, result))


def _row(name: str, status: Status, reason: str = "", measured: Mapping[str, Scalar] | None = None) -> CheckOutcome:
    level, _ = HOST_CHECKS[name]
    return CheckOutcome(name=name, level=level, status=status, reason=reason, seconds=0.0, measured=measured or {})


def _judged(name: str, difference: str, measured: Mapping[str, Scalar]) -> CheckOutcome:
    return _row(name, Status.FAILED if difference else Status.PASSED, difference, measured)


def _python(promise: Promise, facts: Facts) -> CheckOutcome:
    if not promise.python:
        return _row(CELL_PYTHON, Status.NOT_RUN, "no version of Python is promised")
    found = ".".join(facts.python.split(".")[:2])
    difference = "" if found == promise.python else f"Python is {facts.python}, the cell says {promise.python}"
    return _judged(CELL_PYTHON, difference, {"python": facts.python})


def _packages(promise: Promise, result: CheckResult) -> CheckOutcome:
    facts = result.facts
    if not promise.packages and not promise.promised:
        return _row(CELL_PACKAGES, Status.NOT_RUN, "no packages are promised")
    if not facts.packages and _broken(result, "static."):
        # What kept the suite from listing them has failed by its own name.
        return _row(CELL_PACKAGES, Status.NOT_RUN, "the installed packages are not known")
    found = list(_package_differences(promise, facts))
    return _judged(CELL_PACKAGES, _some(found, "; "), {"packages": len(facts.packages), "differences": len(found)})


def _package_differences(promise: Promise, facts: Facts) -> Iterator[str]:
    pins = {canonicalize_name(name): version for name, version in promise.packages.items()}
    for name in sorted(promise.names):
        if name not in facts.packages:
            yield f"{name} is promised and not installed"
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
        yield f"installed but not pinned: {_some(unpinned, ', ')}"
    for name, framework in _imported(facts).items():
        pinned = pins.get(canonicalize_name(name))
        if pinned is not None and not _same_build(framework.version, pinned):
            yield f"{name} says it is {framework.version}, the cell says {pinned}"


def _cuda(promise: Promise, result: CheckResult) -> CheckOutcome:
    if not promise.asks_for_cuda:
        return _row(CELL_CUDA, Status.NOT_RUN, "no framework with a CUDA of its own is promised")
    known = {name: _minor(build.cuda or CPU) for name, build in result.facts.builds.items()}
    # What was imported is what runs; what its files say is known also of one that cannot be imported.
    known |= {name: _minor(framework.cuda or CPU) for name, framework in _imported(result.facts).items()}
    jax = _jax_cuda(result.facts.packages)
    if jax:
        known["jax"] = jax
    expected = _minor(promise.cuda)
    measured: dict[str, Scalar] = {}
    unknown, differences = [], []
    for name in sorted(promise.names & FRAMEWORKS):
        if name not in known:
            unknown.append(name)
            continue
        measured[name] = known[name]
        if known[name] != expected:
            differences.append(f"{name} is built for CUDA {known[name]}, the cell says {promise.cuda}")
    horovod = result.facts.horovod
    if expected != CPU and horovod is not None and "horovod" in promise.names:
        measured["horovod_nccl"] = horovod.nccl
        if not horovod.nccl:
            differences.append(f"horovod has no NCCL operations, the cell is for CUDA {promise.cuda}")
    if differences or not unknown:
        return _judged(CELL_CUDA, "; ".join(differences), measured)
    if result.level < HOST_CHECKS[CELL_CUDA][0]:
        return _row(CELL_CUDA, Status.NOT_RUN, f"the checks went up to level {result.level.value}")
    reason = f"{' and '.join(unknown)} could not be asked which CUDA it is built for"
    blamed = all(_broken(result, f"{name}.") for name in unknown)
    return _row(CELL_CUDA, Status.NOT_RUN if blamed else Status.FAILED, reason)


def _imported(facts: Facts) -> dict[str, TorchFacts | TensorflowFacts]:
    """What the frameworks that could be imported say of themselves, by name."""
    found = {"torch": facts.torch, "tensorflow": facts.tensorflow}
    return {name: framework for name, framework in found.items() if framework is not None}


def _jax_cuda(packages: Mapping[str, str]) -> str:
    """On which CUDA JAX computes by what is installed; empty where it is not.

    Without a plugin it has none. A plugin says its major version only, and takes the wheels of the toolkit beside it;
    where those are missing or of another major version, that is all there is to say.
    """
    if "jax" not in packages:
        return ""
    plugins = [match[1] for name in packages if (match := _JAX_PLUGIN.fullmatch(name))]
    if not plugins:
        return CPU
    major = max(plugins, key=int)
    # NVIDIA's wheels have carried the major version in their names up to CUDA 12.
    wheel = packages.get(f"nvidia-cuda-runtime-cu{major}") or packages.get("nvidia-cuda-runtime") or ""
    return _minor(wheel) if wheel.split(".")[0] == major else major


def _minor(cuda: str) -> str:
    """A version of CUDA by its first two numbers; `cpu` stays."""
    return ".".join(cuda.split(".")[:2])


def _broken(result: CheckResult, prefix: str) -> bool:
    """Whether a check of this group did not pass, which then says what is wrong."""
    return any(check.name.startswith(prefix) and check.status is Status.FAILED for check in result.checks)


def _some(items: Iterable[str], separator: str) -> str:
    """The first of them in one line, and how many more there are."""
    every = list(items)
    more = len(every) - _MOST_NAMED
    return separator.join([*every[:_MOST_NAMED], *([f"and {more} more"] if more > 0 else [])])


def _same_build(imported: str, pinned: str) -> bool:
    """Whether what a framework says of itself is the version that is pinned.

    The package index takes no local versions: a build there that says it is 2.14.1+cu130 is version 2.14.1. Whether it
    is built for the right CUDA is another check's matter. Where the pin has a local part, that counts.
    """
    return _same(imported if "+" in pinned else imported.partition("+")[0], pinned)


def _same(found: str, expected: str) -> bool:
    """Whether two versions are one, such as 2026.08.0 and 2026.8.0; a local part (`+cpu`) counts."""
    try:
        return Version(found) == Version(expected)
    except InvalidVersion:
        return found == expected
