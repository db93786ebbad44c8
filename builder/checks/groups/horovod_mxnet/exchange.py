# mypy: disable-error-code="import-not-found, import-untyped, misc, no-any-return"
"""What the ranks gather from and send to each other."""

from __future__ import annotations

from builder.checks import pair
from builder.checks.contract import Measured, check, expect


@check(
    "horovod.mxnet.exchange",
    level="cpu",
    deadline=60,
    catches="Gathered or exchanged values that are lost, or in another order than the ranks.",
)
def run(launch: pair.Launch) -> Measured:
    first, second = launch.section("exchange")
    gathered = pair.numbers(0)[:3] + pair.numbers(1)[:4]
    parts = ([0, 1, 2, 3, 10, 11, 12, 13], [4, 5, 6, 7, 8, 9, 14, 15, 16, 17, 18, 19])
    for rank, found in enumerate((first, second)):
        expect(found["allgather"] == gathered, f"allgather gave rank {rank} {found['allgather']}, not {gathered}")
        expect(found["alltoall"] == parts[rank], f"alltoall gave rank {rank} {found['alltoall']}, not {parts[rank]}")
    return {"gathered": len(gathered), "exchanged": len(parts[0])}
