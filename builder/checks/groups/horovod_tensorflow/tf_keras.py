# mypy: disable-error-code="import-not-found, import-untyped, misc, no-any-return"
"""`hvd.DistributedOptimizer` and Horovod's callbacks with Keras 2, as scripts from before Keras 3 use them."""

from __future__ import annotations

from builder.checks import pair
from builder.checks.contract import Measured, check, fail
from builder.checks.groups.horovod_tensorflow import launch_ranks


@check(
    "horovod.tensorflow.tf-keras",
    level="cpu",
    needs=("tf-keras",),
    deadline=200,
    catches="Scripts for Keras 2 whose ranks drift apart, or with which Horovod does not work at all.",
)
def run(launch: pair.Launch) -> Measured:
    # The variable counts when TensorFlow is imported, so these ranks are others than those of the group.
    made = launch_ranks("horovod_tensorflow._legacy", TF_USE_LEGACY_KERAS="1")
    if not made.reports:
        fail(f"no rank reported anything: {made.how}", detail=made.output)
    pair.expect_ranks(made, ("gradients", "weights"))
    return {**pair.expect_gradients(made), **pair.expect_weights(made)}
