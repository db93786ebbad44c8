"""From images of an engine to their sizes. Nothing of an image runs; each is read once, from its lowest layer up."""

from __future__ import annotations

import tarfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import IO

from builder.engine.connection import Engine
from builder.engine.errors import ImageMissing
from builder.engine.history import history, instruction, of_layers
from builder.engine.images import inspect
from builder.engine.saved import SavedLayer, read_layers
from builder.sizes.duplicates import duplicates
from builder.sizes.layers import Layer, stacked
from builder.sizes.model import Hidden, ImageSize, LayerSize, Overview
from builder.sizes.owners import Owners


class Reader:
    """Reads images of one engine, and keeps their layers: what several have in common is looked through once.

    A layer takes some 200 bytes of memory for each of its files.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._layers: dict[str, Layer] = {}

    @property
    def layers(self) -> Mapping[str, Layer]:
        """Every layer of the images that were read, each once."""
        return self._layers

    def read(self, reference: str, cell: str = "") -> ImageSize:
        """The sizes of one image.

        Args:
            reference: its id or a name.
            cell: the cell that it was built for.

        Raises:
            ImageMissing: the engine has no such image.
            ContainerError: its layers cannot be read.
            DiskFull: the engine's disk cannot take what it saves of the image meanwhile.
            EngineUnavailable: the engine went away.
        """
        image = inspect(self._engine, reference)
        if image is None:
            raise ImageMissing(f"this engine holds no image {reference}", hint="`docker images` lists what it holds")
        known = set(self._layers)
        saved = read_layers(self._engine, image.id, self._take, skip=known.__contains__)
        steps = of_layers(history(self._engine, image.id), len(saved))
        made_by = [instruction(step.created_by) for step in steps] if steps else [""] * len(saved)
        return image_size(saved, self._layers, made_by, reference=reference, cell=cell, id=image.id)

    def _take(self, name: str, member: tarfile.TarInfo, content: IO[bytes] | None) -> None:
        self._layers.setdefault(name, Layer()).take(member, content)


def image_size(
    saved: Iterable[SavedLayer],
    known: Mapping[str, Layer],
    made_by: Sequence[str],
    *,
    reference: str,
    cell: str,
    id: str,
) -> ImageSize:
    """The sizes of an image from what is in its layers.

    Args:
        saved: its layers, lowest first.
        known: the content of each by its name; one that is missing has no files.
        made_by: the instruction of each, as one line.
        reference, cell, id: as of `ImageSize`.
    """
    order = list(saved)
    layers = [known.get(layer.name, Layer()) for layer in order]
    seen, gone = stacked(layers)
    owners = Owners(layers, seen)
    lost = [0] * len(layers)
    for item in gone:
        lost[item.layer] += item.entry.bytes
    return ImageSize(
        reference=reference,
        cell=cell,
        id=id,
        layers=tuple(
            LayerSize(diff_id=layer.diff_id, made_by=by, bytes=held.bytes, files=held.files, hidden=hidden)
            for layer, by, held, hidden in zip(order, made_by, layers, lost, strict=True)
        ),
        packages=owners.packages(),
        duplicates=duplicates(seen, owners),
        hidden=tuple(
            sorted(
                (
                    Hidden(
                        path=f"/{item.path}",
                        bytes=item.entry.bytes,
                        layer=item.layer,
                        by=item.by,
                        removed=item.removed,
                    )
                    for item in gone
                ),
                key=lambda item: (-item.bytes, item.path),
            )
        ),
    )


def overview(
    engine: Engine, references: Mapping[str, str], note: Callable[[str], None] = lambda text: None
) -> Overview:
    """The sizes of several images, and what they share.

    Args:
        engine: that holds them.
        references: ids or names of images, each with the cell that it was built for or an empty text; as for
            `Reader.read`, with the same errors.
        note: told what takes long before it begins.
    """
    reader = Reader(engine)
    images = []
    for reference, cell in references.items():
        note(f"reading {cell or reference}")
        images.append(reader.read(reference, cell))
    return Overview(images=tuple(images))
