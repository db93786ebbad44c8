"""The sizes of images for people, for programs and for documents. Units are decimal, as docker's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from builder.engine.urls import redact_urls
from builder.release.diff_show import clean, size
from builder.sizes.model import Duplicate, Hidden, ImageSize, Kind, LayerSize, Overview, Package

SCHEMA = "imgbuild.size/1"

_INSTRUCTION = 80
_PATH = 100
_TOP = 25
"""Packages of an image that are told one by one; the rest are told together."""
_HIDDEN = 5


def to_document(found: Overview) -> Mapping[str, object]:
    """What `imgbuild size --format json` prints: everything that is known, in bytes."""
    return {
        "schema": SCHEMA,
        "images": [_image(image, found.unique(image)) for image in found.images],
        "sum": found.sum,
        "distinct": found.distinct,
    }


def to_lines(found: Overview) -> Iterator[str]:
    """What `imgbuild size` prints: each image, and where there are several what they share as the last lines."""
    for number, image in enumerate(found.images):
        if number:
            yield ""
        yield from _image_lines(image)
    if len(found.images) > 1:
        yield from ("", "Unique bytes (layers that no other of these images has)")
        for image in found.images:
            yield f"  {size(found.unique(image)):>9} of {size(image.bytes):>9}  {clean(image.title, _PATH)}"
        yield ""
        yield (
            f"{len(found.images)} images: {size(found.sum)} one by one, {size(found.distinct)} together "
            f"({_percent(found.distinct, found.sum)})"
        )


def to_markdown(found: Overview) -> Iterator[str]:
    """What `imgbuild size --format markdown` prints: a table of the images, and for each its layers and packages."""
    yield "| image | size | unique | bytecode | wasted |"
    yield "|---|---:|---:|---:|---:|"
    for image in found.images:
        numbers = (image.bytes, found.unique(image), image.bytecode, image.wasted)
        yield f"| {_code(image.title)} | {' | '.join(size(number) for number in numbers)} |"
    yield f"| together | {size(found.distinct)} |  |  |  |"
    for image in found.images:
        yield from ("", f"## {_code(image.title)}", "", "| layer | size | made by |", "|---:|---:|---|")
        for number, layer in enumerate(image.layers, start=1):
            yield f"| {number} | {size(layer.bytes)} | {_code(clean(layer.made_by, _INSTRUCTION))} |"
        yield from ("", "| package | version | size | of it bytecode |", "|---|---|---:|---:|")
        for item in image.packages[:_TOP]:
            yield f"| {_cell(_name(item))} | {_cell(item.version)} | {size(item.bytes)} | {size(item.bytecode)} |"
        rest = image.packages[_TOP:]
        if rest:
            total, bytecode = sum(item.bytes for item in rest), sum(item.bytecode for item in rest)
            yield f"| {len(rest)} more |  | {size(total)} | {size(bytecode)} |"
        if image.duplicates or image.hidden:
            yield from ("", "| wasted | what | where |", "|---:|---|---|")
        for double in image.duplicates:
            where = ", ".join(_code(clean(copy.path, _PATH)) for copy in double.copies)
            yield f"| {size(double.wasted)} | {_cell(_double(double))} | {where} |"
        for hidden in image.hidden[:_HIDDEN]:
            yield f"| {size(hidden.bytes)} | {_hidden(hidden)} | {_code(clean(hidden.path, _PATH))} |"


def _image_lines(image: ImageSize) -> Iterator[str]:
    name = image.title.partition("@")[0]
    digest = f"{image.id[:19]}…"
    yield f"{digest if name == image.id else f'{clean(name, _PATH)}  {digest}'}, {size(image.bytes)}"
    yield from ("", f"Layers ({len(image.layers)}, lowest first)")
    for layer in image.layers:
        yield f"  {size(layer.bytes):>9}  {clean(layer.made_by, _INSTRUCTION) or layer.diff_id[:19] + '…'}"
    yield from ("", f"Packages ({len(image.packages)})")
    for item in image.packages[:_TOP]:
        bytecode = f", {size(item.bytecode)} of it bytecode" if item.bytecode else ""
        yield f"  {size(item.bytes):>9}  {clean(f'{_name(item)} {item.version}'.rstrip(), _PATH)}{bytecode}"
    rest = image.packages[_TOP:]
    if rest:
        yield f"  {size(sum(item.bytes for item in rest)):>9}  {len(rest)} more; --format json has all"
    yield f"  {size(image.bytecode)} of all is bytecode; {_by_kind(image.packages)}"
    yield from _waste_lines(image)


def _waste_lines(image: ImageSize) -> Iterator[str]:
    wasted = sum(item.wasted for item in image.duplicates)
    if image.duplicates:
        yield from ("", f"Twice or more: {size(wasted)} wasted")
    for double in image.duplicates:
        yield f"  {size(double.wasted):>9}  {_double(double)}"
        for copy in double.copies:
            owner = f" ({copy.package})" if copy.package else ""
            yield f"             {size(copy.bytes):>9}  {clean(copy.path, _PATH)}{clean(owner, _PATH)}"
    if image.hidden:
        total = sum(item.bytes for item in image.hidden)
        yield from ("", f"Hidden by later layers: {size(total)} wasted in {len(image.hidden)} files")
    for hidden in image.hidden[:_HIDDEN]:
        yield f"  {size(hidden.bytes):>9}  {clean(hidden.path, _PATH)}: {_hidden(hidden)}"
    if len(image.hidden) > _HIDDEN:
        yield f"  {size(sum(item.bytes for item in image.hidden[_HIDDEN:])):>9}  {len(image.hidden) - _HIDDEN} more"


def _by_kind(packages: Sequence[Package]) -> str:
    totals = {kind: sum(item.bytes for item in packages if item.kind is kind) for kind in Kind}
    return (
        f"{size(totals[Kind.PYTHON])} Python packages, {size(totals[Kind.DEBIAN])} Debian packages, "
        f"{size(totals[Kind.OTHER])} other"
    )


def _name(item: Package) -> str:
    return f"other: {item.name}" if item.kind is Kind.OTHER else f"{item.name} ({item.kind.value})"


def _double(item: Duplicate) -> str:
    return f"{clean(item.name, _PATH)}: {len(item.copies)} copies, {'the same' if item.same else 'different'} bytes"


def _hidden(item: Hidden) -> str:
    return f"layer {item.layer + 1}, {'removed' if item.removed else 'replaced'} by layer {item.by + 1}"


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} %" if whole else "nothing"


def _code(text: str) -> str:
    return f"`{_cell(text)}`" if text else ""


def _cell(text: str) -> str:
    return clean(text, 200).replace("|", "\\|").replace("`", "'")


def _image(image: ImageSize, unique: int) -> Mapping[str, object]:
    return {
        "image": image.reference,
        "cell": image.cell or None,
        "id": image.id,
        "bytes": image.bytes,
        "unique": unique,
        "shared": image.bytes - unique,
        "bytecode": image.bytecode,
        "wasted": image.wasted,
        "layers": [_layer(layer) for layer in image.layers],
        "packages": [_package(item) for item in image.packages],
        "duplicates": [_duplicate(item) for item in image.duplicates],
        "hidden": [_hidden_file(item) for item in image.hidden],
    }


def _layer(layer: LayerSize) -> Mapping[str, object]:
    return {
        "diff_id": layer.diff_id,
        "instruction": redact_urls(layer.made_by) or None,
        "bytes": layer.bytes,
        "files": layer.files,
        "hidden": layer.hidden,
    }


def _package(item: Package) -> Mapping[str, object]:
    return {
        "kind": item.kind.value,
        "name": _text(item.name),
        "version": _text(item.version) or None,
        "bytes": item.bytes,
        "bytecode": item.bytecode,
        "files": item.files,
    }


def _duplicate(item: Duplicate) -> Mapping[str, object]:
    return {
        "name": _text(item.name),
        "same": item.same,
        "wasted": item.wasted,
        "copies": [
            {"path": _text(copy.path), "bytes": copy.bytes, "package": _text(copy.package) or None}
            for copy in item.copies
        ],
    }


def _hidden_file(item: Hidden) -> Mapping[str, object]:
    return {
        "path": _text(item.path),
        "bytes": item.bytes,
        "layer": item.layer,
        "by": item.by,
        "removed": item.removed,
    }


def _text(text: str) -> str:
    """A name of an image, which may be any bytes, as text that JSON can hold."""
    return text.encode("utf-8", "backslashreplace").decode()
