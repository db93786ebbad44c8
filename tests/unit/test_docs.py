"""The documents say what the code says."""

from __future__ import annotations

import importlib
import pkgutil
import re
from pathlib import Path

import builder.checks.groups
from builder.cli import cli

ROOT = Path(__file__).parent.parent.parent


def test_every_check_is_in_the_table_with_its_level_and_deadline() -> None:
    text = (ROOT / "docs/check.md").read_text()
    table = text.split("<!-- checks:", 1)[1].split("<!-- /checks -->", 1)[0]
    rows = [line for line in table.splitlines() if line.startswith("| `")]
    expected = {
        f"| `{check.name}` | {check.level} | {check.deadline:g} s | {check.catches} |"
        for module in pkgutil.iter_modules(builder.checks.groups.__path__)
        for check in importlib.import_module(f"builder.checks.groups.{module.name}").GROUP.checks
    }
    assert len(expected) >= 10
    assert set(rows) == expected


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


def test_every_exit_code_is_documented() -> None:
    import builder.engine.errors
    import builder.errors

    table = (ROOT / "docs/architecture.md").read_text()
    for module in (builder.errors, builder.engine.errors):
        for name, value in vars(module).items():
            code = getattr(value, "exit_code", 1)
            if isinstance(value, type) and issubclass(value, Exception) and code != 1:
                assert re.search(rf"^\| .*\b{code}\b.* \|", table, re.MULTILINE), name
