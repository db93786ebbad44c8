# mypy: disable-error-code="import-not-found, import-untyped, misc, no-any-return"
"""Values of all ranks in all."""

from __future__ import annotations

from builder.checks import pair
from builder.checks.contract import Measured, check, expect


@check(
    "torch.ddp.allgather",
    level="cpu",
    deadline=60,
    catches="Values of several ranks that arrive in another order or not at all.",
)
def run(launch: pair.Launch) -> Measured:
    expected = [pair.numbers(0), pair.numbers(1)]
    for rank, section in enumerate(launch.section("allgather")):
        expect(section["gathered"] == expected, f"rank {rank} gathered other numbers than the ranks gave")
    return {"length": sum(map(len, expected))}
