# mypy: disable-error-code="import-not-found, import-untyped, misc, no-any-return"
"""Training steps on the grammar of `language`, and the bounds that their results are held against.

Every bound follows from the formats and the model; none was fitted to a measurement.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch

from builder.checks import grammar, language
from builder.checks.contract import expect
from builder.checks.grammar import expect_learned as expect_learned

BATCH = 32
RATE = 1e-2
HELD_OUT = 64
HELD_OUT_SEED = 1_000_000

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
    """A model, its optimizer and, for float16, its gradient scaler.

    `shift` is the grammar's. `series` gets one number per step: `loss` (nats), `step_seconds`, `loss_scale`.
    """

    model: language.LanguageModel
    optimizer: torch.optim.Optimizer
    device: str
    dtype: torch.dtype | None
    scaler: Any = None
    shift: int = 0
    series: dict[str, list[float]] = field(default_factory=dict)

    def loss(self, symbols: torch.Tensor) -> torch.Tensor:
        """The loss on one batch, with the forward pass under autocast."""
        with autocast(self.device, self.dtype):
            logits = self.model(symbols[:, :-1])
        return language.loss_of(logits, symbols)

    def step(self, seed: int) -> float:
        """One step on a fresh batch; returns its loss."""
        began = time.perf_counter()
        loss = self.loss(language.texts(BATCH, seed, self.device, self.shift))
        self.optimizer.zero_grad()
        if self.scaler is None:
            loss.backward()
            self.optimizer.step()
        else:
            self.scaler.scale(loss).backward()
            self.scaler.step(self.optimizer)
            self.scaler.update()
        value = float(loss.item())
        self._note("loss", value)
        self._note("step_seconds", round(time.perf_counter() - began, 6))
        if self.scaler is not None:
            self._note("loss_scale", float(self.scaler.get_scale()))
        return value

    def _note(self, name: str, value: float) -> None:
        self.series.setdefault(name, []).append(value)

    def run(self, start: int, stop: int) -> list[float]:
        """The losses of the steps from `start` to before `stop`; a step's number is its batch's seed."""
        return [self.step(number) for number in range(start, stop)]

    def evaluate(self, dtype: torch.dtype | None) -> tuple[float, torch.Tensor]:
        """Loss and logits on held-out texts, computed in `dtype`, without gradients."""
        symbols = language.texts(HELD_OUT, HELD_OUT_SEED, self.device, self.shift)
        with torch.no_grad(), autocast(self.device, dtype):
            logits = self.model(symbols[:, :-1])
        return float(language.loss_of(logits, symbols).item()), logits.float()


def new_training(seed: int, device: str = "cpu", dtype: torch.dtype | None = None, scaler: Any = None) -> Training:
    """A training at its start."""
    model = language.new_model(seed, device)
    return Training(model, optimizer_for(model), device, dtype, scaler)


def loss_bound(logits: torch.Tensor, dtype: torch.dtype) -> float:
    """`grammar.loss_bound` for these logits: how far the loss in `dtype` may be from the float32 loss."""
    largest = float(logits.abs().amax(dim=-1).mean().item())
    return grammar.loss_bound(largest, UNIT_ROUNDOFF[dtype], language.ROUNDINGS)


def gradient_bound(dtype: torch.dtype) -> float:
    """`grammar.gradient_bound` of this model: how far the gradient in `dtype` may be from the float32 gradient."""
    return grammar.gradient_bound(UNIT_ROUNDOFF[dtype], language.ROUNDINGS)


def summation_bound(sequences: int, condition: float) -> float:
    """`grammar.summation_bound` of this model: how far two gradients may be apart if only the order differs."""
    return grammar.summation_bound(sequences, language.ROUNDINGS, condition)


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


def expect_mixed(training: Training, seen: dict[str, set[str]]) -> None:
    """Fails unless autocast acted in the steps taken: activations in its type, and all that is kept in float32."""
    dtype = training.dtype
    for name, types in seen.items():
        expect(
            types == {str(dtype)},
            f"autocast did not act: the output of {name} is {' and '.join(sorted(types)) or 'missing'}, "
            f"expected {dtype}",
        )
    for name, parameter in training.model.named_parameters():
        expect(parameter.dtype == torch.float32, f"the weight {name} is {parameter.dtype}, not float32")
        expect(
            parameter.grad is not None and parameter.grad.dtype == torch.float32,
            f"the gradient of {name} is missing or not float32",
        )
        _expect_precise(name, parameter.detach(), dtype)
        for key, value in training.optimizer.state[parameter].items():
            if isinstance(value, torch.Tensor) and value.is_floating_point():
                expect(value.dtype == torch.float32, f"the optimizer's {key} of {name} is {value.dtype}, not float32")


def _expect_precise(name: str, weight: torch.Tensor, dtype: torch.dtype | None) -> None:
    """Fails when a float32 weight holds only numbers that the low type has too.

    Of the numbers of float32 one in 2^16 is a number of bfloat16, and one in 2^13 one of float16. Half of a weight of
    64 numbers, the smallest there is, cannot be so by chance. A weight that is one number throughout, as those of
    LayerNorm are at their start, tells nothing of that: that it stands still is another finding.
    """
    if bool((weight == weight.reshape(-1)[0]).all()):
        return
    low = (weight.to(dtype).float() == weight).double().mean().item()
    expect(low <= 0.5, f"the weight {name} is kept in float32, but rounded to {dtype}: {low:.0%} of it")


def expect_finite(losses: list[float], what: str) -> None:
    """Fails when a step's loss is no number."""
    for step, loss in enumerate(losses):
        expect(math.isfinite(loss), f"the loss of step {step} of {what} is {loss}")
