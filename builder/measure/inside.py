"""Runs inside an image and says what is in it: a program of its own, which nothing of imgbuild imports.

It needs Python 3.9 and the standard library, and takes what it can from `builder/checks/facts.py`, which is copied
beside it. Small files of the frameworks are read first. A framework is imported only for what no file says: the
libraries that a CUDA build of torch loads, and what Horovod was compiled with. It needs no GPU for that.

What is not there is null. A framework that is there and cannot be imported ends the program with its traceback: an
image that cannot say what it is, is broken. One import is excused: that which lacks `libcuda.so.1`, which comes with
the driver of a machine that has a GPU, and with no image.
"""

from __future__ import annotations

import faulthandler
import importlib
import importlib.machinery
import json
import os
import platform
import sys
from pathlib import Path
from typing import Any

from builder.checks import facts

#: The modules in which Horovod may have been compiled, in the order in which they are asked.
HOROVOD_MODULES = ("torch", "tensorflow", "mxnet")


def main(request: Path, result: Path) -> int:
    """Answers `request` into the file `result`, which is written last and as a whole."""
    faulthandler.enable()
    # TensorFlow greets with a page of notices, which would push the cause of a failure out of the log's end.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    asked = json.loads(request.read_text(encoding="utf-8"))
    packages, _ = facts.packages()
    built = facts.builds()
    found = {
        "nonce": asked["nonce"],
        "python": platform.python_version(),
        "packages": packages,
        "torch": torch(built["torch"]) if "torch" in built else None,
        "tensorflow": tensorflow() if "tensorflow" in built else None,
        "horovod": horovod() if "horovod" in packages else None,
    }
    result.write_text(json.dumps(found), encoding="utf-8")
    return 0


def torch(built: dict[str, Any]) -> dict[str, Any]:
    """What torch is built for: versions of CUDA, cuDNN and NCCL, and the kinds of GPU that it has code for."""
    found: dict[str, Any] = {"cuda": built["cuda"], "cudnn": None, "nccl": None, "architectures": None}
    module = imported("torch") if built["cuda"] else None
    if module is None:
        return found
    if module.backends.cudnn.is_available():
        found["cudnn"] = module.backends.cudnn.version()
    if module.distributed.is_available() and module.distributed.is_nccl_available():
        found["nccl"] = list(module.cuda.nccl.version())[:3]
    # What torch.cuda.get_arch_list says where there is a GPU; without one that says nothing.
    found["architectures"] = (module._C._cuda_getArchFlags() or "").split() or None
    return found


def tensorflow() -> dict[str, Any]:
    """What TensorFlow's file of its build says."""
    build = dict(facts.assigned(None, "tensorflow", "python/platform/build_info.py").get("build_info", {}))
    if not build.get("is_cuda_build"):
        return {"cuda": None, "architectures": None}
    return {"cuda": build.get("cuda_version"), "architectures": build.get("cuda_compute_capabilities")}


def horovod() -> dict[str, Any]:
    """For which frameworks Horovod was compiled, and with which controllers and operations."""
    found: dict[str, Any] = {"frameworks": [], "gloo": None, "mpi": None, "nccl": None}
    spec = importlib.machinery.PathFinder.find_spec("horovod")
    places = [Path(place) for place in (spec.submodule_search_locations or ())] if spec is not None else []
    for name in HOROVOD_MODULES:
        if any(True for place in places for _ in (place / name).glob("mpi_lib*.so")):
            found["frameworks"].append(name)
    for name in found["frameworks"]:
        module = imported(f"horovod.{name}")
        if module is not None:
            # nccl_built says NCCL's version as one number, 0 for none.
            return {
                **found,
                "gloo": bool(module.gloo_built()),
                "mpi": bool(module.mpi_built()),
                "nccl": int(module.nccl_built()) or None,
            }
    return found


def imported(name: str) -> Any:
    """A module; None where it needs a GPU's driver to be imported."""
    try:
        return importlib.import_module(name)
    except (ImportError, OSError) as error:
        if "libcuda.so" not in str(error):
            raise
        return None


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
