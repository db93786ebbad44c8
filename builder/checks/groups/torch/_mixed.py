# mypy: disable-error-code="import-not-found, import-untyped, misc, no-any-return"
"""Training in mixed precision, on any device."""

from __future__ import annotations

import math
from typing import Any

import torch

from builder.checks import language
from builder.checks.contract import expect
from builder.checks.training import (
    BATCH,
    expect_finite,
    expect_learned,
    expect_mixed,
    gradient,
    gradient_bound,
    loss_bound,
    new_training,
    relative_error,
    watched,
    weights,
)

#: Steps that suffice: the loss is near the entropy after about 60.
STEPS = 70
#: Steps in float16, which many CPUs compute slowly; each of them is seen to move the weights.
SCALED_STEPS = 15


def train_mixed(device: str, dtype: torch.dtype) -> dict[str, Any]:
    """Trains with autocast in `dtype`, shows that it acted, and holds its numbers against float32."""
    what = f"training with autocast in {dtype} on {device}"
    training = new_training(1, device, dtype)
    plain_loss, logits = training.evaluate(None)
    mixed_loss, _ = training.evaluate(dtype)
    start_bound = loss_bound(logits, dtype)

    batch = language.texts(BATCH, 0, device)
    reference = new_training(1, device, None)
    reference.loss(batch).backward()
    training.loss(batch).backward()
    gradient_error = relative_error(gradient(training.model), gradient(reference.model))

    with watched(training.model) as seen:
        losses = training.run(0, STEPS)
    end_mixed, _ = training.evaluate(dtype)
    end_plain, end_logits = training.evaluate(None)
    end_bound = loss_bound(end_logits, dtype)
    measured = {
        "loss_first": losses[0],
        "loss_held_out": end_mixed,
        "loss_required": language.LEARNED,
        "entropy": language.ENTROPY,
        "difference_at_start": abs(mixed_loss - plain_loss),
        "bound_at_start": start_bound,
        "difference_at_end": abs(end_mixed - end_plain),
        "bound_at_end": end_bound,
        "gradient_error": gradient_error,
        "gradient_bound": gradient_bound(dtype),
        "activations": str(dtype),
        "steps": STEPS,
        "series": training.series,
    }
    expect_mixed(training, seen)
    expect_finite(losses, what)
    expect_learned(end_mixed, what)
    for when, difference, bound in (
        ("before", abs(mixed_loss - plain_loss), start_bound),
        ("after", abs(end_mixed - end_plain), end_bound),
    ):
        expect(
            difference <= bound,
            f"{when} training the loss in {dtype} differs from float32 by {difference:.2e}, "
            f"more than roundings explain ({bound:.2e})",
            **measured,
        )
    expect(
        0 < gradient_error <= gradient_bound(dtype),
        f"the gradient in {dtype} differs from float32 by {gradient_error:.2e} of its norm, "
        f"roundings explain more than 0 and at most {gradient_bound(dtype):.2e}",
        **measured,
    )
    return measured


def train_scaled(device: str, scaler: Any) -> dict[str, Any]:
    """Trains in float16 with a gradient scaler, then provokes an overflow, which the scaler must skip."""
    training = new_training(2, device, torch.float16, scaler)
    error, bound = _unscaled_error(device), gradient_bound(torch.float16)
    # AdamW takes the same steps whatever its gradients are multiplied with, so that the training below cannot tell.
    expect(
        0 < error <= bound,
        f"the unscaled gradient in float16 differs from float32 by {error:.2e} of its norm, "
        f"roundings explain more than 0 and at most {bound:.2e}",
    )
    before = training.evaluate(None)[0]
    skipped, scale, kept = 0, float(scaler.get_scale()), weights(training.model)
    with watched(training.model) as seen:
        for number in range(SCALED_STEPS):
            expect_finite([training.step(number)], "training in float16")
            now, moved = float(scaler.get_scale()), weights(training.model)
            # The scale falls exactly when the scaler found an overflow, and only then may it keep the weights.
            if now < scale:
                skipped += 1
            else:
                expect(
                    not torch.equal(kept, moved),
                    f"step {number} in float16 left the weights as they were, at a gradient scale of {now:g}",
                    series=training.series,
                )
            scale, kept = now, moved
    after = training.evaluate(None)[0]
    measured: dict[str, Any] = {"loss_before": before, "loss_after": after, "skipped": skipped, "scale": scale}
    measured |= {"gradient_error": error, "gradient_bound": bound, "series": training.series}
    expect_mixed(training, seen)
    expect(math.isfinite(scale) and scale > 0, f"the gradient scale is {scale}", **measured)
    expect(
        skipped < SCALED_STEPS / 2,
        f"{skipped} of {SCALED_STEPS} steps in float16 were skipped",
        **measured,
    )
    expect(after < before, f"training in float16 raised the loss from {before:.3f} to {after:.3f}", **measured)

    training.optimizer.zero_grad()
    loss = training.loss(language.texts(BATCH, 0, device)) * math.inf
    scaler.scale(loss).backward()
    scaler.step(training.optimizer)
    scaler.update()
    measured["scale_after_overflow"] = float(scaler.get_scale())
    expect(
        torch.equal(kept, weights(training.model)) and measured["scale_after_overflow"] < scale,
        "the gradient scaler did not skip a step whose gradients overflowed",
        **measured,
    )
    return measured


def _unscaled_error(device: str) -> float:
    """How far the gradient in float16, scaled and unscaled again, is from the float32 gradient."""
    batch = language.texts(BATCH, 0, device)
    reference = new_training(2, device)
    reference.loss(batch).backward()
    # Small enough that nothing overflows, and large enough that no gradient that counts is lost.
    training = new_training(2, device, torch.float16, torch.amp.GradScaler(device, init_scale=2.0**10))
    training.scaler.scale(training.loss(batch)).backward()
    training.scaler.unscale_(training.optimizer)
    return relative_error(gradient(training.model), gradient(reference.model))
