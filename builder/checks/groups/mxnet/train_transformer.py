# mypy: disable-error-code="import-not-found, import-untyped, misc, no-any-return"
"""A transformer in Gluon."""

from __future__ import annotations

from typing import Any

from builder.checks.contract import Measured, check


@check(
    "mxnet.train.transformer",
    level="cpu",
    deadline=120,
    catches="Attention, embeddings or an optimizer that do not work: a transformer does not learn.",
)
def run(mxnet: Any) -> Measured:
    from builder.checks import arrays, grammar
    from builder.checks.groups.mxnet import _model as model

    training = model.Training(1)
    losses = training.run(0, grammar.STEPS)
    arrays.expect_finite(losses, "a transformer in Gluon")
    held_out = model.evaluate(training.net)
    grammar.expect_learned(held_out, "a transformer in Gluon")
    return {
        "loss_first": losses[0],
        "loss_held_out": held_out,
        "loss_required": grammar.LEARNED,
        "entropy": grammar.ENTROPY,
        "steps": grammar.STEPS,
        "series": training.series,
    }
