"""What the host reads from the suite's source is what the suite says of itself when it is run."""

from __future__ import annotations

from builder.check import suite
from builder.checks.contract import groups


def test_every_check_is_read_from_its_source_as_it_declares_itself() -> None:
    declared = {
        check.name: (check.level, check.deadline, check.catches, {*group.needs, *check.needs}, check.optional)
        for group in groups()
        for check in group.checks
    }
    read = {
        spec.name: (spec.level, spec.deadline, spec.catches, set(spec.needs), spec.optional)
        for spec in suite().checks.values()
    }
    assert read == declared
    assert len(read) > 20
