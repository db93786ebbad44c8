"""Rules about the base: tags of `nvidia/cuda`, what is in them, and the distribution's C library."""

from __future__ import annotations

import re
from collections.abc import Iterator

from builder.compat.model import CPU, Build, Combination, Facts, ImageTags, System
from builder.compat.rules.lookup import MEMORY, Index, Tag, index_of
from builder.compat.rules.said import Said, forbidden, unknown, warning
from builder.compat.rules.versions import in_order, listed, numbers_of
from builder.compat.rules.view import View, view_of

_AND_CUDA = "and-cuda"
_NEAR_TAGS = 8


def system_of(combination: Combination, facts: Facts) -> System | None:
    """The base's distribution: the one that is asked for, else the one that the image's name tells."""
    if combination.system is not None:
        return facts.systems.get(combination.system)
    return index_of(facts).system_of_image(combination.image) if combination.image is not None else None


def base_tag(combination: Combination, facts: Facts) -> Iterator[Said]:
    """The `nvidia/cuda` tag never existed, or no list of tags goes that far."""
    index = index_of(facts)
    tag = index.tag(combination.image) if combination.image is not None else None
    if tag is None:
        return
    if not tag.version:
        yield _odd_tag(tag, facts, index)
        return
    images = facts.images.get(tag.version)
    if images is None:
        yield _no_such_version(tag, facts, index)
    elif tag.flavour not in images.tags.get(tag.system, frozenset()):
        near = nearest_tags(tag, facts)
        hint = f"; the nearest is {near[0]}" if near else ""
        if images.complete:
            yield forbidden(f"nvidia/cuda:{tag.text} never existed{hint}", images.origin)
        else:
            yield unknown(
                f"no source lists every nvidia/cuda tag of {tag.version}, and {tag.text} is not among the known ones"
                f"{hint}",
                images.origin,
            )


def _odd_tag(tag: Tag, facts: Facts, index: Index) -> Said:
    """A tag that does not name version, flavour and system."""
    parts = tag.text.split("-")
    said = f"nvidia/cuda:{tag.text} is not of the form <version>-<flavour>-<system>"
    if parts[0] == "latest" or all(part.isdigit() for part in parts[0].split(".")):
        example = next(iter(nearest_tags(tag, facts, 1)), "12.4.1-devel-ubuntu22.04")
        return forbidden(f"{said}, which every one of its tags has, such as {example}", index.tables)
    return unknown(said, index.tables)


def _no_such_version(tag: Tag, facts: Facts, index: Index) -> Said:
    known = index.images_by_toolkit.get(tag.cuda)
    toolkit = facts.toolkits.get(tag.cuda)
    if toolkit is not None and not toolkit.exists:
        return forbidden(f"nvidia/cuda:{tag.text} never existed: CUDA {tag.cuda} was never released", toolkit.origin)
    if known is None:
        listed_toolkits = in_order(index.images_by_toolkit)
        if listed_toolkits and numbers_of(tag.cuda) > numbers_of(listed_toolkits[-1]):
            end = f"which end with {listed_toolkits[-1]}"
            return unknown(f"nvidia/cuda:{tag.text} is newer than the lists of tags, {end}", index.tables)
        return unknown(f"no source lists the nvidia/cuda tags of CUDA {tag.cuda}", index.tables)
    versions = [images.version for images in known]
    near = listed(versions)
    if numbers_of(tag.version) > numbers_of(versions[-1]):
        return unknown(
            f"nvidia/cuda:{tag.text} is newer than the lists of tags, which know {near} of CUDA {tag.cuda}",
            known[-1].origin,
        )
    if all(images.complete for images in known):
        return forbidden(f"nvidia/cuda:{tag.text} never existed; of CUDA {tag.cuda} there are {near}", known[-1].origin)
    return unknown(f"no source lists every nvidia/cuda tag of CUDA {tag.cuda}; known are {near}", known[-1].origin)


