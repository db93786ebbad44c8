"""How much of a runner's disk a job is expected to fill: estimates, and the only place where they are written.

They are rough on purpose: they decide how many cells share a runner, and an image that turns out larger shows itself
as exit code 12, never as a wrong image. All are in MB (10^6 bytes), measured or estimated as follows:

- CPU environment: system packages, Python and a CPU build of a framework. torch 2.13.0+cpu on bookworm is 1.1 GB as
  an image; pip's tools stage, which stays in the build cache, adds the rest.
- CUDA environment: the framework's CUDA build and the nvidia-* wheels or libraries that it brings; a `-devel` base
  adds compilers, headers and static libraries of the toolkit.
- A cell: its own layers on top of the environment: an entrypoint, configuration, and what each package brings.
- A compiled extra (Horovod): compilers and object files of its build stage, which stay in the build cache too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from builder.matrix import Cell

CPU_ENVIRONMENT_MB = 1_500
CUDA_ENVIRONMENT_MB = 12_000
CUDA_DEVEL_ENVIRONMENT_MB = 20_000
CELL_MB = 50
PACKAGE_MB = 100
COMPILED_MB = 600

GB = 1_000
"""MB in a GB."""

DEFAULT_DISK_GB = 14
"""What GitHub promises on a standard hosted runner."""


def environment_mb(cell: Cell) -> int:
    """What the cell shares with every cell of its environment; counted once for each job."""
    from builder.matrix import CPU  # with the matrix's room, which a help text needs not wait for

    if cell.cuda == CPU:
        return CPU_ENVIRONMENT_MB
    return CUDA_DEVEL_ENVIRONMENT_MB if "devel" in cell.base.image else CUDA_ENVIRONMENT_MB


def cell_mb(cell: Cell) -> int:
    """What the cell adds to its environment."""
    packages = sum(len(extra.packages) for extra in cell.extras)
    compiled = sum(extra.controller is not None for extra in cell.extras)
    return CELL_MB + PACKAGE_MB * packages + COMPILED_MB * compiled
