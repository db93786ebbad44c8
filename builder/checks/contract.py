"""What a check and a group of checks are, and the words they share with the host side.

A check is a function that measures something, raises `Failed` (or anything else) when the image is broken, and raises
`NotRun` when it cannot tell. Nothing passes because something was absent. Each check is a file of its own,
`groups/GROUP/NAME.py`; what the checks of a group share is in `groups/GROUP/__init__.py`, as `GROUP`. Files whose names
begin with an underscore hold no check.
"""

from __future__ import annotations

import importlib
import json
import math
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
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
        needs: packages that an image must have for the check to be asked of it, beside those of its group.
        optional: not running it is never a gap: what it looks at is not promised by a package.
        controller: one of Horovod's, such as `mpi`: the check is required of the images whose cell asks for it, and of
            no others.
        run: gets what the group's `prepare` returned and returns what it measured. Under the key `series`, numbers
            per step by name, such as `{"loss": [4.1, 3.8]}`: the curves of a training.
    """

    name: str
    level: str
    deadline: float
    catches: str
    run: Callable[[Any], Measured]
    needs: tuple[str, ...] = ()
    optional: bool = False
    controller: str = ""


def check(
    name: str,
    *,
    level: str,
    deadline: float,
    catches: str,
    needs: tuple[str, ...] = (),
    optional: bool = False,
    controller: str = "",
) -> Callable[[Callable[[Any], Measured]], Check]:
    """Makes a check of the decorated function; the arguments are those of `Check`, all literals."""
    if level not in LEVELS:
        raise ValueError(f"{name}: unknown level {level}")

    def made(run: Callable[[Any], Measured]) -> Check:
        return Check(name, level, deadline, catches, run, needs, optional, controller)

    return made


def _nothing() -> tuple[Any, Measured]:
    return None, {}


@dataclass(frozen=True)
class Group:
    """What the checks of one directory share: a process, and in it what is expensive to make, such as an import.

    Attributes:
        needs: packages that an image must have for the group's checks to be asked of it.
        prepare: returns what the checks get, and facts about the image; raises as a check does, for all of them.
        deadline: seconds for `prepare`.
        image_home: leave HOME as the image has it, instead of an empty writable directory.
        name: its directory's.
        checks: those of its directory, the weakest level first, then by name.
    """

    needs: tuple[str, ...] = ()
    prepare: Callable[[], tuple[Any, Measured]] = _nothing
    deadline: float = 60.0
    image_home: bool = False
    name: str = ""
    checks: tuple[Check, ...] = ()


def groups() -> list[Group]:
    """Every directory of `groups/` with its checks, one in each file; those with the weakest checks come first.

    Raises:
        ValueError: a file has no check or several, or a check is not named after its directory and file.
    """
    package = importlib.import_module("builder.checks.groups")
    found = [_group(package.__name__, module.name) for module in pkgutil.iter_modules(package.__path__)]
    return sorted(found, key=lambda group: (min(map(_weight, group.checks), default=0), group.name))


def group(name: str) -> Group:
    """One of `groups()`, without importing the others."""
    return _group("builder.checks.groups", name)


def _group(package: str, name: str) -> Group:
    directory = importlib.import_module(f"{package}.{name}")
    checks = []
    for module in pkgutil.iter_modules(directory.__path__):
        if module.name.startswith("_"):
            continue
        file = importlib.import_module(f"{directory.__name__}.{module.name}")
        here = [item for item in vars(file).values() if isinstance(item, Check)]
        if len(here) != 1:
            raise ValueError(f"groups/{name}/{module.name}.py has {len(here)} checks, not one")
        expected = f"{name}_{module.name}"
        if here[0].name.replace(".", "_").replace("-", "_") != expected:
            raise ValueError(f"groups/{name}/{module.name}.py holds {here[0].name}: it must be named after its file")
        checks += here
    checks.sort(key=lambda item: (_weight(item), item.name))
    shared = getattr(directory, "GROUP", Group())
    if not isinstance(shared, Group):
        raise ValueError(f"GROUP of groups/{name} is no Group")
    return replace(shared, name=name, checks=tuple(checks))


def _weight(item: Check) -> int:
    return LEVELS.index(item.level)


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
