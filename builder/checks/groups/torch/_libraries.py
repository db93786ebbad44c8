# mypy: disable-error-code="import-not-found, import-untyped, misc, no-any-return"
"""Which files the numeric libraries of this process really are."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from builder.checks.contract import expect

#: Libraries of which a process may hold one version only, whatever their files are called.
#: libnvrtc-builtins belongs to the libnvrtc beside it.
_FAMILIES = re.compile(
    r"lib(torch\w*|c10\w*|cudart|cudnn|cublas|cublasLt|nccl|dnnl|mkldnn|mkl_rt|nvrtc(?!-builtins))(?=[-.])"
)
_LIBRARY = re.compile(r"(lib[^/]*\.so(?:\.[\d.]+)?)(?: \(deleted\))?$")


def mapped(maps: str) -> dict[str, set[str]]:
    """The shared libraries of a process by file name, each with the paths that it is mapped from.

    Args:
        maps: `/proc/PID/maps`; the path is the sixth column.
    """
    found: dict[str, set[str]] = {}
    for line in maps.splitlines():
        columns = line.split(None, 5)
        match = _LIBRARY.search(columns[5]) if len(columns) == 6 else None
        if match and columns[5].startswith("/"):
            name = match.group(1).rpartition("/")[2]
            found.setdefault(name, set()).add(columns[5].replace(" (deleted)", ""))
    return found


def expect_own(found: dict[str, set[str]], own: Iterable[Path]) -> None:
    """Fails when a library that torch brought is mapped from elsewhere, or one library is there twice.

    Args:
        found: as `mapped`.
        own: the directories of torch's libraries and of the wheels that it needs.
    """
    brought: dict[str, set[str]] = {}
    for directory in own:
        for file in directory.glob("*.so*"):
            brought.setdefault(file.name, set()).add(str(file.resolve()))
    families: dict[str, str] = {}
    for name, paths in sorted(found.items()):
        # Several torch extensions are called alike; libraries are not.
        expect(len(paths) == 1, f"{name} is loaded {len(paths)} times: {' and '.join(sorted(paths))}")
        path = next(iter(paths))
        if name in brought:
            expect(
                str(Path(path).resolve()) in brought[name],
                f"{name} is shadowed: {path} is loaded in the place of {sorted(brought[name])[0]}",
            )
        family = _FAMILIES.match(name)
        if family:
            other = families.setdefault(family.group(1), path)
            expect(other == path, f"{family.group(0)} is loaded twice: {other} and {path}")


def numeric_libraries(torch: Any) -> dict[str, Any]:
    """What torch says of its numeric libraries, and what is mapped.

    cuDNN works with a program that was compiled for the same major and an older or equal minor version, so says its
    documentation; oneDNN and MKL are linked into torch, so their one version is that of both.
    """
    found = mapped(Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace"))
    home = Path(torch.__file__).parent
    nvidia = home.parent / "nvidia"
    expect_own(found, [home / "lib", *sorted(nvidia.glob("*/lib")), *sorted(nvidia.glob("*/*/lib"))])
    config = str(torch.__config__.show())
    measured: dict[str, Any] = {"libraries": len(found)}
    for name, pattern in (("onednn", r"MKL-DNN v(\S+)"), ("mkl", r"Math Kernel Library Version (\S+)")):
        match = re.search(pattern, config)
        measured[name] = match.group(1) if match else "none"
    if torch.backends.mkldnn.is_available():
        expect(measured["onednn"] != "none", "torch uses oneDNN and does not tell its version")
    openmp = sorted(path for name, paths in found.items() if re.match(r"lib(g|i)?omp", name) for path in paths)
    measured["openmp"] = openmp
    if getattr(torch._C, "_has_cudnn", False):
        compiled = tuple(torch._C._cudnn.getCompileVersion())
        runtime = tuple(torch._C._cudnn.getRuntimeVersion())
        expect(
            runtime[0] == compiled[0] and runtime >= compiled,
            f"torch is compiled for cuDNN {'.'.join(map(str, compiled))}, loaded is {'.'.join(map(str, runtime))}",
        )
        measured["cudnn"] = ".".join(map(str, runtime))
        measured["cudnn_compiled"] = ".".join(map(str, compiled))
        paths = sorted(path for name, where in found.items() if name.startswith("libcudnn.") for path in where)
        expect(bool(paths), "torch is built with cuDNN, and no libcudnn is loaded")
        measured["cudnn_file"] = paths[0]
    return measured
