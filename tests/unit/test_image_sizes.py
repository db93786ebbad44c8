"""What the bytes of an image are, from archives as an engine saves them."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from typing import IO

import pytest

from builder.engine.errors import ContainerError
from builder.engine.saved import read_saved
from builder.sizes.budget import over_budget
from builder.sizes.duplicates import loader_name
from builder.sizes.layers import FILE_BYTES, LIBRARY_BYTES, Layer
from builder.sizes.measure import image_size
from builder.sizes.model import ImageSize, Kind, Overview
from builder.sizes.show import to_document, to_lines, to_markdown

SITE = "opt/venv/lib/python3.11/site-packages"

Files = Mapping[str, "bytes | int | tuple[str, str] | None"]
"""By path: content; a number of zeros; a link as ("->", target) or ("=", other name); None for a directory."""


def tar(files: Files) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for path, what in files.items():
            member = tarfile.TarInfo(path)
            data = b""
            if isinstance(what, tuple):
                member.type = tarfile.SYMTYPE if what[0] == "->" else tarfile.LNKTYPE
                member.linkname = what[1]
            elif what is None:
                member.type = tarfile.DIRTYPE
            else:
                data = bytes(what) if isinstance(what, int) else what
                member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return stream.getvalue()


def saved(layers: Sequence[bytes], *, modern: bool = False, first: bool = False) -> bytes:
    """An archive as Docker 20 writes it, or as Docker 25 does; its manifest at the end, or first."""
    names = [f"blobs/sha256/{number:064x}" if modern else f"{number:064x}/layer.tar" for number in range(len(layers))]
    config = {"rootfs": {"type": "layers", "diff_ids": [f"sha256:{number:064x}" for number in range(len(layers))]}}
    described: dict[str, bytes] = {
        "manifest.json": json.dumps([{"Config": "c.json", "RepoTags": None, "Layers": names}]).encode(),
        "c.json": json.dumps(config).encode(),
    }
    content: dict[str, bytes] = dict(zip(names, layers, strict=True))
    return tar({**described, **content} if first else {**content, **described})


def measured(*layers: Files, reference: str = "image", number: int = 0) -> ImageSize:
    held: dict[str, Layer] = {}

    def take(name: str, member: tarfile.TarInfo, content: IO[bytes] | None) -> None:
        held.setdefault(name, Layer()).take(member, content)

    found = read_saved(io.BytesIO(saved([tar(layer) for layer in layers])), take)
    made_by = [f"RUN step {index}" for index in range(len(layers))]
    return image_size(found, held, made_by, reference=reference, cell="", id=f"sha256:{number:064x}")


def packages(image: ImageSize) -> dict[str, tuple[str, int, int]]:
    return {item.name: (item.kind.value, item.bytes, item.bytecode) for item in image.packages}


def distribution(name: str, files: Mapping[str, int | bytes], *, version: str = "1.0") -> Files:
    record = f"{SITE}/{name}-{version}.dist-info/RECORD"
    lines = "".join(f"{path},sha256=x,1\n" for path in files) + f"{name}-{version}.dist-info/RECORD,,\n"
    content: dict[str, bytes | int | tuple[str, str] | None] = {f"{SITE}/{path}": size for path, size in files.items()}
    return {**content, record: lines.encode()}


@pytest.mark.parametrize(("modern", "packed"), [(False, False), (True, False), (True, True)])
@pytest.mark.parametrize("first", [False, True])
def test_layers_are_in_order_however_the_engine_saves_them(modern: bool, first: bool, packed: bool) -> None:
    layers = [tar({"a": b"one"}), tar({"b": b"three", "c": None}), tar({})]
    if packed:
        layers = [gzip.compress(layer) for layer in layers]
    seen: dict[str, list[tuple[str, bytes]]] = {}

    def take(name: str, member: tarfile.TarInfo, content: IO[bytes] | None) -> None:
        seen.setdefault(name, []).append((member.name, content.read() if content else b""))

    found = read_saved(io.BytesIO(saved(layers, modern=modern, first=first)), take)
    assert [layer.diff_id for layer in found] == [f"sha256:{number:064x}" for number in range(3)]
    assert [seen.get(layer.name) for layer in found] == [[("a", b"one")], [("b", b"three"), ("c", b"")], None]


def test_a_layer_that_is_known_is_not_looked_through_again() -> None:
    archive = saved([tar({"a": b"one"}), tar({"b": b"two"})])
    seen: list[str] = []
    found = read_saved(
        io.BytesIO(archive), lambda name, member, content: seen.append(member.name), skip=lambda name: name[63] == "0"
    )
    assert len(found) == 2
    assert seen == ["b"]


@pytest.mark.parametrize(
    ("archive", "message"),
    [
        (b"", "no saved image"),
        (b"x" * 4096, "no saved image"),
        (tar({"a": b"one"}), "saved 0 images"),
        (tar({"manifest.json": b"{"}), "saved 0 images"),
        (
            tar({"manifest.json": b'[{"Layers": ["a/layer.tar"], "Config": "none"}]'}),
            "1 layers, and its configuration 0",
        ),
        (tar({"blobs/sha256/a": b"\x28\xb5\x2f\xfd" + bytes(600)}), "zstd"),
        (tar({"a/layer.tar": b"nothing of an archive" * 100}), "no saved image"),
        (saved([tar({"a": 5000})])[:3000], "no saved image"),
        (tar({"blobs/sha256/a": gzip.compress(bytes(range(256)) * 99)[:200] + bytes(99)}), "no saved image"),
    ],
)
def test_what_is_no_saved_image_is_refused(archive: bytes, message: str) -> None:
    with pytest.raises(ContainerError, match=message):
        read_saved(io.BytesIO(archive), lambda name, member, content: None)


def test_files_belong_to_the_packages_that_name_them() -> None:
    image = measured(
        {
            "lib": ("->", "usr/lib"),
            "usr/lib/libc.so.6": 700,
            "usr/lib/python3.11/os.py": 50,
            "usr/lib/python3.11/__pycache__/os.cpython-311.pyc": 40,
            "var/lib/dpkg/status": b"Package: libc6\nStatus: install ok installed\nVersion: 2.36\n\n"
            b"Package: python3.11\nStatus: install ok installed\nVersion: 3.11.2\n\n"
            b"Package: gone\nStatus: deinstall ok config-files\nVersion: 1\n",
            "var/lib/dpkg/info/libc6:amd64.list": b"/.\n/lib\n/lib/libc.so.6\n",
            "var/lib/dpkg/info/libc6:amd64.md5sums": 10,
            "var/lib/dpkg/info/python3.11.list": b"/usr/lib/python3.11/os.py\n",
            "var/lib/dpkg/info/gone.list": b"/etc/gone\n",
            "etc/gone": 5,
        },
        {
            **distribution("torch", {"torch/__init__.py": 100, "torch/lib/libtorch.so": 900, "../../../bin/run": 30}),
            f"{SITE}/torch/__pycache__/__init__.cpython-311.pyc": 80,
            f"{SITE}/torch/__pycache__/__init__.cpython-311.opt-1.pyc": 7,
            "opt/tool/data/deep/file": 11,
        },
    )
    found = packages(image)
    assert found["libc6"] == ("debian", 700 + len("/.\n/lib\n/lib/libc.so.6\n") + 10, 0)
    assert found["python3.11"] == ("debian", 50 + 40 + len("/usr/lib/python3.11/os.py\n"), 40)
    record = len("torch/__init__.py,sha256=x,1\ntorch/lib/libtorch.so,sha256=x,1\n../../../bin/run,sha256=x,1\n")
    record += len("torch-1.0.dist-info/RECORD,,\n")
    assert found["torch"] == ("python", 100 + 900 + 30 + 80 + 7 + record, 87)
    assert found["/opt/tool"] == ("other", 11, 0)
    assert found["/etc"] == ("other", 5, 0)
    assert "gone" not in found
    assert sum(item.bytes for item in image.packages) == image.bytes
    assert image.bytecode == 127
    assert [item.bytes for item in image.packages] == sorted((item.bytes for item in image.packages), reverse=True)
    versions = {item.name: item.version for item in image.packages}
    assert (versions["libc6"], versions["torch"], versions["/etc"]) == ("2.36", "1.0", "")


def test_what_a_package_carries_inside_itself_is_its_own() -> None:
    inner = "setuptools/_vendor/zipp-3.0.dist-info/RECORD"
    image = measured(
        distribution(
            "setuptools", {inner: b"setuptools/_vendor/zipp.py,sha256=x,1\n", "setuptools/_vendor/zipp.py": 70}
        ),
        distribution("zipp", {"zipp/__init__.py": 20}, version="4.1"),
    )
    by_name = {item.name: item for item in image.packages}
    assert by_name["zipp"].version == "4.1"
    assert by_name["setuptools"].bytes - by_name["zipp"].bytes > 70 - 20, "the inner copy, and what lists it"


def test_a_symbolic_link_and_another_name_cost_nothing() -> None:
    image = measured({"a": 100, "b": ("=", "a"), "c": ("->", "a"), "d": None})
    assert image.bytes == 100
    assert image.layers[0].files == 1
    assert packages(image) == {"/": ("other", 100, 0)}


def test_what_later_layers_hide_is_told_with_its_layer() -> None:
    image = measured(
        {"d": None, "d/removed": 10, "d/replaced": 20, "d/stays": 40, "tree": None, "tree/x": 1, "o": None, "o/x": 2},
        {"d/.wh.removed": 0, "d/replaced": 21, ".wh.tree": 0, "o/.wh..wh..opq": 0, "o/y": 3},
        {"d/replaced": 22},
    )
    hidden = {item.path: (item.bytes, item.layer, item.by, item.removed) for item in image.hidden if item.by == 1}
    assert hidden == {
        "/d/removed": (10, 0, 1, True),
        "/d/replaced": (20, 0, 1, False),
        "/tree/x": (1, 0, 1, True),
        "/o/x": (2, 0, 1, True),
    }
    assert [(item.path, item.bytes, item.layer) for item in image.hidden if item.by == 2] == [("/d/replaced", 21, 1)]
    assert [layer.hidden for layer in image.layers] == [33, 21, 0]
    # Markers of removal have no bytes, and what is seen and what is hidden is all that there is.
    assert image.bytes == sum(item.bytes for item in image.packages) + sum(item.bytes for item in image.hidden)


def test_a_file_in_the_place_of_a_directory_hides_what_was_in_it() -> None:
    image = measured({"d": None, "d/x": 10}, {"d": 5})
    assert [(item.path, item.bytes, item.removed) for item in image.hidden] == [("/d/x", 10, True)]
    # A directory over a directory hides nothing.
    assert measured({"d": None, "d/x": 10}, {"d": None}).hidden == ()


def test_a_file_that_has_another_name_is_not_lost_with_one_of_them() -> None:
    assert measured({"a": 100, "b": ("=", "a")}, {".wh.a": 0}).hidden == ()
    assert measured({"a": 100, "b": ("=", "a")}, {".wh.a": 0, ".wh.b": 0}).hidden[0].bytes == 100


@pytest.mark.parametrize(
    ("above", "belongs"),
    [({}, "/one"), ({"one/.wh.a": 0}, "/two"), ({"one/a": b"x"}, "/two"), ({".wh.one": 0, "two/.wh.b": 0}, "/three")],
    ids=["both names", "the first is removed", "the first is replaced", "the first two are removed"],
)
def test_the_bytes_of_a_file_go_to_the_names_that_are_left(above: Files, belongs: str) -> None:
    size = LIBRARY_BYTES
    image = measured(
        {"one/a": size, "two/b": ("=", "one/a"), "three/c": ("=", "one/a"), "one/other": 1, "four/liba.so": 1}, above
    )
    held = {name: total for name, (_, total, _) in packages(image).items()}
    assert max(held, key=lambda name: held[name]) == belongs
    assert held[belongs] - size in (0, 1), "once, beside the other file of the first"
    assert sum(held.values()) + sum(item.bytes for item in image.hidden) == image.bytes


def test_a_library_that_is_left_under_another_name_is_compared_by_its_content() -> None:
    content = bytes(LIBRARY_BYTES)
    lower = {"one/libx.so.1": content, "two/libx.so.1": ("=", "one/libx.so.1"), "three/libx.so.1": content}
    assert [copy.path for copy in measured(lower).duplicates[0].copies] == ["/one/libx.so.1", "/three/libx.so.1"]
    (found,) = measured(lower, {"one/.wh.libx.so.1": 0}).duplicates
    assert (found.same, [copy.path for copy in found.copies]) == (True, ["/three/libx.so.1", "/two/libx.so.1"])


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("libgomp.so.1", "libgomp.so.1"),
        ("libgomp.so.1.0.0", "libgomp.so.1"),
        ("libgomp-a34b3233.so.1.0.0", "libgomp.so.1"),
        ("libscipy_openblas64_-32a4b2a6.so", "libscipy_openblas64_.so"),
        ("libcudnn_ops.so.9", "libcudnn_ops.so.9"),
        ("libtorch-cpu.so", "libtorch-cpu.so"),
        ("libstdc++.so.6.0.30", "libstdc++.so.6"),
        ("protoc", "protoc"),
    ],
)
def test_libraries_are_known_by_what_the_loader_calls_them(name: str, known: str) -> None:
    assert loader_name(name) == known


def test_two_copies_of_a_library_are_told_with_what_they_waste() -> None:
    image = measured(
        distribution("one", {"one.libs/libgomp-a34b3233.so.1.0.0": b"1" * LIBRARY_BYTES}),
        distribution("two", {"two/libgomp.so.1": LIBRARY_BYTES + 5, "two/_C.cpython-311.so": FILE_BYTES}),
        {
            "usr/lib/libgomp.so.2": b"2" * LIBRARY_BYTES,  # another interface
            "usr/lib/libsmall.so.1": LIBRARY_BYTES - 1,
            "opt/libsmall.so.1": LIBRARY_BYTES - 1,
            "opt/other/_C.cpython-311.so": FILE_BYTES + 1,  # a module's name says nothing
            "opt/data-1": b"x" * FILE_BYTES,
            "opt/data-2": b"x" * FILE_BYTES,
            "opt/data-3": b"y" * FILE_BYTES,
            "opt/link": ("->", "data-1"),
        },
    )
    found = {item.name: item for item in image.duplicates}
    assert set(found) == {"libgomp.so.1", "data-1"}
    assert found["libgomp.so.1"].wasted == LIBRARY_BYTES
    assert found["libgomp.so.1"].same is False
    assert [copy.package for copy in found["libgomp.so.1"].copies] == ["two", "one"]
    assert found["data-1"].wasted == FILE_BYTES
    assert found["data-1"].same
    assert [item.name for item in image.duplicates] == ["data-1", "libgomp.so.1"]
    assert image.wasted == FILE_BYTES + LIBRARY_BYTES


def test_a_copy_that_a_later_layer_removes_is_hidden_and_no_duplicate() -> None:
    image = measured({"a/libx.so.1": LIBRARY_BYTES, "b/libx.so.1": LIBRARY_BYTES}, {"b/.wh.libx.so.1": 0})
    assert image.duplicates == ()
    assert [item.path for item in image.hidden] == ["/b/libx.so.1"]


def test_bytes_that_no_other_image_has_are_unique() -> None:
    base: Files = {"base": 1000}
    one = measured(base, {"one": 10}, reference="one", number=1)
    two = measured(base, reference="two", number=2)
    found = Overview(images=(one, two))
    assert (found.unique(one), found.unique(two)) == (10, 0)
    assert (found.sum, found.distinct) == (2010, 1010)
    # Asked for twice, an image is no other one.
    again = Overview(images=(one, one))
    assert (again.unique(one), again.sum, again.distinct) == (1010, 1010, 1010)


def test_every_format_says_the_same() -> None:
    one = measured(
        {"base": 1_500_000, "x|y`": 3_000_000, "opt/\udc80bad": 7},
        {**distribution("torch", {"torch/a.so": 5_000_000}), ".wh.base": 0},
        {"opt/libz.so.1": LIBRARY_BYTES, "usr/libz.so.1": LIBRARY_BYTES},
        number=1,
    )
    two = measured({"base": 1_500_000, "x|y`": 3_000_000, "opt/\udc80bad": 7}, reference="other", number=2)
    found = Overview(images=(one, two))
    text = "\n".join(to_lines(found))
    for said in ("9.7 MB", "torch (python) 1.0", "Hidden by later layers: 1.5 MB", "libz.so.1: 2 copies", "RUN step 1"):
        assert said in text
    assert "layer 1, removed by layer 2" in text
    assert "2 images: 14.2 MB one by one, 9.7 MB together" in text
    document = json.loads(json.dumps(to_document(found)))
    assert document["schema"] == "imgbuild.size/1"
    assert document["images"][0]["bytes"] == one.bytes
    assert document["images"][1]["unique"] == 0
    assert document["distinct"] == one.bytes
    assert {item["name"] for item in document["images"][0]["packages"]} == {"torch", "/", "/opt", "/usr"}
    table = "\n".join(to_markdown(found))
    assert "| `other` | 4.5 MB | 0 B |" in table
    assert all(line.count("|") - line.count("\\|") == 6 for line in table.splitlines()[2:5])
    for lines in (text, table):
        lines.encode()  # whatever a name in an image is


def test_an_image_above_its_budget_says_what_grew() -> None:
    before = measured({"base": 1000}, distribution("torch", {"torch/a": 500_000}), number=1)
    after = measured(
        {"base": 1000},
        {**distribution("torch", {"torch/a": 700_000}), **distribution("dask", {"dask/a": 40_000})},
        number=2,
    )
    over = over_budget(after, before, taken=after.bytes, budget=600_000)
    assert over.message.startswith("the image takes 741.1 kB, 141.1 kB more than its budget of 600.0 kB; grown since")
    assert "torch by 200.0 kB, dask by 40.0 kB" in over.message
    assert any("dask (new)" in line for line in over.detail)
    assert any("torch (was 500.0 kB)" in line for line in over.detail)
    assert "base" not in " ".join(over.detail)
    error = over.error("torch-1")
    assert (error.exit_code, error.where) == (9, "torch-1")
    assert "imgbuild size torch-1" in error.hint


def test_the_first_image_above_its_budget_says_what_is_large() -> None:
    image = measured({"base": 1000}, distribution("torch", {"torch/a": 500_000}))
    over = over_budget(image, None, taken=image.bytes, budget=100)
    assert "largest: torch 500.0 kB, other files in / 1.0 kB" in over.message
    assert over.grown == ()
    assert [item.kind for item in over.largest] == [Kind.PYTHON, Kind.OTHER]
    assert "RUN step 1" in " ".join(over.detail)


def test_an_image_that_cannot_be_read_is_above_its_budget_all_the_same() -> None:
    over = over_budget(None, None, taken=3_000_000, budget=2_000_000)
    assert (over.size, over.budget, over.largest, over.layers) == (3_000_000, 2_000_000, (), ())
    assert "3.0 MB" in over.error("a-cell").message.replace("3 MB", "3.0 MB")
