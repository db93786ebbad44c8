"""What the program inside an image answers, read field by field, and what a manifest makes of it. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from builder.engine import fields
from builder.measure.manifest import Cuda, Driver, Horovod, Package

_CUDA = re.compile(r"([0-9]+)\.([0-9]+)")
_WHEEL = {
    "runtime": re.compile(r"nvidia-cuda-runtime(?:-cu[0-9]+)?"),
    "cudnn": re.compile(r"nvidia-cudnn(?:-cu[0-9]+)?"),
    "nccl": re.compile(r"nvidia-nccl(?:-cu[0-9]+)?"),
}
"""The wheels that bring NVIDIA's libraries; those for CUDA 13 carry no number."""

_DEBIAN = {
    "runtime": re.compile(r"cuda-cudart-[0-9]+-[0-9]+"),
    "cudnn": re.compile(r"libcudnn[0-9]+(?:-cuda-[0-9]+)?"),
    "nccl": re.compile(r"libnccl[0-9]+"),
}
"""The packages that bring them in images of `nvidia/cuda`."""


class Malformed(Exception):
    """An answer that is none; the message is one sentence without a full stop."""


@dataclass(frozen=True, kw_only=True)
class FrameworkBuild:
    """What a framework says it is built for; None for what it does not say.

    Attributes:
        cuda: such as `13.0` or `12.5.1`; None for a CPU build.
        cudnn: the loaded library's own number, such as 91300.
        nccl: the loaded library's version, such as (2, 27, 7).
        architectures: see `Cuda`.
    """

    cuda: str | None
    cudnn: int | None = None
    nccl: tuple[int, ...] | None = None
    architectures: tuple[str, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class Found:
    """What the program inside an image found.

    Attributes:
        python: full version; None for an image without Python.
        packages: versions of Python packages by normalised name; None without Python.
        builds: of the frameworks that are there.
        horovod: None when it is not installed.
    """

    python: str | None = None
    packages: Mapping[str, str] | None = None
    builds: Mapping[str, FrameworkBuild] = field(default_factory=dict)
    horovod: Horovod | None = None


def parse(data: bytes, nonce: str) -> Found:
    """Reads an answer.

    Raises:
        Malformed: it is not JSON, answers another request, or lacks what every answer has.
    """
    try:
        document = fields.mapping(json.loads(data))
    except (ValueError, RecursionError) as error:
        raise Malformed(f"its answer is not JSON: {error}") from None
    if document.get("nonce") != nonce:
        raise Malformed("its answer is to another request")
    python = fields.text(document.get("python"))
    if not python or not isinstance(document.get("packages"), dict):
        raise Malformed("its answer says neither Python's version nor its packages")
    packages = fields.text_mapping(document.get("packages"))
    builds = {}
    for name in ("torch", "tensorflow"):
        if isinstance(document.get(name), dict):
            builds[name] = _build(fields.mapping(document.get(name)))
    return Found(
        python=python,
        packages=packages,
        builds=builds,
        horovod=_horovod(fields.mapping(document.get("horovod")), packages.get("horovod")),
    )


def _build(said: Mapping[str, object]) -> FrameworkBuild:
    nccl = said.get("nccl")
    architectures = said.get("architectures")
    return FrameworkBuild(
        cuda=fields.text(said.get("cuda")) or None,
        cudnn=fields.integer(said.get("cudnn")) or None,
        nccl=tuple(fields.integer(part) for part in nccl) if isinstance(nccl, list) else None,
        architectures=fields.texts(architectures) if isinstance(architectures, list) else None,
    )


def _horovod(said: Mapping[str, object], version: str | None) -> Horovod | None:
    if version is None:
        return None
    gloo, mpi = said.get("gloo"), said.get("mpi")
    return Horovod(
        version=version,
        frameworks=fields.texts(said.get("frameworks")),
        gloo=gloo if isinstance(gloo, bool) else None,
        mpi=mpi if isinstance(mpi, bool) else None,
        nccl=fields.integer(said.get("nccl")) or None,
    )


def cuda_of(found: Found, debian: Iterable[Package], framework: str) -> Cuda | None:
    """What of CUDA is in an image; None when nothing in it is for CUDA. Without its driver.

    What the framework says of itself and of the libraries it loads comes first; then the versions of the wheels that
    bring the libraries, and of Debian's packages.

    Args:
        found: what its Python side is.
        debian: its Debian packages.
        framework: whose architectures count, where several frameworks are installed.
    """
    order = sorted(found.builds, key=lambda name: (not framework.startswith(name), name))
    builds = [found.builds[name] for name in order if found.builds[name].cuda]
    installed = tuple(debian)
    runtime = builds[0].cuda if builds else _library("runtime", found, installed)
    cudnn = next((_cudnn(build.cudnn) for build in builds if build.cudnn), _library("cudnn", found, installed))
    nccl = next((".".join(map(str, build.nccl)) for build in builds if build.nccl), _library("nccl", found, installed))
    if not (runtime or cudnn or nccl):
        return None
    short = _CUDA.match(runtime or "")
    return Cuda(
        runtime=short[0] if short else None,
        cudnn=cudnn,
        nccl=nccl,
        architectures=next((build.architectures for build in builds if build.architectures), None),
        driver=None,
    )


def _library(which: str, found: Found, debian: tuple[Package, ...]) -> str | None:
    """The version of one of NVIDIA's libraries, by its first three numbers, from what brought it."""
    python = (found.packages or {}).items()
    versions = [version for name, version in python if _WHEEL[which].fullmatch(name)]
    versions += [package.version for package in debian if _DEBIAN[which].fullmatch(package.name)]
    numbers = re.match(r"[0-9]+(?:\.[0-9]+){0,2}", versions[0]) if versions else None
    return numbers[0] if numbers else None


def _cudnn(number: int) -> str:
    """cuDNN's own number as its version: 10000 major + 100 minor + patch since 9, 1000 major + … before."""
    major = 10000 if number >= 90000 else 1000
    return f"{number // major}.{number % major // 100}.{number % 100}"


def driver_floor(runtime: str | None) -> Driver | None:
    """The oldest Linux driver that runs a CUDA version, by the tables of facts; None where those do not say.

    It is where minor-version compatibility of the CUDA release begins, as `imgbuild explain` has it.

    Args:
        runtime: such as `13.0`.
    """
    if runtime is None:
        return None
    from builder.compat import load_facts

    toolkit = load_facts().toolkits.get(runtime)
    if toolkit is None or toolkit.minor_driver is None:
        return None
    return Driver(linux=toolkit.minor_driver, source=str(toolkit.origin))
