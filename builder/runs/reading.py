"""Reads a run.json back, field by field."""

from __future__ import annotations

import json
from collections.abc import ItemsView
from datetime import datetime, timezone
from enum import Enum
from typing import TypeVar

from builder.check import CheckOutcome, Status, VerdictStatus
from builder.matrix import Level, Policy
from builder.runs.model import Run

SCHEMA = "imgbuild.run/1"
"""The only form of run.json that is understood."""

E = TypeVar("E", bound=Enum)


def run_from_json(data: bytes) -> Run:
    """The run that a run.json describes.

    Raises:
        ValueError: it is no JSON or not of this form; the message says where.
    """
    try:
        document: object = json.loads(data)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    root = _Fields("run", document)
    schema = root.text("schema")
    if schema != SCHEMA:
        raise ValueError(f"it is of schema {schema!r}, expected {SCHEMA!r}")
    return Run(
        name=root.text("cell"),
        image_id=root.text("image_id"),
        content_id=root.text_or_empty("content_id"),
        digest=root.text_or_empty("digest"),
        suite=root.text("suite"),
        nonce=root.text("nonce"),
        level=root.member("level", Level),
        reached=None if root.value("reached") is None else root.member("reached", Level),
        policy=None if root.value("required") is None else _policy(_Fields("required", root.value("required"))),
        status=root.member("verdict", VerdictStatus),
        reasons=root.texts("reasons"),
        unverified=root.texts("unverified"),
        checks=tuple(_check(_Fields("checks", check)) for check in root.items("checks")),
        environment={
            name: _text("environment", value) for name, value in _Fields("environment", root.value("environment")).all()
        },
        started=_time(root.text("started")),
        seconds=root.number("seconds"),
    )


def _policy(fields: _Fields) -> Policy:
    days = fields.value("max_age_days")
    if days is not None and (isinstance(days, bool) or not isinstance(days, int)):
        raise ValueError("required.max_age_days is not a whole number")
    return Policy(public=fields.member("public", Level), verified=fields.member("verified", Level), max_age_days=days)


def _check(fields: _Fields) -> CheckOutcome:
    measured = _Fields("measured", fields.value("measured"))
    series = _Fields("series", fields.value("series"))
    return CheckOutcome(
        name=fields.text("name"),
        level=fields.member("level", Level),
        status=fields.member("status", Status),
        reason=fields.text("reason"),
        seconds=fields.number("seconds"),
        measured={name: _scalar(value) for name, value in measured.all()},
        series={name: tuple(_point(value) for value in series.items(name)) for name, _ in series.all()},
    )


class _Fields:
    """Takes typed fields out of one JSON object."""

    def __init__(self, where: str, value: object) -> None:
        if not isinstance(value, dict):
            raise ValueError(f"{where} is not an object")
        self._where = where
        self._fields: dict[str, object] = {str(key): item for key, item in value.items()}

    def all(self) -> ItemsView[str, object]:
        return self._fields.items()

    def value(self, key: str) -> object:
        return self._fields.get(key)

    def text(self, key: str) -> str:
        return _text(f"{self._where}.{key}", self._fields.get(key))

    def text_or_empty(self, key: str) -> str:
        return "" if self._fields.get(key) is None else self.text(key)

    def number(self, key: str) -> float:
        value = self._fields.get(key)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e9:
            raise ValueError(f"{self._where}.{key} is not a number from 0")
        return float(value)

    def items(self, key: str) -> list[object]:
        value = self._fields.get(key)
        if not isinstance(value, list):
            raise ValueError(f"{self._where}.{key} is not a list")
        return list(value)

    def texts(self, key: str) -> tuple[str, ...]:
        return tuple(_text(f"{self._where}.{key}", item) for item in self.items(key))

    def member(self, key: str, kind: type[E]) -> E:
        try:
            return kind(self.text(key))
        except ValueError:
            raise ValueError(f"{self._where}.{key} is none of {', '.join(str(item.value) for item in kind)}") from None


def _text(where: str, value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{where} is not a text")
    return value


def _time(text: str) -> datetime:
    # Python 3.10 reads what `isoformat` writes, and nothing else.
    time = datetime.fromisoformat(text)
    if time.tzinfo is None:
        raise ValueError("run.started has no offset from UTC")
    return time.astimezone(timezone.utc)


def _scalar(value: object) -> str | int | float | bool | None:
    if value is None or isinstance(value, str | int | float):
        return value
    raise ValueError("a measured value is neither a number nor a text")


def _point(value: object) -> float:
    if value in ("nan", "inf", "-inf"):
        return float(str(value))
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError("a series holds what is no number")
    return float(value)
