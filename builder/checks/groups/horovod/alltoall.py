# mypy: disable-error-code="import-not-found, import-untyped, misc, no-any-return"
"""A part of each rank's values for each other."""

from __future__ import annotations

from builder.checks import pair
from builder.checks.contract import Measured, check, expect


@check(
    "horovod.alltoall",
    level="cpu",
    deadline=60,
    catches="Values that are sent to the wrong rank.",
)
def run(launch: pair.Launch) -> Measured:
    first, second = pair.numbers(0), pair.numbers(1)
    expected = (first[:100] + second[:100], first[100:] + second[100:])
    for rank, section in enumerate(launch.section("alltoall")):
        expect(section["received"] == expected[rank], f"rank {rank} received other numbers than were sent to it")
    return {"lengths": [len(part) for part in expected]}
