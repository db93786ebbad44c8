"""What users type, as parts of a `Combination`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from builder.compat.model import CPU, Combination, Facts
from builder.compat.rules.lookup import index_of
from builder.compat.rules.versions import in_order
from builder.compat.rules.view import DRIVER_QUESTION
from builder.source import nearest, quote

CHANNELS = ("pypi", "pytorch")

_CUDA = re.compile(r"[1-9]\d{0,2}\.\d{1,2}")
_TOOLKIT = re.compile(r"[1-9]\d{0,2}\.\d{1,2}(\.\d{1,3})?")
_PYTHON = re.compile(r"[1-9]\.\d{1,2}t?")
_CAPABILITY = re.compile(r"[1-9]\d?\.\d")
_DRIVER = re.compile(r"\d{3}(\.\d{1,4}){0,2}")
_CUDA_LABEL = re.compile(r"cu(\d{2,3})(\d)")
_IMAGE = re.compile(r"[a-z0-9][a-z0-9._:/-]*(:[A-Za-z0-9_][A-Za-z0-9_.-]*)?(@sha256:[0-9a-f]{64})?")
_BRANDS = re.compile(r"\b(nvidia|tesla|geforce|quadro)\b")


class Misread(Exception):
    """What was typed cannot be understood.

    Args:
        message: what is wrong.
        hint: how to write it.
    """

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}; {self.hint}" if self.hint else self.message


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A requirement taken apart. CUDA and channel come from a local label such as +cu126, or the project's name."""

    package: str
    version: str | None
    extras: tuple[str, ...]
    cuda: str | None
    channel: str | None


def requirement(text: str, facts: Facts) -> Asked:
    """`tensorflow[and-cuda]==2.15.1`, `torch==2.13.0+cu126`, `mxnet-cu112==1.9.1`, `cuda==12.4`.

    Raises:
        Misread: it is not a requirement, or not of exactly one release.
    """
    name, extras, version, label = _pinned(text, facts, _example(facts))
    if name == DRIVER_QUESTION:
        if extras or label or not _TOOLKIT.fullmatch(str(version)):
            raise Misread(f"{quote(text)} is not a CUDA toolkit", "write `cuda==12.4` or `cuda==12.4.1`")
        toolkit = ".".join(str(version).split(".")[:2])
        return Asked(package=name, version=str(version), extras=(), cuda=toolkit, channel=None)
    project = facts.projects.get(name)
    if project is not None and project.sdist_only:
        mend = f"write `{_example(facts)} --with {name}=={version}`"
        raise Misread(f"{name} is compiled against a framework and judged beside it", mend)
    cuda: str | None = None
    channel: str | None = None
    if label:
        cuda, channel = _of_label(label, text), "pytorch"
    name, variant = _variant(name, facts)
    if variant is not None:
        if cuda not in (None, variant):
            raise Misread(f"{quote(text)} names two CUDA versions")
        cuda = variant
    return Asked(package=name, version=_known_form(name, version, facts), extras=extras, cuda=cuda, channel=channel)


NO_REQUIREMENT = Asked(package=DRIVER_QUESTION, version=None, extras=(), cuda=None, channel=None)
"""What the options ask about by themselves: driver, GPU and image."""


def _example(facts: Facts) -> str:
    """A requirement that the tables know."""
    project = facts.projects.get("torch")
    return f"torch=={project.newest}" if project is not None else "torch==2.13.0"


def beside(text: str, facts: Facts) -> tuple[str, str | None]:
    """A companion: `torchvision==0.28.0`, `torchvision==0.28.0+cu130`, or `torchvision` for any version.

    Raises:
        Misread: it is neither.
    """
    if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", text):
        return canonicalize_name(text), None
    name, extras, version, label = _pinned(text, facts, "torchvision==0.28.0")
    if extras:
        raise Misread(f"{quote(text)}: extras of a companion are not judged", f"write `{name}=={version}`")
    known = _known_form(name, version, facts)
    return name, f"{known}+{label}" if label else known


