"""Bases without a registry, as far as no engine is needed: recipe, package set, archive, and mmdebstrap's command."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import tarfile
import time
from pathlib import Path

import pytest

from builder.engine import mmdebstrap
from builder.engine.bootstrap import (
    BootstrapRecipe,
    ImageArchive,
    PackageSet,
    base_reference,
    installed_packages,
    parse_packages,
)
from builder.engine.errors import BaseUnavailable, DiskFull

_RECIPE = BootstrapRecipe(suite="bookworm", architecture="amd64", include=("bb", "aa"))
_STATUS = """\
Package: libb
Status: install ok installed
Architecture: amd64
Version: 1:2.0-1
Description: b
 Package: not this
 Version: 9

Package: gone
Status: deinstall ok config-files
Architecture: all
Version: 1

Package: aa
Status: hold ok installed
Architecture: all
Version: 3
"""


def test_recipe_counts_every_field_and_no_order() -> None:
    assert dataclasses.replace(_RECIPE, include=("aa", "bb", "aa")).sha256 == _RECIPE.sha256
    others = [
        dataclasses.replace(_RECIPE, distribution="ubuntu"),
        dataclasses.replace(_RECIPE, suite="trixie"),
        dataclasses.replace(_RECIPE, architecture="arm64"),
        dataclasses.replace(_RECIPE, include=("aa",)),
        dataclasses.replace(_RECIPE, epoch=1),
    ]
    assert len({recipe.sha256 for recipe in (*others, _RECIPE)}) == 6


@pytest.mark.parametrize(
    "changes",
    [
        {"distribution": "arch"},
        {"suite": "book worm"},
        {"suite": "--help"},
        {"architecture": "amd64,i386"},
        {"include": ("a,b",)},
        {"include": ("--x",)},
    ],
)
def test_recipe_with_a_malformed_part(changes: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"is no name of|is none of"):
        dataclasses.replace(_RECIPE, **changes)  # type: ignore[arg-type]


def test_packages_are_the_installed_ones(tmp_path: Path) -> None:
    packages = parse_packages(_STATUS)
    assert packages.entries == ("aa=3=all", "libb=1:2.0-1=amd64")
    assert packages.sha256 == hashlib.sha256(b"aa=3=all\nlibb=1:2.0-1=amd64\n").hexdigest()
    root = tmp_path / "root.tar"
    _write_tar(root, {"./etc/x": b"", "./var/lib/dpkg/status": _STATUS.encode()})
    assert installed_packages(root) == packages
    _write_tar(root, {"./etc/x": b""})
    with pytest.raises(BaseUnavailable, match="no dpkg database"):
        installed_packages(root)


def _write_tar(path: Path, files: dict[str, bytes]) -> None:
    with tarfile.open(path, "w") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))


def test_reference_names_recipe_and_packages() -> None:
    packages = PackageSet(entries=("a=1=all",))
    name = base_reference(_RECIPE, packages.sha256, "team/base")
    assert name == f"team/base:debian-bookworm-amd64-{_RECIPE.sha256[:12]}-{packages.sha256[:12]}"


def test_archive_is_a_function_of_its_parts(tmp_path: Path) -> None:
    for size in (0, 1, 512, 513):
        layer = tmp_path / f"layer-{size}"
        layer.write_bytes(b"x" * size)

        def archive(layer: Path, **labels: str) -> bytes:
            made = ImageArchive(layer=layer, architecture="amd64", created=60, labels=labels, reference="a/b:c")
            return b"".join(made.pieces())

        content = archive(layer, k="v", l="w")
        copy = tmp_path / "copy"
        copy.write_bytes(layer.read_bytes())
        assert archive(copy, l="w", k="v") == content
        assert archive(copy, k="other") != content
        _check_archive(content, b"x" * size)


def _check_archive(content: bytes, layer: bytes) -> None:
    assert len(content) % 512 == 0
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        files = {member.name: archive.extractfile(member) for member in archive}
    read = {name: stream.read() for name, stream in files.items() if stream}
    (manifest,) = json.loads(read["manifest.json"])
    assert manifest["RepoTags"] == ["a/b:c"]
    assert read[manifest["Layers"][0]] == layer
    configuration = read[manifest["Config"]]
    assert manifest["Config"] == f"{hashlib.sha256(configuration).hexdigest()}.json"
    document = json.loads(configuration)
    assert document["created"] == "1970-01-01T00:01:00Z"
    assert document["rootfs"]["diff_ids"] == [f"sha256:{hashlib.sha256(layer).hexdigest()}"]
    assert document["config"]["Labels"] == {"k": "v", "l": "w"}


def _make_root(tmp_path: Path, **changes: object) -> list[str]:
    lines: list[str] = []
    parts = {
        "suite": "bookworm",
        "architecture": "amd64",
        "include": ("a", "b"),
        "epoch": 7,
        "sources": "",
        "proxies": {},
        "ca_bundle": None,
        "on_line": lines.append,
        **changes,
    }
    mmdebstrap.make_root(tmp_path / "out.tar", tmp_path, **parts)  # type: ignore[arg-type]
    return lines


def _stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    directory = tmp_path / "bin"
    directory.mkdir()
    program = directory / "mmdebstrap"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{directory}:/usr/bin:/bin")


def test_command_shows_no_mirror_and_environment_is_clean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _stand_in(tmp_path, monkeypatch, 'printf "%s\\n" "$@" > "$TMPDIR/arguments"; env > "$TMPDIR/environment"')
    monkeypatch.setenv("APT_CONFIG", "/etc/mine")
    _make_root(tmp_path, sources="deb https://u:secret@m.example/debian bookworm main\n", proxies={"http": "http://p"})
    arguments = (tmp_path / "arguments").read_text()
    environment = (tmp_path / "environment").read_text()
    assert "secret" not in arguments
    assert "--include=a,b\n" in arguments
    assert arguments.endswith(f"\nbookworm\n{tmp_path}/out.tar\n")
    assert "IMGBUILD_SOURCES=deb https://u:secret@m.example/debian bookworm main\n" in environment
    assert "SOURCE_DATE_EPOCH=7\n" in environment
    assert "http_proxy=http://p\n" in environment
    assert "APT_CONFIG" not in environment


def test_mirror_leaves_no_trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in runs the hooks on a root of its own, as mmdebstrap does."""
    run_hooks = """
    root=$TMPDIR/root; mkdir -p "$root/etc/apt/apt.conf.d" "$root/usr/sbin" "$root/var/log/apt" "$root/var/cache/apt" \\
        "$root/var/cache/debconf" "$root/var/lib/apt/lists" "$root/var/lib/dpkg"
    echo "deb own bookworm main" > "$root/etc/apt/sources.list"
    echo this-machine > "$root/etc/hostname"; echo id > "$root/etc/machine-id"; echo x > "$root/var/log/apt/term.log"
    echo ns > "$root/etc/resolv.conf"; echo x > "$root/var/lib/dpkg/status-old"
    for hook in "$@"; do
        case $hook in
        --setup-hook=*) sh -c "${hook#*=}" exec "$root" || exit 1 ;;
        esac
    done
    cat "$root/etc/apt/sources.list" "$root/etc/apt/apt.conf.d/00imgbuild-site"
    for hook in "$@"; do
        case $hook in
        --customize-hook=*) sh -c "${hook#*=}" exec "$root" || exit 1 ;;
        esac
    done
    """
    _stand_in(tmp_path, monkeypatch, run_hooks)
    lines = _make_root(
        tmp_path, sources="deb https://u:secret@m.example/debian bookworm main\n", ca_bundle=Path("/site/ca.pem")
    )
    assert lines == ["deb https://***@m.example/debian bookworm main", 'Acquire::https::CAInfo "/site/ca.pem";']
    root = tmp_path / "root"
    left = {str(path.relative_to(root)): path.read_text() for path in root.rglob("*") if path.is_file()}
    assert left == {
        "etc/apt/sources.list": "deb own bookworm main\n",
        "etc/machine-id": "",
        "usr/sbin/policy-rc.d": "#!/bin/sh\nexit 101\n",
    }


