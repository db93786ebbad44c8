# mypy: disable-error-code="import-not-found, import-untyped, misc, no-any-return"
"""Saving and resuming."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from builder.checks.contract import Measured, check, expect, fail
from builder.checks.groups.jax import on_cpu

HALF = 6


@check(
    "jax.checkpoint",
    level="cpu",
    deadline=60,
    catches="A checkpoint from which training does not go on exactly as if it had not been interrupted.",
)
def run(jax: Any) -> Measured:
    with on_cpu(jax):
        return _resumed(jax)


def _resumed(jax: Any) -> Measured:
    import numpy

    from builder.checks.groups.jax import _model as model

    first = model.Training(4, "bfloat16")
    first.run(0, HALF)
    second = model.Training(5, "bfloat16")  # another seed: all must come from the file
    third = model.Training(5, "bfloat16")
    leaves, _ = jax.tree.flatten((first.model, first.state))
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "checkpoint.npz")
        numpy.savez(path, **{f"leaf{number}": numpy.asarray(leaf) for number, leaf in enumerate(leaves)})
        size = path.stat().st_size
        with numpy.load(path) as file:
            read = [jax.numpy.asarray(file[f"leaf{number}"]) for number in range(len(leaves))]
    shape = jax.tree.structure((second.model, second.state))
    second.model, second.state = jax.tree.unflatten(shape, read)
    third.model, _ = jax.tree.unflatten(shape, read)
    through = first.run(HALF, 2 * HALF)
    resumed = second.run(HALF, 2 * HALF)
    expect(through == resumed, f"the losses differ after resuming: {through} and {resumed}")
    difference = float(abs(model.vector(first.model) - model.vector(second.model)).max())
    expect(difference == 0, f"the weights differ by {difference:.2e} after resuming")
    # The same without the optimizer's state must differ, or the comparison above proves nothing.
    if third.run(HALF, 2 * HALF) == through:
        fail("training goes on alike with and without the optimizer's state: nothing was compared")
    return {"bytes": size, "steps": HALF, "parameters": len(model.vector(first.model))}
