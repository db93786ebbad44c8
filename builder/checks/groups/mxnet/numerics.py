# mypy: disable-error-code="import-not-found, import-untyped, misc, no-any-return"
"""Products, convolutions and derivatives against what is known of them."""

from __future__ import annotations

from typing import Any

from builder.checks.contract import Measured, check, expect

POINTS, INPUTS = 96, 24


@check(
    "mxnet.numerics",
    level="cpu",
    deadline=120,
    catches="Operators or derivatives that are wrong by more than the format of numbers explains.",
)
def run(mxnet: Any) -> Measured:
    return {"part_of_bound": max(_products(mxnet), _convolution(mxnet), _gradient(mxnet)), **_compiled()}


def _products(mxnet: Any) -> float:
    """Products in float32 against those of NumPy in float64, element by element."""
    import numpy

    from builder.checks import arrays

    random = numpy.random.default_rng(1)
    worst = 0.0
    for shape in ((64, 1024, 48), (1, 257, 1), (33, 5, 129)):
        left = random.standard_normal(shape[:2]).astype("float32")
        right = random.standard_normal(shape[1:]).astype("float32")
        exact = [values.astype("float64") for values in (left, right)]
        bound = arrays.product_bound(shape[1], numpy.abs(exact[0]) @ numpy.abs(exact[1]))
        found = mxnet.nd.dot(mxnet.nd.array(left), mxnet.nd.array(right)).asnumpy()
        what = f"the product of {shape[0]}x{shape[1]} and {shape[1]}x{shape[2]} matrices"
        worst = max(worst, arrays.expect_close(found, exact[0] @ exact[1], bound, what))
    return worst


def _convolution(mxnet: Any) -> float:
    """A 3x3 convolution with a border, which is a product with the neighbourhoods of the pixels."""
    import numpy

    from builder.checks import arrays

    random = numpy.random.default_rng(3)
    image = random.standard_normal((2, 3, 12, 10)).astype("float32")
    kernel = random.standard_normal((4, 3, 3, 3)).astype("float32")
    found = mxnet.nd.Convolution(
        mxnet.nd.array(image), mxnet.nd.array(kernel), kernel=(3, 3), pad=(1, 1), num_filter=4, no_bias=True
    ).asnumpy()
    padded = numpy.pad(image.astype("float64"), ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = numpy.lib.stride_tricks.sliding_window_view(padded, (3, 3), (2, 3))
    exact = kernel.astype("float64")
    expected = numpy.einsum("bchwij,ocij->bohw", windows, exact)
    magnitude = numpy.einsum("bchwij,ocij->bohw", numpy.abs(windows), numpy.abs(exact))
    # Libraries may compute 3x3 convolutions by Winograd's F(4x4, 3x3). Its transforms of image, kernel and result have
    # 6, 3 and 6 terms and add up numbers of at most (1.5 * 100)-fold size, so that an error is not held to the output's
    # own terms, but to the largest output.
    bound = arrays.product_bound(150 * (27 + 6 + 3 + 6), magnitude.max())
    return arrays.expect_close(found, expected, bound, "a 3x3 convolution")


def _gradient(mxnet: Any) -> float:
    """The mean squared error of a line: its gradient is 2/n X'(Xw - y)."""
    import numpy

    from builder.checks import arrays

    random = numpy.random.default_rng(2)
    shapes = ((POINTS, INPUTS), (POINTS,), (INPUTS,))
    inputs, targets, weights = (random.standard_normal(shape).astype("float32") for shape in shapes)
    exact = [values.astype("float64") for values in (inputs, targets, weights)]
    size = [numpy.abs(values) for values in exact]
    variable = mxnet.nd.array(weights)
    variable.attach_grad()
    with mxnet.autograd.record():
        error = mxnet.nd.square(mxnet.nd.dot(mxnet.nd.array(inputs), variable) - mxnet.nd.array(targets)).mean()
    error.backward()
    # A sum over the points of products with sums over the inputs, and a few roundings around them.
    bound = arrays.product_bound(POINTS + INPUTS + 8, 2 / POINTS * size[0].T @ (size[0] @ size[2] + size[1]))
    expected = 2 / POINTS * exact[0].T @ (exact[0] @ exact[2] - exact[1])
    return arrays.expect_close(variable.grad.asnumpy(), expected, bound, "the gradient of a line's error")


def _compiled() -> dict[str, float]:
    """The gradient of the transformer, hybridized and with each operator by itself."""
    from builder.checks import arrays, grammar
    from builder.checks.groups.mxnet import _model as model

    batch = arrays.texts(grammar.BATCH, 3)
    plain = model.gradients(model.new_model(3, compiled=False), batch)
    found = model.gradients(model.new_model(3), batch)
    bound = grammar.summation_bound(grammar.BATCH, model.ROUNDINGS, condition=1.0)
    error = arrays.relative_error(found, plain)
    expect(error <= bound, f"hybridized and plain gradient differ by {error:.2e} of the norm, bound {bound:.2e}")
    return {"hybridized_error": error, "hybridized_bound": bound}
