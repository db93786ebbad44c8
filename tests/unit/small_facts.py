"""A small world of facts, made by hand, so that tests of rules do not depend on the tables that imgbuild ships.

Its framework is torch 2.10 to 2.13; a jax with extras, a tensorflow without a build of the CPU alone, and an mxnet.
"""

from __future__ import annotations

import dataclasses

from builder.compat.model import (
    Adaptation,
    Build,
    Companion,
    Compiler,
    Confidence,
    Extra,
    Facts,
    Gpu,
    ImageTags,
    Origin,
    Project,
    PythonRelease,
    Row,
    System,
    Toolkit,
)

READ = Origin(sources=("a page that was read",), confidence=Confidence.READ)
INFERRED = Origin(sources=("a guess",), confidence=Confidence.INFERRED)


def pythons(*names: str) -> frozenset[str]:
    return frozenset(names)


def build(cuda: str, *channels: str, origin: Origin = READ, **others: object) -> Build:
    return dataclasses.replace(
        Build(cuda=cuda, channels=frozenset(channels or ("pytorch",)), origin=origin),
        **others,  # type: ignore[arg-type]
    )


def row(project: str, series: str, *releases: str, **others: object) -> Row:
    plain = Row(project=project, series=series, releases=dict.fromkeys(releases), pythons=None, origin=READ)
    return dataclasses.replace(plain, **others)  # type: ignore[arg-type]


def project(name: str, *rows: Row, newest: str = "", **others: object) -> Project:
    first, last = next(iter(rows[0].releases)), list(rows[-1].releases)[-1]
    plain = Project(name=name, rows=rows, newest=newest or last, oldest=first)
    return dataclasses.replace(plain, **others)  # type: ignore[arg-type]


OLD_SASS = ("5.0", "6.0", "7.0", "8.0", "9.0")
NEW_SASS = ("7.5", "8.0", "9.0", "10.0", "12.0")

TORCH = project(
    "torch",
    row(
        "torch",
        "2.10",
        "2.10.0",
        "2.10.1",
        pythons=pythons("3.9", "3.10"),
        glibc="2.17",
        cxx="c++17",
        builds=(
            build("cpu"),
            build("11.8", sass=OLD_SASS, ptx=()),
            build("12.6", "pypi", "pytorch", sass=OLD_SASS, ptx=(), default=True),
        ),
        companions={
            "": {"torchvision": Companion(project="torchvision", versions=("0.25.0",), origin=READ)},
            "2.10.1": {"torchvision": Companion(project="torchvision", versions=("0.25.0",), origin=INFERRED)},
        },
    ),
    row(
        "torch",
        "2.12",
        "2.12.0",
        pythons=pythons("3.10", "3.11", "3.12"),
        glibc="2.28",
        cxx="c++17",
        yanked=frozenset({"2.12.0"}),
        builds=(
            build("cpu"),
            build("12.6", sass=OLD_SASS, ptx=()),
            build("13.0", "pypi", "pytorch", sass=NEW_SASS, ptx=(), default=True),
        ),
        companions={"": {"torchvision": Companion(project="torchvision", versions=("0.27.0",), origin=READ)}},
    ),
    row(
        "torch",
        "2.13",
        "2.13.0",
        pythons=pythons("3.10", "3.11", "3.12", "3.14", "3.14t"),
        glibc="2.28",
        cxx="c++20",
        builds=(
            build("cpu", label="cpu"),
            build("12.6", sass=OLD_SASS, ptx=()),
            build("12.8", sass=OLD_SASS, ptx=("9.0",)),
            build("12.9", origin=INFERRED),
            build("13.0", "pypi", "pytorch", sass=NEW_SASS, ptx=(), default=True),
        ),
        companions={
            "": {
                "torchvision": Companion(project="torchvision", versions=("0.28.0",), origin=READ),
                "torchaudio": Companion(project="torchaudio", known=False, note="nobody pins it", origin=READ),
                "numpy": Companion(project="numpy", specifier=">=1.23,<3", origin=READ),
            }
        },
    ),
)

TORCHVISION = project(
    "torchvision",
    row("torchvision", "0.25", "0.25.0", pythons=pythons("3.9", "3.10"), builds=(build("cpu"), build("12.6", "pypi"))),
    row("torchvision", "0.27", "0.27.0", pythons=pythons("3.10", "3.11", "3.12")),
    row(
        "torchvision",
        "0.28",
        "0.28.0",
        pythons=pythons("3.10", "3.11", "3.12"),
        builds=(build("cpu"), build("12.6"), build("12.8"), build("13.0", "pypi", "pytorch", default=True)),
    ),
)

