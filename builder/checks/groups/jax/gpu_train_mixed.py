# mypy: disable-error-code="import-not-found, import-untyped, misc, no-any-return"
"""Training in bfloat16 with float32 weights, on a GPU."""

from __future__ import annotations

from typing import Any

from builder.checks.contract import Measured, check, expect
from builder.checks.groups.jax import gpu


@check(
    "jax.gpu.train.mixed",
    level="gpu",
    deadline=180,
    catches="A GPU image that computes on no GPU, whose compiler does not work there, or whose numbers are wrong.",
)
def run(jax: Any) -> Measured:
    device = gpu(jax)
    from builder.checks.groups.jax import _precision

    # The bounds are those of float32; by default a GPU computes products of it in a type of 11 bits.
    with jax.default_device(device), jax.default_matmul_precision("float32"):
        where = jax.numpy.arange(3.0).sum().devices()
        expect(where == {device}, f"a sum that was asked of {device} is on {where}")
        measured = _precision.train_mixed("bfloat16")
    return {**measured, "device": device.device_kind}
