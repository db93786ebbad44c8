# mypy: disable-error-code="import-not-found, import-untyped, misc, no-any-return"
"""`hvd.DistributedOptimizer` with Keras 3: it reduces, or it refuses."""

from __future__ import annotations

from builder.checks import pair
from builder.checks.contract import Measured, check, expect


@check(
    "horovod.tensorflow.keras3-optimizer",
    level="cpu",
    deadline=60,
    catches="A DistributedOptimizer that reduces nothing under Keras 3 and says nothing: every rank trains alone.",
)
def run(launch: pair.Launch) -> Measured:
    first, second = launch.section("keras3")
    refused = first["refused"]
    expect(
        refused.keys() == second["refused"].keys(),
        f"one rank refuses what the other trains with: {sorted(refused)} and {sorted(second['refused'])}",
    )
    measured: dict[str, object] = {"refused": refused}
    if any(launch.section("keras3-weights")):
        measured.update(pair.expect_weights(launch, "keras3-weights"))
    if "keras3" not in refused:
        measured.update(pair.expect_gradients(launch, "keras3"))
    return measured
