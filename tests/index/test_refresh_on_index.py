"""The tables' refresh against this machine's package index."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from asking import Resolver

from builder.compat.load import TABLES
from builder.compat.refresh.command import main

pytestmark = pytest.mark.index

RELEASE = "    2.9.1: {date: '2022-06-08'}\n"
INVENTED = "    2.9.7: {date: '2022-07-01'}\n"


@pytest.fixture
def table(resolver: Resolver, tmp_path: Path) -> Path:
    """The table of TensorBoard in a copy of all; `resolver` says "not run" where there is no index."""
    shutil.copytree(TABLES, tmp_path / "tables")
    path = tmp_path / "tables/projects/tensorboard.yaml"
    assert path.read_text().count(RELEASE) == 1
    return path


def refresh(table: Path, *options: str) -> int:
    return main(["--tables", str(table.parents[1]), "--project", "tensorboard", *options])


def test_a_release_that_the_table_lacks_comes_back(table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = table.read_text()
    table.write_text(text.replace(RELEASE, ""))
    assert refresh(table) == 0
    assert f"+{RELEASE}" in capsys.readouterr().out
    assert RELEASE not in table.read_text()
    assert refresh(table, "--write") == 0
    assert RELEASE in table.read_text()


def test_a_release_that_the_index_lacks_goes_only_when_told(table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    grown = table.read_text().replace(RELEASE, RELEASE + INVENTED)
    table.write_text(grown)
    assert refresh(table, "--write") == 13
    assert "2.9.7" in capsys.readouterr().err
    assert table.read_text() == grown
    assert refresh(table, "--write", "--allow-removals") == 0
    assert INVENTED not in table.read_text()
