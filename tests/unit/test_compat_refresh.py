"""The maintainer's refresh against an index made here: what it adds, keeps, refuses, and how it reads wheels."""

from __future__ import annotations

import base64
import io
import json
import os
import shutil
import urllib.error
import urllib.request
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from builder.compat.load import TABLES
from builder.compat.refresh import command as refresh_command
from builder.compat.refresh import derive
from builder.compat.refresh.canonical import canonical, dump
from builder.compat.refresh.command import Refresher, refresh
from builder.compat.refresh.index import read_project, requirements
from builder.compat.refresh.merge import INDEX, METADATA, SOURCES, Needs, merged, needs_of
from builder.errors import ConfigError

URL = "https://index.example/simple"
PYTHONS = ("3.9", "3.10", "3.11", "3.12", "3.13")
TODAY = "2027-01-02"


class FakeIndex:
    """A simple index in memory. `ranges` says whether it answers byte ranges, `metadata` whether it offers METADATA."""

    def __init__(self, *, ranges: bool = True, metadata: bool = True) -> None:
        self.files: dict[str, list[dict[str, Any]]] = {}
        self.bodies: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.ranges, self.metadata = ranges, metadata

    def add(
        self,
        project: str,
        version: str,
        tag: str,
        *,
        requires: tuple[str, ...] = (),
        extras: tuple[str, ...] = (),
        **more: Any,
    ) -> None:
        name = project.replace("-", "_")
        filename = f"{name}-{version}-{tag}.whl"
        url = f"{URL}/files/{filename}"
        lines = ["Metadata-Version: 2.1", f"Name: {project}", f"Version: {version}"]
        lines += [f"Requires-Dist: {text}" for text in requires] + [f"Provides-Extra: {text}" for text in extras]
        text = "\n".join(lines).encode() + b"\n\nRequires-Dist: not-a-header\n"
        archive = io.BytesIO()
        with zipfile.ZipFile(archive, "w") as wheel:
            wheel.writestr(f"{name}/_C.so", b"\0" * 200_000)
            wheel.writestr(f"{name}-{version}.dist-info/METADATA", text)
            wheel.writestr(f"{name}/vendor/other.dist-info/METADATA", b"Requires-Dist: wrong")
        self.bodies[url] = archive.getvalue()
        item: dict[str, Any] = {"filename": filename, "url": f"../files/{filename}", "yanked": False, **more}
        item.setdefault("upload-time", "2027-01-01T10:00:00Z")
        if self.metadata:
            item["core-metadata"] = {"sha256": "00"}
            self.bodies[f"{url}.metadata"] = text
        # The index names its files relative to the project's page.
        self.files.setdefault(project, []).append({**item, "url": f"../files/{filename}"})

    def sdist(self, project: str, version: str) -> None:
        self.files.setdefault(project, []).append(
            {"filename": f"{project}-{version}.tar.gz", "url": "x", "yanked": False}
        )

    def fetch(self, url: str, headers: Mapping[str, str]) -> tuple[bytes, Mapping[str, str]]:
        self.asked.append(url)
        project = url.removeprefix(f"{URL}/").rstrip("/")
        if project in self.files:
            assert headers["Accept"] == "application/vnd.pypi.simple.v1+json"
            page = {"meta": {"api-version": "1.1"}, "name": project, "files": self.files[project]}
            return json.dumps(page).encode(), {"content-type": "application/vnd.pypi.simple.v1+json"}
        if url not in self.bodies:
            raise ConfigError("the index answers 404 Not Found", where=url)
        body = self.bodies[url]
        asked = headers.get("Range")
        if not asked or not self.ranges:
            return body, {}
        first, _, last = asked.removeprefix("bytes=").partition("-")
        start, end = (max(0, len(body) - int(last)), len(body)) if not first else (int(first), int(last) + 1)
        return body[start:end], {"content-range": f"bytes {start}-{end - 1}/{len(body)}"}


@pytest.fixture
def index() -> FakeIndex:
    return FakeIndex()


MANYLINUX = "manylinux_2_27_x86_64.manylinux_2_28_x86_64"


