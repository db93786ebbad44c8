"""What an image is, as measured: the manifest that it carries as `/opt/imgbuild/manifest.json`. Pure.

Every value was found in the image. What the image does not have, or does not say, is None, and null in the file; all
keys are always there. Nothing of time or place is in it, so that equal images have equal manifests.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

SCHEMA = "imgbuild.manifest/1"


@dataclass(frozen=True, kw_only=True)
class Distribution:
    """The Linux distribution, as os-release says: `debian`, `12`, `bookworm`."""

    id: str | None
    version: str | None
    codename: str | None


@dataclass(frozen=True, kw_only=True)
class Package:
    """An installed package; a Python one by its normalised name."""

    name: str
    version: str


@dataclass(frozen=True, kw_only=True)
class Horovod:
    """Horovod, and what it was compiled with.

    Attributes:
        version: such as `0.28.1`.
        frameworks: of torch, tensorflow and mxnet, those that it was compiled for.
        gloo, mpi: whether it has that controller; None where it cannot say so without a GPU's driver.
        nccl: the NCCL of its operations as that library's own number, such as 23007 for 2.30.7; None for none.
    """

    version: str
    frameworks: tuple[str, ...]
    gloo: bool | None
    mpi: bool | None
    nccl: int | None


@dataclass(frozen=True, kw_only=True)
class Driver:
    """The oldest Linux driver that runs the image's CUDA, and where that is written."""

    linux: str
    source: str


@dataclass(frozen=True, kw_only=True)
class Cuda:
    """What of CUDA is in the image.

    Attributes:
        runtime: the version that the framework is built for, `13.0`, or that of the runtime library.
        cudnn, nccl: the versions that are loaded, such as `9.13.0`.
        architectures: what the framework's binaries have code for, in the compiler's words: `sm_90` is machine code,
            `compute_90` PTX, which newer GPUs can compile.
        driver: what follows from `runtime` by imgbuild's facts; None where those do not reach.
    """

    runtime: str | None
    cudnn: str | None
    nccl: str | None
    architectures: tuple[str, ...] | None
    driver: Driver | None


@dataclass(frozen=True, kw_only=True)
class Packages:
    """What is installed: Python's packages, and the distribution's; None for what cannot be listed."""

    python: tuple[Package, ...] | None
    debian: tuple[Package, ...] | None


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What was measured in one image.

    Attributes:
        cell: id of the cell that it was built for.
        distribution: of its files.
        python: the full version of its `python3`; None when it has none.
        framework: of the cell's framework, what is installed; None when that is not.
        horovod: None when it is not installed.
        cuda: None when nothing in the image is for CUDA.
        packages: what is installed.
    """

    cell: str
    distribution: Distribution
    python: str | None
    framework: Package | None
    horovod: Horovod | None
    cuda: Cuda | None
    packages: Packages

    def to_bytes(self) -> bytes:
        """The file: JSON, one line for each value, in a fixed order."""
        document = {"schema": SCHEMA, **asdict(self)}
        return (json.dumps(document, indent=1, ensure_ascii=True) + "\n").encode()
