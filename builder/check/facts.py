"""What the suite found in an image, beside what became of its checks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class TorchFacts:
    """torch as it describes itself.

    Attributes:
        version: `torch.__version__`.
        cuda: the CUDA version it is built for; None for a CPU build.
        num_threads: threads that it takes by default.
        capability: the instruction set that its CPU kernels use.
    """

    version: str
    cuda: str | None
    num_threads: int
    capability: str


@dataclass(frozen=True, kw_only=True)
class HorovodFacts:
    """Horovod as it describes itself: its version, and what it is built with."""

    version: str
    gloo: bool
    mpi: bool
    nccl: bool


@dataclass(frozen=True, kw_only=True)
class TensorflowFacts:
    """TensorFlow as it describes itself.

    Attributes:
        version: `tensorflow.__version__`.
        cuda: the CUDA version it is built for, major and minor; None for a CPU build.
        keras: the version of its Keras.
        gpus: the models of the GPUs that it sees.
    """

    version: str
    cuda: str | None
    keras: str
    gpus: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class BuildFacts:
    """What a framework's own files say it is, read without an import; None for what they do not say.

    `cuda` is None for a CPU build too.
    """

    version: str | None
    cuda: str | None


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What was found in the image.

    Attributes:
        python: full version, such as `3.11.2`.
        platform: kernel, machine and C library, in one line.
        system: the distribution, as its os-release names it.
        uid: the user id that the checks ran with.
        packages: version of every installed distribution, by its normalised name.
        cpu: the processor's model.
        devices: NVIDIA device files.
        torch: None where it is not installed or could not be imported.
        horovod: None where it is not installed or could not be imported.
        tensorflow: None where it is not installed or could not be imported.
        builds: of `torch` and `tensorflow`, those that are installed.
    """

    python: str
    platform: str
    system: str
    uid: int
    packages: Mapping[str, str]
    cpu: str
    devices: tuple[str, ...]
    torch: TorchFacts | None
    horovod: HorovodFacts | None
    tensorflow: TensorflowFacts | None = None
    builds: Mapping[str, BuildFacts] = field(default_factory=dict)