JAX = project(
    "jax",
    row(
        "jax",
        "0.7",
        "0.7.0",
        builds=(
            build("cpu", "pypi", default=True, pythons=pythons("3.11", "3.12")),
            build("12", "pypi", extra="cuda12", pythons=pythons("3.11", "3.12"), driver="525", min_capability="5.2"),
        ),
        extras=(
            Extra(name="cuda12", origin=READ),
            Extra(name="cuda13", installable=False, why="jax-cuda13-plugin begins with 0.8.0", origin=READ),
        ),
    ),
    row(
        "jax",
        "0.8",
        "0.8.0",
        requires_python=">=3.11",
        builds=(
            build("cpu", "pypi", default=True, distribution="jaxlib", pythons=pythons("3.11", "3.12")),
            build(
                "12",
                "pypi",
                extra="cuda12",
                distribution="jax-cuda12-plugin",
                pythons=pythons("3.11", "3.12"),
                driver="525",
                min_capability="5.2",
            ),
            build("13", "pypi", extra="cuda13", pythons=pythons("3.11", "3.12"), driver="580", min_capability="7.5"),
        ),
        extras=(
            Extra(name="cuda", requires=("jax-cuda12-plugin[with-cuda]<=0.8.0",), origin=READ),
            Extra(name="cuda12", origin=READ),
            Extra(name="cuda13", origin=READ),
        ),
    ),
)

JAXLIB = project("jaxlib", row("jaxlib", "0.8", "0.8.0", glibc="2.28"))

TENSORFLOW = project(
    "tensorflow",
    row(
        "tensorflow",
        "2.14",
        "2.14.0",
        "2.14.1",
        pythons=pythons("3.10", "3.11"),
        builds=(build("11.8", "pypi", default=True, sass=("7.5",), ptx=("8.0",)),),
        extras=(
            Extra(name="and-cuda", pythons=pythons("3.10"), why="tensorrt 8.5.3.1 has no wheel for it", origin=READ),
        ),
    ),
    row(
        "tensorflow",
        "2.15",
        "2.15.0",
        pythons=pythons("3.10", "3.11"),
        builds=(build("12.6", "pypi", default=True, sass=("7.5",), ptx=("8.0",), cudnn="9.1"),),
    ),
)
TENSORFLOW_CPU = project(
    "tensorflow-cpu",
    row(
        "tensorflow-cpu",
        "2.15",
        "2.15.0",
        pythons=pythons("3.10", "3.11"),
        builds=(build("cpu", "pypi", default=True),),
    ),
)
MXNET = project(
    "mxnet",
    row(
        "mxnet",
        "1.9",
        "1.9.1",
        builds=(build("cpu", "pypi", default=True), build("11.2", "pypi", distribution="mxnet-cu112")),
        companions={"": {"numpy": Companion(project="numpy", specifier="<1.24", origin=READ)}},
        broken_pythons={"3.12": "distutils is gone"},
    ),
)
NUMPY = project(
    "numpy",
    row("numpy", "1.23", "1.23.5"),
    row("numpy", "1.26", "1.26.4"),
    row("numpy", "2.0", "2.0.0", requires_python=">=3.10"),
)
HOROVOD = project("horovod", row("horovod", "0.28", "0.28.1"), sdist_only=True)


def toolkit(version: str, driver: str, floor: str, *sass: str, **others: object) -> Toolkit:
    plain = Toolkit(version=version, drivers={f"{version}.0": driver}, minor_driver=floor, sass=sass, origin=READ)
    return dataclasses.replace(plain, **others)  # type: ignore[arg-type]


TOOLKITS = {
    one.version: one
    for one in (
        toolkit("11.8", "520.61.05", "450.80.02", "3.5", *OLD_SASS),
        toolkit("12.4", "550.54.14", "525.60.13", *OLD_SASS, patches=("12.4.0", "12.4.1"), forward_branches=(470,)),
        toolkit("12.6", "560.28.03", "525.60.13", *OLD_SASS, forward_branches=(470,)),
        Toolkit(version="12.7", exists=False, why="nvidia-smi of R565 prints it", origin=READ),
        toolkit("12.8", "570.26", "525.60.13", *OLD_SASS, "10.0", "12.0", forward_branches=(470,)),
        toolkit("13.0", "580.65.06", "580.65.06", *NEW_SASS, forward_branches=(535, 570)),
        Toolkit(version="13.1", minor_driver="580.65.06", origin=INFERRED),
    )
}

