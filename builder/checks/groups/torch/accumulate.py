# mypy: disable-error-code="import-not-found, import-untyped, misc, no-any-return"
"""Micro-batches against one batch."""

from __future__ import annotations

from typing import Any

from builder.checks.contract import Measured, check, expect


@check(
    "torch.accumulate",
    level="cpu",
    deadline=120,
    catches="Gradients of micro-batches that do not add up to the gradient of the whole batch.",
)
def run(torch: Any) -> Measured:
    from builder.checks import language, training

    parts = 4
    batch = language.texts(training.BATCH, 7)
    whole = training.new_training(3)
    whole.loss(batch).backward()
    expected = training.gradient(whole.model)

    accumulated = training.new_training(3)
    norms, before = 0.0, torch.zeros_like(expected)
    for part in batch.chunk(parts):
        (accumulated.loss(part) / parts).backward()
        now = training.gradient(accumulated.model)
        norms, before = norms + float((now - before).norm()), now
    error = training.relative_error(before, expected)
    bound = training.summation_bound(training.BATCH, norms / float(expected.norm()))
    expect(
        error <= bound,
        f"{parts} micro-batches and one batch differ by {error:.2e} of the gradient, bound {bound:.2e}",
    )
    return {"error": error, "bound": bound, "micro_batches": parts}
