# mypy: disable-error-code="import-not-found, import-untyped, misc, no-any-return"
"""What an image with TensorFlow promises: it trains, with Keras 3 and Keras 2, and in mixed precision."""

from __future__ import annotations

import functools
import importlib.metadata
import importlib.util
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from builder.checks.contract import Group, Measured, NotRun, fail

#: The projects that bring the module `tensorflow`. One of them does; another may stand for it without any code.
PROJECTS = ("tensorflow", "tensorflow-cpu", "tensorflow-cpu-aws", "tensorflow-gpu", "tensorflow-intel", "tf-nightly")


def installed(projects: tuple[str, ...] = PROJECTS) -> dict[str, importlib.metadata.Distribution]:
    """Those of the projects that are installed, by name."""
    found = {}
    for project in projects:
        try:
            found[project] = importlib.metadata.distribution(project)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def quiet() -> None:
    """Leaves out TensorFlow's notices, of which it prints a page at every start; for before it is imported."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")


def one_thread(tensorflow: Any) -> None:
    """On a busy machine the threads of so small a model wait for each other longer than they work."""
    tensorflow.config.threading.set_intra_op_parallelism_threads(1)
    tensorflow.config.threading.set_inter_op_parallelism_threads(1)


def on_cpu(run: Callable[[Any], Measured]) -> Callable[[Any], Measured]:
    """Makes a check compute on the CPU beside a GPU, too: its bounds and its bits are those of the CPU."""

    @functools.wraps(run)
    def placed(tensorflow: Any) -> Measured:
        with tensorflow.device("/CPU:0"):
            return run(tensorflow)

    return placed


def _prepare() -> tuple[Any, Measured]:
    """Imports TensorFlow and its Keras; broken ones fail the group, one that is not there leaves it not run."""
    if importlib.util.find_spec("tensorflow") is None:
        raise NotRun("tensorflow is not installed")
    quiet()
    import tensorflow

    one_thread(tensorflow)
    build = tensorflow.sysconfig.get_build_info()
    cuda = str(build.get("cuda_version", "")) if build.get("is_cuda_build") else ""
    keras = installed(("keras",)).get("keras")
    gpus = tensorflow.config.list_physical_devices("GPU")
    for gpu in gpus:  # or TensorFlow takes all of its memory
        tensorflow.config.experimental.set_memory_growth(gpu, True)
    # The bounds are those of float32; by default a GPU computes products of it in a type of 11 bits.
    tensorflow.config.experimental.enable_tensor_float_32_execution(False)
    facts = {
        "version": tensorflow.__version__,
        "cuda": ".".join(cuda.split(".")[:2]) or None,
        "keras": keras.version if keras is not None else "none",
        "gpus": [tensorflow.config.experimental.get_device_details(gpu).get("device_name", gpu.name) for gpu in gpus],
    }
    return tensorflow, {"tensorflow": facts}


GROUP = Group(needs=("tensorflow",), prepare=_prepare, deadline=180)


def need_gpu(tensorflow: Any) -> None:
    """Leaves the check that calls it not run where there is no GPU; fails where there is one that TensorFlow lacks.

    TensorFlow lists no GPU, and trains on the CPU, where it cannot load one of CUDA's libraries.
    """
    if tensorflow.config.list_physical_devices("GPU"):
        return
    if not tensorflow.sysconfig.get_build_info().get("is_cuda_build"):
        raise NotRun("no GPU was given to the check: TensorFlow is built without CUDA")
    devices = sorted(str(path) for path in Path("/dev").glob("nvidia[0-9]*"))
    if devices:
        fail(f"the container has {', '.join(devices)} and TensorFlow lists no GPU: it would train on the CPU")
    raise NotRun("no GPU was given to the check: TensorFlow lists none")
