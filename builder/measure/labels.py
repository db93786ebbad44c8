"""A manifest in short, as labels of the image. Pure.

Children inherit labels: an image made FROM one of ours has them, whatever else it changed. So nothing is decided by
them, and `io.imgbuild.measured` says of which layers they were measured: in an image with other layers below its
manifest they are inherited, and count for nothing (`labels_count`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

from builder.matrix import Cell
from builder.measure.manifest import Manifest

MEASURED_LABEL = "io.imgbuild.measured"
"""The label that says of which layers the others were measured: SHA-256 over their diff ids."""

TITLE, VERSION = "org.opencontainers.image.title", "org.opencontainers.image.version"


def labels_of(
    manifest: Manifest, cell: Cell, *, layers: Sequence[str], present: Mapping[str, str], dockerfile: str
) -> Mapping[str, str]:
    """The labels that say in short what was measured.

    What does not exist has no label. Where a base that imgbuild made hands one down, it is written as empty: it says
    nothing of this image.

    Args:
        manifest: what was measured.
        cell: what the image was built for.
        layers: the diff ids of the measured image's layers, the lowest first.
        present: the measured image's own labels.
        dockerfile: the rendered Dockerfile; a title or version that it gives the image itself stays.
    """
    cuda, horovod = manifest.cuda, manifest.horovod
    framework, system = manifest.framework, manifest.distribution
    said: dict[str, str | None] = {
        "io.imgbuild.cell": manifest.cell,
        "io.imgbuild.distribution": " ".join(part for part in (system.id, system.version) if part),
        "io.imgbuild.python": manifest.python,
        "io.imgbuild.framework": f"{framework.name} {framework.version}" if framework else None,
        "io.imgbuild.horovod": horovod.version if horovod else None,
        "io.imgbuild.cuda": cuda.runtime if cuda else None,
        "io.imgbuild.cudnn": cuda.cudnn if cuda else None,
        "io.imgbuild.nccl": cuda.nccl if cuda else None,
        "io.imgbuild.architectures": " ".join(cuda.architectures) if cuda and cuda.architectures else None,
        "io.imgbuild.driver": cuda.driver.linux if cuda and cuda.driver else None,
        MEASURED_LABEL: layers_id(layers),
    }
    if TITLE not in dockerfile:
        said[TITLE] = cell.framework.image
    if VERSION not in dockerfile:
        said[VERSION] = framework.version if framework else None
    found = {name: value for name, value in said.items() if value}
    return {**dict.fromkeys((name for name in said if present.get(name)), ""), **found}


def layers_id(layers: Sequence[str]) -> str:
    """What `MEASURED_LABEL` says for layers, by their diff ids, the lowest first."""
    return f"sha256:{hashlib.sha256(' '.join(layers).encode()).hexdigest()}"


def labels_count(labels: Mapping[str, str], layers: Sequence[str]) -> bool:
    """Whether an image's labels were measured of its own layers: all but the last, which is the manifest's.

    Args:
        labels, layers: of the image; its layers' diff ids, the lowest first.
    """
    return labels.get(MEASURED_LABEL) == layers_id(layers[:-1])
