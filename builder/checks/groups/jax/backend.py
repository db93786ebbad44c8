# mypy: disable-error-code="import-not-found, import-untyped, misc, no-any-return"
"""Where JAX computes."""

from __future__ import annotations

from typing import Any

from builder.checks.contract import Measured, check, expect
from builder.checks.groups.jax import on_cpu, plugins


@check(
    "jax.backend",
    level="cpu",
    deadline=60,
    catches="A backend that is missing or another one than it says, or results that are not where they should be.",
)
def run(jax: Any) -> Measured:
    cpus = jax.local_devices(backend="cpu")
    expect(bool(cpus), "JAX has no CPU to compute on")
    default = jax.default_backend()
    expect(default == "cpu" or bool(plugins()), f"without a plugin JAX computes on {default}, not on the CPU")
    with on_cpu(jax):
        compiled = jax.jit(lambda left, right: left @ right)
        left, right = jax.numpy.arange(6.0).reshape(2, 3), jax.numpy.arange(3.0)
        product = compiled(left, right)
        program = compiled.lower(left, right).compile().as_text()
    where = sorted(device.platform for device in product.devices())
    expect(where == ["cpu"], f"a product that was asked of the CPU is on {' and '.join(where)}")
    expect(product.tolist() == [5.0, 14.0], f"a product of matrices gave {product.tolist()}")
    expect("HloModule" in (program or ""), "the compiler shows no program for a product of matrices")
    return {"default": default, "cpus": len(cpus)}
