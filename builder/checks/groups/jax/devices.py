# mypy: disable-error-code="import-not-found, import-untyped, misc, no-any-return"
"""Several devices in one process."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

from builder.checks import pair
from builder.checks.contract import Measured, check, expect
from builder.checks.groups.jax import _devices


@check(
    "jax.devices",
    level="cpu",
    deadline=90,
    catches="A program over several devices that computes something else than over one.",
)
def run(jax: Any) -> Measured:
    directory = Path(tempfile.mkdtemp(prefix="devices-", dir=Path.cwd()))
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={_devices.COUNT}".strip()
    environment = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    command = pair.Command("the process", pair.program("jax._devices", directory), environment)
    made = pair.launch([command], directory, 1, 75)
    (sums,), (gradients,) = made.section("sums"), made.section("gradients")
    count = made.reports[0]["devices"]
    expect(count == _devices.COUNT, f"one process has {count} devices of the host, {_devices.COUNT} were asked for")
    for name, values in sums["found"].items():
        expect(values == sums["expected"], f"{name} over {count} devices gives {values}, expected {sums['expected']}")
    error, bound = gradients["error"], gradients["bound"]
    expect(error <= bound, f"the gradient over {count} devices is off by {error:.2e} from one, bound {bound:.2e}")
    expect(gradients["apart"] > 10 * bound, "all devices had the same data: nothing was compared")
    return {"devices": count, "error": error, "bound": bound, "ways": sorted(sums["found"])}
