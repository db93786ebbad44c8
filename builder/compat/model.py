"""The types of this room: what the fact tables hold, what is asked of them, and what they answer.

Versions are PEP 440 texts in normal form, CUDA versions are "12.6", Pythons "3.12" or, free-threaded, "3.13t",
compute capabilities "9.0", CUDA "cpu" means a build without it. `None` always means that the tables do not say.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

CPU = "cpu"


class Confidence(Enum):
    """How a fact is known. Only what was read forbids or allows; what was inferred can make an answer unknown."""

    READ = "read"
    INFERRED = "inferred"
    UNKNOWN = "unknown"


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Where a fact stands: its sources, and how it is known."""

    sources: tuple[str, ...]
    confidence: Confidence

    def __str__(self) -> str:
        return "; ".join(self.sources)


@dataclass(frozen=True, kw_only=True)
class Build:
    """One build of a release: its binaries for one CUDA version, or for none.

    Attributes:
        cuda: "cpu", or a CUDA version such as "12.6"; a bare major such as "12" for binaries that serve all of it.
        label: the local version label that its wheels carry, such as "cu126" or "cpu"; empty for none.
        channels: the indexes that carry it: "pypi", "pytorch".
        distribution: the project that pip installs, where it is another one: "mxnet-cu112", "jax-cuda12-plugin".
        extra: the pip extra that brings it, such as "cuda12" or "and-cuda"; empty for none.
        versions: the releases that have it; None for every one of its row.
        pythons: those that it has wheels for; None for those of its row.
        sass: compute capabilities with machine code in the binary; None when unknown.
        ptx: compute capabilities with PTX in the binary, which newer GPUs can compile; None when unknown.
        glibc: the oldest that its wheels load with; None for that of its row.
        driver: the oldest Linux driver that its maker names, where that is not what its CUDA needs.
        cudnn: the cuDNN that it was built or tested with, as far as its maker says: "8.9"; None when unknown.
        min_capability: the oldest compute capability that its maker serves, where `sass` is unknown.
        arch_origin: where `sass`, `ptx` and `min_capability` stand, when that is less sure than the build itself.
        default: whether the plain requirement on "pypi" installs it.
        origin: where it stands.
    """

    cuda: str
    label: str = ""
    channels: frozenset[str]
    distribution: str = ""
    extra: str = ""
    versions: frozenset[str] | None = None
    pythons: frozenset[str] | None = None
    sass: tuple[str, ...] | None = None
    ptx: tuple[str, ...] | None = None
    glibc: str | None = None
    driver: str | None = None
    cudnn: str | None = None
    min_capability: str | None = None
    arch_origin: Origin | None = None
    default: bool = False
    origin: Origin


@dataclass(frozen=True, kw_only=True)
class Absent:
    """A build that a series is known not to have: for this CUDA version, or "cpu"."""

    cuda: str
    origin: Origin


@dataclass(frozen=True, kw_only=True)
class Extra:
    """A pip extra of some releases.

    Attributes:
        versions: the releases that have it; None for every one of its row.
        installable: False when what it requires cannot be had.
        pythons: those on which what it requires can be had; None for those of its row.
        why: why not; empty when it can.
        requires: what it requires, as requirements.
    """

    name: str
    versions: frozenset[str] | None = None
    installable: bool = True
    pythons: frozenset[str] | None = None
    why: str = ""
    requires: tuple[str, ...] = ()
    origin: Origin


@dataclass(frozen=True, kw_only=True)
class Companion:
    """What one release says about another project that is installed beside it.

    Attributes:
        project: such as "torchvision", "numpy", "keras".
        versions: the very versions that belong to it; None when there is only a range, or nothing is known.
        specifier: the range that it requires, in PEP 440's form; empty for any.
        known: False when no source says which versions work.
        note: what a person should know of it; may be empty.
    """

    project: str
    versions: tuple[str, ...] | None = None
    specifier: str = ""
    known: bool = True
    note: str = ""
    origin: Origin