def test_wheels_become_pythons_and_glibc(index: FakeIndex) -> None:
    for python, abi in (("cp311", "cp311"), ("cp313", "cp313t")):
        index.add("thing", "1.0", f"{python}-{abi}-{MANYLINUX}", **{"requires-python": ">=3.11"})
    index.add("thing", "1.0", "cp312-cp312-win_amd64")
    index.add("thing", "1.0", "cp310-cp310-manylinux2014_aarch64")
    index.add("thing", "1.0", "pp310-pypy310_pp73-manylinux2014_x86_64")
    release = read_project(index.fetch, URL, "thing")["1.0"]
    assert release.pythons(PYTHONS) == {"3.11", "3.13t"}
    assert (release.glibc(), release.date, release.requires_python) == ("2.27", "2027-01-01", ">=3.11")


def test_a_stable_abi_serves_later_pythons_that_are_accepted(index: FakeIndex) -> None:
    index.add("thing", "1.0", f"cp310-abi3-{MANYLINUX}", **{"requires-python": ">=3.10,<3.13"})
    assert read_project(index.fetch, URL, "thing")["1.0"].pythons(PYTHONS) == {"3.10", "3.11", "3.12"}


def test_wheels_without_a_python_serve_every_one(index: FakeIndex) -> None:
    index.add("thing", "1.0", "py3-none-manylinux2014_x86_64")
    index.add("thing", "2.0", "py2.py3-none-any")
    found = read_project(index.fetch, URL, "thing")
    assert [release.pythons(PYTHONS) for release in found.values()] == [None, None]
    assert [release.glibc() for release in found.values()] == ["2.17", None]


def test_what_counts_as_a_release(index: FakeIndex) -> None:
    index.sdist("thing", "0.9")
    index.add("thing", "1.0rc1", f"cp311-cp311-{MANYLINUX}")
    index.add("thing", "1.0.post1", f"cp311-cp311-{MANYLINUX}", yanked="broken")
    index.add("thing", "01.1", f"cp311-cp311-{MANYLINUX}")
    index.add("thing", "2.0", "cp311-cp311-win_amd64")
    found = read_project(index.fetch, URL, "thing")
    assert list(found) == ["1.0.post1", "1.1"]
    assert [release.yanked for release in found.values()] == [True, False]
    with_sources = read_project(index.fetch, URL, "thing", sources=True)
    assert list(with_sources) == ["0.9", "1.0.post1", "1.1", "2.0"]
    assert with_sources["0.9"].pythons(PYTHONS) is None


@pytest.mark.parametrize("offered", [True, False], ids=["beside the wheel", "within the wheel"])
def test_metadata_is_read_without_the_whole_wheel(offered: bool) -> None:
    index = FakeIndex(metadata=offered)
    index.add("thing", "1.0", f"cp311-cp311-{MANYLINUX}", requires=("numpy>=2", "torch==2.13.0"), extras=("gpu",))
    (wheel,) = read_project(index.fetch, URL, "thing")["1.0"].wheels
    index.asked.clear()
    assert requirements(index.fetch, wheel) == (("numpy>=2", "torch==2.13.0"), ("gpu",))
    assert [url.endswith(".metadata") for url in index.asked] == [offered] * len(index.asked)


def test_an_index_without_ranges_or_metadata_is_an_error() -> None:
    index = FakeIndex(metadata=False, ranges=False)
    index.add("thing", "1.0", f"cp311-cp311-{MANYLINUX}")
    (wheel,) = read_project(index.fetch, URL, "thing")["1.0"].wheels
    with pytest.raises(ConfigError, match="METADATA cannot be read from the wheel"):
        requirements(index.fetch, wheel)


@pytest.mark.parametrize(("body", "kind"), [(b"<html>", "text/html"), (b"{", "application/json"), (b"[]", "a/json")])
def test_an_index_that_answers_something_else_is_an_error(body: bytes, kind: str) -> None:
    with pytest.raises(ConfigError, match="index"):
        read_project(lambda url, headers: (body, {"content-type": kind}), URL, "thing")