def nearest_tags(tag: Tag, facts: Facts, limit: int = 3) -> list[str]:
    """Known tags that are most like this one: the same toolkit first, then system, flavour and version."""
    held = index_of(facts).near_tags
    if tag.text not in held:
        if len(held) >= MEMORY:
            held.clear()
        held[tag.text] = tuple(_rank_tags(tag, facts)[:_NEAR_TAGS])
    return list(held[tag.text][:limit])


def _rank_tags(tag: Tag, facts: Facts) -> list[str]:
    index = index_of(facts)
    wanted = numbers_of(tag.version or tag.text)
    flavour = tag.flavour or next(
        (name for name in ("cudnn-devel", "devel", "cudnn-runtime", "runtime", "base") if name in tag.text), "devel"
    )

    def distance(images: ImageTags, system: str, own: str) -> tuple[object, ...]:
        version = numbers_of(images.version)
        # A tag without a version, such as `latest`, is nearest to the newest.
        near = (*wanted, 0, 0)[:3] if wanted else version
        return (
            version[0] != near[0],
            abs(version[1] - near[1]),
            _system_distance(system, tag) + _flavour_distance(own, flavour) + abs(version[2] - near[2]),
            tuple(-number for number in version),
            tuple(-number for number in numbers_of(system)),
            own,
        )

    same = index.images_by_toolkit.get(".".join(map(str, wanted[:2])))
    pool = same if same is not None else [images for group in index.images_by_toolkit.values() for images in group]
    ranked = sorted(
        (distance(images, system, own), f"{images.version}-{own}-{system}")
        for images in pool
        if not images.removed
        for system, flavours in images.tags.items()
        for own in flavours
    )
    return [name for _, name in ranked]


def _system_distance(system: str, tag: Tag) -> int:
    if not tag.system:
        return 0 if system in tag.text else 4
    if system == tag.system:
        return 0
    return 4 if system.rstrip("0123456789.") == tag.system.rstrip("0123456789.") else 20


# What can stand in another's place: what holds more comes before what holds less.
_FLAVOURS = ("base", "runtime", "cudnn-runtime", "devel", "cudnn-devel")


def _flavour_distance(own: str, asked: str) -> int:
    """How far a flavour is from the one that is asked for; cudnn, cudnn8 and cudnn9 are names of one thing."""
    names = [re.sub(r"^cudnn\d", "cudnn", flavour) for flavour in (own, asked)]
    if names[0] == names[1]:
        return 0
    if any(name not in _FLAVOURS for name in names):
        return 30
    steps = _FLAVOURS.index(names[0]) - _FLAVOURS.index(names[1])
    return 5 * steps if steps > 0 else 10 - 5 * steps


def base_removed(combination: Combination, facts: Facts) -> Iterator[Said]:
    """The `nvidia/cuda` tag existed, and its maker's policy has deleted it or may have."""
    tag = index_of(facts).tag(combination.image) if combination.image is not None else None
    images = facts.images.get(tag.version) if tag is not None else None
    exists = images is not None and tag is not None and tag.flavour in images.tags.get(tag.system, frozenset())
    if tag is not None and images is not None and images.removed and exists:
        yield warning(
            f"nvidia/cuda:{tag.text} may be deleted: its maker keeps a tag for six months after its end of life",
            images.origin,
        )


def base_cuda(combination: Combination, facts: Facts) -> Iterator[Said]:
    """The base image brings another CUDA than the framework's own, so that the image carries two."""
    index = index_of(facts)
    tag = index.tag(combination.image) if combination.image is not None else None
    if tag is None or not tag.version or combination.cuda is None:
        return
    if combination.cuda == CPU:
        yield warning(
            f"the base brings CUDA {tag.cuda}, which a build without CUDA does not use: take a slim base", index.tables
        )
    elif tag.cuda != combination.cuda:
        yield warning(
            f"the base brings CUDA {tag.cuda} beside the framework's {combination.cuda}: what is compiled in the image "
            "sees the wrong one",
            index.tables,
        )


