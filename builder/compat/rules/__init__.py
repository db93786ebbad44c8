"""The rules, in the order in which their reasons are given. Each is a small pure function over a combination and facts.

Rules are independent of each other. What a combination does not say (None) no rule judges: where several builds fit, it
is possible when one of them is.
"""

from __future__ import annotations

from builder.compat.rules import base, companions, driver, gpu, horovod, life, requirement, wheels
from builder.compat.rules.said import Rule, RuleFunction, Said, Severity


def _rule(name: str, function: RuleFunction, *needs: str) -> Rule:
    return Rule(name=name, doc=" ".join((function.__doc__ or "").split()), function=function, needs=needs)


RULES: tuple[Rule, ...] = (
    _rule("project", requirement.project),
    _rule("release", requirement.release),
    _rule("withdrawn", requirement.withdrawn),
    _rule("extra", requirement.extra, "extras"),
    _rule("extra-python", requirement.extra_python, "extras", "python"),
    _rule("extra-build", wheels.extra_build, "extras", "cuda"),
    _rule("toolkit", wheels.toolkit),
    _rule("cuda-build", wheels.cuda_build, "cuda"),
    _rule("inferred-build", wheels.inferred_build),
    _rule("channel", wheels.channel, "channel"),
    _rule("plain-install", wheels.plain_install, "cuda"),
    _rule("python-release", requirement.python_release, "python"),
    _rule("python-wheel", wheels.python_wheel, "python"),
    _rule("broken-python", wheels.broken_python, "python"),
    _rule("companion", companions.companion, "companions"),
    _rule("companion-release", companions.companion_release, "companions"),
    _rule("companion-python", companions.companion_python, "companions", "python"),
    _rule("companion-build", companions.companion_build, "companions", "cuda"),
    _rule("not-judged", companions.not_judged, "companions"),
    _rule("horovod", horovod.horovod, "companions"),
    _rule("horovod-compiler", horovod.horovod_compiler, "companions"),
    _rule("runtime-flavour", horovod.runtime_flavour, "image"),
    _rule("known-gpu", gpu.known_gpu, "gpus"),
    _rule("gpu-without-cuda", gpu.gpu_without_cuda, "gpus"),
    _rule("gpu-arch", gpu.gpu_arch, "gpus"),
    _rule("gpu-toolkit", gpu.gpu_toolkit, "gpus"),
    _rule("gpu-driver", gpu.gpu_driver, "gpus", "driver"),
    _rule("driver", driver.driver_floor, "driver"),
    _rule("base-driver", driver.base_driver, "image", "driver"),
    _rule("base-tag", base.base_tag, "image"),
    _rule("base-removed", base.base_removed, "image"),
    _rule("base-cuda", base.base_cuda, "image", "cuda"),
    _rule("cuda-libraries", base.cuda_libraries),
    _rule("known-system", base.known_system, "system"),
    _rule("base-system", base.base_system, "system", "image"),
    _rule("glibc", base.glibc),
    _rule("end-of-life", life.end_of_life),
)
"""Every rule; `docs/explain.md` lists them."""

__all__ = ["RULES", "Rule", "Said", "Severity"]
