"""What the site itself supplies of a lock: files by their names, and whether they are the locked ones."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

from builder.site import Site, site_files, supplies


@dataclass(frozen=True, kw_only=True)
class Pin:
    name: str
    file: str
    sha256: str


WHEEL = Pin(name="tiny", file="tiny-1.0-py3-none-any.whl", sha256=hashlib.sha256(b"wheel").hexdigest())
SOURCE = Pin(name="big", file="big-2.0.tar.gz", sha256=hashlib.sha256(b"source").hexdigest())


def site(tmp_path: Path, **fields: tuple[str, ...]) -> Site:
    return replace(Site(state_dir=tmp_path, config=tmp_path / "none"), **fields)  # type: ignore[arg-type]


def test_files_are_found_by_their_exact_names(tmp_path: Path) -> None:
    links, index = tmp_path / "links", tmp_path / "simple"
    (index / "big").mkdir(parents=True)
    links.mkdir()
    for name in (WHEEL.file, "tiny-1.1-py3-none-any.whl", "tiny-1.0-py2-none-any.whl"):
        (links / name).write_bytes(b"wheel")
    (tmp_path / SOURCE.file).write_bytes(b"source")
    (index / "big/index.html").write_text(f'<a href="../../{SOURCE.file}#sha256=x">{SOURCE.file}</a>')
    here = site(tmp_path, find_links=(str(links),), extra_index_urls=(index.as_uri(),))
    found = site_files(here, (WHEEL, SOURCE))
    assert [path.name for path in found] == [SOURCE.file, WHEEL.file]
    assert supplies(found[0], SOURCE)
    assert supplies(found[1], WHEEL)
    assert site_files(here, (replace(WHEEL, file="tiny-1.0-cp311-cp311-any.whl"),)) == ()
    assert site_files(site(tmp_path), (WHEEL, SOURCE)) == ()


def test_of_several_files_of_one_name_the_locked_one_is_taken(tmp_path: Path) -> None:
    for name, content in (("a", b"other"), ("b", b"wheel"), ("c", b"third")):
        (tmp_path / name).mkdir()
        (tmp_path / name / WHEEL.file).write_bytes(content)
    (found,) = site_files(site(tmp_path, find_links=tuple(str(tmp_path / name) for name in "abc")), (WHEEL,))
    assert found == tmp_path / "b" / WHEEL.file
    # Another file is handed over as well: pip refuses it, and names both hashes.
    (found,) = site_files(site(tmp_path, find_links=tuple(str(tmp_path / name) for name in "ac")), (WHEEL,))
    assert (found, supplies(found, WHEEL)) == (tmp_path / "a" / WHEEL.file, False)


def test_a_file_that_changes_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / WHEEL.file
    path.write_bytes(b"wheel")
    assert supplies(path, WHEEL)
    path.write_bytes(b"WHEEL and more")
    assert not supplies(path, WHEEL)