@dataclass(frozen=True, kw_only=True)
class Row:
    """The releases of one series of a project, such as torch 2.13.

    Attributes:
        project: normalised name.
        series: such as "2.13", or an exact version where each release has its own row.
        releases: release dates (ISO 8601, or None) by version.
        pythons: Pythons with wheels for Linux on x86_64; None when its wheels do not depend on it. Those of the newest
            release: ask `pythons_of` for one.
        requires_python: PEP 440 specifier; empty when unknown. Ask `requires_python_of` for one release.
        glibc: the oldest that its wheels load with. Ask `glibc_of` for one release.
        own_pythons: by release, where they are other ones than `pythons`.
        own_requires_python: by release, where it is another one.
        own_glibc: by release, where it is another one.
        yanked: releases that their maker has withdrawn; an exact pin still installs them.
        cxx: the C++ standard that extensions against it must be compiled with, such as "c++17"; None when unknown.
        builds: its builds.
        absent: builds that it is known not to have, where nobody has seen the whole list.
        extras: its pip extras that the tables know of, by name.
        companions: by release, then by project. The release "" stands for every one that is not named.
        broken_pythons: Pythons that its wheels install on and do not work with, each with the reason.
        notes: what a person should know, one sentence each.
    """

    project: str
    series: str
    releases: Mapping[str, str | None]
    pythons: frozenset[str] | None
    requires_python: str = ""
    glibc: str | None = None
    cxx: str | None = None
    builds: tuple[Build, ...] = ()
    absent: tuple[Absent, ...] = ()
    extras: tuple[Extra, ...] = ()
    companions: Mapping[str, Mapping[str, Companion]] = field(default_factory=dict)
    broken_pythons: Mapping[str, str] = field(default_factory=dict)
    own_pythons: Mapping[str, frozenset[str] | None] = field(default_factory=dict)
    own_requires_python: Mapping[str, str] = field(default_factory=dict)
    own_glibc: Mapping[str, str | None] = field(default_factory=dict)
    yanked: frozenset[str] = frozenset()
    notes: tuple[str, ...] = ()
    origin: Origin

    def pythons_of(self, release: str) -> frozenset[str] | None:
        """Pythons that this release has wheels for; None when its wheels do not depend on it."""
        return self.own_pythons.get(release, self.pythons)

    def requires_python_of(self, release: str) -> str:
        """The Pythons that this release says it accepts, as a specifier; empty when unknown."""
        return self.own_requires_python.get(release, self.requires_python)

    def glibc_of(self, release: str) -> str | None:
        """The oldest glibc that this release's wheels load with."""
        return self.own_glibc.get(release, self.glibc)

    def companion(self, release: str, project: str) -> Companion | None:
        """What this release says of that project; None when it says nothing."""
        own = self.companions.get(release, {}).get(project)
        return own if own is not None else self.companions.get("", {}).get(project)


@dataclass(frozen=True, kw_only=True)
class Project:
    """A project's releases.

    Attributes:
        name: normalised name.
        rows: oldest first. Every release up to `newest` is in one of them, or never was.
        newest: the newest release that the tables know of: what is newer is unknown, what is older and not here never
            was released (or has no wheels that count).
        oldest: the oldest release that they go back to: what is older is unknown.
        sdist_only: whether it has no wheels at all, and is compiled on installation.
    """

    name: str
    rows: tuple[Row, ...]
    newest: str
    oldest: str
    sdist_only: bool = False


@dataclass(frozen=True, kw_only=True)
class Toolkit:
    """A CUDA toolkit, such as 12.4.

    Attributes:
        version: "12.4".
        exists: False for numbers that were never released, such as 12.7.
        drivers: the Linux driver that each of its patch releases ships with, by version; empty when unknown.
        minor_driver: the oldest Linux driver that runs it by minor-version compatibility.
        sass: compute capabilities that its compiler makes code for; None when unknown.
        patches: its patch releases as far as known, oldest first.
        forward_branches: older driver branches that NVIDIA's images admit with forward compatibility (cuda-compat) on
            data-center GPUs, such as 470 and 535; None when unknown.
        arch_origin: where `sass` stands, when that is less sure than the toolkit itself.
        why: for one that never was, where its number comes from.
    """

    version: str
    exists: bool = True
    drivers: Mapping[str, str] = field(default_factory=dict)
    minor_driver: str | None = None
    sass: tuple[str, ...] | None = None
    patches: tuple[str, ...] = ()
    forward_branches: tuple[int, ...] | None = None
    arch_origin: Origin | None = None
    why: str = ""
    origin: Origin


@dataclass(frozen=True, kw_only=True)
class ImageTags:
    """The `nvidia/cuda` tags of one CUDA patch release.

    Attributes:
        version: "12.4.1".
        tags: flavours by operating system: "ubuntu22.04" → {"base", "runtime", "devel", "cudnn-devel", …}, as the
            part of the tag between version and system.
        complete: whether every tag is here. When it is not, an absent tag is unknown.
        removed: whether its maker's policy has deleted it, or may have.
        cudnn: the version of cuDNN in its cudnn flavours; None when unknown or when there are none.
        own_cudnn: by operating system, where it is another one.
    """

    version: str
    tags: Mapping[str, frozenset[str]]
    complete: bool
    removed: bool | None
    cudnn: str | None = None
    own_cudnn: Mapping[str, str] = field(default_factory=dict)
    origin: Origin


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """A GPU's compute capability, by its name in the shops.

    Attributes:
        names: such as ("H100", "H200", "GH200").
        capability: "9.0".
        architecture: "Hopper".
        data_center: by name, whether forward compatibility (cuda-compat) serves it; a name that is absent: unknown.
        last_driver: the last driver branch that supports it, such as 580; None for a current one.
    """

    names: tuple[str, ...]
    capability: str
    architecture: str
    data_center: Mapping[str, bool] = field(default_factory=dict)
    last_driver: int | None = None
    origin: Origin


