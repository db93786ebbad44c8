"""What is known of the bytes of images. All of them are bytes of unpacked files, as `docker images` counts them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Kind(Enum):
    """What a package is."""

    PYTHON = "python"
    DEBIAN = "debian"
    OTHER = "other"
    """No package has these files: they are told by their directory."""


@dataclass(frozen=True, kw_only=True)
class Package:
    """What one package takes in an image.

    Attributes:
        kind: what it is.
        name: as its metadata has it; of other files the directory that they are in, such as `/opt/imgbuild`.
        version: empty for other files.
        bytes: of all its files.
        bytecode: those of them that are Python's compiled files.
        files: how many.
    """

    kind: Kind
    name: str
    version: str
    bytes: int
    bytecode: int
    files: int


@dataclass(frozen=True, kw_only=True)
class Copy:
    """One copy of a file that is in an image more than once."""

    path: str
    bytes: int
    package: str


@dataclass(frozen=True, kw_only=True)
class Duplicate:
    """One library, or one content, that an image has more than once.

    Attributes:
        name: of the library, as `loader_name` makes it, or of the largest file.
        same: whether all copies are the same bytes.
        copies: the largest first.
    """

    name: str
    same: bool
    copies: tuple[Copy, ...]

    @property
    def wasted(self) -> int:
        """Bytes of all copies but the largest."""
        return sum(copy.bytes for copy in self.copies[1:])


@dataclass(frozen=True, kw_only=True)
class Hidden:
    """A file of a layer that no container sees, because a later layer removed or replaced it.

    Attributes:
        path: where it was.
        bytes: that its layer has for it.
        layer: the index of that layer.
        by: the index of the layer that hides it.
        removed: whether it was removed there, not replaced.
    """

    path: str
    bytes: int
    layer: int
    by: int
    removed: bool


@dataclass(frozen=True, kw_only=True)
class LayerSize:
    """One layer.

    Attributes:
        diff_id: the digest of its unpacked archive.
        made_by: the instruction, as one line; empty when not known.
        bytes: of its files.
        files: how many.
        hidden: bytes of its files that later layers hide.
    """

    diff_id: str
    made_by: str
    bytes: int
    files: int
    hidden: int


@dataclass(frozen=True, kw_only=True)
class ImageSize:
    """What one image is made of.

    Attributes:
        reference: as the engine knows it.
        cell: the cell that it was built for; empty where an image was asked for by its name.
        id: the engine's.
        layers: lowest first.
        packages: the largest first.
        duplicates: those that waste most first.
        hidden: the largest first.
    """

    reference: str
    cell: str
    id: str
    layers: tuple[LayerSize, ...]
    packages: tuple[Package, ...]
    duplicates: tuple[Duplicate, ...]
    hidden: tuple[Hidden, ...]

    @property
    def title(self) -> str:
        """What people call it."""
        return self.cell or self.reference

    @property
    def bytes(self) -> int:
        """Of all layers."""
        return sum(layer.bytes for layer in self.layers)

    @property
    def bytecode(self) -> int:
        """Of Python's compiled files that a container sees."""
        return sum(package.bytecode for package in self.packages)

    @property
    def wasted(self) -> int:
        """Bytes of further copies and of hidden files."""
        return sum(item.wasted for item in self.duplicates) + sum(item.bytes for item in self.hidden)


@dataclass(frozen=True, kw_only=True)
class Overview:
    """Several images, and what they share.

    Attributes:
        images: in the order in which they were asked for.
    """

    images: tuple[ImageSize, ...]

    def unique(self, image: ImageSize) -> int:
        """Bytes of the layers of an image that no other one of these has."""
        others = {layer.diff_id for other in self.images if other.id != image.id for layer in other.layers}
        return sum(layer.bytes for layer in image.layers if layer.diff_id not in others)

    @property
    def sum(self) -> int:
        """Bytes of all images, each counted alone."""
        return sum(image.bytes for image in {image.id: image for image in self.images}.values())

    @property
    def distinct(self) -> int:
        """Bytes of all layers, each counted once."""
        return sum({layer.diff_id: layer.bytes for image in self.images for layer in image.layers}.values())
