"""How far checks can go on an engine, why no further, and on which kind of device they run there."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from builder.engine.connection import EngineInfo
from builder.matrix import CPU, Cell, Level

PROC_GPUS = Path("/proc/driver/nvidia/gpus")
"""Where NVIDIA's driver describes each GPU of a machine, one directory each; its README lists the file's fields."""

_MODEL = re.compile(r"^Model:\s*(\S.*?)\s*$", re.MULTILINE)


@dataclass(frozen=True, kw_only=True)
class Reach:
    """How far checks can go here.

    Attributes:
        gpu: whether the engine can give containers a GPU.
        architecture: the engine's, as images spell it: `amd64`.
        gpus: models of the engine's GPUs, sorted; empty when there are none or nobody says.
        cap: the highest level that was asked for; None for no limit.
    """

    gpu: bool
    architecture: str
    gpus: tuple[str, ...] = ()
    cap: Level | None = None

    @classmethod
    def of(cls, info: EngineInfo, *, cap: Level | None = None, proc: Path = PROC_GPUS) -> Reach:
        """The reach of an engine; the models of its GPUs are known where it is on this machine."""
        gpus = gpu_models(proc) if info.gpu and info.local else ()
        return cls(gpu=info.gpu, architecture=info.architecture, gpus=gpus, cap=cap)

    def level(self, cell: Cell) -> tuple[Level, str]:
        """As far as the cell's policy asks and the engine can; and why no further, or nothing when it is far enough."""
        wanted = cell.policy.verified
        level, why = wanted, ""
        if cell.cuda != CPU and wanted >= Level.GPU and not self.gpu:
            level, why = Level.CPU, "this engine can give containers no GPU"
        if self.cap is not None and self.cap < level:
            level, why = self.cap, f"the check was limited to level {self.cap.value}"
        return level, why

    def device(self, level: Level, *, gpus: bool = False) -> str | None:
        """The kind of device that a check up to a level runs on: `cpu/amd64`, `gpu/NVIDIA H200`.

        None when it is a GPU of which nobody says what it is: what such a check found is not known to hold for another.

        Args:
            gpus: whether the container gets the GPUs at any level. With them comes the driver's libcuda, without which
                an image may not even import its framework: what passes so is not known to pass without.
        """
        if level < Level.GPU and not gpus:
            return f"cpu/{self.architecture}"
        return f"gpu/{' + '.join(self.gpus)}" if self.gpus else None


def gpu_models(proc: Path = PROC_GPUS) -> tuple[str, ...]:
    """The models of this machine's NVIDIA GPUs, sorted, as its driver names them; one entry for each GPU."""
    found = []
    for path in proc.glob("*/information"):
        try:
            match = _MODEL.search(path.read_text(encoding="utf-8", errors="replace"))
        except OSError:
            continue
        if match:
            found.append(match[1])
    return tuple(sorted(found))
