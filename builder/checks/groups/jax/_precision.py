# mypy: disable-error-code="import-not-found, import-untyped, misc, no-any-return"
"""Training with products in a low precision and weights in float32, on a CPU or a GPU."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import jax
import numpy
from jax import numpy as jnp

from builder.checks import arrays, grammar
from builder.checks.contract import expect
from builder.checks.groups.jax import _model as model

#: The types of what goes into a product of matrices, in the program that is given to the compiler.
_PRODUCT = re.compile(r"dot_general\b.*: \(tensor<(?:\d+x)*(\w+)>, tensor<(?:\d+x)*(\w+)>\)")
_SHORT = {"bfloat16": "bf16", "float16": "f16", "float32": "f32"}


def equations(jaxpr: Any) -> Iterator[Any]:
    """Every operation of a traced function, those of the functions that it calls, too."""
    for equation in jaxpr.eqns:
        yield equation
        for value in equation.params.values():
            for part in value if isinstance(value, (list, tuple)) else (value,):
                inner = getattr(part, "jaxpr", part)
                if hasattr(inner, "eqns"):
                    yield from equations(inner)


def expect_mixed(training: model.Training, dtype: str) -> dict[str, Any]:
    """Fails unless a step computes its products in `dtype`, and keeps everything in float32."""
    batch = arrays.texts(grammar.BATCH, 0)
    traced = jax.make_jaxpr(model.step_of, static_argnums=3)(training.model, training.state, batch, training.dtype)
    products = [item for item in equations(traced.jaxpr) if item.primitive.name == "dot_general"]
    wanted = 3 * model.PRODUCTS
    expect(len(products) == wanted, f"a step is traced with {len(products)} products of matrices, not {wanted}")
    for item in products:
        types = sorted({str(value.aval.dtype) for value in (*item.invars, *item.outvars)})
        expect(types == [dtype], f"a product of matrices is traced in {' and '.join(types)}, not in {dtype}")
    for value in traced.jaxpr.outvars:
        expect(str(value.aval.dtype) == "float32", f"a step gives {value.aval.dtype} where weights are kept")
    program = model.compiled_step.lower(training.model, training.state, batch, dtype=training.dtype).as_text()
    given = [sorted(set(match.groups())) for match in _PRODUCT.finditer(program)]
    expect(len(given) == wanted, f"the compiler is given {len(given)} products of matrices, not {wanted}")
    expect(
        given == [[_SHORT[dtype]]] * wanted,
        f"the compiler is given products in {sorted({kind for kinds in given for kind in kinds})}, not in {dtype}",
    )
    for name, weight in training.model.items():
        kept = {str(weight.dtype), *(str(training.state[moment][name].dtype) for moment in ("first", "second"))}
        expect(kept == {"float32"}, f"{name} or what the optimizer keeps of it is {' and '.join(sorted(kept))}")

        def rounded(values: Any) -> Any:
            return jnp.asarray(values).astype(dtype).astype("float32")

        arrays.expect_precise(name, numpy.asarray(weight), rounded, dtype)
    return {"products": wanted, "types": dtype}


def train_mixed(dtype: str) -> dict[str, Any]:
    """Trains with products in `dtype`, shows that they are, and holds the numbers against float32."""
    what = f"training in {dtype}"
    unit = grammar.UNIT_ROUNDOFF[dtype]
    training = model.Training(1, dtype)
    plain, largest = model.evaluate(training.model, "float32")
    mixed, _ = model.evaluate(training.model, dtype)
    differences = {"before": (abs(mixed - plain), grammar.loss_bound(largest, unit, model.ROUNDINGS))}
    batch = arrays.texts(grammar.BATCH, 0)
    gradient, reference = (
        model.vector(model.gradient_of(training.model, batch, dtype=jnp.dtype(name))) for name in (dtype, "float32")
    )
    error = arrays.relative_error(gradient, reference)
    bound = grammar.gradient_bound(unit, model.ROUNDINGS)

    losses = training.run(0, grammar.STEPS)
    shown = expect_mixed(training, dtype)
    mixed, _ = model.evaluate(training.model, dtype)
    plain, largest = model.evaluate(training.model, "float32")
    differences["after"] = (abs(mixed - plain), grammar.loss_bound(largest, unit, model.ROUNDINGS))
    measured: dict[str, Any] = {
        **shown,
        "loss_first": losses[0],
        "loss_held_out": mixed,
        "loss_required": grammar.LEARNED,
        "entropy": grammar.ENTROPY,
        "gradient_error": error,
        "gradient_bound": bound,
        "steps": grammar.STEPS,
        "series": training.series,
    }
    arrays.expect_finite(losses, what)
    grammar.expect_learned(mixed, what)
    for when, (difference, allowed) in differences.items():
        measured.update({f"difference_{when}": difference, f"bound_{when}": allowed})
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
