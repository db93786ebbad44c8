# mypy: disable-error-code="import-not-found, import-untyped, misc, no-any-return"
"""The smallest network there is, in Gluon."""

from __future__ import annotations

from typing import Any

from builder.checks.contract import Measured, check, expect

STEPS = 300


@check(
    "mxnet.train.regression",
    level="cpu",
    deadline=60,
    catches="A Gluon that does not train at all: the smallest network there is does not fit a line.",
)
def run(mxnet: Any) -> Measured:
    from builder.checks import arrays

    inputs, targets = arrays.points(64, 0)
    mxnet.random.seed(0)
    net = mxnet.gluon.nn.HybridSequential()
    net.add(mxnet.gluon.nn.Dense(5, activation="relu"), mxnet.gluon.nn.Dense(1))
    net.initialize(mxnet.init.Xavier(), ctx=mxnet.cpu())
    net.hybridize()
    trainer = mxnet.gluon.Trainer(net.collect_params(), "adam", {"learning_rate": 0.02}, kvstore=None)
    given, wanted = mxnet.nd.array(inputs), mxnet.nd.array(targets)
    losses = []
    for _ in range(STEPS):
        with mxnet.autograd.record():
            loss = mxnet.nd.square(net(given) - wanted).mean()
        loss.backward()
        trainer.step(1)  # the loss is a mean already
        losses.append(float(loss.asscalar()))
    # The best constant has the variance of the targets as its loss; a tenth of it needs the inputs.
    bound = float(targets.var()) / 10
    found = float(mxnet.nd.square(net(given) - wanted).mean().asscalar())
    expect(0 <= found < bound, f"a 10-5-1 network ends at loss {found:.4f}, bound {bound:.4f}", series={"loss": losses})
    return {"loss": found, "bound": bound, "steps": STEPS, "series": {"loss": losses}}
