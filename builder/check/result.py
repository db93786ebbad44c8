"""What the suite reports, read field by field: the image that wrote it may be broken in any way."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from builder.check.facts import BuildFacts, Facts, HorovodFacts, TensorflowFacts, TorchFacts
from builder.errors import CheckFailed
from builder.matrix import Level

SCHEMA = "imgbuild.check-result/1"
"""The only form of result that is understood; `checks/contract.py` has the same words."""

RESULT_CAP = 1 << 20
"""Bytes; a result of 100 checks and 500 packages has about 80 kB."""

_CHECK_NAME = re.compile(r"[a-z][a-z0-9.-]{0,99}")
_PACKAGE_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,199}[a-z0-9])?")
_LINE_CAP = 600

Scalar = str | int | float | bool | None


class NoResult(CheckFailed):
    """There is no result, or what there is cannot be taken for one; the message says why."""


class Status(Enum):
    """The three states of one check."""

    PASSED = "passed"
    FAILED = "failed"
    NOT_RUN = "not_run"


@dataclass(frozen=True, kw_only=True)
class CheckOutcome:
    """What became of one check.

    Attributes:
        name: for instance `torch.train.amp`.
        level: the one it belongs to.
        status: of the three.
        reason: one line; empty when it passed.
        seconds: how long it took.
        measured: its evidence; nested values as JSON text.
        series: numbers per step by name, such as `loss`: the curves of a training.
    """

    name: str
    level: Level
    status: Status
    reason: str
    seconds: float
    measured: Mapping[str, Scalar]
    series: Mapping[str, tuple[float, ...]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class CheckResult:
    """A whole result.

    Attributes:
        level: up to which the suite was asked to go.
        started: when, UTC, ISO 8601.
        seconds: in all.
        facts: what was found.
        checks: in the order in which they ran; at least one.
    """

    level: Level
    started: str
    seconds: float
    facts: Facts
    checks: tuple[CheckOutcome, ...]


def parse_result(data: bytes, nonce: str, suite_checks: frozenset[str] = frozenset()) -> CheckResult:
    """Reads a result that was asked for with `nonce`.

    Args:
        data: as the container wrote it.
        nonce: what the request said.
        suite_checks: the names of the suite's checks; each must have its line, also one that did not run.

    Raises:
        NoResult: it is too large, no JSON, of another form, not complete, or an answer to another request.
    """
    if len(data) > RESULT_CAP:
        raise NoResult(f"the result has more than {RESULT_CAP} bytes")
    try:
        text = data.decode("utf-8")
        document: object = json.loads(text, object_pairs_hook=_pairs, parse_constant=_refuse_constant)
    except NoResult:
        raise
    except RecursionError:
        raise NoResult("the result is nested too deeply") from None
    except ValueError as error:
        raise NoResult(f"the result is no JSON: {line(str(error))}") from None
    root = _Reader("result", document)
    schema = root.text("schema")
    if schema != SCHEMA:
        raise NoResult(f"the result is of schema {schema!r}, expected {SCHEMA!r}")
    if root.text("nonce") != nonce:
        raise NoResult("the result is the answer to another request: its nonce is not the one sent")
    if not root.flag("complete"):
        raise NoResult("the result is not complete")
    checks = tuple(_check(reader) for reader in root.readers("checks"))
    if not checks:
        raise NoResult("the result has no checks")
    names = [check.name for check in checks]
    if len(set(names)) != len(names):
        raise NoResult("the result has two checks of one name")
    foreign = [name for name in names if name.startswith(("run.", "cell."))]
    if foreign:
        raise NoResult(f"the result has {foreign[0]}, which is the host's to say")
    lacking = sorted(suite_checks - set(names))
    if lacking:
        raise NoResult(f"the result says nothing of {', '.join(lacking)}")
    return CheckResult(
        level=root.level("level"),
        started=root.text("started"),
        seconds=root.number("seconds"),
        facts=_facts(root.reader("facts")),
        checks=checks,
    )


def line(text: str) -> str:
    """Text from an image as one printable line of bounded length."""
    clean = "".join(character if character.isprintable() else " " for character in text[:_LINE_CAP])
    return " ".join(clean.split())


def _refuse_constant(word: str) -> object:
    raise NoResult(f"the result has the number {word}")


def _pairs(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise NoResult("the result has a key twice")
    return found


class _Reader:
    """Takes typed fields out of one JSON object."""

    def __init__(self, where: str, value: object) -> None:
        if not isinstance(value, dict):
            raise NoResult(f"{where} is not an object")
        self._where = where
        self._fields: dict[str, object] = {str(key): item for key, item in value.items()}

    def _wrong(self, key: str, expected: str) -> NoResult:
        return NoResult(f"{self._where}.{key} is not {expected}")

    def has(self, key: str) -> bool:
        return self._fields.get(key) is not None

    def text(self, key: str) -> str:
        value = self._fields.get(key)
        if not isinstance(value, str):
            raise self._wrong(key, "a text")
        return line(value)

    def flag(self, key: str) -> bool:
        value = self._fields.get(key)
        if not isinstance(value, bool):
            raise self._wrong(key, "true or false")
        return value

    def integer(self, key: str) -> int:
        value = self._fields.get(key)
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 63:
            raise self._wrong(key, "a whole number from 0")
        return value

    def number(self, key: str) -> float:
        value = self._fields.get(key)
        # The upper bound also keeps an integer of a thousand digits from overflowing a float.
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value < 1e9:
            raise self._wrong(key, "a number from 0")
        return float(value)

    def level(self, key: str) -> Level:
        try:
            return Level(self.text(key))
        except ValueError:
            raise self._wrong(key, "a level") from None

    def reader(self, key: str) -> _Reader:
        return _Reader(f"{self._where}.{key}", self._fields.get(key))

    def readers(self, key: str) -> list[_Reader]:
        value = self._fields.get(key)
        if not isinstance(value, list):
            raise self._wrong(key, "a list")
        return [_Reader(f"{self._where}.{key}[{index}]", item) for index, item in enumerate(value)]

    def texts(self, key: str) -> tuple[str, ...]:
        value = self._fields.get(key)
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise self._wrong(key, "a list of texts")
        return tuple(line(item) for item in value)

    def items(self, key: str) -> dict[str, object]:
        return dict(self.reader(key)._fields)


def _check(reader: _Reader) -> CheckOutcome:
    name = reader.text("name")
    if not _CHECK_NAME.fullmatch(name):
        raise NoResult(f"{name!r} is no name of a check")
    try:
        status = Status(reader.text("status"))
    except ValueError:
        raise NoResult(f"the status of {name} is none of the three") from None
    reason = reader.text("reason")
    if status is not Status.PASSED and not reason:
        raise NoResult(f"{name} is {status.value} without a reason")
    return CheckOutcome(
        name=name,
        level=reader.level("level"),
        status=status,
        reason=reason,
        seconds=reader.number("seconds"),
        measured={line(key): _scalar(value) for key, value in reader.items("measured").items()},
        series=_series(reader, name) if reader.has("series") else {},
    )


def _series(reader: _Reader, check: str) -> dict[str, tuple[float, ...]]:
    found = {}
    for name, values in reader.items("series").items():
        if not _CHECK_NAME.fullmatch(name.replace("_", "-")) or not isinstance(values, list):
            raise NoResult(f"{line(name)!r} of {check} is no series of numbers")
        found[name] = tuple(_point(value, check) for value in values)
    return found


def _point(value: object, check: str) -> float:
    # The suite writes numbers that are not finite as words, since JSON has none.
    if isinstance(value, str) and value in ("nan", "inf", "-inf"):
        return float(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise NoResult(f"a series of {check} holds what is no number")
    # An integer of a thousand digits fits into no float.
    return float(value) if abs(value) < 1e300 else math.inf if value > 0 else -math.inf


def _scalar(value: object) -> Scalar:
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if value is None or isinstance(value, bool | int | str):
        return value
    return json.dumps(value)


def _facts(reader: _Reader) -> Facts:
    packages = {}
    for name, version in reader.items("packages").items():
        if not _PACKAGE_NAME.fullmatch(name) or not isinstance(version, str) or not version:
            raise NoResult(f"{line(name)!r} is no package with a version")
        packages[name] = line(version)
    return Facts(
        python=reader.text("python"),
        platform=reader.text("platform"),
        system=reader.text("system"),
        uid=reader.integer("uid"),
        packages=packages,
        cpu=reader.reader("cpu").text("model"),
        devices=reader.texts("devices"),
        torch=_torch(reader.reader("torch")) if reader.has("torch") else None,
        horovod=_horovod(reader.reader("horovod")) if reader.has("horovod") else None,
        tensorflow=_tensorflow(reader.reader("tensorflow")) if reader.has("tensorflow") else None,
        builds=_builds(reader.reader("builds")) if reader.has("builds") else {},
    )


def _tensorflow(reader: _Reader) -> TensorflowFacts:
    return TensorflowFacts(
        version=reader.text("version"),
        cuda=reader.text("cuda") if reader.has("cuda") else None,
        keras=reader.text("keras"),
        gpus=reader.texts("gpus"),
    )


def _builds(reader: _Reader) -> dict[str, BuildFacts]:
    found = {}
    for name in ("torch", "tensorflow"):
        if reader.has(name):
            built = reader.reader(name)
            found[name] = BuildFacts(
                version=built.text("version") if built.has("version") else None,
                cuda=built.text("cuda") if built.has("cuda") else None,
            )
    return found


def _torch(reader: _Reader) -> TorchFacts:
    return TorchFacts(
        version=reader.text("version"),
        cuda=reader.text("cuda") if reader.has("cuda") else None,
        num_threads=reader.integer("num_threads"),
        capability=reader.text("capability"),
    )


def _horovod(reader: _Reader) -> HorovodFacts:
    return HorovodFacts(
        version=reader.text("version"),
        gloo=reader.flag("gloo"),
        mpi=reader.flag("mpi"),
        nccl=reader.flag("nccl"),
    )