GPUS = (
    Gpu(
        names=("K40",),
        capability="3.5",
        architecture="Kepler",
        data_center={"K40": True},
        last_driver=470,
        origin=READ,
    ),
    Gpu(
        names=("V100", "Titan V"),
        capability="7.0",
        architecture="Volta",
        data_center={"V100": True, "Titan V": False},
        last_driver=580,
        origin=READ,
    ),
    Gpu(names=("H100",), capability="9.0", architecture="Hopper", data_center={"H100": True}, origin=READ),
    Gpu(
        names=("RTX 4090", "RTX 4070 Ti", "L4"),
        capability="8.9",
        architecture="Ada",
        data_center={"RTX 4090": False, "RTX 4070 Ti": False, "L4": True},
        origin=READ,
    ),
    Gpu(names=("RTX 50xx",), capability="12.0", architecture="Blackwell", data_center={"RTX 50xx": False}, origin=READ),
)

DEVEL = frozenset({"base", "runtime", "devel", "cudnn-devel"})
IMAGES = {
    one.version: one
    for one in (
        ImageTags(
            version="11.8.0",
            tags={"ubuntu22.04": DEVEL, "ubuntu20.04": DEVEL},
            complete=True,
            removed=False,
            cudnn="8.9.6.50",
            origin=READ,
        ),
        ImageTags(
            version="12.4.0",
            tags={"ubuntu22.04": frozenset({"base", "runtime", "devel"})},
            complete=True,
            removed=True,
            origin=READ,
        ),
        ImageTags(
            version="12.4.1",
            tags={"ubuntu22.04": DEVEL, "ubuntu20.04": DEVEL},
            complete=True,
            removed=False,
            cudnn="9.1.0.70",
            own_cudnn={"ubuntu20.04": "8.9.7.29"},
            origin=READ,
        ),
        ImageTags(
            version="13.0.0", tags={"ubuntu24.04": frozenset({"devel"})}, complete=False, removed=False, origin=READ
        ),
    )
}


def system(name: str, codename: str, glibc: str, gcc: str, end: str, cmake: str = "3.25") -> System:
    return System(
        name=name, codename=codename, glibc=glibc, gcc=gcc, cmake=cmake, pythons=(), end_of_life=end, origin=READ
    )


SYSTEMS = {
    one.name: one
    for one in (
        system("debian 12", "bookworm", "2.36", "12", "2028-06-30"),
        system("ubuntu 18.04", "bionic", "2.27", "7", "2023-05-31", cmake="3.10"),
        system("ubuntu 20.04", "focal", "2.31", "9", "2028-05-31"),
        system("ubuntu 22.04", "jammy", "2.35", "11", "2027-04-01"),
        system("ubuntu 28.04", "next", "2.50", "17", "2033-04-01", cmake="4.1"),
    )
}

PYTHONS = {
    version: PythonRelease(version=version, first_release=first, end_of_life=end, origin=READ)
    for version, first, end in (
        ("3.9", "2020-10-05", "2025-10-31"),
        ("3.10", "2021-10-04", "2026-10"),
        ("3.11", "2022-10-24", "2027-10"),
        ("3.12", "2023-10-02", "2028-10"),
        ("3.14", "2025-10-07", "2030-10"),
        ("3.15", "2026-12-01", "2031-10"),
    )
}

ADAPTATIONS = (
    Adaptation(
        horovod="==0.28.1",
        framework="torch",
        specifier="==2.13.*",
        works=True,
        steps=("wrap the compiler",),
        origin=READ,
    ),
    Adaptation(horovod="==0.28.1", framework="torch", specifier="==2.12.*", works=None, origin=READ),
    Adaptation(
        horovod="==0.28.1", framework="torch", specifier="==2.10.*", works=True, warning="only with gloo", origin=READ
    ),
    Adaptation(horovod="<0.28", framework="torch", specifier=">=2.10", works=False, warning="C++14", origin=READ),
    Adaptation(horovod="==0.28.1", framework="mxnet", specifier="==1.9.1", works=True, origin=READ),
)

SMALL = Facts(
    date="2026-11-23",
    projects={
        one.name: one
        for one in (
            TORCH,
            TORCHVISION,
            JAX,
            JAXLIB,
            JAXLIB,
            TENSORFLOW,
            TENSORFLOW_CPU,
            MXNET,
            NUMPY,
            HOROVOD,
        )
    },
    toolkits=TOOLKITS,
    newest_toolkit="13.1",
    images=IMAGES,
    gpus=GPUS,
    systems=SYSTEMS,
    pythons=PYTHONS,
    horovod=ADAPTATIONS,
    compilers={
        cxx: Compiler(cxx=cxx, gcc=gcc, origin=READ) for cxx, gcc in (("c++14", "5"), ("c++17", "8"), ("c++20", "10"))
    },
)
