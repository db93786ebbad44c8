# mypy: disable-error-code="import-not-found, import-untyped, misc, no-any-return"
"""Training steps on the grammar of `language`, and the bounds that their results are held against.

Every bound follows from the formats and the model; none was fitted to a measurement.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from builder.checks import language
from builder.checks.contract import expect

BATCH = 32
#: Steps that suffice: the loss is near the entropy after about 60.
STEPS = 100
RATE = 1e-2
HELD_OUT = 64
HELD_OUT_SEED = 1_000_000
SCALED_STEPS = 30

#: Half of the distance from 1 to the next number: the largest relative error of one rounding to nearest.
UNIT_ROUNDOFF = {torch.float32: 2.0**-24, torch.float16: 2.0**-11, torch.bfloat16: 2.0**-8}


def optimizer_for(model: torch.nn.Module) -> torch.optim.Optimizer:
    """AdamW with the rate that the steps above are counted for."""
    return torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.01)


def autocast(device: str, dtype: torch.dtype | None) -> contextlib.AbstractContextManager[Any]:
    """Mixed precision in `dtype`; None computes in the weights' own float32."""
    return torch.autocast(device, dtype=dtype) if dtype is not None else contextlib.nullcontext()


@dataclass
class Training:
    """A model, its optimizer and, for float16, its gradient scaler."""

    model: language.LanguageModel
    optimizer: torch.optim.Optimizer
    device: str
    dtype: torch.dtype | None
    scaler: Any = None

    def loss(self, symbols: torch.Tensor) -> torch.Tensor:
        """The loss on one batch, with the forward pass under autocast."""
        with autocast(self.device, self.dtype):
            logits = self.model(symbols[:, :-1])
        return language.loss_of(logits, symbols)

    def step(self, seed: int) -> float:
        """One step on a fresh batch; returns its loss."""
        loss = self.loss(language.texts(BATCH, seed, self.device))
        self.optimizer.zero_grad()
        if self.scaler is None:
            loss.backward()
            self.optimizer.step()
        else:
            self.scaler.scale(loss).backward()
            self.scaler.step(self.optimizer)
            self.scaler.update()
        return float(loss.item())

    def run(self, start: int, stop: int) -> list[float]:
        """The losses of the steps from `start` to before `stop`; a step's number is its batch's seed."""
        return [self.step(number) for number in range(start, stop)]

    def evaluate(self, dtype: torch.dtype | None) -> tuple[float, torch.Tensor]:
        """Loss and logits on held-out texts, computed in `dtype`, without gradients."""
        symbols = language.texts(HELD_OUT, HELD_OUT_SEED, self.device)
        with torch.no_grad(), autocast(self.device, dtype):
            logits = self.model(symbols[:, :-1])
        return float(language.loss_of(logits, symbols).item()), logits.float()


def new_training(seed: int, device: str = "cpu", dtype: torch.dtype | None = None, scaler: Any = None) -> Training:
    """A training at its start."""
    model = language.new_model(seed, device)
    return Training(model, optimizer_for(model), device, dtype, scaler)


def expect_learned(loss: float, what: str) -> None:
    """Fails unless a held-out loss lies where only a causal model that learned the grammar can have it.

    Above: see `language.LEARNED`. On N = 64 · 31 predictions a model without context cannot come near it by luck: its
    loss is at least the entropy of the sample's own symbol frequencies, which falls short of ln 64 by a chi-square of
    63 degrees over 2N, 0.016 on average and above 0.04 in less than one of a million draws.
    Below: five standard deviations of the sample's mean surprise under the entropy.
    """
    count = HELD_OUT * language.PREDICTIONS
    floor = language.ENTROPY - 5 * language.SURPRISE_DEVIATION / math.sqrt(count)
    expect(math.isfinite(loss), f"{what}: the loss is {loss}")
    expect(
        loss < language.LEARNED,
        f"{what} learned nothing of use: its loss is {loss:.3f} nats, required is less than "
        f"{language.LEARNED:.3f} (without context {language.UNIGRAM_ENTROPY:.3f})",
        loss=loss,
    )
    expect(
        loss > floor,
        f"{what}: the loss {loss:.3f} is below the entropy of the text, {language.ENTROPY:.3f}: "
        "the model sees what it is to predict",
        loss=loss,
    )


def loss_bound(logits: torch.Tensor, dtype: torch.dtype) -> float:
    """How far the loss in `dtype` may be from the float32 loss at the same weights.

    K = `ROUNDINGS` roundings, each a relative error of at most u, lie between embedding and logits; LayerNorm passes
    a relative error on as it is, and errors of independent roundings add in quadrature: a logit is off by about
    sqrt(K) u |z|, and |z| is at most the largest logit of its prediction. The cross-entropy of a prediction changes
    by at most twice the largest change of its logits: once through the target's own, once through the normaliser.
    """
    largest = float(logits.abs().amax(dim=-1).mean().item())
    return 2 * math.sqrt(language.ROUNDINGS) * UNIT_ROUNDOFF[dtype] * largest