def test_failure_tells_what_mmdebstrap_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _stand_in(tmp_path, monkeypatch, 'echo "E: no https://u:secret@m.example" >&2; exit 3')
    with pytest.raises(BaseUnavailable, match="E: no") as caught:
        _make_root(tmp_path)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "said",
    ["dpkg: error: failed to write (No space left on device)", "E: You don't have enough free space in /x/archives/."],
)
def test_full_disk_of_this_machine_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str) -> None:
    _stand_in(tmp_path, monkeypatch, f'echo "{said}" >&2; echo "E: mmdebstrap failed" >&2; exit 25')
    with pytest.raises(DiskFull, match="this machine's disk is full") as caught:
        _make_root(tmp_path)
    assert said in caught.value.message
    assert "TMPDIR" in caught.value.hint


def test_missing_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BaseUnavailable) as caught:
        _make_root(tmp_path)
    assert caught.value.hint == "sudo apt-get install mmdebstrap"


def test_interruption_ends_mmdebstrap_and_its_children(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _stand_in(tmp_path, monkeypatch, 'sleep 60 & echo "$!"; echo started; wait')
    said: list[str] = []

    def interrupt(line: str) -> None:
        said.append(line)
        if line == "started":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        _make_root(tmp_path, on_line=interrupt)
    state = Path(f"/proc/{said[0]}/stat")
    deadline = time.monotonic() + 10
    while state.exists() and state.read_text().split()[2] != "Z":
        assert time.monotonic() < deadline, "a child of mmdebstrap is still running"
        time.sleep(0.01)
