"""Runs the `run:` steps of GitHub workflows as GitHub would: with bash, and with `$GITHUB_OUTPUT` and `$GITHUB_ENV`."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parent.parent.parent
WORKFLOWS = ROOT / ".github/workflows"


@dataclass(kw_only=True)
class Runner:
    """A machine for one job.

    Attributes:
        directory: its checkout, where steps run.
        environment: of every step; grows by what steps write to `$GITHUB_ENV`.
        outputs: what steps wrote to `$GITHUB_OUTPUT`.
        said: standard output and error of the steps, so far.
    """

    directory: Path
    environment: dict[str, str]
    outputs: dict[str, str] = field(default_factory=dict)
    said: str = ""

    def job(self, workflow: str, name: str, expressions: Mapping[str, str]) -> int:
        """Runs a job's `run:` steps until one fails; returns its exit code, or 0.

        Args:
            workflow: the file's name.
            name: the job's.
            expressions: values of the `${{ … }}` expressions that stand in the environments of its steps.
        """
        document = yaml.safe_load((WORKFLOWS / workflow).read_text())
        shared = {name: str(value) for name, value in document.get("env", {}).items()}
        for step in document["jobs"][name]["steps"]:
            if "run" not in step:
                continue
            code = self._step(step, {**shared, **self.environment, **_environment(step, expressions)})
            if code:
                return code
        return 0

    def _step(self, step: dict[str, Any], environment: dict[str, str]) -> int:
        # Where a word of the environment must not become a word of the script.
        assert "${{" not in step["run"], step
        files = {name: self.directory / f".{name.lower()}" for name in ("GITHUB_OUTPUT", "GITHUB_ENV")}
        for file in files.values():
            file.write_text("")
        ran = subprocess.run(
            ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]],
            cwd=self.directory,
            env={**environment, **{name: str(file) for name, file in files.items()}},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=1800,
            check=False,
        )
        self.said += ran.stdout
        self.outputs |= _values(files["GITHUB_OUTPUT"])
        self.environment |= _values(files["GITHUB_ENV"])
        return ran.returncode


def _environment(step: dict[str, Any], expressions: Mapping[str, str]) -> dict[str, str]:
    def value(text: str) -> str:
        return re.sub(r"\$\{\{\s*(.*?)\s*\}\}", lambda match: expressions[match[1]], text)

    return {name: value(str(text)) for name, text in step.get("env", {}).items()}


def _values(file: Path) -> dict[str, str]:
    return dict(line.split("=", 1) for line in file.read_text().splitlines())
