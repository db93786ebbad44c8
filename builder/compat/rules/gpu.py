"""Rules about GPUs: whether the binary has code for them, and whether the toolkit does.

Machine code (SASS) for capability X.y runs on X.z with z >= y; PTX runs on every newer GPU, which compiles it first.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

from builder.compat.model import CPU, Build, Combination, Confidence, Facts, Origin
from builder.compat.rules.lookup import Index, index_of
from builder.compat.rules.said import Said, forbidden, unknown, warning
from builder.compat.rules.versions import in_order, listed, numbers_of
from builder.compat.rules.view import DRIVER_QUESTION, View, shown, view_of, were_read
from builder.compat.rules.wheels import toolkit_of

Capability = tuple[int, ...]


def named(gpu: str, index: Index) -> str:
    """A GPU, for a message: its capability, and what is called so."""
    row = index.gpu(gpu)
    if row is None:
        return f"capability {gpu}" if gpu[:1].isdigit() else gpu
    who = gpu if gpu in row.names else f"{listed(row.names[:2], 'or')}"
    return f"capability {row.capability} ({who}, {row.architecture})"


def known_gpu(combination: Combination, facts: Facts) -> Iterator[Said]:
    """The tables do not know a GPU of this compute capability."""
    index = index_of(facts)
    for gpu in combination.gpus:
        if index.gpu(gpu) is None:
            yield unknown(f"the tables do not know a GPU of capability {gpu}", index.tables)


def gpu_without_cuda(combination: Combination, facts: Facts) -> Iterator[Said]:
    """A GPU is asked for, and a build without CUDA."""
    view = view_of(combination, facts)
    if combination.gpus and view.able and not view.for_gpu:
        yield forbidden(f"{combination.package} {view.release} without CUDA runs nothing on a GPU", view.able[0].origin)


@lru_cache(4096)
def runs(sass: tuple[str, ...], capability: Capability) -> bool:
    """Whether one of these machine codes runs on a GPU. Code such as "9.0a" runs on that very capability only."""
    return any(_runs(code, capability) for code in sass)


def _runs(code: str, capability: Capability) -> bool:
    numbers = numbers_of(code)
    if code.endswith("a"):
        return numbers == capability
    return numbers[0] == capability[0] and numbers <= capability


@lru_cache(4096)
def compiles(ptx: tuple[str, ...], capability: Capability) -> bool:
    """Whether a driver can compile one of these PTX codes for a GPU."""
    return any(numbers_of(code) <= capability for code in ptx if not code.endswith("a"))


def serves(build: Build, capability: Capability) -> bool | None:
    """Whether a build has code for a GPU; None when nobody knows."""
    if build.cuda == CPU:
        return False
    if build.sass is not None:
        if runs(build.sass, capability) or (build.ptx is not None and compiles(build.ptx, capability)):
            return True
        return None if build.ptx is None and any(numbers_of(code) <= capability for code in build.sass) else False
    # Such a maker compiles for the GPU at run time, so what is newer is served as well.
    return None if build.min_capability is None else capability >= numbers_of(build.min_capability)


def _origin(build: Build) -> Origin:
    return build.arch_origin if build.arch_origin is not None else build.origin


def _sure(build: Build) -> bool:
    return _origin(build).confidence is Confidence.READ


def serving(view: View, gpus: tuple[str, ...]) -> tuple[tuple[Build, ...], tuple[Build, ...]]:
    """Of the builds that fit, those that are known to serve every one of these GPUs, and those that may."""
    if not gpus:
        return were_read(view.for_gpu), ()
    sure, perhaps = [], []
    for build in view.for_gpu:
        if any(_too_old(build, gpu, view.index) for gpu in gpus):
            continue
        answers = [serves(build, view.index.capability(gpu)) for gpu in gpus]
        if all(answers) and _sure(build) and build.origin.confidence is Confidence.READ:
            sure.append(build)
        elif all(answer is not False for answer in answers) or not _sure(build):
            perhaps.append(build)
    return tuple(sure), tuple(perhaps)


def _too_old(build: Build, gpu: str, index: Index) -> bool:
    """Whether the compiler of its CUDA makes no code for a GPU, so that the build has none, whatever is known of it."""
    oldest = index.oldest_code.get(build.cuda)
    return oldest is not None and index.capability(gpu) < oldest


def gpu_arch(combination: Combination, facts: Facts) -> Iterator[Said]:
    """The binary has no machine code for the GPU, and no PTX that it could compile."""
    view = view_of(combination, facts)
    if not combination.gpus or not view.for_gpu:
        return
    sure, perhaps = serving(view, combination.gpus)
    name = f"{combination.package} {view.release}"
    if sure:
        yield from _caveats(combination, view, sure, name)
        return
    if perhaps:
        build = perhaps[0]
        who = listed([named(gpu, view.index) for gpu in combination.gpus])
        yield unknown(f"no source says whether {name} {shown(build.cuda)} has code for {who}", _origin(build))
        return
    said = False
    for gpu in combination.gpus:
        capability = view.index.capability(gpu)
        if any(serves(build, capability) and not _too_old(build, gpu, view.index) for build in view.for_gpu):
            continue
        said = True
        build = _most_like(view.for_gpu, capability)
        gone = [one for one in view.row.absent if one.origin.confidence is Confidence.READ] if view.row else []
        none = f", and there is none for CUDA {listed([one.cuda for one in gone], 'or')}" if gone else ""
        yield forbidden(
            f"{name} {_which(view)} has no code for {named(gpu, view.index)}: {_codes(build)}{none}",
            "; ".join(map(str, (_origin(build), *(one.origin for one in gone[:1])))),
        )
    if not said:
        yield forbidden(f"no single build of {name} has code for {listed(combination.gpus)}", _origin(view.for_gpu[0]))


def _most_like(builds: tuple[Build, ...], capability: Capability) -> Build:
    """The build to speak of: builds for newer CUDA reach to newer GPUs and drop older ones."""
    first = builds[0]
    oldest = min((numbers_of(code) for code in first.sass), default=None) if first.sass else None
    if oldest is None and first.min_capability is not None:
        oldest = numbers_of(first.min_capability)
    return first if oldest is not None and capability < oldest else builds[-1]


def _which(view: View) -> str:
    if len(view.for_gpu) == 1:
        return shown(view.for_gpu[0].cuda)
    return f"for any of CUDA {listed(in_order(build.cuda for build in view.for_gpu), 'or')}"


def _codes(build: Build) -> str:
    if build.sass is None:
        return f"its maker serves {build.min_capability} and later"
    ptx = f" and PTX for {listed(build.ptx)}" if build.ptx else "" if build.ptx is None else " and no PTX"
    return f"the build {shown(build.cuda)} has machine code for {listed(build.sass)}{ptx}"


def _caveats(combination: Combination, view: View, sure: tuple[Build, ...], name: str) -> Iterator[Said]:
    build = sure[0]
    default = next((one for one in view.for_gpu if one.default), None)
    if default is not None and default not in sure:
        yield warning(
            f"the build that pip takes by itself, {shown(default.cuda)}, has no code for "
            f"{listed([named(gpu, view.index) for gpu in combination.gpus])}; take the one {shown(build.cuda)}",
            _origin(default),
        )
    for gpu in combination.gpus:
        capability = view.index.capability(gpu)
        if build.sass is not None and not runs(build.sass, capability):
            yield warning(
                f"{name} {shown(build.cuda)} has only PTX for {named(gpu, view.index)}: its first start compiles it, "
                "which the driver must be new enough for",
                _origin(build),
            )


def gpu_toolkit(combination: Combination, facts: Facts) -> Iterator[Said]:
    """The CUDA toolkit makes no code for the GPU."""
    cuda = toolkit_of(combination)
    toolkit = facts.toolkits.get(cuda) if cuda is not None else None
    if toolkit is None or not toolkit.exists or not combination.gpus:
        return
    index = index_of(facts)
    origin = toolkit.arch_origin if toolkit.arch_origin is not None else toolkit.origin
    alone = combination.package == DRIVER_QUESTION
    for gpu in combination.gpus:
        if toolkit.sass is None:
            if alone:
                yield unknown(f"no source says whether CUDA {cuda} makes code for {named(gpu, index)}", toolkit.origin)
        elif not runs(toolkit.sass, index.capability(gpu)):
            said = (
                f"CUDA {cuda} makes no machine code for {named(gpu, index)}; "
                f"it does for {toolkit.sass[0]} to {toolkit.sass[-1]}"
            )
            if origin.confidence is Confidence.READ:
                if alone or index.capability(gpu) < numbers_of(toolkit.sass[0]):
                    yield forbidden(said, origin)
            elif alone:
                yield unknown(f"probably {said}", origin)


def gpu_driver(combination: Combination, facts: Facts) -> Iterator[Said]:
    """The driver's branch has dropped the GPU, or is older than the first toolkit that makes code for it."""
    if combination.driver is None:
        return
    index = index_of(facts)
    driver = numbers_of(combination.driver)
    for gpu in combination.gpus:
        row = index.gpu(gpu)
        if row is None:
            continue
        if row.last_driver is not None and driver[0] > row.last_driver:
            said = f"driver {combination.driver} has dropped {named(gpu, index)}: R{row.last_driver} is the last branch"
            read = row.origin.confidence is Confidence.READ
            yield forbidden(said, row.origin) if read else unknown(said, row.origin)
        first = index.first_toolkit.get(index.capability(gpu))
        shipped = min(first.drivers.values(), key=numbers_of) if first is not None and first.drivers else None
        if first is not None and shipped is not None and driver[0] < numbers_of(shipped)[0]:
            yield unknown(
                f"no source says whether driver {combination.driver} knows {named(gpu, index)}: CUDA {first.version}, "
                f"the first with code for it, came with driver {shipped}",
                first.origin,
            )
