# mypy: disable-error-code="import-not-found, import-untyped, misc, no-any-return"
"""One process with several devices of the host: sums and gradients over them, written down for `jax.devices`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from builder.checks.rank_report import run_sections

COUNT = 4


def sums() -> dict[str, Any]:
    """Sums over the devices in the ways that programs use."""
    import jax
    import numpy
    from jax.sharding import NamedSharding, PartitionSpec

    from builder.checks.groups.jax import _sharding

    numbers = numpy.arange(COUNT * 5, dtype="float32").reshape(COUNT, 5)
    mesh = _sharding.mesh_of(jax.devices(), "all")
    spread = jax.device_put(numbers, NamedSharding(mesh, PartitionSpec("all")))
    found = {
        "pmap": jax.pmap(lambda row: jax.lax.psum(row, "all"), axis_name="all")(numbers)[0],
        "shard_map": _sharding.summed(mesh, "all")(spread)[0],
        "jit": jax.jit(lambda values: values.sum(0))(spread),
    }
    return {"found": {name: values.tolist() for name, values in found.items()}, "expected": numbers.sum(0).tolist()}


def gradients() -> dict[str, Any]:
    """The gradient of one batch, a part on each device, against that on one device."""
    import jax
    from jax.sharding import NamedSharding, PartitionSpec

    from builder.checks import arrays, grammar
    from builder.checks.groups.jax import _model as model
    from builder.checks.groups.jax import _sharding

    weights, batch = model.new_model(6), arrays.texts(grammar.BATCH, 6)
    mesh = _sharding.mesh_of(jax.devices(), "all")
    spread = jax.device_put(batch, NamedSharding(mesh, PartitionSpec("all")))
    copied = jax.device_put(weights, NamedSharding(mesh, PartitionSpec()))
    found = model.vector(jax.jit(jax.grad(model.loss_of))(copied, spread))
    alone = [model.vector(model.gradient_of(weights, part, dtype=jax.numpy.dtype("float32"))) for part in _parts(batch)]
    expected = model.vector(model.gradient_of(weights, batch, dtype=jax.numpy.dtype("float32")))
    size = float((expected**2).sum() ** 0.5)
    condition = sum(float((part**2).sum() ** 0.5) for part in alone) / COUNT / size
    return {
        "error": arrays.relative_error(found, expected),
        "bound": grammar.summation_bound(grammar.BATCH, model.ROUNDINGS, condition),
        "apart": arrays.relative_error(alone[0], alone[1]),
    }


def _parts(batch: Any) -> Any:
    import numpy

    return numpy.split(batch, COUNT)


def main(directory: Path) -> int:
    """Runs as the one process."""
    import jax

    report = {"rank": 0, "size": 1, "devices": len(jax.devices())}
    return 0 if run_sections(directory, 0, report, {"sums": sums, "gradients": gradients}) else 1
