# mypy: disable-error-code="import-not-found, import-untyped, misc, no-any-return"
"""Products, compiled functions and derivatives against what is known of them."""

from __future__ import annotations

from typing import Any

from builder.checks.contract import Measured, check, expect
from builder.checks.groups.jax import on_cpu

POINTS, INPUTS = 96, 24


@check(
    "jax.numerics",
    level="cpu",
    deadline=120,
    catches="Products, derivatives or compiled functions that are wrong by more than the format of numbers explains.",
)
def run(jax: Any) -> Measured:
    with on_cpu(jax):
        return {"part_of_bound": max(_products(jax), _derivatives(jax)), **_compiled(jax)}


def _products(jax: Any) -> float:
    """Products in float32 and bfloat16 against those of NumPy in float64, element by element."""
    import numpy

    from builder.checks import arrays, grammar

    jnp = jax.numpy
    random = numpy.random.default_rng(1)
    worst = 0.0
    for shape in ((64, 1024, 48), (1, 257, 1), (33, 5, 129)):
        left = random.standard_normal(shape[:2]).astype("float32")
        right = random.standard_normal(shape[1:]).astype("float32")
        for dtype in ("float32", "bfloat16"):
            low = [jnp.asarray(values, dtype) for values in (left, right)]
            exact = [numpy.asarray(values.astype("float32"), numpy.float64) for values in low]
            expected = exact[0] @ exact[1]
            # The products are added in float32 at least, and the result is rounded once more.
            bound = arrays.product_bound(shape[1], numpy.abs(exact[0]) @ numpy.abs(exact[1]))
            bound = bound + grammar.UNIT_ROUNDOFF[dtype] * (numpy.abs(expected) + bound)
            found = numpy.asarray((low[0] @ low[1]).astype("float32"))
            what = f"the product of {shape[0]}x{shape[1]} and {shape[1]}x{shape[2]} matrices in {dtype}"
            worst = max(worst, arrays.expect_close(found, expected, bound, what))
    return worst


def _derivatives(jax: Any) -> float:
    """The mean squared error of a line: its gradient is 2/n X'(Xw - y), its Hessian 2/n X'X."""
    import numpy

    from builder.checks import arrays

    random = numpy.random.default_rng(2)
    inputs, targets = random.standard_normal((POINTS, INPUTS)), random.standard_normal(POINTS)
    weights = random.standard_normal(INPUTS)
    inputs, targets, weights = (values.astype("float32") for values in (inputs, targets, weights))
    exact = [values.astype("float64") for values in (inputs, targets, weights)]

    def error(weights: Any) -> Any:
        return ((inputs @ weights - targets) ** 2).mean()

    # A sum over the points of products with sums over the inputs, and a few roundings around them.
    terms = POINTS + INPUTS + 8
    worst = 0.0
    gradient = 2 / POINTS * exact[0].T @ (exact[0] @ exact[2] - exact[1])
    size = [numpy.abs(values) for values in exact]
    bound = arrays.product_bound(terms, 2 / POINTS * size[0].T @ (size[0] @ size[2] + size[1]))
    for name, function in (("gradient", jax.grad(error)), ("forward-mode gradient", jax.jacfwd(error))):
        for how, call in (("", function), ("compiled ", jax.jit(function))):
            worst = max(
                worst, arrays.expect_close(call(weights), gradient, bound, f"the {how}{name} of a line's error")
            )
    hessian = 2 / POINTS * exact[0].T @ exact[0]
    bound = arrays.product_bound(terms, 2 / POINTS * size[0].T @ size[0])
    worst = max(
        worst, arrays.expect_close(jax.hessian(error)(weights), hessian, bound, "the Hessian of a line's error")
    )
    batch = numpy.stack([weights, 2 * weights])
    found = jax.vmap(jax.grad(error))(batch)
    expected = [2 / POINTS * exact[0].T @ (exact[0] @ row - exact[1]) for row in batch.astype("float64")]
    magnitude = [2 / POINTS * size[0].T @ (size[0] @ numpy.abs(row) + size[1]) for row in batch.astype("float64")]
    bound = arrays.product_bound(terms, numpy.stack(magnitude))
    return max(worst, arrays.expect_close(found, numpy.stack(expected), bound, "the gradient of a batch of lines"))


def _compiled(jax: Any) -> dict[str, float]:
    """Loss of the transformer and gradient of a small network, compiled as a whole and each operation by itself."""
    from builder.checks import arrays, grammar
    from builder.checks.groups.jax import _model as model

    weights, batch = model.new_model(3), arrays.texts(grammar.BATCH, 3)
    inputs, targets = arrays.points(64, 3)
    net = {"first": weights["up.weight"][:10, :16], "second": weights["proj.weight"][:16, :1]}

    def error(net: Any) -> Any:
        return ((jax.numpy.tanh(inputs @ net["first"]) @ net["second"] - targets) ** 2).mean()

    with jax.disable_jit():
        plain_loss = float(model.loss_of(weights, batch))
        plain = model.vector(jax.grad(error)(net))
    loss = float(model.compiled_loss(weights, batch, dtype=jax.numpy.dtype("float32")))
    found = model.vector(jax.jit(jax.grad(error))(net))
    # The same operations on the same numbers: the compiler may only add in another order and leave roundings out.
    bound = grammar.summation_bound(grammar.BATCH, model.ROUNDINGS, condition=1.0)
    off = arrays.relative_error(found, plain)
    apart = abs(loss - plain_loss) / plain_loss
    expect(off <= bound, f"compiled and plain gradient differ by {off:.2e} of the norm, bound {bound:.2e}")
    expect(apart <= bound, f"compiled and plain loss differ by {apart:.2e}, bound {bound:.2e}")
    return {"compiled_error": max(off, apart), "compiled_bound": bound}
