"""Rules about the driver's version. Three cases are told apart:

- native: the driver is at least the one that the toolkit ships with;
- minor-version compatibility: it is older, and of the same major family of CUDA: what is compiled runs, PTX and what is
  new in the toolkit does not;
- forward compatibility: it belongs to an older family, and only the cuda-compat package helps, on data-center GPUs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum

from builder.compat.model import Combination, Confidence, Facts
from builder.compat.rules.gpu import named, serving
from builder.compat.rules.lookup import Index, index_of
from builder.compat.rules.said import Said, Severity, forbidden, unknown, warning
from builder.compat.rules.versions import listed, numbers_of
from builder.compat.rules.view import DRIVER_QUESTION, shown, view_of
from builder.compat.rules.wheels import toolkit_of


class Service(IntEnum):
    """How a driver serves a toolkit, from the best."""

    NATIVE = 0
    MINOR = 1
    FORWARD = 2
    UNKNOWN = 3
    NONE = 4


@dataclass(frozen=True)
class _Verdict:
    service: Service
    said: Said | None


def driver_floor(combination: Combination, facts: Facts) -> Iterator[Said]:
    """The driver is too old for this CUDA; minor-version and forward compatibility are told apart."""
    if combination.driver is None:
        return
    index = index_of(facts)
    if combination.package == DRIVER_QUESTION:
        cuda = toolkit_of(combination)
        if cuda is not None:
            verdict = _judge(combination, facts, index, combination.version or cuda, None)
            if verdict.said is not None:
                yield verdict.said
        return
    view = view_of(combination, facts)
    sure, perhaps = serving(view, combination.gpus)
    judged = [
        (_judge(combination, facts, index, build.cuda, build.driver), build)
        for build in sure or perhaps or view.for_gpu
    ]
    if not judged:
        return
    # Any of the builds will do, and the best served one is named where it is not the one that pip takes by itself.
    best, chosen = min(judged, key=lambda one: one[0].service)
    if best.said is not None:
        yield best.said
    for verdict, build in judged:
        if build.default and verdict.said is not None and verdict.service > max(best.service, Service.MINOR):
            yield warning(
                f"the build that pip takes by itself, {shown(build.cuda)}, does not do: {verdict.said.message}; take "
                f"the one {shown(chosen.cuda)}",
                verdict.said.source,
            )


def base_driver(combination: Combination, facts: Facts) -> Iterator[Said]:
    """The base image's own CUDA is too new for the driver, so that its containers do not start."""
    if combination.driver is None or combination.image is None:
        return
    index = index_of(facts)
    tag = index.tag(combination.image)
    if tag is None or tag.version not in facts.images:
        return
    verdict = _judge(combination, facts, index, tag.version, None)
    if verdict.said is not None and verdict.said.severity is not Severity.WARNING:
        said = f"the base's NVIDIA_REQUIRE_CUDA stops its containers: {verdict.said.message}"
        yield Said(verdict.said.severity, said, verdict.said.source)


def _judge(combination: Combination, facts: Facts, index: Index, cuda: str, own_floor: str | None) -> _Verdict:
    """How the asked driver serves one CUDA: "12.4", "12.4.1", or "12" for binaries that serve all of it."""
    driver = combination.driver or ""
    version = ".".join(cuda.split(".")[:2])
    toolkit = facts.toolkits.get(version)
    major = numbers_of(cuda)[0]
    floor = own_floor or (toolkit.minor_driver if toolkit else None) or index.families.get(major)
    if floor is None:
        said = unknown(f"no source says which driver CUDA {cuda} needs", index.tables)
        return _Verdict(Service.UNKNOWN, said)
    origin = toolkit.origin if toolkit is not None else _family_origin(facts, index, major)
    if numbers_of(driver) < numbers_of(floor):
        return _forward(combination, facts, index, cuda, floor)
    if toolkit is None:
        return _Verdict(Service.NATIVE, None)
    shipped = toolkit.drivers.get(cuda) or min(toolkit.drivers.values(), key=numbers_of, default=None)
    if shipped is None:
        return _Verdict(
            Service.MINOR,
            warning(
                f"no source says which driver CUDA {cuda} ships with; {driver} runs it at least by minor-version "
                f"compatibility, which begins at {floor}",
                origin,
            ),
        )
    if numbers_of(driver) >= numbers_of(shipped):
        return _Verdict(Service.NATIVE, None)
    return _Verdict(
        Service.MINOR,
        warning(
            f"driver {driver} is older than {shipped}, which CUDA {cuda} ships with: it runs by minor-version "
            f"compatibility (from {floor}); compiling PTX and features new in {version} need the newer driver",
            origin,
        ),
    )


def _family_origin(facts: Facts, index: Index, major: int) -> object:
    for version in index.toolkits:
        if numbers_of(version)[0] == major:
            return facts.toolkits[version].origin
    return index.tables


def _forward(combination: Combination, facts: Facts, index: Index, cuda: str, floor: str) -> _Verdict:
    driver = combination.driver or ""
    version = ".".join(cuda.split(".")[:2])
    toolkit = facts.toolkits.get(version)
    origin = toolkit.origin if toolkit is not None else _family_origin(facts, index, numbers_of(cuda)[0])
    below = f"driver {driver} is older than {floor}, the oldest that runs CUDA {cuda}"
    branch = numbers_of(driver)[0]
    branches = toolkit.forward_branches if toolkit is not None else None
    older_family = index.families.get(numbers_of(cuda)[0] - 1)
    if older_family is None or numbers_of(driver) < numbers_of(older_family):
        if branches is None or branch not in branches:
            return _Verdict(Service.NONE, forbidden(f"{below}; forward compatibility does not reach so far", origin))
    elif branches is not None and branch not in branches:
        said = f"{below}; forward compatibility (cuda-compat) admits only branches {listed(map(str, branches))}"
        return _Verdict(Service.NONE, forbidden(said, origin))
    if not combination.gpus:
        said = (
            f"{below}; only forward compatibility (the cuda-compat package) could run it, on data-center GPUs alone: "
            "say which GPU it is"
        )
        return _Verdict(Service.UNKNOWN, unknown(said, origin))
    refused = [gpu for gpu in combination.gpus if _is_data_center(gpu, index) is False]
    if refused:
        said = f"{below}; forward compatibility serves data-center GPUs alone, not {named(refused[0], index)}"
        return _Verdict(Service.NONE, forbidden(said, origin))
    doubtful = [gpu for gpu in combination.gpus if _is_data_center(gpu, index) is None]
    if doubtful:
        said = (
            f"{below}; forward compatibility serves data-center GPUs alone, and {named(doubtful[0], index)} may be one "
            "or not: say its name"
        )
        return _Verdict(Service.UNKNOWN, unknown(said, origin))
    said = f"{below}; it takes the cuda-compat package of CUDA {version} (forward compatibility)"
    if branches is None:
        return _Verdict(
            Service.UNKNOWN, unknown(f"{said}, and no source says which driver branches that admits", origin)
        )
    return _Verdict(Service.FORWARD, warning(said, origin))


def _is_data_center(gpu: str, index: Index) -> bool | None:
    """Whether forward compatibility serves it; None when the capability alone does not tell, or nobody knows."""
    row = index.gpu(gpu)
    if row is None or row.origin.confidence is Confidence.UNKNOWN:
        return None
    if gpu in row.names:
        return row.data_center.get(gpu)
    answers = {row.data_center.get(name) for name in row.names}
    return answers.pop() if len(answers) == 1 else None