def _pinned(text: str, facts: Facts, example: str) -> tuple[str, tuple[str, ...], Version, str]:
    """Name, extras, public version and local label."""
    try:
        parsed = Requirement(text)
    except InvalidRequirement as error:
        reason = str(error).splitlines()[0].strip()
        raise Misread(f"{quote(text)} is not a requirement: {reason}", f"write for example `{example}`") from error
    name = canonicalize_name(parsed.name)
    clauses = list(parsed.specifier)
    if parsed.url or parsed.marker is not None:
        raise Misread(f"{quote(text)} has a URL or a marker", f"write for example `{example}`")
    if len(clauses) != 1 or clauses[0].operator != "==" or clauses[0].version.endswith(".*"):
        project = facts.projects.get(name)
        newest = f", such as `{name}=={project.newest}`" if project is not None else f", such as `{example}`"
        if name == DRIVER_QUESTION:
            newest = f", such as `{name}=={facts.newest_toolkit}`"
        raise Misread(f"{quote(text)} does not name one release", f"write one `==` and an exact version{newest}")
    try:
        version = Version(clauses[0].version)
    except InvalidVersion as error:
        raise Misread(f"{quote(clauses[0].version)} is not a PEP 440 version") from error
    return (
        name,
        tuple(sorted(canonicalize_name(one) for one in parsed.extras)),
        Version(version.public),
        (version.local or ""),
    )


def _known_form(name: str, version: Version, facts: Facts) -> str:
    """The version as the tables write it: 2.13.0 for 2.13."""
    project = facts.projects.get(name)
    found = index_of(facts).release(project, str(version)) if project is not None else None
    return found[0] if found is not None else str(version)


def _of_label(label: str, text: str) -> str:
    if label == CPU:
        return CPU
    match = _CUDA_LABEL.fullmatch(label)
    if match is None:
        raise Misread(f"{quote(text)}: the local label {quote(label)} names no CUDA", "known are `cpu` and `cu126`")
    return f"{match[1]}.{match[2]}"


def _variant(name: str, facts: Facts) -> tuple[str, str | None]:
    """The framework and CUDA behind a distribution's own name: mxnet and 11.2 of mxnet-cu112."""
    if name in facts.projects:
        return name, None
    owner = name.partition("-")[0]
    project = facts.projects.get(owner)
    for row in project.rows if project is not None else ():
        for build in row.builds:
            if build.distribution == name and not build.extra:
                return owner, build.cuda
    return name, None


def cuda_version(text: str) -> str:
    """`12.6` or `cpu`.

    Raises:
        Misread: it is neither.
    """
    if text == CPU or _CUDA.fullmatch(text):
        return text
    label = _CUDA_LABEL.fullmatch(text)
    if label is not None:
        raise Misread(f"{quote(text)} is not a CUDA version", f"did you mean `{label[1]}.{label[2]}`?")
    if _TOOLKIT.fullmatch(text):
        short = ".".join(text.split(".")[:2])
        raise Misread(f"{quote(text)} is a patch release of CUDA; frameworks are built for {short}", f"write `{short}`")
    raise Misread(f"{quote(text)} is not a CUDA version", "write `12.6`, or `cpu`")


def python_version(text: str) -> str:
    """`3.12`, or `3.13t` for the free-threaded build.

    Raises:
        Misread: it is of another form.
    """
    if _PYTHON.fullmatch(text):
        return text
    match = re.fullmatch(r"(?:py|cp|python)?([1-9])\.?(\d{1,2})(?:\.\d+)?(t?)", text)
    hint = f"did you mean `{match[1]}.{match[2]}{match[3]}`?" if match else "write `3.12`, or `3.13t`"
    raise Misread(f"{quote(text)} is not a Python version", hint)


def driver_version(text: str) -> str:
    """`570.124.06`; a branch such as `570` counts as its first release.

    Raises:
        Misread: it is of another form.
    """
    if _DRIVER.fullmatch(text):
        return text
    raise Misread(f"{quote(text)} is not a Linux driver version", "write it as nvidia-smi does: `570.124.06`")


