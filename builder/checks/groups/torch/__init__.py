# mypy: disable-error-code="import-not-found, import-untyped, misc, no-any-return"
"""What an image with torch promises: it trains, in mixed precision too, and what it saves it can resume."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

from builder.checks.contract import Group, Measured, NotRun, fail, one_line


def _prepare() -> tuple[Any, Measured]:
    """Imports torch; a torch that cannot be imported fails the group, one that is not there leaves it not run."""
    if importlib.util.find_spec("torch") is None:
        raise NotRun("torch is not installed")
    import torch

    threads = torch.get_num_threads()
    # One thread: on a busy machine the threads of so small a model wait for each other longer than they work.
    torch.set_num_threads(1)
    facts = {
        "version": torch.__version__,
        "cuda": torch.version.cuda,
        "cxx11_abi": bool(torch.compiled_with_cxx11_abi()),
        "num_threads": threads,
        "capability": torch.backends.cpu.get_cpu_capability(),
        "cuda_available": torch.cuda.is_available(),
        "arch_list": torch.cuda.get_arch_list(),
    }
    if torch.cuda.is_available():
        facts["gpus"] = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return torch, {"torch": facts}


GROUP = Group(needs=("torch",), prepare=_prepare, deadline=180)


def need_gpu(torch: Any) -> None:
    """Leaves the check that calls it not run where there is no GPU; fails where there is one that torch cannot use."""
    if torch.cuda.is_available():
        return
    if not torch.version.cuda:
        raise NotRun("no GPU can be used: torch is built without CUDA")
    devices = [str(path) for path in Path("/dev").glob("nvidia[0-9]*")]
    if not devices:
        raise NotRun("no GPU was given to the check: docker run --gpus all")
    try:
        torch.cuda.init()
    except (RuntimeError, AssertionError) as error:
        fail(f"the container has {', '.join(sorted(devices))} and torch cannot use it: {one_line(error)}")
    fail(f"the container has {', '.join(sorted(devices))} and torch.cuda.is_available() is False")
