# mypy: disable-error-code="import-not-found, import-untyped, misc, no-any-return"
"""Training in bfloat16 with float32 weights."""

from __future__ import annotations

from typing import Any

from builder.checks.contract import Measured, check
from builder.checks.groups.jax import on_cpu


@check(
    "jax.train.mixed",
    level="cpu",
    deadline=120,
    catches="Mixed precision that the compiler leaves out or gets wrong, and a transformer that does not learn.",
)
def run(jax: Any) -> Measured:
    from builder.checks.groups.jax import _precision

    with on_cpu(jax):
        return _precision.train_mixed("bfloat16")