def gradient_bound(dtype: torch.dtype) -> float:
    """How far, relative to its norm, the gradient in `dtype` may be from the float32 gradient at the same weights.

    A weight's gradient is a product of a forward activation (up to K roundings) and a backward signal (K forward and
    up to K backward ones): 3K roundings in quadrature, sqrt(3K) u as the expected size; four times that is allowed.
    """
    return 4 * math.sqrt(3 * language.ROUNDINGS) * UNIT_ROUNDOFF[dtype]


def summation_bound(sequences: int, condition: float) -> float:
    """How far two float32 gradients of the same batch may be apart, relative to their norm, if only the order differs.

    Summing n numbers in any order has a relative error of at most n u of the sum of their magnitudes. Here n is the
    number of predictions in the batch, and for the dot products inside the model K times the width. `condition` is
    (sum of the norms) / (norm of the sum) of the parts' gradients; two results make twice the error.
    """
    terms = sequences * language.PREDICTIONS + language.ROUNDINGS * language.WIDTH
    return 2 * terms * UNIT_ROUNDOFF[torch.float32] * condition


def gradient(model: torch.nn.Module) -> torch.Tensor:
    """All gradients of a model as one float64 vector on the CPU; a parameter without one is an error."""
    parts = []
    for name, parameter in model.named_parameters():
        expect(parameter.grad is not None, f"{name} got no gradient")
        parts.append(parameter.grad.detach().double().cpu().reshape(-1))
    return torch.cat(parts)


def weights(model: torch.nn.Module) -> torch.Tensor:
    """All parameters of a model as one vector on the CPU, in their own format."""
    return torch.cat([item.detach().cpu().reshape(-1) for item in model.parameters()])


def relative_error(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Norm of the difference over the norm of what was expected."""
    return float((found - expected).norm().item() / expected.norm().item())


@contextlib.contextmanager
def watched(model: torch.nn.Module) -> Iterator[dict[str, set[str]]]:
    """The types of what every linear layer puts out meanwhile, by the layer's name."""
    seen: dict[str, set[str]] = {}
    hooks = []
    for name, layer in model.named_modules():
        if isinstance(layer, torch.nn.Linear):
            types = seen.setdefault(name, set())

            def note(layer: object, inputs: object, output: torch.Tensor, types: set[str] = types) -> None:
                types.add(str(output.dtype))

            hooks.append(layer.register_forward_hook(note))
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


def expect_mixed(model: torch.nn.Module, seen: dict[str, set[str]], dtype: torch.dtype) -> None:
    """Fails unless autocast acted: activations in `dtype`, weights and gradients in float32."""
    for name, types in seen.items():
        expect(
            types == {str(dtype)},
            f"autocast did not act: the output of {name} is {' and '.join(sorted(types)) or 'missing'}, "
            f"expected {dtype}",
        )
    for name, parameter in model.named_parameters():
        expect(parameter.dtype == torch.float32, f"the weight {name} is {parameter.dtype}, not float32")
        expect(
            parameter.grad is not None and parameter.grad.dtype == torch.float32,
            f"the gradient of {name} is missing or not float32",
        )


def train_mixed(device: str, dtype: torch.dtype) -> dict[str, Any]:
    """Trains with autocast in `dtype`, shows that it acted, and holds its numbers against float32."""
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
    }
    expect_mixed(training.model, seen, dtype)
    expect_learned(end_mixed, f"training with autocast in {dtype} on {device}")
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
    skipped, scale = 0, float(scaler.get_scale())
    with watched(training.model) as seen:
        for number in range(SCALED_STEPS):
            loss = training.step(number)
            expect(math.isfinite(loss), f"the loss of step {number} in float16 is {loss}")
            now = float(scaler.get_scale())
            skipped, scale = skipped + (now < scale), now
    after = training.evaluate(None)[0]
    measured = {"loss_before": before, "loss_after": after, "skipped": skipped, "scale": scale}
    measured |= {"gradient_error": error, "gradient_bound": bound}
    expect_mixed(training.model, seen, torch.float16)
    expect(math.isfinite(scale) and scale > 0, f"the gradient scale is {scale}", **measured)
    expect(
        skipped < SCALED_STEPS / 2,
        f"{skipped} of {SCALED_STEPS} steps in float16 were skipped",
        **measured,
    )
    expect(after < before, f"training in float16 raised the loss to {after:.3f}", **measured)

    kept = weights(training.model)
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
