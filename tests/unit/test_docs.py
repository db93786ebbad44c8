"""The documents say what the code says."""

from __future__ import annotations

import importlib
import re
import shlex
from pathlib import Path

import combinations
import pytest
from click.testing import CliRunner

import builder.checks.contract
from builder.cli import cli

ROOT = Path(__file__).parent.parent.parent


def test_every_check_is_in_the_table_with_its_level_and_deadline(pytestconfig: pytest.Config) -> None:
    path = ROOT / "docs/check.md"
    text = path.read_text()
    table = text.split("<!-- checks:", 1)[1].split("<!-- /checks -->", 1)[0]
    rows = [line for line in table.splitlines() if line.startswith("| `")]
    expected = [
        f"| `{check.name}` | {check.level} | {check.deadline:g} s | {check.catches} |"
        for group in builder.checks.contract.groups()
        for check in group.checks
    ]
    assert len(expected) >= 10
    if pytestconfig.getoption("--update-golden"):
        before, after = text.split(table)
        head = [table.splitlines()[0], "| check | level | deadline | what it catches |", "|---|---|---|---|"]
        path.write_text(before + "\n".join([*head, *expected, ""]) + after)
        return
    assert rows == expected


def test_every_command_is_in_the_readme() -> None:
    readme = (ROOT / "README.md").read_text()
    assert set(cli.commands) == set(re.findall(r"^\| `imgbuild (\w+)", readme, re.MULTILINE))


def test_every_link_in_the_documents_leads_somewhere() -> None:
    documents = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]
    links = [
        (document, target)
        for document in documents
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", document.read_text())
    ]
    assert len(links) >= 5
    assert [(document.name, target) for document, target in links if not (document.parent / target).exists()] == []


def errors_by_code() -> set[tuple[str, int]]:
    import builder.engine.errors
    import builder.errors

    return {
        (name, value.exit_code)
        for module, base in (
            (builder.errors, builder.errors.ImgbuildError),
            (builder.engine.errors, builder.engine.errors.EngineError),
        )
        for name, value in vars(module).items()
        if isinstance(value, type) and issubclass(value, base) and value is not base
    }


def test_every_exit_code_is_documented() -> None:
    table = (ROOT / "docs/architecture.md").read_text().split("## Exit codes", 1)[1].split("\n## ", 1)[0]
    rows = re.findall(r"^\| (\d+)[^|]*\|([^|]*)\|", table, re.MULTILINE)
    documented = {(name, int(code)) for code, classes in rows for name in re.findall(r"`(\w+)`", classes)}
    assert documented - {("UsageError", 2)} == errors_by_code()


def test_the_help_lists_every_exit_code() -> None:
    table = (ROOT / "docs/architecture.md").read_text().split("## Exit codes", 1)[1].split("\n## ", 1)[0]
    # What is reserved is not there yet.
    rows = [row for row in re.findall(r"^\| (\d[^|]*)\|(.*)", table, re.MULTILINE) if "reserved" not in row[1]]
    codes = {int(code) for cell, _ in rows for code in re.findall(r"\d+", cell)}
    text = (cli.help or "").split("Exit codes:", 1)[1]
    assert {int(code) for code in re.findall(r"\b\d+\b", text)} == codes


@pytest.mark.parametrize("module", ["builder.errors", "builder.engine.errors"])
def test_the_tree_of_a_module_names_its_classes_and_codes(module: str) -> None:
    loaded = importlib.import_module(module)
    tree = dict(re.findall(r"[├└]── (\w+) +(\d+) ", loaded.__doc__ or ""))
    assert len(tree) >= 8
    assert set(tree.items()) <= {(name, str(code)) for name, code in errors_by_code()}
    own = {name for name, _ in errors_by_code() if hasattr(loaded, name)}
    assert {name for name in own if name not in (loaded.__doc__ or "")} == set()


def shown_commands() -> list[list[str]]:
    """`imgbuild matrix` and the selecting options, as the README shows them."""
    readme = (ROOT / "README.md").read_text()
    lines = re.findall(r"^\$ (imgbuild matrix[^#\n]*)", readme, re.MULTILINE)
    options = re.findall(r"`(--(?:only|skip) [^`]+)`", readme)
    return [shlex.split(line)[1:] for line in lines] + [["matrix", *shlex.split(option)] for option in options]


def test_the_readme_shows_a_glob_and_a_term() -> None:
    shown = shown_commands()
    assert ["matrix"] in shown
    assert {command[1] for command in shown if len(command) == 3} == {"--only", "--skip"}


@pytest.mark.parametrize("command", shown_commands(), ids=" ".join)
def test_what_the_readme_shows_works_and_selects_something(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ran = CliRunner().invoke(cli, command)
    assert ran.exit_code == 0, ran.output
    assert "matches no cell" not in ran.output
    assert re.search(r"^[1-9]\d* cells, ", ran.output, re.MULTILINE)


def test_the_readme_explains_as_the_command_does_and_counts_the_combinations() -> None:
    readme = (ROOT / "README.md").read_text()
    shown = re.search(r"^\$ imgbuild (explain [^\n]*)\n(.*?)```", readme, re.MULTILINE | re.DOTALL)
    assert shown is not None
    ran = CliRunner().invoke(cli, [*shlex.split(shown[1])], standalone_mode=False)
    assert ran.output == shown[2]
    rows = combinations.load()
    resolved = sum(row.index is not None for row in rows)
    assert f"[{len(rows)} combinations]" in readme
    assert f"{resolved} of them by really\nresolving them" in readme
