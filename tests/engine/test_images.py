"""Images on an engine: listing, naming, loading, removing, and asking registries."""

from __future__ import annotations

import io
import socket
import tarfile
from pathlib import Path

import pytest

from builder.engine.bootstrap import ImageArchive
from builder.engine.connection import Engine
from builder.engine.errors import EngineRefused, ImageMissing, RegistryError
from builder.engine.images import inspect, list_images, load_archive, registry_digest, remove, tag, untag
from builder.engine.reference import InvalidReference

pytestmark = pytest.mark.engine


def _archive(tmp_path: Path, prefix: str, name: str, content: bytes) -> ImageArchive:
    layer = tmp_path / f"{name}.tar"
    with tarfile.open(layer, "w") as archive:
        entry = tarfile.TarInfo("file")
        entry.size = len(content)
        archive.addfile(entry, io.BytesIO(content))
    return ImageArchive(
        layer=layer,
        architecture="amd64",
        created=1_000_000_000,
        labels={"imgbuild-test": prefix, "imgbuild-test-images": prefix},
        reference=f"{prefix}/images:{name}",
    )


def test_load_list_tag_untag_remove(engine: Engine, prefix: str, tmp_path: Path) -> None:
    label = f"imgbuild-test-images={prefix}"
    first, second = (_archive(tmp_path, prefix, name, name.encode()) for name in ("first", "second"))
    one, two = load_archive(engine, first.pieces()), load_archive(engine, second.pieces())
    assert one != two
    saved = tmp_path / "saved.tar"
    saved.write_bytes(b"".join(first.pieces()))
    assert load_archive(engine, saved) == one

    details = inspect(engine, one)
    assert details is not None
    assert (details.id, details.tags, details.layers) == (one, (first.reference,), (first.diff_id,))
    assert dict(details.labels) == dict(first.labels)
    assert (details.command, details.entrypoint, details.user) == (("bash",), None, "")
    assert (details.architecture, details.os) == ("amd64", "linux")
    assert details.environment["PATH"].startswith("/usr/local/sbin:")
    assert details.created.isoformat() == "2001-09-09T01:46:40+00:00"
    assert {image.id for image in list_images(engine, label=label)} == {one, two}

    extra = f"{prefix}/images:extra"
    tag(engine, one, extra)
    assert {image.tags for image in list_images(engine, label=label)} == {
        tuple(sorted((extra, first.reference))),
        (second.reference,),
    }
    tag(engine, two, extra)
    moved = inspect(engine, extra)
    assert moved is not None
    assert moved.id == two

    # What lost its last name keeps its labels, and is not listed.
    tag(engine, two, first.reference)
    assert {image.id for image in list_images(engine, label=label)} == {two}
    assert {image.id for image in list_images(engine, label=label, tagged=False)} == {one, two}
    assert remove(engine, one)
    assert not remove(engine, one)

    assert untag(engine, extra)
    assert not untag(engine, extra)
    assert inspect(engine, two) is not None
    with pytest.raises(EngineRefused) as caught:
        remove(engine, two)  # two names are left
    assert caught.value.status == 409
    assert remove(engine, two, force=True)
    assert inspect(engine, two) is None
    assert list_images(engine, label=label) == ()


def test_tag_refuses_what_is_no_name_or_gone(engine: Engine, prefix: str, tiny_base: str) -> None:
    base = inspect(engine, tiny_base)
    assert base is not None
    with pytest.raises(InvalidReference):
        tag(engine, base.id, f"{prefix}/../x:y")
    with pytest.raises(ImageMissing, match="gone"):
        tag(engine, "sha256:" + "0" * 64, f"{prefix}/none:x")
    with pytest.raises(ValueError, match="has no tag"):
        untag(engine, prefix)


@pytest.mark.parametrize("content", [b"junk" * 1000, bytes(1024)], ids=["junk", "empty"])
def test_what_is_no_archive_is_refused(engine: Engine, content: bytes) -> None:
    with pytest.raises(EngineRefused, match="cannot load an image"):
        load_archive(engine, [content])


def test_unreachable_registry_is_told_from_a_refusal(engine: Engine) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
        with pytest.raises(RegistryError, match="is unreachable from the engine") as caught:
            registry_digest(engine, f"127.0.0.1:{port}/team/x:y")
    assert "without a registry" in caught.value.hint
