"""What the rules together say of a combination."""

from __future__ import annotations

from functools import lru_cache

from builder.compat.model import Combination, Facts, Finding, Reason
from builder.compat.rules import RULES, Rule, Severity


def examine(combination: Combination, facts: Facts) -> Finding:
    """Applies every rule. Pure and cheap; what it looks up is remembered for these facts.

    Returns:
        The reasons in the order of `RULES`, so that the first one is the most basic.
    """
    forbidden: list[Reason] = []
    unknown: list[Reason] = []
    warnings: list[Reason] = []
    for rule in _rules(
        bool(combination.extras),
        combination.cuda is not None,
        combination.python is not None,
        combination.channel is not None,
        bool(combination.companions),
        bool(combination.gpus),
        combination.driver is not None,
        combination.image is not None,
        combination.system is not None,
    ):
        for said in rule.function(combination, facts):
            reason = Reason(rule=rule.name, message=said.message, source=said.source)
            if said.severity is Severity.FORBIDDEN:
                forbidden.append(reason)
            elif said.severity is Severity.UNKNOWN:
                unknown.append(reason)
            else:
                warnings.append(reason)
    return Finding(forbidden=tuple(forbidden), unknown=tuple(unknown), warnings=tuple(warnings))


_FIELDS = ("extras", "cuda", "python", "channel", "companions", "gpus", "driver", "image", "system")


@lru_cache(512)
def _rules(*given: bool) -> tuple[Rule, ...]:
    """The rules that may have something to say when these fields are given."""
    missing = {name for name, is_given in zip(_FIELDS, given, strict=True) if not is_given}
    return tuple(rule for rule in RULES if missing.isdisjoint(rule.needs))