def test_requirements_are_those_of_linux_and_of_known_projects() -> None:
    needs = needs_of(
        "tensorflow",
        (
            'numpy<2.0.0,>=1.23.5; python_version <= "3.11"',
            'numpy<2.0.0,>=1.26.0; python_version >= "3.12"',
            "keras (>=3.0)",
            'triton==3.7.1; platform_system == "Linux"',
            'torch==1.0; sys_platform == "win32"',
            "requests",
            'nvidia-nccl-cu12==2.19.3; extra == "and-cuda"',
            'other==1; extra == "docs"',
        ),
        ("and-cuda", "docs"),
        ("3.11", "3.12"),
        ("numpy", "keras", "triton", "torch"),
    )
    assert needs.plain == {"numpy": "<2.0.0,>=1.23.5", "keras": ">=3.0", "triton": "==3.7.1"}
    assert needs.extras == {"and-cuda": ("nvidia-nccl-cu12==2.19.3",)}


def thing_table(**row: Any) -> dict[str, Any]:
    first = {
        "series": "1.0",
        "releases": {"1.0.0": {"date": "2026-01-01"}},
        "pythons": ["3.11"],
        "glibc": "2.28",
        "source": [INDEX],
        "confidence": "read",
    }
    return {
        "schema": "imgbuild.facts/1",
        "kind": "project",
        "date": "2026-11-23",
        "project": "thing",
        "oldest": "1.0.0",
        "newest": "1.0.0",
        "sources": {INDEX: SOURCES[INDEX], "hand": "a person"},
        "rows": [{**first, **row}],
    }


def test_hand_written_fields_stay(index: FakeIndex) -> None:
    by_hand = {"project": "numpy", "specifier": "<1.24", "source": ["hand"], "confidence": "read"}
    table = thing_table(
        cxx="c++17",
        notes=["keep me"],
        builds=[{"cuda": "cpu", "channels": ["pypi"], "source": ["hand"], "confidence": "read"}],
        absent=[{"cuda": "12.6", "source": ["absence"], "confidence": "read"}],
        companions=[by_hand],
    )
    index.add("thing", "1.0.0", "cp311-cp311-manylinux2014_x86_64")
    index.add("thing", "1.0.1", "cp311-cp311-manylinux2014_x86_64")
    found = read_project(index.fetch, URL, "thing")
    needs = {"1.0.1": Needs(plain={"numpy": "<3", "keras": "==3.1"}, extras={})}
    (row,) = merged(table, found, needs, PYTHONS)["rows"]  # type: ignore[misc]
    assert (row["cxx"], row["notes"], row["builds"]) == ("c++17", ["keep me"], table["rows"][0]["builds"])
    assert row["absent"] == table["rows"][0]["absent"]
    assert by_hand in row["companions"]
    assert {
        "project": "keras",
        "releases": ["1.0.1"],
        "versions": ["3.1"],
        "source": [METADATA],
        "confidence": "read",
    } in row["companions"]
    assert len(row["companions"]) == 2, "what a person says of numpy goes before METADATA"
    # A file name promises an older glibc than a person found for 1.0.0; for the new release only the name is known.
    assert (row["glibc"], row["releases"]["1.0.0"]["glibc"]) == ("2.17", "2.28")


def test_new_series_and_releases_are_added_in_order(index: FakeIndex) -> None:
    for version in ("1.0.0", "1.10.0", "1.9.0", "0.9.0"):
        index.add("thing", version, f"cp312-cp312-{MANYLINUX}")
    new = merged(thing_table(), read_project(index.fetch, URL, "thing"), {}, PYTHONS)
    assert [row["series"] for row in new["rows"]] == ["1.0", "1.9", "1.10"]  # type: ignore[attr-defined]
    assert new["newest"] == "1.10.0"
    assert new == canonical(new)


def test_what_is_lost_is_named(index: FakeIndex) -> None:
    index.add("thing", "1.1.0", f"cp312-cp312-{MANYLINUX}")
    new = merged(thing_table(), read_project(index.fetch, URL, "thing"), {}, PYTHONS)
    assert derive.lost(thing_table(), new) == ["release 1.0.0", "release 1.0.0 for Python 3.11", "series 1.0"]
    assert derive.lost(thing_table(), thing_table()) == []


