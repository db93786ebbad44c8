# mypy: disable-error-code="import-not-found, import-untyped, misc, no-any-return"
"""Gradients that travel in float16."""

from __future__ import annotations

import array
import struct

from builder.checks import pair
from builder.checks.contract import Measured, check, expect

#: The largest relative error of one rounding to float16.
UNIT_ROUNDOFF = 2.0**-11


@check(
    "horovod.compression",
    level="cpu",
    deadline=60,
    catches="Compressed gradients that are not compressed, or wrong by more than float16 explains.",
)
def run(launch: pair.Launch) -> Measured:
    measured = pair.expect_gradients(launch, "compression", rounding=UNIT_ROUNDOFF)
    values = launch.vector("compression-reduced-0")
    expect(_are_halves(values), "Compression.fp16 did not act: the reduced gradients are no numbers of float16")
    return measured


def _are_halves(values: array.array[float]) -> bool:
    """Whether each number is one of float16."""
    try:
        packed = struct.pack(f"{len(values)}e", *values)
    except OverflowError:
        return False
    return struct.unpack(f"{len(values)}e", packed) == tuple(values)
