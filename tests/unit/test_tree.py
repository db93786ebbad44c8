from __future__ import annotations

import os
import random
import re
import socket
import stat
import time
from dataclasses import replace
from pathlib import Path

import pytest

from builder.engine.disk import CHUNK, OnDisk
from builder.engine.errors import ContextError
from builder.engine.patterns import PatternError, Patterns, clean, translate
from builder.engine.tree import GO_DIRECTORY, GO_FIFO, GO_LINK, GO_SETUID, Entry, FileTree


def paths(tree: FileTree, **limits: list[str]) -> list[str]:
    return [entry.path for entry in tree.entries(**limits)]


def entry_of(tree: FileTree, path: str) -> Entry:
    return next(entry for entry in tree.entries() if entry.path == path)


def content(entry: Entry) -> bytes:
    return b"".join(entry.chunks())


@pytest.fixture
def on_disk(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    for name in ("a/one", "a/two.log", "a/deep/three", "b/four", "a-b"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(name.encode())
    return root


@pytest.fixture
def tree(on_disk: Path) -> FileTree:
    made = FileTree()
    made.add_directory(".", on_disk)
    return made


def test_listing_is_preorder_with_siblings_sorted_by_bytes(tree: FileTree) -> None:
    tree.add_bytes("ä", b"")
    tree.add_bytes("Z", b"")
    assert paths(tree) == ["Z", "a", "a/deep", "a/deep/three", "a/one", "a/two.log", "a-b", "b", "b/four", "ä"]


def test_files_in_memory_cover_those_on_disk(tree: FileTree) -> None:
    tree.add_bytes("a/one", b"made", 0o755)
    tree.add_bytes("a/new/er", b"")
    assert content(entry_of(tree, "a/one")) == b"made"
    assert content(entry_of(tree, "a/deep/three")) == b"a/deep/three"
    assert paths(tree)[:6] == ["a", "a/deep", "a/deep/three", "a/new", "a/new/er", "a/one"]
    assert tree.read("a/one") == b"made"
    assert tree.read("b/four") == b"b/four"
    assert tree.read("b/five") is None


def test_a_directory_may_be_mounted_below(on_disk: Path) -> None:
    tree = FileTree()
    tree.add_directory("x/y", on_disk / "b")
    assert paths(tree) == ["x", "x/y", "x/y/four"]


def test_time_differs_with_bytes_of_the_same_size_and_not_otherwise() -> None:
    def time_of(data: bytes, mode: int = 0o644) -> int:
        tree = FileTree()
        tree.add_bytes("f", data, mode)
        return entry_of(tree, "f").mtime_ns

    assert time_of(b"aaaa") == time_of(b"aaaa")
    assert len({time_of(b"aaaa"), time_of(b"aaab"), time_of(b"aaaa", 0o755)}) == 3
    assert 10**18 <= time_of(b"x") < 1.3 * 10**18


@pytest.mark.parametrize("path", ["..", "a/../b", "/etc/passwd", "", ".", "a//b", "a/", "a\0b", "./a"])
def test_names_that_are_no_paths_inside(path: str, tmp_path: Path) -> None:
    tree = FileTree()
    (tmp_path / "f").write_bytes(b"")
    with pytest.raises(ContextError):
        tree.add_bytes(path, b"")
    with pytest.raises(ContextError):
        tree.add_file(path, tmp_path / "f")
    tree.add_bytes("..a/b..", b"")
    assert paths(tree) == ["..a", "..a/b.."]


def test_a_path_through_a_file_is_refused() -> None:
    tree = FileTree()
    tree.add_bytes("a", b"")
    with pytest.raises(ContextError):
        tree.add_bytes("a/b", b"")


def test_what_is_not_there_or_of_the_wrong_kind(tmp_path: Path) -> None:
    tree = FileTree()
    with pytest.raises(ContextError):
        tree.add_file("a", tmp_path / "missing")
    with pytest.raises(ContextError):
        tree.add_file("a", tmp_path)
    with pytest.raises(ContextError):
        tree.add_directory("a", tmp_path / "missing")
    assert paths(tree) == []


def test_links_are_kept_and_never_read_through(tree: FileTree, on_disk: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret/key").write_bytes(b"secret")
    (on_disk / "to-file").symlink_to(tmp_path / "secret/key")
    (on_disk / "to-directory").symlink_to(tmp_path / "secret")
    tree.add_file("named", on_disk / "to-file")
    for path in ("to-file", "to-directory", "named"):
        entry = entry_of(tree, path)
        assert entry.mode == GO_LINK | 0o777
        assert entry.content is None
        assert content(entry) == b""
    assert entry_of(tree, "to-file").target == str(tmp_path / "secret/key")
    assert "to-directory/key" not in paths(tree)
    assert tree.read("to-directory/key") is None


def test_a_file_that_became_a_link_is_not_read(tree: FileTree, on_disk: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"secret")
    entry = entry_of(tree, "a-b")
    assert content(entry) == b"a-b"
    (on_disk / "a-b").unlink()
    (on_disk / "a-b").symlink_to(tmp_path / "secret")
    with pytest.raises(ContextError):
        content(entry)


def test_a_file_behind_a_directory_that_became_a_link_is_not_read(
    tree: FileTree, on_disk: Path, tmp_path: Path
) -> None:
    entry = entry_of(tree, "a/deep/three")
    assert content(entry) == b"a/deep/three"
    (tmp_path / "secret/deep").mkdir(parents=True)
    (tmp_path / "secret/deep/three").write_bytes(b"secret")
    (on_disk / "a").rename(tmp_path / "gone")
    (on_disk / "a").symlink_to(tmp_path / "secret")
    with pytest.raises(ContextError, match="a/deep/three"):
        content(entry)


def test_the_way_to_the_source_may_lead_through_links(on_disk: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(on_disk)
    tree = FileTree()
    tree.add_directory("d", tmp_path / "link/a")
    tree.add_file("f", tmp_path / "link/a/one")
    assert content(entry_of(tree, "d/deep/three")) == b"a/deep/three"
    assert content(entry_of(tree, "f")) == b"a/one"


def test_reading_leaves_no_file_open(tree: FileTree, on_disk: Path) -> None:
    before = _open_files()
    half_read = entry_of(tree, "a/deep/three").chunks()
    next(half_read)
    half_read.close()  # type: ignore[attr-defined]
    assert tree.read("a/deep/three") == b"a/deep/three"
    with pytest.raises(ContextError):
        content(replace(entry_of(tree, "a/one"), content=OnDisk(on_disk, on_disk / "a/one/no/file")))
    assert _open_files() == before


def _open_files() -> list[str]:
    return sorted(path.name for path in Path("/proc/self/fd").iterdir())


def test_a_file_that_became_a_fifo_does_not_block(tree: FileTree, on_disk: Path) -> None:
    entry = entry_of(tree, "a-b")
    (on_disk / "a-b").unlink()
    os.mkfifo(on_disk / "a-b")
    with pytest.raises(ContextError, match="no longer a regular file"):
        content(entry)


def test_fifos_have_no_content_and_sockets_are_left_out(tree: FileTree, on_disk: Path) -> None:
    os.mkfifo(on_disk / "pipe")
    with socket.socket(socket.AF_UNIX) as server:
        # A relative name: the absolute one may be longer than a socket's name can be.
        before = Path.cwd()
        os.chdir(on_disk)
        try:
            server.bind("sock")
        finally:
            os.chdir(before)
        assert (on_disk / "sock").is_socket()
        listed = paths(tree)
    assert "sock" not in listed
    assert "pipe" in listed
    pipe = entry_of(tree, "pipe")
    assert pipe.mode & GO_FIFO
    assert pipe.content is None


def test_devices_are_refused_unless_left_out(tree: FileTree) -> None:
    # /dev/null stands in for a device in a checkout, which only root can make.
    assert stat.S_ISCHR(Path("/dev/null").lstat().st_mode)
    tree.add_file("dev", Path("/dev/null"))
    with pytest.raises(ContextError, match="dev in the context is a device"):
        paths(tree)
    assert "dev" not in paths(tree, exclude=["dev"])
    assert "dev" not in paths(tree, follow=["a"])


def test_modes_travel_as_gos(tree: FileTree, on_disk: Path) -> None:
    (on_disk / "a-b").chmod(0o4750)
    assert entry_of(tree, "a-b").mode == GO_SETUID | 0o750
    (on_disk / "a").chmod(0o700)
    assert entry_of(tree, "a").mode == GO_DIRECTORY | 0o700


def test_large_files_come_in_chunks(tree: FileTree, on_disk: Path) -> None:
    size = 3 * CHUNK + 1
    (on_disk / "big").write_bytes(b"x" * size)
    tree.add_bytes("made", b"y" * size)
    for path in ("big", "made"):
        sizes = [len(chunk) for chunk in entry_of(tree, path).chunks()]
        assert sizes == [CHUNK, CHUNK, CHUNK, 1]


@pytest.mark.parametrize(
    ("patterns", "left"),
    [
        (["a"], ["a-b", "b", "b/four"]),
        (["/a/"], ["a-b", "b", "b/four"]),
        (["*"], []),
        (["*", "!b"], ["b", "b/four"]),
        (["*", "!a/deep/three"], ["a", "a/deep", "a/deep/three"]),
        (["*", "!a", "a/deep"], ["a", "a/one", "a/two.log"]),
        (["**/*.log", "b"], ["a", "a/deep", "a/deep/three", "a/one", "a-b"]),
        (["**/three"], ["a", "a/deep", "a/one", "a/two.log", "a-b", "b", "b/four"]),
        (["a/*", "!a/one"], ["a", "a/one", "a-b", "b", "b/four"]),
        (["a/d??p", "b"], ["a", "a/one", "a/two.log", "a-b"]),
        (["[ab]", "!**/four"], ["a-b", "b", "b/four"]),
        (["a/**", "a-b", "../b"], ["a"]),
        (["", "  ", "a/deep/", "b/f*r", "a/t*", "a/o*"], ["a", "a-b", "b"]),
        (["!a"], ["a", "a/deep", "a/deep/three", "a/one", "a/two.log", "a-b", "b", "b/four"]),
        (["a\\-b", "a/[!d]*"], ["a", "a/deep", "a/deep/three", "b", "b/four"]),
    ],
)
def test_exclude_patterns(tree: FileTree, patterns: list[str], left: list[str]) -> None:
    assert paths(tree, exclude=patterns) == left


@pytest.mark.parametrize("pattern", ["[a", "a\\", "[z-a]", "["])
def test_patterns_that_cannot_be_read(pattern: str) -> None:
    with pytest.raises(PatternError):
        Patterns([pattern])


SLOW = {
    "**/a**/a**/a**/a**/a**/a**/a**/b": ["/".join(["a"] * 60) + "/c", "/".join(["a"] * 60) + "/b"],
    "*a*a*a*a*a*a*a*a*b": ["a" * 120, "a" * 120 + "b"],
    "**/".join(["a"] * 20) + "/b": ["/".join(["a"] * 60) + "/c", "/".join(["a"] * 60) + "/b"],
    "*[ab]*?*a*[!b]*a*a*\\b": ["a" * 250, "a" * 250 + "b"],
}


@pytest.mark.parametrize("pattern", SLOW)
def test_many_wildcards_take_no_time(pattern: str) -> None:
    began = time.monotonic()
    patterns = Patterns([pattern, f"{pattern}/x"])
    assert [patterns.match(path).matched for path in SLOW[pattern]] == [False, True]
    assert not patterns.match("a" * 250 + "/x").matched
    assert patterns.may_match_below("a" * 120, negated=False) is ("**" in pattern or "[" in pattern)
    assert time.monotonic() - began < 1


def test_many_wildcards_match_what_a_plain_search_finds() -> None:
    """Every pattern of up to six tokens of a small alphabet, by the definition and by `Patterns`."""
    chosen = random.Random(7)
    tokens = ["a", "b", "/", "*", "**", "**/", "?", "[a]", "[!a]"]
    outcomes = set()
    for _ in range(3000):
        pattern = clean("".join(chosen.choices(tokens, k=chosen.randint(3, 9))))
        if not pattern:
            continue
        patterns = Patterns([pattern])
        for _ in range(10):
            path = "".join(chosen.choices("aab/", k=chosen.randint(1, 8)))
            expected = re.fullmatch(translate(pattern), path, re.DOTALL) is not None
            assert patterns.match(path).matched is expected, (pattern, path)
            outcomes.add((expected, pattern.count("*") > 4))
    assert len(outcomes) == 4


def test_an_escaped_slash_is_one_for_directories_too(tree: FileTree) -> None:
    assert paths(tree, exclude=["*", "!a\\/one"]) == ["a", "a/one"]


def test_special_characters_of_regular_expressions_mean_themselves() -> None:
    patterns = Patterns(["a.b+(c)|{d}$^"])
    assert patterns.match("a.b+(c)|{d}$^").matched
    assert not patterns.match("aXb+(c)|{d}$^").matched


@pytest.mark.parametrize(
    ("follow", "listed"),
    [
        (["b"], ["b", "b/four"]),
        (["a/deep/three"], ["a", "a/deep", "a/deep/three"]),
        (["./a/one", "/b/four"], ["a", "a/one", "b", "b/four"]),
        (["a/*.log"], ["a", "a/two.log"]),
        (["*/four"], ["b", "b/four"]),
        (["missing"], []),
        (["."], ["a", "a/deep", "a/deep/three", "a/one", "a/two.log", "a-b", "b", "b/four"]),
    ],
)
def test_followed_paths(tree: FileTree, follow: list[str], listed: list[str]) -> None:
    assert paths(tree, follow=follow) == listed


def test_followed_paths_lead_on_through_links(tree: FileTree, on_disk: Path) -> None:
    (on_disk / "first").symlink_to("a/second")
    (on_disk / "a/second").symlink_to("../b")
    tree.add_link("made", "/a/deep")
    assert paths(tree, follow=["first/four"]) == ["a", "a/second", "b", "b/four", "first"]
    assert paths(tree, follow=["m*/three"]) == ["a", "a/deep", "a/deep/three", "made"]


def test_followed_links_in_circles_and_to_the_outside(tree: FileTree, on_disk: Path) -> None:
    (on_disk / "x").symlink_to("y")
    (on_disk / "y").symlink_to("x")
    (on_disk / "longer").symlink_to("longer/longer")
    (on_disk / "out").symlink_to("../../../etc")
    assert paths(tree, follow=["x/z"]) == ["x", "y"]
    assert paths(tree, follow=["longer/a"]) == ["longer"]
    assert paths(tree, follow=["out/passwd"]) == ["out"]


def test_directories_that_cannot_matter_are_not_read(
    tree: FileTree, on_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    scandir = os.scandir

    def recording(path: Path) -> object:
        read.append(Path(path).name)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", recording)
    assert paths(tree, follow=["a/one"]) == ["a", "a/one"]
    assert read == ["root", "a"]
    read.clear()
    assert "a" not in paths(tree, exclude=["a", "!b/x"])
    assert read == ["root", "b"]