def test_companions_that_pin_their_own_project() -> None:
    vision = thing_table()
    vision["project"] = "torchvision"
    pin = {"project": "torch", "versions": ["2.13.0"], "source": [METADATA], "confidence": "read"}
    vision["rows"][0].update(releases={"0.28.0": {}, "0.28.1": {"yanked": True}}, companions=[pin])
    torch = thing_table(releases={"2.13.0": {}, "2.13.1": {}})
    torch["project"] = "torch"
    (row,) = derive.with_inverse(torch, vision)["rows"]  # type: ignore[misc]
    (made,) = row["companions"]
    assert (made["releases"], made["versions"]) == (["2.13.0"], ["0.28.0"])


def test_builds_whose_wheels_are_another_projects(index: FakeIndex) -> None:
    """jax 1.0.0 takes plugin 1.0.0; jax 1.0.1 has METADATA that takes the older plugin; jax 1.0.2 has none to take."""
    index.add("plugin", "1.0.0", f"cp311-cp311-{MANYLINUX}")
    template = {"cuda": "12", "distribution": "plugin", "extra": "cuda12", "driver": "525", "channels": ["pypi"]}
    extras = [
        {"name": "cuda12", "versions": [jax], "requires": [requires], "source": [METADATA], "confidence": "read"}
        for jax, requires in (("1.0.1", "plugin<=1.0.1,>=1.0.0"), ("1.0.2", "plugin==1.0.2"))
    ]
    releases: dict[str, Any] = {"1.0.0": {}, "1.0.1": {}, "1.0.2": {}}
    build = {**template, "source": ["hand"], "confidence": "read"}
    table = thing_table(releases=releases, extras=extras, builds=[build])
    new = derive.with_distributions(table, lambda name: read_project(index.fetch, URL, name), PYTHONS)
    (made,) = new["rows"][0]["builds"]  # type: ignore[index]
    assert made == {**build, "versions": ["1.0.0", "1.0.1"], "pythons": ["3.11"]}


@pytest.fixture
def tables(tmp_path: Path) -> Path:
    """Tables with one project, `thing`, as the index of the next fixture has it."""
    directory = tmp_path / "tables"
    (directory / "projects").mkdir(parents=True)
    shutil.copy(TABLES / "python.yaml", directory)
    (directory / "projects" / "thing.yaml").write_text(dump(thing_table()), encoding="utf-8")
    return directory


