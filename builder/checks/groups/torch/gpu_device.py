# mypy: disable-error-code="import-not-found, import-untyped, misc, no-any-return"
"""The GPU itself."""

from __future__ import annotations

import re
from typing import Any

from builder.checks.contract import Measured, check, expect
from builder.checks.groups.torch import need_gpu


def runs_on(architectures: list[str], capability: tuple[int, int]) -> bool:
    """Whether a build has code for a device.

    Machine code (`sm_XY`) runs on devices of its major version from its minor version on, intermediate code
    (`compute_XY`) on every later device (CUDA C++ Programming Guide, binary and PTX compatibility). A letter behind
    the number means code for that one version.
    """
    for name in architectures:
        match = re.fullmatch(r"(sm|compute)_(\d+)(\d)([a-z]?)", name)
        if not match:
            continue
        version = (int(match.group(2)), int(match.group(3)))
        if match.group(4):
            fits = version == capability
        elif match.group(1) == "sm":
            fits = version[0] == capability[0] and version[1] <= capability[1]
        else:
            fits = version <= capability
        if fits:
            return True
    return False


@check(
    "torch.gpu.device",
    level="gpu",
    deadline=120,
    catches="A GPU that torch cannot use: a driver that is too old, no kernels for the device, a silent CPU.",
)
def run(torch: Any) -> Measured:
    need_gpu(torch)
    architectures = list(torch.cuda.get_arch_list())
    compiled = int(torch._C._cuda_getCompiledVersion())
    driver = int(torch._C._cuda_getDriverVersion())  # both: 1000 major + 10 minor
    expect(
        driver // 1000 >= compiled // 1000,
        f"the driver goes up to CUDA {driver // 1000}.{driver % 1000 // 10}, torch is built for {torch.version.cuda}",
    )
    devices = []
    for index in range(torch.cuda.device_count()):
        name = torch.cuda.get_device_name(index)
        capability = tuple(torch.cuda.get_device_capability(index))
        expect(
            runs_on(architectures, capability),
            f"no kernel image for {name} ({capability[0]}.{capability[1]}): torch has {' '.join(architectures)}",
        )
        count = 1 << 16
        there = torch.arange(count, device=f"cuda:{index}")
        expect(there.is_cuda and there.device.index == index, f"what is made on GPU {index} is on {there.device}")
        # 0 + 1 + … + (n - 1), in integers: exact
        found = int(there.sum().item())
        expect(found == count * (count - 1) // 2, f"{name} adds the numbers below {count} up to {found}")
        devices.append(f"{name} ({capability[0]}.{capability[1]})")
    return {"devices": devices, "driver_cuda": driver, "compiled_cuda": compiled, "architectures": architectures}
