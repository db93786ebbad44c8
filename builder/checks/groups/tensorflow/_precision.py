# mypy: disable-error-code="import-not-found, import-untyped, misc, no-any-return"
"""Training under the mixed policies, on a CPU or a GPU."""

from __future__ import annotations

from typing import Any

import keras
import numpy
import tensorflow

from builder.checks import grammar
from builder.checks.contract import expect
from builder.checks.groups.tensorflow import _model as model

SCALED_STEPS = 24
#: Steps without an overflow after which the scale doubles; small, so that it happens here.
GROWTH = 8
#: A loss of about 4, multiplied by this, is infinite in float32, and so is its gradient.
TOO_LARGE = 3e38


def train_mixed(dtype: str, device: str) -> dict[str, Any]:
    """Trains under the mixed policy, shows that it acted, and holds its numbers against float32.

    Args:
        dtype: the low type of the policy.
        device: `CPU:0` or `GPU:0`.
    """
    with tensorflow.device(f"/{device}"):
        return _train_mixed(dtype, device)


def _train_mixed(dtype: str, device: str) -> dict[str, Any]:
    what = f"training under mixed_{dtype}"
    unit = grammar.UNIT_ROUNDOFF[dtype]
    training = model.Training(1, f"mixed_{dtype}")
    model.expect_placed(training.model, device)
    plain = model.twin(training.model, "float32")
    plain_loss, largest = model.evaluate(plain)
    mixed_loss, _ = model.evaluate(training.model)
    start_bound = grammar.loss_bound(largest, unit, model.ROUNDINGS)

    batch = model.texts(grammar.BATCH, 0)
    reference = model.Training(1)
    reference.model.set_weights(training.model.get_weights())
    error = model.relative_error(model.vector(training.gradients(batch)), model.vector(reference.gradients(batch)))
    bound = grammar.gradient_bound(unit, model.ROUNDINGS)

    training.model.seen.clear()
    training._step = tensorflow.function(training._one_step)  # traced anew, so that the types are those of its steps
    losses = training.run(0, grammar.STEPS)
    model.expect_mixed(training, dtype)
    end_mixed, _ = model.evaluate(training.model)
    plain.set_weights(training.model.get_weights())
    end_plain, end_largest = model.evaluate(plain)
    end_bound = grammar.loss_bound(end_largest, unit, model.ROUNDINGS)
    measured = {
        "loss_first": losses[0],
        "loss_held_out": end_mixed,
        "loss_required": grammar.LEARNED,
        "entropy": grammar.ENTROPY,
        "difference_at_start": abs(mixed_loss - plain_loss),
        "bound_at_start": start_bound,
        "difference_at_end": abs(end_mixed - end_plain),
        "bound_at_end": end_bound,
        "gradient_error": error,
        "gradient_bound": bound,
        "activations": dtype,
        "steps": grammar.STEPS,
        "series": training.series,
    }
    model.expect_finite(losses, what)
    grammar.expect_learned(end_mixed, what)
    for when, difference, allowed in (
        ("before", abs(mixed_loss - plain_loss), start_bound),
        ("after", abs(end_mixed - end_plain), end_bound),
    ):
        expect(
            difference <= allowed,
            f"{when} training the loss in {dtype} differs from float32 by {difference:.2e}, "
            f"more than roundings explain ({allowed:.2e})",
            **measured,
        )
    expect(
        0 < error <= bound,
        f"the gradient in {dtype} differs from float32 by {error:.2e} of its norm, "
        f"roundings explain more than 0 and at most {bound:.2e}",
        **measured,
    )
    return measured


def train_scaled(device: str) -> dict[str, Any]:
    """Trains in float16 with a loss scale, then provokes an overflow, which must change no weight.

    Args:
        device: `CPU:0` or `GPU:0`.
    """
    with tensorflow.device(f"/{device}"):
        return _train_scaled(device)


def _train_scaled(device: str) -> dict[str, Any]:
    error, bound = _unscaled_error(), grammar.gradient_bound(grammar.UNIT_ROUNDOFF["float16"], model.ROUNDINGS)
    # AdamW takes the same steps whatever its gradients are multiplied with, so that the training below cannot tell.
    expect(
        0 < error <= bound,
        f"the unscaled gradient in float16 differs from float32 by {error:.2e} of its norm, "
        f"roundings explain more than 0 and at most {bound:.2e}",
    )
    optimizer = keras.optimizers.LossScaleOptimizer(model.adamw(), dynamic_growth_steps=GROWTH)
    training = model.Training(2, "mixed_float16", optimizer)
    model.expect_placed(training.model, device)
    before, _ = model.evaluate(training.model)
    kept, scale = model.weights(training.model), _scale(optimizer)
    scales, skipped = [], 0
    for number in range(SCALED_STEPS):
        model.expect_finite([training.step(model.texts(grammar.BATCH, number))], "training in float16")
        now, moved = _scale(optimizer), model.weights(training.model)
        # The scale falls exactly when an overflow was found, and only then may the weights stay.
        stayed = bool(numpy.array_equal(moved, kept))
        expect(
            stayed == (now < scale),
            f"step {number} {'kept' if stayed else 'changed'} the weights, the scale went from {scale:g} to {now:g}",
        )
        skipped += stayed
        kept, scale = moved, now
        scales.append(now)
    model.expect_mixed(training, "float16")
    after, _ = model.evaluate(training.model)
    expect(skipped < SCALED_STEPS / 2, f"{skipped} of {SCALED_STEPS} steps were skipped")
    expect(after < before, f"the loss went from {before:.3f} to {after:.3f} in {SCALED_STEPS} steps in float16")
    grown = any(scales[index] > scales[index - 1] for index in range(1, len(scales)))
    expect(grown or skipped > 0, f"the scale never grew in {SCALED_STEPS} steps, to be doubled every {GROWTH}")

    training.step(model.texts(grammar.BATCH, SCALED_STEPS), TOO_LARGE)
    expect(
        bool(numpy.array_equal(model.weights(training.model), kept)), "a step with infinite gradients changed weights"
    )
    expect(_scale(optimizer) == scale / 2, f"an overflow left the scale at {_scale(optimizer):g}, not {scale / 2:g}")
    training.step(model.texts(grammar.BATCH, SCALED_STEPS + 1))
    moved = model.weights(training.model)
    expect(bool(numpy.isfinite(moved).all()), "after an overflow the weights are not finite")
    expect(not numpy.array_equal(moved, kept), "after an overflow no step is taken any more")
    return {
        "loss_first": before,
        "loss_held_out": after,
        "skipped": skipped,
        "scale": _scale(optimizer),
        "gradient_error": error,
        "gradient_bound": bound,
        "steps": SCALED_STEPS,
        "series": {**training.series, "loss_scale": scales},
    }


def _scale(optimizer: Any) -> float:
    return float(optimizer.dynamic_scale.numpy())


def _unscaled_error() -> float:
    """How far the gradient that reaches the inner optimizer is from that in float32: plain SGD subtracts it."""
    batch = model.texts(grammar.BATCH, 0)
    optimizer = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(1.0))
    training = model.Training(2, "mixed_float16", optimizer)
    reference = model.Training(2)
    reference.model.set_weights(training.model.get_weights())
    before = model.weights(training.model)
    training.step(batch)
    found = before - model.weights(training.model)
    return model.relative_error(found, model.vector(reference.gradients(batch)))