@pytest.fixture
def run(tables: Path, index: FakeIndex, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Runs the command over the index; gives its exit code and output."""
    index.add("thing", "1.0.0", f"cp311-cp311-{MANYLINUX}", **{"upload-time": "2026-01-01T00:00:00Z"})
    monkeypatch.setattr(refresh_command, "fetch_with", lambda context: index.fetch)

    def call(*arguments: str) -> tuple[int, str]:
        code = refresh_command.main(["--index-url", URL, "--tables", str(tables), *arguments])
        printed = capsys.readouterr()
        return code, printed.out + printed.err

    return call


def test_nothing_changes_when_the_index_says_the_same(run: Any, tables: Path) -> None:
    before = (tables / "projects" / "thing.yaml").read_bytes()
    assert run("--write") == (0, "0 table(s) written\n")
    assert (tables / "projects" / "thing.yaml").read_bytes() == before


def test_a_new_release_is_shown_and_written_only_when_told(run: Any, tables: Path, index: FakeIndex) -> None:
    path = tables / "projects" / "thing.yaml"
    before = path.read_text()
    index.add("thing", "1.1.0", f"cp312-cp312-{MANYLINUX}", requires=("thing>1",))
    code, shown = run()
    assert code == 0
    assert "--- a/thing.yaml" in shown
    assert "\n+- series: '1.1'" in shown
    assert "1 table(s) to change" in shown
    assert path.read_text() == before
    assert run("--write")[0] == 0
    assert yaml.safe_load(path.read_text())["newest"] == "1.1.0"
    assert run("--write")[1] == "0 table(s) written\n"


def test_only_new_releases_are_opened(run: Any, index: FakeIndex) -> None:
    index.add("thing", "1.1.0", f"cp312-cp312-{MANYLINUX}")
    run()
    assert [url for url in index.asked if "1.0.0" in url] == []
    run("--recheck")
    assert [url for url in index.asked if "1.0.0" in url] != []


def test_a_table_does_not_shrink_unless_told(run: Any, tables: Path, index: FakeIndex) -> None:
    path = tables / "projects" / "thing.yaml"
    before = path.read_text()
    index.files["thing"].clear()
    index.add("thing", "1.1.0", f"cp312-cp312-{MANYLINUX}")
    code, shown = run("--write")
    assert code == 13
    assert "release 1.0.0 for Python 3.11" in shown
    assert "--allow-removals" in shown
    assert path.read_text() == before
    assert run("--write", "--allow-removals")[0] == 0
    assert "1.0.0:" not in path.read_text()


def test_an_unknown_project_is_refused(run: Any) -> None:
    code, shown = run("--project", "thong")
    assert code == 5
    assert "there is no table of 'thong'" in shown
    assert "known: thing" in shown


def test_a_project_that_the_index_lacks_is_an_error(run: Any, index: FakeIndex) -> None:
    del index.files["thing"]
    code, shown = run()
    assert code == 5
    assert "404" in shown


def test_format_needs_no_index(run: Any, tables: Path, index: FakeIndex) -> None:
    path = tables / "projects" / "thing.yaml"
    formatted = path.read_text()
    path.write_text(yaml.safe_dump(yaml.safe_load(formatted)), encoding="utf-8")
    assert run("--format", "--write")[0] == 0
    assert path.read_text() == formatted
    assert index.asked == []


def test_a_changed_table_gets_the_date(tables: Path, index: FakeIndex) -> None:
    index.add("thing", "1.0.0", f"cp312-cp312-{MANYLINUX}")
    index.add("thing", "1.0.0", f"cp311-cp311-{MANYLINUX}")
    pending, removed = refresh(Refresher(index.fetch, URL, tables), ["thing"], TODAY)
    ((path, text),) = pending.items()
    assert path.name == "thing.yaml"
    assert yaml.safe_load(text)["date"] == TODAY
    assert removed == []


def test_clauses_in_another_order_are_no_change(index: FakeIndex) -> None:
    for version, accepts in (("1.0.0", ">=3.10,!=3.14.1"), ("1.0.1", "!=3.14.1,>=3.10"), ("1.0.2", "rubbish")):
        index.add("thing", version, f"cp311-cp311-{MANYLINUX}", **{"requires-python": accepts})
    found = read_project(index.fetch, URL, "thing")
    assert [release.requires_python for release in found.values()] == ["!=3.14.1,>=3.10", "!=3.14.1,>=3.10", ""]


def test_credentials_are_a_header_and_never_shown(
    tables: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[urllib.request.Request] = []

    def urlopen(request: urllib.request.Request, **_: object) -> None:
        asked.append(request)
        raise urllib.error.URLError("no route")

    monkeypatch.setattr(urllib.request, "urlopen", urlopen)
    url = "https://anna:s3cr%40t@index.example/simple"
    assert refresh_command.main(["--index-url", url, "--tables", str(tables)]) == 5
    assert asked[0].full_url == "https://index.example/simple/thing/"
    assert asked[0].get_header("Authorization") == "Basic " + base64.b64encode(b"anna:s3cr@t").decode()
    shown = capsys.readouterr()
    assert "cannot be reached: no route" in shown.err
    assert "s3cr" not in shown.err + shown.out


def test_the_index_is_that_of_the_site(
    tables: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[str] = []

    def fetch(url: str, headers: Mapping[str, str]) -> tuple[bytes, Mapping[str, str]]:
        asked.append(url)
        raise ConfigError("no", where=url)

    monkeypatch.setattr(refresh_command, "fetch_with", lambda context: fetch)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("IMGBUILD_INDEX_URL", "https://mirror.example/simple")
    assert refresh_command.main(["--tables", str(tables)]) == 5
    monkeypatch.setattr(refresh_command.importlib, "import_module", _no_pip)
    monkeypatch.delenv("IMGBUILD_INDEX_URL")
    assert refresh_command.main(["--tables", str(tables)]) == 5
    assert asked == ["https://mirror.example/simple/thing/"]
    assert "give --index-url" in capsys.readouterr().err


def _no_pip(name: str) -> None:
    raise ImportError(name)
