"""Every rule bites where it should, and a twin of the same question passes it."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass

import pytest

from builder.compat import RULES, Combination, Facts, examine, load_facts
from builder.compat.model import Absent, Compiler, Confidence, Finding, Origin
from builder.compat.rules import Severity

from small_facts import SMALL  # isort: skip

INFERRED = Confidence.INFERRED
FORBIDDEN, UNKNOWN, WARNING = Severity.FORBIDDEN, Severity.UNKNOWN, Severity.WARNING


@dataclass(frozen=True)
class Case:
    """What bites, how, a part of what is said, and a twin that the same rule says nothing of."""

    rule: str
    severity: Severity
    says: str
    bites: Combination
    twin: Combination


def torch(version: str = "2.13.0", **others: object) -> Combination:
    return dataclasses.replace(Combination(package="torch", version=version), **others)  # type: ignore[arg-type]


def of(package: str, version: str | None, **others: object) -> Combination:
    return dataclasses.replace(Combination(package=package, version=version), **others)  # type: ignore[arg-type]


def cuda(version: str, **others: object) -> Combination:
    return of("cuda", version, cuda=".".join(version.split(".")[:2]), **others)


def beside(*companions: tuple[str, str | None]) -> tuple[tuple[str, str | None], ...]:
    return companions


NVIDIA = "nvidia/cuda:"

CASES = (
    Case("project", UNKNOWN, "did you mean `torch`?", of("troch", "2.13.0"), torch()),
    Case("release", UNKNOWN, "newer than the tables, which end with 2.13.0", torch("2.14.0"), torch()),
    Case("release", UNKNOWN, "older than the tables", torch("1.4.0"), torch("2.10.0")),
    Case("release", FORBIDDEN, "never released; the nearest are 2.10.1 and 2.12.0", torch("2.11.0"), torch("2.12.0")),
    Case("release", UNKNOWN, "pre-release", torch("2.13.0rc1"), torch("2.13")),
    Case("withdrawn", WARNING, "withdrawn by its maker", torch("2.12.0"), torch("2.13.0")),
    Case(
        "extra",
        FORBIDDEN,
        "jax-cuda13-plugin begins with 0.8.0",
        of("jax", "0.7.0", extras=("cuda13",)),
        of("jax", "0.8.0", extras=("cuda13",)),
    ),
    Case(
        "extra",
        FORBIDDEN,
        "has no extra and-cuda; releases from 2.14.0 to 2.14.1 have it",
        of("tensorflow", "2.15.0", extras=("and-cuda",)),
        of("tensorflow", "2.14.1", extras=("and-cuda",)),
    ),
    Case("extra", UNKNOWN, "no extra opt", torch(extras=("opt",)), torch()),
    Case(
        "extra-python",
        FORBIDDEN,
        "cannot be installed on Python 3.11: tensorrt 8.5.3.1 has no wheel for it",
        of("tensorflow", "2.14.1", extras=("and-cuda",), python="3.11"),
        of("tensorflow", "2.14.1", extras=("and-cuda",), python="3.10"),
    ),
    Case(
        "extra-build",
        FORBIDDEN,
        "brings the build for CUDA 12, not one for CUDA 13.0",
        of("jax", "0.8.0", extras=("cuda12",), cuda="13.0"),
        of("jax", "0.8.0", extras=("cuda13",), cuda="13.0"),
    ),
    Case("toolkit", FORBIDDEN, "never released; the nearest are 12.6 and 12.8", torch(cuda="12.7"), torch(cuda="12.6")),
    Case("toolkit", FORBIDDEN, "nearest are 12.8 and 13.0", torch(cuda="12.10"), torch(cuda="12.8")),
    Case("toolkit", UNKNOWN, "newer than the tables, which end with 13.1", torch(cuda="13.9"), torch(cuda="13.0")),
    Case("toolkit", UNKNOWN, "older than the tables", cuda("10.2"), cuda("11.8")),
    Case("toolkit", UNKNOWN, "not among the known patches of 12.4", cuda("12.4.9"), cuda("12.4.1")),
    Case(
        "cuda-build",
        FORBIDDEN,
        "no build for CUDA 12.4; its builds are for CUDA 12.6, 12.8, 13.0 and one without CUDA",
        torch(cuda="12.4"),
        torch(cuda="12.6"),
    ),
    Case(
        "cuda-build",
        FORBIDDEN,
        "no build without CUDA",
        of("tensorflow", "2.15.0", cuda="cpu"),
        of("tensorflow-cpu", "2.15.0", cuda="cpu"),
    ),
    Case("inferred-build", UNKNOWN, "only signs", torch(cuda="12.9"), torch(cuda="12.8")),
    Case(
        "channel",
        FORBIDDEN,
        "not on channel pypi, which has its build for CUDA 13.0; it is on pytorch",
        torch(cuda="12.6", channel="pypi"),
        torch(cuda="13.0", channel="pypi"),
    ),
    Case(
        "channel",
        FORBIDDEN,
        "without CUDA of torch 2.13.0 is not on channel pypi",
        torch(cuda="cpu", channel="pypi"),
        torch(cuda="cpu", channel="pytorch"),
    ),
    Case(
        "channel", FORBIDDEN, "it is on pypi", of("jax", "0.8.0", channel="pytorch"), of("jax", "0.8.0", channel="pypi")
    ),
    Case(
        "plain-install",
        WARNING,
        "install jax[cuda13]==0.8.0",
        of("jax", "0.8.0", cuda="13.0"),
        of("jax", "0.8.0", cuda="13.0", extras=("cuda13",)),
    ),
    Case(
        "plain-install",
        WARNING,
        "install mxnet-cu112==1.9.1",
        of("mxnet", "1.9.1", cuda="11.2"),
        of("mxnet", "1.9.1", cuda="cpu"),
    ),
    Case("python-release", FORBIDDEN, "not released by 2026-11-23", torch(python="3.16"), torch(python="3.14")),
    Case("python-release", FORBIDDEN, "not released before 2026-12-01", torch(python="3.15"), torch(python="3.12")),
    Case("python-release", UNKNOWN, "do not know Python 3.5", torch(python="3.5"), torch(python="3.9")),
    Case("python-release", FORBIDDEN, "3.13 is the first", torch(python="3.12t"), torch(python="3.14t")),
    Case("python-wheel", FORBIDDEN, "no wheel for Python 3.9", torch(python="3.9"), torch("2.10.0", python="3.9")),
    Case("python-wheel", FORBIDDEN, "free-threaded", torch("2.12.0", python="3.14t"), torch(python="3.14t")),
    Case(
        "python-wheel",
        FORBIDDEN,
        "torchvision 0.27.0 has no wheel for Python 3.14; it has wheels for 3.10, 3.11 and 3.12",
        of("torchvision", "0.27.0", python="3.14"),
        of("torchvision", "0.27.0", python="3.12"),
    ),
    Case(
        "broken-python",
        FORBIDDEN,
        "does not work: distutils is gone",
        of("mxnet", "1.9.1", python="3.12"),
        of("mxnet", "1.9.1", python="3.11"),
    ),
    Case(
        "companion",
        FORBIDDEN,
        "wants torchvision 0.28.0, not 0.27.0",
        torch(companions=beside(("torchvision", "0.27.0"))),
        torch(companions=beside(("torchvision", "0.28"))),
    ),
    Case(
        "companion",
        UNKNOWN,
        "which torchaudio works with torch 2.13.0: nobody pins it",
        torch(companions=beside(("torchaudio", None))),
        torch(companions=beside(("torchvision", None))),
    ),
    Case(
        "companion",
        FORBIDDEN,
        "wants numpy <1.24, not 1.26.4",
        of("mxnet", "1.9.1", companions=beside(("numpy", "1.26.4"))),
        of("mxnet", "1.9.1", companions=beside(("numpy", "1.23.5"))),
    ),
    Case(
        "companion-release",
        FORBIDDEN,
        "torchvision 0.26.0 was never released",
        torch("2.12.0", companions=beside(("torchvision", "0.26.0"))),
        torch("2.12.0", companions=beside(("torchvision", "0.27.0"))),
    ),
    Case(
        "companion-python",
        FORBIDDEN,
        "torchvision 0.28.0 has no wheel for Python 3.14",
        torch(python="3.14", companions=beside(("torchvision", "0.28.0"))),
        torch(python="3.12", companions=beside(("torchvision", "0.28.0"))),
    ),
    Case(
        "companion-python",
        FORBIDDEN,
        "torchvision 0.28.0 has no wheel for Python 3.14",
        torch(python="3.14", companions=beside(("torchvision", None))),
        torch(python="3.12", companions=beside(("torchvision", None))),
    ),
    Case(
        "companion-build",
        FORBIDDEN,
        "torchvision::nms does not exist",
        torch(cuda="cpu", channel="pypi", companions=beside(("torchvision", "0.28.0"))),
        torch(cuda="cpu", channel="pytorch", companions=beside(("torchvision", "0.28.0"))),
    ),
    Case(
        "companion-build",
        FORBIDDEN,
        "is built for cu130, torch for cpu",
        torch(cuda="cpu", channel="pytorch", companions=beside(("torchvision", "0.28.0+cu130"))),
        torch(cuda="cpu", channel="pytorch", companions=beside(("torchvision", "0.28.0+cpu"))),
    ),
    Case(
        "companion-build",
        WARNING,
        "take torchvision from channel pytorch",
        torch(cuda="12.6", companions=beside(("torchvision", "0.28.0"))),
        torch(cuda="13.0", companions=beside(("torchvision", "0.28.0"))),
    ),
    Case(
        "not-judged",
        WARNING,
        "do not know accelerate",
        torch(companions=beside(("accelerate", "1.0"))),
        torch(companions=beside(("accelerate", None))),
    ),
    Case(
        "horovod",
        WARNING,
        "take an adaptation: wrap the compiler",
        torch(companions=beside(("horovod", "0.28.1"))),
        of("mxnet", "1.9.1", companions=beside(("horovod", "0.28.1"))),
    ),
    Case(
        "horovod",
        UNKNOWN,
        "nobody is known to have tried whether horovod 0.28.1 and torch 2.12.0 work",
        torch("2.12.0", companions=beside(("horovod", "0.28.1"))),
        torch("2.12.0"),
    ),
    Case(
        "horovod",
        FORBIDDEN,
        "do not work together: C++14",
        torch("2.13.0", companions=beside(("horovod", "0.27.0"))),
        of("mxnet", "1.9.1", companions=beside(("horovod", "0.28.1"))),
    ),
    Case(
        "horovod",
        FORBIDDEN,
        "no binding for jax",
        of("jax", "0.8.0", companions=beside(("horovod", "0.28.1"))),
        of("jax", "0.8.0"),
    ),
    Case(
        "horovod-compiler",
        FORBIDDEN,
        "needs C++20, GCC 10 or later; ubuntu 20.04 has GCC 9",
        torch(system="ubuntu 20.04", companions=beside(("horovod", "0.28.1"))),
        torch("2.10.0", system="ubuntu 20.04", companions=beside(("horovod", "0.28.1"))),
    ),
    Case(
        "horovod-compiler",
        WARNING,
        "CMAKE_POLICY_VERSION_MINIMUM=3.5",
        torch(system="ubuntu 28.04", companions=beside(("horovod", "0.28.1"))),
        torch(system="debian 12", companions=beside(("horovod", "0.28.1"))),
    ),
    Case(
        "runtime-flavour",
        WARNING,
        "flavour runtime has no CUDA compiler",
        torch(companions=beside(("horovod", "0.28.1")), image=f"{NVIDIA}12.4.1-runtime-ubuntu22.04"),
        torch(companions=beside(("horovod", "0.28.1")), image=f"{NVIDIA}12.4.1-devel-ubuntu22.04"),
    ),
    Case("known-gpu", UNKNOWN, "GPU of capability 9.9", torch(gpus=("9.9",)), torch(gpus=("9.0",))),
    Case(
        "gpu-without-cuda",
        FORBIDDEN,
        "runs nothing on a GPU",
        torch(cuda="cpu", gpus=("9.0",)),
        torch(cuda="13.0", gpus=("9.0",)),
    ),
    Case(
        "gpu-arch",
        FORBIDDEN,
        "has no code for capability 7.0 (V100, Volta): the build for CUDA 13.0 has machine code for 7.5",
        torch(cuda="13.0", gpus=("V100",)),
        torch(cuda="12.6", gpus=("V100",)),
    ),
    Case("gpu-arch", FORBIDDEN, "no PTX", torch(cuda="12.6", gpus=("12.0",)), torch(cuda="12.6", gpus=("8.9",))),
    Case("gpu-arch", WARNING, "has only PTX", torch(cuda="12.8", gpus=("12.0",)), torch(cuda="12.8", gpus=("9.0",))),
    Case("gpu-arch", WARNING, "take the one for CUDA 12.6", torch(gpus=("V100",)), torch(gpus=("H100",))),
    Case(
        "gpu-arch",
        FORBIDDEN,
        "its maker serves 5.2 and later",
        of("jax", "0.7.0", cuda="12.6", gpus=("3.5",)),
        of("jax", "0.7.0", cuda="12.6"),
    ),
    Case(
        "gpu-arch",
        FORBIDDEN,
        "no single build of torch 2.12.0 has code for 7.0 and 12.0",
        torch("2.12.0", gpus=("7.0", "12.0")),
        torch("2.12.0", gpus=("8.9", "9.0")),
    ),
    Case(
        "gpu-toolkit",
        FORBIDDEN,
        "makes no machine code for capability 7.0",
        cuda("13.0", gpus=("7.0",)),
        cuda("12.8", gpus=("7.0",)),
    ),
    Case("gpu-toolkit", UNKNOWN, "no source says", cuda("13.1", gpus=("9.0",)), cuda("13.0", gpus=("9.0",))),
    Case(
        "gpu-driver",
        FORBIDDEN,
        "has dropped capability 7.0 (V100, Volta): R580 is the last branch",
        cuda("12.8", gpus=("V100",), driver="590.48.01"),
        cuda("12.8", gpus=("V100",), driver="580.95.05"),
    ),
    Case(
        "gpu-driver",
        UNKNOWN,
        "CUDA 12.8, the first with code for it, came with driver 570.26",
        cuda("12.8", gpus=("12.0",), driver="550.54.14"),
        cuda("12.8", gpus=("12.0",), driver="570.26"),
    ),
    Case(
        "driver",
        WARNING,
        "minor-version compatibility (from 525.60.13)",
        torch(cuda="12.6", driver="535.54.03"),
        torch(cuda="12.6", driver="560.35.03"),
    ),
    Case(
        "driver",
        WARNING,
        "takes the cuda-compat package of CUDA 13.0 (forward compatibility)",
        torch(cuda="13.0", driver="570.124.06", gpus=("H100",)),
        torch(cuda="13.0", driver="580.65.06", gpus=("H100",)),
    ),
    Case(
        "driver",
        FORBIDDEN,
        "serves data-center GPUs alone, not capability 8.9 (RTX 4090, Ada)",
        torch(cuda="13.0", driver="570.124.06", gpus=("RTX 4090",)),
        torch(cuda="12.8", driver="570.124.06", gpus=("RTX 4090",)),
    ),
    Case(
        "driver",
        UNKNOWN,
        "say its name",
        torch(cuda="13.0", driver="570.124.06", gpus=("8.9",)),
        torch(cuda="12.8", driver="570.124.06", gpus=("8.9",)),
    ),
    Case(
        "driver",
        UNKNOWN,
        "say which GPU it is",
        torch(cuda="13.0", driver="570.124.06"),
        torch(cuda="13.0", driver="590.48.01"),
    ),
    Case(
        "driver",
        FORBIDDEN,
        "admits only branches 535 and 570",
        torch(cuda="13.0", driver="550.54.14", gpus=("H100",)),
        torch(cuda="12.6", driver="560.35.03", gpus=("H100",)),
    ),
    Case(
        "driver",
        FORBIDDEN,
        "does not reach so far",
        torch(cuda="13.0", driver="450.80.02", gpus=("H100",)),
        torch("2.10.0", cuda="11.8", driver="520.61.05", gpus=("H100",)),
    ),
    Case("driver", UNKNOWN, "no source says", cuda("14.0", driver="700.1"), cuda("13.0", driver="700.1")),
    Case(
        "base-driver",
        FORBIDDEN,
        "NVIDIA_REQUIRE_CUDA stops its containers",
        torch("2.10.0", cuda="11.8", driver="460.1", gpus=("H100",), image=f"{NVIDIA}12.4.1-devel-ubuntu22.04"),
        torch("2.10.0", cuda="11.8", driver="550.54.14", gpus=("H100",), image=f"{NVIDIA}12.4.1-devel-ubuntu22.04"),
    ),
    Case(
        "base-driver",
        UNKNOWN,
        "say which GPU it is",
        torch("2.10.0", cuda="11.8", driver="470.1", image=f"{NVIDIA}12.4.1-devel-ubuntu22.04"),
        torch("2.10.0", cuda="11.8", driver="470.1", image="debian:bookworm-slim"),
    ),
    Case(
        "base-tag",
        FORBIDDEN,
        "12.4.0-cudnn-devel-ubuntu22.04 never existed; the nearest is 12.4.1-cudnn-devel-ubuntu22.04",
        cuda("12.4", image=f"{NVIDIA}12.4.0-cudnn-devel-ubuntu22.04"),
        cuda("12.4", image=f"{NVIDIA}12.4.1-cudnn-devel-ubuntu22.04"),
    ),
    Case(
        "base-tag",
        FORBIDDEN,
        "CUDA 12.7 was never released",
        cuda("12.4", image=f"{NVIDIA}12.7.0-devel-ubuntu22.04"),
        cuda("12.4", image="debian:bookworm-slim"),
    ),
    Case(
        "base-tag",
        UNKNOWN,
        "newer than the lists of tags, which know 12.4.0 and 12.4.1",
        cuda("12.4", image=f"{NVIDIA}12.4.9-devel-ubuntu22.04"),
        cuda("12.4", image=f"{NVIDIA}12.4.1-devel-ubuntu22.04@sha256:{'0' * 64}"),
    ),
    Case(
        "base-tag",
        UNKNOWN,
        "no source lists every nvidia/cuda tag of 13.0.0",
        cuda("13.0", image=f"{NVIDIA}13.0.0-runtime-ubuntu24.04"),
        cuda("13.0", image=f"{NVIDIA}13.0.0-devel-ubuntu24.04"),
    ),
    Case(
        "base-tag",
        FORBIDDEN,
        "not of the form <version>-<flavour>-<system>",
        cuda("12.4", image=f"{NVIDIA}12.4.1"),
        cuda("12.4", image=f"docker.io/{NVIDIA}12.4.1-base-ubuntu20.04"),
    ),
    Case(
        "base-removed",
        WARNING,
        "may be deleted",
        cuda("12.4", image=f"{NVIDIA}12.4.0-devel-ubuntu22.04"),
        cuda("12.4", image=f"{NVIDIA}12.4.1-devel-ubuntu22.04"),
    ),
    Case(
        "base-cuda",
        WARNING,
        "brings CUDA 12.4 beside the framework's 13.0",
        torch(cuda="13.0", image=f"{NVIDIA}12.4.1-devel-ubuntu22.04"),
        torch(cuda="13.0", image=f"{NVIDIA}13.0.0-devel-ubuntu24.04"),
    ),
    Case(
        "cuda-libraries",
        WARNING,
        "brings no CUDA libraries, and without them it runs on the CPU in silence: take tensorflow[and-cuda], or",
        of("tensorflow", "2.14.1", cuda="11.8"),
        of("tensorflow", "2.14.1", cuda="11.8", extras=("and-cuda",)),
    ),
    Case(
        "cuda-libraries",
        FORBIDDEN,
        "loads libraries of CUDA 11.8, the base has CUDA 12.4",
        of("tensorflow", "2.14.1", cuda="11.8", image=f"{NVIDIA}12.4.1-cudnn-devel-ubuntu22.04"),
        of("tensorflow", "2.15.0", cuda="12.6", image=f"{NVIDIA}12.4.1-cudnn-devel-ubuntu22.04"),
    ),
    Case(
        "cuda-libraries",
        WARNING,
        "flavour devel of the base has no cuDNN: take a base with CUDA 12.6 and cuDNN 9.1",
        of("tensorflow", "2.15.0", gpus=("8.9",), image=f"{NVIDIA}12.4.1-devel-ubuntu22.04"),
        of("tensorflow", "2.15.0", image=f"{NVIDIA}12.4.1-devel-ubuntu22.04"),
    ),
    Case(
        "cuda-libraries",
        FORBIDDEN,
        "loads cuDNN 9.1, the base has 8.9",
        of("tensorflow", "2.15.0", cuda="12.6", image=f"{NVIDIA}12.4.1-cudnn-devel-ubuntu20.04"),
        of("tensorflow", "2.15.0", cuda="12.6", image=f"{NVIDIA}12.4.1-cudnn-devel-ubuntu22.04"),
    ),
    Case(
        "driver",
        WARNING,
        "the build that pip takes by itself, for CUDA 13.0, does not do",
        torch(driver="570.124.06"),
        torch(driver="590.48.01"),
    ),
    Case(
        "gpu-arch",
        UNKNOWN,
        "no source says whether",
        of("mxnet", "1.9.1", cuda="11.2", gpus=("9.0",)),
        of("jax", "0.8.0", cuda="13.0", gpus=("9.0",)),
    ),
    Case(
        "gpu-arch",
        FORBIDDEN,
        "has no code for capability 3.5 (K40, Kepler): its maker serves 5.2 and later",
        of("jax", "0.8.0", gpus=("3.5",)),
        of("jax", "0.8.0", gpus=("7.0",), cuda="12.6"),
    ),
    Case(
        "gpu-arch",
        FORBIDDEN,
        "for CUDA 13.0 has no code for capability 7.0",
        torch(gpus=("V100",), channel="pypi"),
        torch(gpus=("V100",), cuda="12.6", channel="pytorch"),
    ),
    Case("known-system", UNKNOWN, "do not know slackware 15", torch(system="slackware 15"), torch(system="debian 12")),
    Case(
        "base-system",
        FORBIDDEN,
        "is ubuntu 22.04, not debian 12",
        torch(system="debian 12", image=f"{NVIDIA}12.4.1-devel-ubuntu22.04"),
        torch(system="ubuntu 22.04", image=f"{NVIDIA}12.4.1-devel-ubuntu22.04"),
    ),
    Case(
        "glibc",
        FORBIDDEN,
        "need glibc 2.28; ubuntu 18.04 has 2.27",
        torch(system="ubuntu 18.04"),
        torch("2.10.0", system="ubuntu 18.04"),
    ),
    Case(
        "glibc",
        FORBIDDEN,
        "ubuntu 18.04 has 2.27",
        torch(image="ubuntu:18.04"),
        torch(image="python:3.12-slim-bookworm"),
    ),
    Case(
        "glibc",
        UNKNOWN,
        "no source says which glibc ubi8 has",
        torch(image=f"{NVIDIA}12.4.1-devel-ubi8"),
        torch(image="python:3.12"),
    ),
    Case(
        "companion",
        WARNING,
        "that torchvision 0.25.0 works with torch 2.10.1 is only inferred",
        torch("2.10.1", companions=beside(("torchvision", "0.25.0"))),
        torch("2.10.0", companions=beside(("torchvision", "0.25.0"))),
    ),
    Case(
        "companion",
        UNKNOWN,
        "probably torch 2.10.1 wants torchvision 0.25.0, not 0.27.0",
        torch("2.10.1", companions=beside(("torchvision", "0.27.0"))),
        torch("2.12.0", companions=beside(("torchvision", "0.27.0"))),
    ),
    Case(
        "glibc",
        FORBIDDEN,
        "need glibc 2.28; ubuntu 18.04 has 2.27",
        of("jax", "0.8.0", system="ubuntu 18.04"),
        of("jax", "0.7.0", system="ubuntu 18.04"),
    ),
    Case(
        "plain-install",
        WARNING,
        "install jax[cuda12]==0.8.0",
        of("jax", "0.8.0", cuda="12.6"),
        of("jax", "0.8.0", cuda="12.6", extras=("cuda",)),
    ),
    Case(
        "extra-build",
        FORBIDDEN,
        "jax[cuda] brings the build for CUDA 12, not one for CUDA 13.0",
        of("jax", "0.8.0", extras=("cuda",), cuda="13.0"),
        of("jax", "0.8.0", extras=("cuda",), cuda="12.6"),
    ),
    Case("end-of-life", WARNING, "Python 3.9", torch("2.10.0", python="3.9"), torch(python="3.11")),
    Case("end-of-life", WARNING, "Python 3.10", torch("2.10.0", python="3.10"), torch(python="3.12")),
    Case("end-of-life", WARNING, "ubuntu 18.04", torch("2.10.0", system="ubuntu 18.04"), torch(system="debian 12")),
)


def said(finding: Finding, rule: str) -> list[tuple[Severity, str]]:
    return [
        (severity, reason.message)
        for severity, reasons in (
            (FORBIDDEN, finding.forbidden),
            (UNKNOWN, finding.unknown),
            (WARNING, finding.warnings),
        )
        for reason in reasons
        if reason.rule == rule
    ]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.rule}: {case.says}")
def test_a_rule_bites_and_leaves_its_twin_alone(case: Case) -> None:
    found = said(examine(case.bites, SMALL), case.rule)
    assert [severity for severity, _ in found] == [case.severity], found
    assert case.says in found[0][1]
    assert said(examine(case.twin, SMALL), case.rule) == []


@pytest.mark.parametrize("python", ["3.15", "3.16", "3.16t"])
def test_a_python_that_is_not_released_is_one_reason_not_two(python: str) -> None:
    finding = examine(torch(python=python), SMALL)
    assert [reason.rule for reason in finding.forbidden] == ["python-release"]


def test_a_python_without_a_wheel_is_one_reason_not_two() -> None:
    (reason,) = examine(of("jax", "0.8.0", python="3.9"), SMALL).forbidden
    assert reason.rule == "python-wheel"
    assert "has no wheel for Python 3.9" in reason.message
    (reason,) = examine(of("numpy", "2.0.0", python="3.9"), SMALL).forbidden
    assert "requires Python >=3.10, not 3.9" in reason.message
    assert examine(of("numpy", "2.0.0", python="3.12"), SMALL).valid is True


@pytest.mark.parametrize("version", ["12.7", "12.10"])
def test_a_toolkit_that_never_was_is_one_reason_not_two(version: str) -> None:
    finding = examine(torch(cuda=version), SMALL)
    assert [reason.rule for reason in finding.forbidden] == ["toolkit"]


def test_every_rule_has_a_case() -> None:
    assert {case.rule for case in CASES} == {rule.name for rule in RULES}
    assert len({rule.name for rule in RULES}) == len(RULES)


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.rule}: {case.says}")
def test_every_reason_is_one_sentence_with_a_source(case: Case) -> None:
    finding = examine(case.bites, SMALL)
    for reason in (*finding.forbidden, *finding.unknown, *finding.warnings):
        assert reason.source
        assert not reason.message.endswith(".")
        assert "\n" not in reason.message
        assert "None" not in reason.message


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_a_rule_needs_only_fields_without_which_it_is_silent(rule: object) -> None:
    from builder.compat.rules import Rule

    assert isinstance(rule, Rule)
    assert set(rule.needs) <= {field.name for field in dataclasses.fields(Combination)}
    empty = Combination(package="torch")
    for case in CASES:
        for name in rule.needs:
            stripped = dataclasses.replace(case.bites, **{name: getattr(empty, name)})
            assert list(rule.function(stripped, SMALL)) == [], (case, name)


@pytest.mark.parametrize("package", ["torch", "cuda", "nothing"])
def test_what_is_not_asked_is_not_judged(package: str) -> None:
    finding = examine(Combination(package=package), SMALL)
    assert finding.forbidden == finding.warnings == ()
    assert [reason.rule for reason in finding.unknown] == (["project"] if package == "nothing" else [])


def test_a_finding_does_not_depend_on_what_was_asked_before() -> None:
    fresh = dataclasses.replace(SMALL)
    first = [examine(case.bites, fresh) for case in CASES]
    again = [examine(case.bites, fresh) for case in reversed(CASES)]
    assert first == again[::-1]
    assert first == [examine(case.bites, dataclasses.replace(SMALL)) for case in CASES]


def test_facts_are_forgotten_with_what_was_looked_up_in_them() -> None:
    import gc
    import weakref

    from builder.compat.nearest import nearest
    from builder.compat.rules.lookup import index_of

    fresh = dataclasses.replace(SMALL)
    assert nearest(torch(cuda="12.4", gpus=("H100",), driver="560.35.03"), fresh)
    index = weakref.ref(index_of(fresh))
    gone = weakref.ref(fresh)
    # The last combination that was looked up is kept until the next one is.
    examine(torch(), SMALL)
    del fresh
    gc.collect()
    assert gone() is None
    assert index() is None


@pytest.mark.parametrize(
    ("sass", "capability", "runs"),
    [
        (("8.0",), (8, 0), True),
        (("8.0",), (8, 9), True),
        (("8.6",), (8, 0), False),
        (("8.0",), (9, 0), False),
        (("9.0a",), (9, 0), True),
        (("9.0a",), (9, 1), False),
        (("10.0",), (10, 3), True),
        (("12.0",), (12, 1), True),
        ((), (9, 0), False),
    ],
)
def test_machine_code_runs_on_the_same_major_and_no_older_minor(
    sass: tuple[str, ...], capability: tuple[int, ...], runs: bool
) -> None:
    from builder.compat.rules import gpu

    assert gpu.runs(sass, capability) is runs


@pytest.mark.parametrize(
    ("ptx", "capability", "compiles"),
    [(("9.0",), (12, 0), True), (("9.0",), (8, 9), False), (("8.0",), (8, 0), True), (("9.0a",), (10, 0), False)],
)
def test_ptx_serves_every_newer_gpu(ptx: tuple[str, ...], capability: tuple[int, ...], compiles: bool) -> None:
    from builder.compat.rules import gpu

    assert gpu.compiles(ptx, capability) is compiles


@pytest.mark.parametrize(
    ("driver", "gpu", "valid"),
    [
        ("580.65.06", "H100", True),
        ("570.124.06", "H100", True),
        ("570.124.06", "RTX 4090", False),
        ("570.124.06", None, None),
        ("545.23.06", "H100", False),
        ("450.80.02", "H100", False),
    ],
)
def test_the_three_ways_a_driver_can_serve_a_toolkit(driver: str, gpu: str | None, valid: bool | None) -> None:
    asked = cuda("13.0", driver=driver, gpus=() if gpu is None else (gpu,))
    assert examine(asked, SMALL).valid is valid


@pytest.fixture(scope="module")
def facts() -> Facts:
    return load_facts()


REAL = (
    (True, "", torch("2.13.0", cuda="13.0", python="3.12")),
    (False, "cuda-build", torch("2.13.0", cuda="12.8", python="3.12")),
    (True, "", torch("2.11.0", cuda="12.8", python="3.12")),
    (True, "", torch("2.13.0", cuda="12.9", python="3.12")),
    (None, "release", torch("2.99.0", cuda="13.0")),
    (False, "toolkit", torch("2.13.0", cuda="12.7")),
    (False, "toolkit", torch("2.13.0", cuda="12.10")),
    (False, "python-wheel", torch("2.13.0", python="3.9")),
    (False, "python-release", torch("2.13.0", python="3.16")),
    (True, "", torch("2.15.0", python="3.15")),
    (False, "channel", torch("2.13.0", cuda="12.6", channel="pypi")),
    (False, "gpu-arch", torch("2.13.0", cuda="13.0", gpus=("7.0",))),
    (True, "", torch("2.13.0", cuda="12.6", gpus=("7.0",))),
    (False, "companion", of("mxnet", "1.9.1", companions=beside(("numpy", "1.26.4")))),
    (False, "broken-python", of("mxnet", "1.9.1", python="3.12")),
    (False, "cuda-build", of("tensorflow", "2.21.0", cuda="13.0")),
    (False, "gpu-driver", cuda("12.8", gpus=("V100",), driver="590.48.01")),
    (False, "base-tag", cuda("12.4", image="nvidia/cuda:12.4.0-cudnn-devel-ubuntu22.04")),
    (False, "glibc", torch("2.7.0", system="ubuntu 18.04")),
    (False, "horovod", torch("2.13.0", companions=beside(("horovod", "0.28.0")))),
)


@pytest.mark.parametrize(("valid", "rule", "asked"), REAL, ids=lambda one: getattr(one, "package", str(one)))
def test_what_the_shipped_tables_say(facts: Facts, valid: bool | None, rule: str, asked: Combination) -> None:
    finding = examine(asked, facts)
    assert finding.valid is valid, finding
    reasons = finding.forbidden if valid is False else finding.unknown
    assert (not rule) or rule in {reason.rule for reason in reasons}


def test_reasons_of_the_shipped_tables_name_no_machine(facts: Facts) -> None:
    for _, _, asked in REAL:
        finding = examine(asked, facts)
        for reason in (*finding.forbidden, *finding.unknown, *finding.warnings):
            assert not re.search(r"/(work|home|opt|tmp)/", reason.source + reason.message)


def with_row(**changes: object) -> Facts:
    """The small facts, with another row of torch 2.13."""
    project = SMALL.projects["torch"]
    *older, newest = project.rows
    rows = (*older, dataclasses.replace(newest, **changes))  # type: ignore[arg-type]
    return dataclasses.replace(SMALL, projects={**SMALL.projects, "torch": dataclasses.replace(project, rows=rows)})


TORCH_BUILDS = SMALL.projects["torch"].rows[-1].builds


def origin_of(word: str, confidence: Confidence = Confidence.READ) -> Origin:
    return Origin(sources=(word,), confidence=confidence)


def test_a_build_that_is_known_to_be_absent_is_impossible_though_nobody_has_the_whole_list() -> None:
    # Only the default build was read, so that one which is not in the list may exist.
    default = next(build for build in TORCH_BUILDS if build.default)
    other = dataclasses.replace(default, cuda="12.8", default=False, origin=origin_of("a plan", INFERRED))
    read, rumour = (
        Absent(cuda="12.6", origin=origin_of("a notice", confidence)) for confidence in (Confidence.READ, INFERRED)
    )
    facts = with_row(builds=(default, other), absent=(read,))
    (reason,) = examine(torch(cuda="12.6"), facts).forbidden
    assert (reason.rule, reason.source) == ("cuda-build", "a notice")
    assert "torch 2.13.0 has no build for CUDA 12.6" in reason.message
    assert examine(torch(cuda="12.4"), facts).valid is None
    for absent in ((), (rumour,)):
        assert examine(torch(cuda="12.6"), with_row(builds=(default, other), absent=absent)).valid is None


def test_a_build_of_which_little_is_known_has_no_code_that_its_compiler_does_not_make() -> None:
    default = next(build for build in TORCH_BUILDS if build.default)
    inferred = dataclasses.replace(
        default,
        cuda="13.0",
        channels=frozenset({"pytorch"}),
        default=False,
        sass=None,
        ptx=None,
        origin=origin_of("x", INFERRED),
    )
    facts = with_row(builds=(inferred, default))
    for gpu, valid in (("V100", False), ("H100", True)):
        finding = examine(torch(gpus=(gpu,)), facts)
        assert finding.valid is valid, gpu
    older = dataclasses.replace(inferred, cuda="12.6")
    assert examine(torch(gpus=("V100",)), with_row(builds=(older, default))).valid is None


def test_a_release_without_builds_in_a_project_with_builds_is_unknown() -> None:
    facts = with_row(builds=())
    assert [reason.rule for reason in examine(torch(cuda="12.6"), facts).unknown] == ["cuda-build"]
    assert examine(torch(), facts).valid is True
    assert examine(of("horovod", "0.28.1", cuda="12.6"), SMALL).valid is True


def test_the_sources_of_a_missing_build_are_those_that_list_builds_and_few() -> None:
    builds = tuple(
        dataclasses.replace(build, origin=Origin(sources=("a list", f"wheel {place}"), confidence=Confidence.READ))
        for place, build in enumerate(TORCH_BUILDS)
    )
    (reason,) = examine(torch(cuda="12.4"), with_row(builds=builds)).forbidden
    assert reason.source == "a list"
    apart = tuple(
        dataclasses.replace(build, origin=Origin(sources=(f"wheel {place}",), confidence=Confidence.READ))
        for place, build in enumerate(TORCH_BUILDS)
    )
    (reason,) = examine(torch(cuda="12.4"), with_row(builds=apart)).forbidden
    assert reason.source == "wheel 1; wheel 2; wheel 3"


def test_how_new_a_compiler_must_be_is_a_fact_and_only_what_was_read_forbids() -> None:
    asked = torch(system="ubuntu 20.04", companions=beside(("horovod", "0.28.1")))
    for confidence, severity in ((Confidence.READ, "forbidden"), (INFERRED, "unknown")):
        compilers = {"c++20": Compiler(cxx="c++20", gcc="11", origin=origin_of("a page", confidence))}
        finding = examine(asked, dataclasses.replace(SMALL, compilers=compilers))
        said = [reason for reason in getattr(finding, severity) if reason.rule == "horovod-compiler"]
        assert len(said) == 1
        assert "GCC 11 or later" in said[0].message
        assert said[0].source.startswith("a page; ")
    rules = {reason.rule for reason in examine(asked, dataclasses.replace(SMALL, compilers={})).forbidden}
    assert "horovod-compiler" not in rules
