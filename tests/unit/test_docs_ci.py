"""docs/ci.md: what it shows is valid, and takes the options that exist."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from builder.cli import cli
from builder.cli.ci import ci
from builder.emit import disk
from builder.emit.gitlab import SETTINGS

ROOT = Path(__file__).parent.parent.parent
TEXT = (ROOT / "docs/ci.md").read_text()
CHECK_JSONSCHEMA = Path(sys.executable).with_name("check-jsonschema")
SCHEMAS = {
    ".github/workflows/small.yml": "vendor.github-workflows",
    ".gitlab-ci.yml": "vendor.gitlab-ci",
    ".gitlab/imgbuild.yml": "vendor.gitlab-ci",
    ".buildkite/pipeline.yml": "vendor.buildkite",
}


def snippets() -> dict[str, str]:
    blocks = re.findall(r"^```yaml\n(# (\S+)\n.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
    return {name: text for text, name in blocks}


def commands() -> list[list[str]]:
    found = re.findall(r"(?:^|- |run: )(imgbuild (?:matrix|render) [^\n>]*)", TEXT, re.MULTILINE)
    return [shlex.split(line)[1:] for line in found]


def test_every_snippet_is_known() -> None:
    assert set(snippets()) == set(SCHEMAS)
    assert len(re.findall(r"^```yaml$", TEXT, re.MULTILINE)) == len(SCHEMAS)


@pytest.mark.parametrize("name", SCHEMAS)
def test_the_snippets_are_valid(name: str, tmp_path: Path) -> None:
    file = tmp_path / "snippet.yml"
    file.write_text(snippets()[name])
    command = [CHECK_JSONSCHEMA, "--builtin-schema", SCHEMAS[name], file]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_the_snippets_for_gitlab_fit_what_is_emitted() -> None:
    assert f"# {SETTINGS.removeprefix('/')}" in TEXT
    assert list(yaml.safe_load(snippets()[SETTINGS.removeprefix("/")])) == [".imgbuild"]


def test_there_are_commands() -> None:
    assert len(commands()) >= 8


@pytest.mark.parametrize("command", commands(), ids=" ".join)
def test_the_commands_take_what_they_are_given(command: list[str]) -> None:
    cli.commands[command[0]].make_context(command[0], command[1:])


def test_the_steps_and_what_they_read_are_all_there() -> None:
    assert set(re.findall(r"^\| `imgbuild ci (\w+)`", TEXT, re.MULTILINE)) == set(ci.commands)
    variables = {f"IMGBUILD_{param.name}".upper() for step in ci.commands.values() for param in step.params}
    assert variables == set(re.findall(r"`(IMGBUILD_\w+)`", TEXT))


def test_the_estimates_are_the_code_s() -> None:
    said = TEXT.split("The estimates are in", 1)[1].split("\n\n", 1)[0]
    found = [float(number) * (1000 if unit == "GB" else 1) for number, unit in re.findall(r"([\d.]+) (GB|MB)", said)]
    assert found == [
        disk.CPU_ENVIRONMENT_MB,
        disk.CUDA_ENVIRONMENT_MB,
        disk.CUDA_DEVEL_ENVIRONMENT_MB,
        disk.CELL_MB,
        disk.PACKAGE_MB,
        disk.COMPILED_MB,
    ]
