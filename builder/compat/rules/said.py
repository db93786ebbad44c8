"""What a rule is, and what it may say."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum

from builder.compat.model import Combination, Facts


class Severity(Enum):
    """What a statement does to the answer: it makes it false, makes it null, or leaves it as it is."""

    FORBIDDEN = "forbidden"
    UNKNOWN = "unknown"
    WARNING = "warning"


@dataclass(frozen=True)
class Said:
    """One statement of a rule: one sentence without a full stop, and the source of the fact behind it."""

    severity: Severity
    message: str
    source: str


RuleFunction = Callable[[Combination, Facts], Iterator[Said]]


@dataclass(frozen=True, kw_only=True)
class Rule:
    """A rule.

    Attributes:
        name: what answers call it.
        doc: one sentence that says what it finds.
        function: yields what it has to say. What it is not asked about it says nothing of.
        needs: fields of `Combination` without any of which it has nothing to say, so that it need not be asked.
    """

    name: str
    doc: str
    function: RuleFunction
    needs: tuple[str, ...] = ()


def forbidden(message: str, source: object) -> Said:
    """The combination is impossible."""
    return Said(Severity.FORBIDDEN, message, str(source))


def unknown(message: str, source: object) -> Said:
    """The facts do not reach."""
    return Said(Severity.UNKNOWN, message, str(source))


def warning(message: str, source: object) -> Said:
    """It is possible and unwise, or takes an adaptation."""
    return Said(Severity.WARNING, message, str(source))
