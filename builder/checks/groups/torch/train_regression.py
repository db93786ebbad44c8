# mypy: disable-error-code="import-not-found, import-untyped, misc, no-any-return"
"""The smallest network there is."""

from __future__ import annotations

import time
from typing import Any

from builder.checks.contract import Measured, check, expect

STEPS = 300


@check(
    "torch.train.regression",
    level="cpu",
    deadline=60,
    catches="Autograd or Adam that does not work at all: the smallest network there is does not fit a line.",
)
def run(torch: Any) -> Measured:
    torch.manual_seed(0)
    inputs = torch.randn(64, 10)
    targets = inputs @ torch.linspace(-1, 1, 10).reshape(10, 1)
    net = torch.nn.Sequential(torch.nn.Linear(10, 5), torch.nn.ReLU(), torch.nn.Linear(5, 1))
    optimizer = torch.optim.Adam(net.parameters(), lr=0.02)
    # The best constant has the variance of the targets as its loss; a tenth of it needs the inputs.
    bound = float(targets.var(unbiased=False).item()) / 10
    losses, seconds = [], []
    for _ in range(STEPS):
        began = time.perf_counter()
        loss = torch.nn.functional.mse_loss(net(inputs), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.item()))
        seconds.append(round(time.perf_counter() - began, 6))
    series = {"loss": losses, "step_seconds": seconds}
    found = losses[-1]
    expect(0 <= found < bound, f"a 10-5-1 network ends at loss {found:.4f}, bound {bound:.4f}", series=series)
    return {"loss": found, "bound": bound, "steps": STEPS, "series": series}