def gpu(text: str, facts: Facts) -> str:
    """A compute capability such as `9.0`, or a GPU as the tables name it; `NVIDIA H100 80GB HBM3` is H100.

    Raises:
        Misread: no GPU is called so.
    """
    if _CAPABILITY.fullmatch(text):
        return text
    names = {_plain(name): name for row in facts.gpus for name in row.names}
    words = _plain(text).split()
    for length in range(len(words), 0, -1):
        found = names.get(" ".join(words[:length]))
        if found is not None and not _is_longer_name(words[length:]):
            return found
    for name in names.values():
        if re.fullmatch(_plain(name).replace("xx", r"\d\d( ti| super)*"), " ".join(words)):
            return name
    if re.fullmatch(r"sm_?\d{2,3}", text.lower()):
        digits = re.sub(r"\D", "", text)
        raise Misread(f"{quote(text)} is not a GPU", f"did you mean `{digits[:-1]}.{digits[-1]}`?")
    raise Misread(f"no GPU is called {quote(text)}", _hint(text, names))


def _is_longer_name(rest: Sequence[str]) -> bool:
    """Whether the words after a known name make it another GPU: RTX 3080 is not RTX 3080 Ti."""
    return bool(rest) and rest[0] in ("ti", "super", "ada", "blackwell", "laptop", "max")


def _hint(text: str, names: dict[str, str]) -> str:
    hint = nearest(_plain(text), names)
    match = re.fullmatch(r"did you mean `(.*)`\?", hint)
    if match and match[1] in names:
        return f"did you mean `{names[match[1]]}`?"
    return "give its name, such as `H100`, or its compute capability, such as `9.0`"


def _plain(name: str) -> str:
    """A GPU's name in lower case, without its maker and brand, words apart: `v100 sxm2 16gb`."""
    text = _BRANDS.sub(" ", name.lower())
    text = re.sub(r"\b(rtx|gtx)(\d)", r"\1 \2", text)
    return " ".join(re.split(r"[\s_-]+", text.strip()))


def system(text: str, facts: Facts) -> str:
    """A distribution: `debian 12`, `debian:12`, `ubuntu22.04` or a codename such as `bookworm`.

    Raises:
        Misread: the tables do not know it.
    """
    word = " ".join(re.split(r"[\s:_-]+", text.strip().lower()))
    word = re.sub(r"(?<=[a-z])(?=\d)", " ", word)
    word = re.sub(r"\s+", " ", word)
    for known in facts.systems.values():
        if word in (known.name, known.codename):
            return known.name
    names = [*facts.systems, *(known.codename for known in facts.systems.values())]
    raise Misread(f"no distribution is called {quote(text)}", nearest(word, names) or f"known: {', '.join(names)}")


def image(text: str) -> str:
    """An image's reference.

    Raises:
        Misread: it cannot be one.
    """
    if len(text) > 255 or not _IMAGE.fullmatch(text):
        raise Misread(f"{quote(text)} is not an image", "write for example `nvidia/cuda:12.4.1-devel-ubuntu22.04`")
    return text


def combine(
    asked: Asked,
    *,
    cuda: str | None = None,
    python: str | None = None,
    channel: str | None = None,
    gpus: Iterable[str] = (),
    driver: str | None = None,
    companions: Iterable[tuple[str, str | None]] = (),
    image: str | None = None,
    system: str | None = None,
) -> Combination:
    """A requirement and the options beside it.

    Raises:
        Misread: they contradict each other.
    """
    if asked.cuda is not None and cuda is not None and cuda != asked.cuda:
        raise Misread(f"`--cuda {cuda}` contradicts the requirement, which names CUDA {asked.cuda}", "leave one out")
    if asked.channel is not None and channel is not None and channel != asked.channel:
        raise Misread(
            f"`--channel {channel}` contradicts the requirement: only channel {asked.channel} has wheels with its "
            "local label",
            "leave one out",
        )
    together: dict[str, str | None] = {}
    for name, version in companions:
        if name == asked.package:
            raise Misread(f"`--with {name}` is the requirement itself", "leave it out")
        if name in together and together[name] != version:
            raise Misread(f"`--with {name}` is given twice, with different versions", "leave one out")
        together[name] = version
    return Combination(
        package=asked.package,
        version=asked.version,
        extras=asked.extras,
        cuda=cuda if cuda is not None else asked.cuda,
        python=python,
        channel=channel if channel is not None else asked.channel,
        companions=tuple(sorted(together.items())),
        gpus=tuple(dict.fromkeys(gpus)),
        driver=driver,
        image=image,
        system=system,
    )


def projects(facts: Facts) -> list[str]:
    """What a requirement may name, for messages."""
    return in_order([*facts.projects, DRIVER_QUESTION])
