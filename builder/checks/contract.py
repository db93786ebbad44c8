"""What a check and a group of checks are, and the words they share with the host side.

A check is a function that measures something, raises `Failed` (or anything else) when the image is broken, and raises
`NotRun` when it cannot tell. Nothing passes because something was absent.
"""

from __future__ import annotations

import importlib
import json
import math
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

REQUEST_SCHEMA = "imgbuild.check-request/1"
RESULT_SCHEMA = "imgbuild.check-result/1"

#: From the weakest to the strongest; a check at one level needs all that the levels before it need.
LEVELS = ("static", "cpu", "gpu", "multi-gpu", "multi-node")

PASSED = "passed"
FAILED = "failed"
NOT_RUN = "not_run"

#: Text longer than this is cut before it enters a result, which has a limited size as a whole.
MAX_TEXT = 2000

#: Numbers and words that a check measured, by name.
Measured = Mapping[str, Any]


class Failed(Exception):
    """The image is broken; the message is one line that names the cause.

    Args:
        reason: the line.
        measured: what was measured on the way, as evidence.
    """

    def __init__(self, reason: str, **measured: object) -> None:
        super().__init__(reason)
        self.measured = measured


class NotRun(Exception):
    """The check cannot be run here; the message says what it lacks."""


@dataclass(frozen=True)
class Check:
    """One check.

    Attributes:
        name: dotted, unique in the suite, for instance `torch.train.amp`.
        level: one of `LEVELS`.
        deadline: seconds after which it counts as hanging and is killed.
        catches: one sentence on the defect that it finds.
        run: gets what the group's `prepare` returned and returns what it measured.
    """

    name: str
    level: str
    deadline: float
    catches: str
    run: Callable[[Any], Measured]


def _nothing() -> tuple[Any, Measured]:
    return None, {}


@dataclass
class Group:
    """Checks that share one process and what is expensive to make: an import, two ranks, a cluster.

    Attributes:
        name: of the group.
        prepare: returns what the checks get, and facts about the image; raises as a check does, for all of them.
        deadline: seconds for `prepare`.
        image_home: leave HOME as the image has it, instead of an empty writable directory.
        checks: in the order in which they run.
    """

    name: str
    prepare: Callable[[], tuple[Any, Measured]] = _nothing
    deadline: float = 60.0
    image_home: bool = False
    checks: list[Check] = field(default_factory=list)

    def check(
        self, name: str, *, level: str, deadline: float, catches: str
    ) -> Callable[[Callable[[Any], Measured]], Callable[[Any], Measured]]:
        """Registers the decorated function as a check of this group."""
        if level not in LEVELS:
            raise ValueError(f"{name}: unknown level {level}")

        def register(run: Callable[[Any], Measured]) -> Callable[[Any], Measured]:
            self.checks.append(Check(name, level, deadline, catches, run))
            return run

        return register


def groups() -> list[Group]:
    """Every `GROUP` in the modules of `groups/`; those with the weakest checks first, then by name."""
    package = importlib.import_module("builder.checks.groups")
    found = []
    for module in pkgutil.iter_modules(package.__path__):
        group = getattr(importlib.import_module(f"{package.__name__}.{module.name}"), "GROUP", None)
        if isinstance(group, Group):
            found.append(group)
    names = [check.name for group in found for check in group.checks]
    if len(names) != len(set(names)):
        raise ValueError(f"two checks have one name: {sorted(names)}")
    return sorted(found, key=lambda group: (min(map(_weight, group.checks), default=0), group.name))


def _weight(check: Check) -> int:
    return LEVELS.index(check.level)


def fail(reason: str, **measured: object) -> NoReturn:
    """Fails the check that calls it."""
    raise Failed(reason, **measured)


def expect(condition: bool, reason: str, **measured: object) -> None:
    """Fails the check that calls it, unless `condition` holds."""
    if not condition:
        raise Failed(reason, **measured)


def short(text: str, limit: int = MAX_TEXT) -> str:
    """The end of a text, which is where errors are."""
    return text if len(text) <= limit else "…" + text[-limit:]


def one_line(error: BaseException) -> str:
    """An exception as one line: its class unless it is ours, and its message."""
    text = " ".join(str(error).split())[:500]
    if isinstance(error, (Failed, NotRun)):
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def plain(value: object) -> Any:
    """A measured value as JSON can hold it: numbers that are not finite and unknown types become words."""
    if value is None or isinstance(value, (bool, int)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return short(str(value))


def write_json(path: Path, value: object) -> None:
    """Writes a file that is either whole or not there."""
    temporary = path.with_name(f".{path.name}.new")
    temporary.write_text(json.dumps(plain(value), allow_nan=False), encoding="utf-8")
    temporary.replace(path)