@dataclass(frozen=True, kw_only=True)
class System:
    """A release of a distribution.

    Attributes:
        name: "debian 12", "ubuntu 22.04".
        codename: "bookworm".
        glibc: "2.36".
        gcc: the major version of its compiler, such as "12".
        cmake: the version of its cmake, such as "3.25".
        pythons: the Pythons in its archive.
        end_of_life: ISO 8601 date of the end of its regular support; None when unknown.
    """

    name: str
    codename: str
    glibc: str
    gcc: str | None
    cmake: str | None = None
    pythons: tuple[str, ...]
    end_of_life: str | None
    origin: Origin


@dataclass(frozen=True, kw_only=True)
class PythonRelease:
    """A CPython series. `first_release` and `end_of_life` are ISO 8601 dates, the latter perhaps "2028-10"."""

    version: str
    first_release: str | None
    end_of_life: str | None
    origin: Origin


@dataclass(frozen=True, kw_only=True)
class Adaptation:
    """What it takes to build a release of Horovod against one range of one framework.

    Attributes:
        horovod: PEP 440 specifier over Horovod's versions.
        framework: "torch", "tensorflow", "mxnet".
        specifier: over the framework's versions.
        pythons: PEP 440 specifier over Pythons; empty for any.
        works: True when it builds and trains as said, False when it does not whatever one does, None when nobody
            knows.
        steps: what must be done, one sentence each; empty when it builds unmodified.
        warning: what works only in part, such as Keras 3's optimiser; empty for nothing.
    """

    horovod: str
    framework: str
    specifier: str
    pythons: str = ""
    works: bool | None
    steps: tuple[str, ...] = ()
    warning: str = ""
    origin: Origin


@dataclass(frozen=True, kw_only=True)
class Compiler:
    """The oldest GCC, by its major version, that compiles for a C++ standard, such as "c++17"."""

    cxx: str
    gcc: str
    origin: Origin


@dataclass(frozen=True, kw_only=True)
class Facts:
    """All tables. Those of projects are read from their files when they are first asked for.

    Attributes:
        date: the day to which the tables hold, ISO 8601.
        projects: by normalised name: frameworks and their companions.
        toolkits: by version, those that never were included.
        newest_toolkit: what is newer is unknown.
        images: by CUDA patch version.
        gpus: each compute capability once.
        systems: by name.
        pythons: by version.
        horovod: adaptations, the most particular first.
        compilers: by C++ standard.
    """

    date: str
    projects: Mapping[str, Project]
    toolkits: Mapping[str, Toolkit]
    newest_toolkit: str
    images: Mapping[str, ImageTags]
    gpus: tuple[Gpu, ...]
    systems: Mapping[str, System]
    pythons: Mapping[str, PythonRelease]
    horovod: tuple[Adaptation, ...]
    compilers: Mapping[str, Compiler]


@dataclass(frozen=True, kw_only=True)
class Combination:
    """What is asked about. Everything but the package is optional: what is None is not judged.

    Attributes:
        package: normalised project name, or "cuda" for the driver question alone.
        version: exact, in normal form without local label.
        extras: pip extras of the package, sorted.
        cuda: "cpu", or a CUDA version such as "12.6".
        python: such as "3.12".
        channel: "pypi" or "pytorch"; None for whichever carries it.
        companions: other projects beside it with exact versions, or None for any version; sorted by name.
        gpus: devices that it must run on, each by its compute capability ("9.0") or by a name of the tables ("H100").
        driver: a Linux driver version such as "570.124.06".
        image: a base image, such as "nvidia/cuda:12.4.1-devel-ubuntu22.04".
        system: the base's distribution, such as "debian 12".
    """

    package: str
    version: str | None = None
    extras: tuple[str, ...] = ()
    cuda: str | None = None
    python: str | None = None
    channel: str | None = None
    companions: tuple[tuple[str, str | None], ...] = ()
    gpus: tuple[str, ...] = ()
    driver: str | None = None
    image: str | None = None
    system: str | None = None


@dataclass(frozen=True, kw_only=True)
class Reason:
    """What a rule found: its name, one sentence, and the sources of the fact behind it."""

    rule: str
    message: str
    source: str


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What the rules say of a combination.

    Attributes:
        forbidden: why it is impossible; empty when nothing forbids it.
        unknown: where the facts do not reach.
        warnings: what is possible and unwise, or takes an adaptation.
    """

    forbidden: tuple[Reason, ...] = ()
    unknown: tuple[Reason, ...] = ()
    warnings: tuple[Reason, ...] = ()

    @property
    def valid(self) -> bool | None:
        """False when something forbids it, None when the facts do not reach, else True."""
        if self.forbidden:
            return False
        return None if self.unknown else True


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A finding, and the combinations nearest to the one that was asked about which work, closest first."""

    combination: Combination
    finding: Finding
    nearest: tuple[Combination, ...] = ()
