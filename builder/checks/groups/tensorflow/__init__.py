# mypy: disable-error-code="import-not-found, import-untyped, misc, no-any-return"
"""What an image with TensorFlow promises: it trains, with Keras 3 and Keras 2, and in mixed precision."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
from typing import Any

from builder.checks.contract import Group, Measured, NotRun

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
    facts = {
        "version": tensorflow.__version__,
        "cuda": ".".join(cuda.split(".")[:2]) or None,
        "keras": keras.version if keras is not None else "none",
        "gpus": [tensorflow.config.experimental.get_device_details(gpu).get("device_name", gpu.name) for gpu in gpus],
    }
    return tensorflow, {"tensorflow": facts}


GROUP = Group(needs=("tensorflow",), prepare=_prepare, deadline=180)


def need_gpu(tensorflow: Any) -> None:
    """Leaves the check that calls it not run where TensorFlow sees no GPU."""
    if not tensorflow.config.list_physical_devices("GPU"):
        built = tensorflow.sysconfig.get_build_info().get("is_cuda_build")
        why = "TensorFlow lists none" if built else "TensorFlow is built without CUDA"
        raise NotRun(f"no GPU was given to the check: {why}")
