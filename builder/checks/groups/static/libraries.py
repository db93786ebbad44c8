"""The shared libraries of all packages, by their headers."""

from __future__ import annotations

import os
from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from builder.checks.contract import Measured, check, expect
from builder.checks.groups.static import _elf
from builder.checks.groups.static._packages import interpreter, shown

#: The NVIDIA driver's: they come from the host with `--gpus`, and no image has them.
DRIVER = ("libcuda.so.1", "libnvidia-ml.so.1", "libnvidia-ptxjitcompiler.so.1", "libcudadebugger.so.1")

#: Plugins that their package tries and does without, for transports and thread pools that an image may lack.
#: Seen in the wheels nvidia-nvshmem-cu12 3.8.0, nvidia-cufile-cu12 1.14.1.1 and numba 0.68.1.
PLUGINS = ("nvshmem_transport_*", "nvshmem_bootstrap_*", "libcufile_rdma.so*", "tbbpool.*", "omppool.*")

#: Bytes from which a second copy of a library is worth telling.
LARGE = 10 << 20


@check(
    "static.libraries",
    level="static",
    deadline=120,
    catches="A shared library of a package that needs one nobody has, or that another copy takes the place of.",
)
def run(state: Any) -> Measured:
    where = state.files.roots
    program = _elf.read(interpreter())
    expect(program is not None, f"{interpreter()} is no 64-bit little-endian ELF program")
    assert program is not None
    loader = _elf.Loader(os.environ, program)
    libraries = [library for library in map(_elf.read, state.files.libraries) if library is not None]
    libraries = [library for library in libraries if library.machine == program.machine]
    brought: dict[str, list[Path]] = {}
    for library in libraries:
        for name in {library.soname, library.path.name}:
            brought.setdefault(name, []).append(library.path)
    loaded = _mapped()

    missing: list[str] = []
    asked = {name for library in libraries for name in library.needed}
    shadowed = _preloaded(loader, program, brought) + _in_the_way(loader, brought, asked)
    optional: set[str] = set()
    driver: set[str] = set()
    resolved = 0
    for library in libraries:
        own = shown(library.path, where)
        for name in library.needed:
            found, how = loader.find(name, library)
            if found is not None:
                resolved += 1
                if _shadows(found, how, library, brought.get(name, []), where):
                    real = shown(brought[name][0], where)
                    shadowed.append(f"{own} gets {found} from {how} instead of {real}")
            elif name in brought or name in loaded:
                resolved += 1  # its package loads it beforehand, and the loader takes what is there by its name
            elif name in DRIVER:
                driver.add(name)
            elif any(fnmatchcase(library.path.name, plugin) for plugin in PLUGINS):
                optional.add(name)
            else:
                missing.append(f"{own} needs {name}, which nobody has")
    measured = {
        "libraries": len(libraries),
        "resolved": resolved,
        "from_driver": sorted(driver),
        "optional": sorted(optional),
        **_duplicates(loader, libraries, where),
    }
    expect(not missing, _first(missing), missing=missing[:10], **measured)
    expect(not shadowed, _first(shadowed), shadowed=shadowed[:10], **measured)
    return measured


def _first(findings: list[str]) -> str:
    if not findings:
        return ""
    return findings[0] + (f" (and {len(findings) - 1} more)" if len(findings) > 1 else "")


def _same(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:
        return False


def _shadows(found: Path, how: str, library: _elf.Library, copies: list[Path], where: tuple[Path, ...]) -> bool:
    """Whether what was found takes the place of a copy that packages brought.

    A copy in the system's directories does so only within one package: whoever leans on another package's libraries
    loads that package first, and then has its copy.
    """
    if not copies or any(_same(found, copy) for copy in copies):
        return False
    if how == _elf.LIBRARY_PATH:
        return True
    own = _package(library.path, where)
    return how == _elf.SYSTEM and any(_package(copy, where) == own for copy in copies)


def _package(path: Path, where: tuple[Path, ...]) -> Path:
    """The outermost directory of a package, such as site-packages/torch."""
    for root in where:
        if root in path.parents:
            return root / path.relative_to(root).parts[0]
    return path


def _preloaded(loader: _elf.Loader, program: _elf.Library, brought: Mapping[str, list[Path]]) -> list[str]:
    """What is put before everything else by name or directory, whether something needs it by that name or not."""
    found = []
    for name in os.environ.get("LD_PRELOAD", "").replace(":", " ").split():
        path, _ = loader.find(name, program)
        if path is None:
            found.append(f"LD_PRELOAD names {name}, which nobody has: each program starts with an error")
            continue
        library = _elf.read(path)
        copies = brought.get(library.soname, []) if library is not None else []
        if copies and not any(_same(path, copy) for copy in copies):
            found.append(f"LD_PRELOAD puts {path} in the place of {copies[0]}")
    return found


def _in_the_way(loader: _elf.Loader, brought: Mapping[str, list[Path]], asked: set[str]) -> list[str]:
    """Copies in LD_LIBRARY_PATH of what packages open by name while they run, such as the parts of cuDNN."""
    found = []
    for directory in loader.library_path:
        for name in sorted(loader.names(directory) & brought.keys() - asked):
            path = directory / name
            if not any(_same(path, copy) for copy in brought[name]):
                found.append(f"{path} of {_elf.LIBRARY_PATH} is found before {brought[name][0]}")
    return found


def _mapped() -> frozenset[str]:
    """Names of the libraries that this very process has, such as its own libpython."""
    text = Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace")
    paths = {line.rpartition(" ")[2] for line in text.splitlines() if ".so" in line}
    return frozenset(Path(path).name for path in paths)


def _duplicates(loader: _elf.Loader, libraries: list[_elf.Library], where: tuple[Path, ...]) -> dict[str, object]:
    """Libraries of which there are several large copies, and the bytes that one copy each would save."""
    files: dict[str, dict[tuple[int, int], tuple[int, str]]] = {}
    for library in libraries:
        if library.size >= LARGE:
            system = loader.in_system(library.soname)
            for path in (library.path, system):
                if path is not None:
                    status = path.stat()
                    copies = files.setdefault(library.soname, {})
                    copies[status.st_dev, status.st_ino] = (status.st_size, shown(path, where))
    several = {name: sorted(copies.values()) for name, copies in files.items() if len(copies) > 1}
    spare = sum(size for copies in several.values() for size, _ in copies[:-1])
    listed = {name: [path for _, path in copies] for name, copies in sorted(several.items())[:10]}
    return {"duplicate_bytes": spare, "duplicates": listed}