def cuda_libraries(combination: Combination, facts: Facts) -> Iterator[Said]:
    """TensorFlow brings no CUDA libraries without an extra, and runs on the CPU where the base has none that fit."""
    view = view_of(combination, facts)
    if combination.package != "tensorflow" or _AND_CUDA in combination.extras or not view.for_gpu:
        return
    if combination.cuda is None and not combination.gpus:
        return
    build = view.for_gpu[0]
    name = f"{combination.package} {view.release}"
    needs = f"CUDA {build.cuda}" + (f" and cuDNN {build.cudnn}" if build.cudnn else "")
    extra = view.row is not None and any(one.name == _AND_CUDA for one in view.row.extras)
    mend = f"take {combination.package}[{_AND_CUDA}], or a base with {needs}" if extra else f"take a base with {needs}"
    tag = view.index.tag(combination.image) if combination.image is not None else None
    images = facts.images.get(tag.version) if tag is not None else None
    if tag is None or images is None:
        yield warning(
            f"{name} brings no CUDA libraries, and without them it runs on the CPU in silence: {mend}", build.origin
        )
        return
    own = images.own_cudnn.get(tag.system, images.cudnn) if "cudnn" in tag.flavour else None
    if numbers_of(tag.cuda)[0] != numbers_of(build.cuda)[0]:
        yield forbidden(
            f"{name} loads libraries of CUDA {build.cuda}, the base has CUDA {tag.cuda}: it runs on the CPU in "
            f"silence; {mend}",
            build.origin,
        )
    elif "cudnn" not in tag.flavour or tag.flavour == "base":
        yield warning(f"{name} needs {needs}, and flavour {tag.flavour} of the base has no cuDNN: {mend}", build.origin)
    elif own is not None and build.cudnn is not None and numbers_of(own)[0] != numbers_of(build.cudnn)[0]:
        yield forbidden(
            f"{name} loads cuDNN {build.cudnn}, the base has {own}: it runs on the CPU in silence; {mend}",
            f"{build.origin}; {images.origin}",
        )


def known_system(combination: Combination, facts: Facts) -> Iterator[Said]:
    """The tables do not know the distribution."""
    if combination.system is not None and combination.system not in facts.systems:
        tables = index_of(facts).tables
        yield unknown(f"the tables do not know {combination.system}; known: {', '.join(facts.systems)}", tables)


def base_system(combination: Combination, facts: Facts) -> Iterator[Said]:
    """The image's name says another distribution than the one that is asked for."""
    if combination.system is None or combination.image is None:
        return
    told = index_of(facts).system_of_image(combination.image)
    if told is not None and combination.system in facts.systems and told.name != combination.system:
        yield forbidden(f"{combination.image} is {told.name}, not {combination.system}", told.origin)


def glibc(combination: Combination, facts: Facts) -> Iterator[Said]:
    """The distribution's C library is older than the one that the wheels load with."""
    system = system_of(combination, facts)
    view = view_of(combination, facts)
    if view.row is None or view.release is None or (system is None and combination.image is None):
        return
    builds = view.able or view.builds
    own = view.row.glibc_of(view.release)
    floors = {build.glibc or own or _glibc_of(build, view, facts) for build in builds} or {own}
    needed = min((floor for floor in floors if floor is not None), key=numbers_of, default=None)
    if needed is None:
        return
    if system is None:
        tag = view.index.tag(combination.image or "")
        if tag is not None and tag.system:
            yield unknown(
                f"no source says which glibc {tag.system} has; the wheels of {combination.package} {view.release} need "
                f"{needed}",
                view.row.origin,
            )
    elif numbers_of(needed) > numbers_of(system.glibc):
        yield forbidden(
            f"the wheels of {combination.package} {view.release} need glibc {needed}; {system.name} has {system.glibc}",
            f"{view.row.origin}; {system.origin}",
        )


def _glibc_of(build: Build, view: View, facts: Facts) -> str | None:
    """What the distribution behind a build needs, such as jaxlib behind jax."""
    project = facts.projects.get(build.distribution) if build.distribution else None
    found = view.index.release(project, view.release) if project is not None and view.release is not None else None
    return found[1].glibc_of(found[0]) if found is not None else None
