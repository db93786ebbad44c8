"""Reading tables: what is read when, and what a table of a wrong form says."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from builder import compat
from builder.compat import load
from builder.compat.load import TABLES, facts_from, load_facts
from builder.compat.model import Confidence
from builder.errors import ConfigError


@pytest.fixture
def tables(tmp_path: Path) -> Path:
    directory = tmp_path / "tables"
    shutil.copytree(TABLES, directory)
    return directory


def test_facts_are_read_once() -> None:
    assert load_facts() is load_facts()
    assert load_facts().projects["triton"] is load_facts().projects["triton"]


def test_projects_are_read_when_they_are_asked_for(tables: Path) -> None:
    (tables / "projects" / "keras.yaml").write_text("rows: [", encoding="utf-8")
    facts = facts_from(tables)
    assert "keras" in facts.projects
    assert len(facts.projects) == len(list((tables / "projects").iterdir()))
    assert facts.projects["torch"].newest
    with pytest.raises(ConfigError, match=r"^keras\.yaml: the table is not YAML: "):
        facts.projects["keras"]
    assert "cupy" not in facts.projects
    with pytest.raises(KeyError):
        facts.projects["cupy"]


def test_images_and_systems_are_read_when_they_are_asked_for(tables: Path) -> None:
    (tables / "images.yaml").unlink()
    facts = facts_from(tables)
    assert facts.systems["debian 12"].glibc == "2.36"
    with pytest.raises(ConfigError, match=r"images\.yaml: the table cannot be read: No such file"):
        facts.images["12.4.1"]


def test_sources_are_written_out() -> None:
    row = load_facts().projects["torch"].rows[0]
    assert row.origin.confidence is Confidence.READ
    assert "pytorch/pytorch:RELEASE.md" in row.origin.sources
    assert "pytorch/pytorch:RELEASE.md" in str(row.origin)


MINIMAL = """\
schema: imgbuild.facts/1
kind: project
date: '2026-11-23'
project: thing
oldest: '1.0'
newest: '1.0'
sources: {index: an index}
rows:
- series: '1.0'
  releases:
    '1.0': {date: '2026-01-01'}
  pythons: ['3.12']
  builds:
  - {cuda: '12.6', channels: [pypi], source: [index], confidence: read}
  source: [index]
  confidence: read
"""


def read(tmp_path: Path, text: str) -> object:
    path = tmp_path / "thing.yaml"
    path.write_text(text, encoding="utf-8")
    return load._project(path)


def test_a_small_table_is_read(tmp_path: Path) -> None:
    project = read(tmp_path, MINIMAL)
    assert isinstance(project, load.Project)
    (row,) = project.rows
    assert row.pythons_of("1.0") == {"3.12"}
    assert row.builds[0].cuda == "12.6"
    assert row.builds[0].sass is None
    assert row.builds[0].origin.sources == ("an index",)


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (
            "cuda: '12.6'",
            "cuda: 12.6",
            "thing.yaml: rows[0].builds[0].cuda: expected text, found 12.6 (a version must be",
        ),
        ("channels: [pypi]", "channels: [conda]", "rows[0].builds[0].channels[0]: 'conda' is none of pypi, pytorch"),
        ("channels: [pypi], ", "", "rows[0].builds[0].channels: is missing"),
        ("cuda: '12.6'", "cuda: '12.6', colour: red", "rows[0].builds[0].colour: unknown key; known here: "),
        (
            "source: [index], confidence: read}",
            "source: [], confidence: read}",
            "builds[0].source: a fact needs a source",
        ),
        (
            "  source: [index]\n",
            "  source: [rumour]\n",
            "rows[0].source[0]: 'rumour' is not among the file's `sources`",
        ),
        ("  confidence: read\n", "  confidence: yes\n", "rows[0].confidence: expected text, found True"),
        ("pythons: ['3.12']", "pythons: 3.12", "rows[0].pythons: expected a list, found 3.12"),
        ("    '1.0': {", "    1.0: {", "rows[0].releases.[1.0]: a key must be text"),
        ("facts/1", "facts/2", "thing.yaml: schema: 'imgbuild.facts/2' is none of imgbuild.facts/1"),
        ("kind: project", "kind: gpus", "thing.yaml: kind: 'gpus' is none of project"),
        ("project: thing", "project: other", "thing.yaml: project: 'other' is none of thing"),
        ("rows:\n", "rows: []\nmore:\n", "thing.yaml: more: unknown key"),
        ("date: '2026-01-01'", "date: 2026-01-01", "date: expected text, found datetime.date(2026, 1, 1)"),
    ],
)
def test_a_wrong_form_names_file_and_path(tmp_path: Path, old: str, new: str, expected: str) -> None:
    assert old in MINIMAL
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, MINIMAL.replace(old, new, 1))
    assert expected.replace(".[", "[") in str(caught.value).replace(".[", "[")


@pytest.mark.parametrize("text", ["", "- 1\n", "just text\n", "a: b: c\n", "\x00"])
def test_what_is_no_table_at_all(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match=r"^thing\.yaml:"):
        read(tmp_path, text)


def test_everything_that_the_package_offers_is_there() -> None:
    for name in compat.__all__:
        assert getattr(compat, name) is not None
    with pytest.raises(AttributeError, match="has no attribute 'everything'"):
        compat.everything  # type: ignore[attr-defined] # noqa: B018


def test_judging_does_not_load_what_explains() -> None:
    code = "import sys; from builder.compat import examine, load_facts; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "builder.compat.judge" in loaded
    assert not {"builder.compat.answer", "builder.compat.nearest", "builder.compat.ask"} & set(loaded)
