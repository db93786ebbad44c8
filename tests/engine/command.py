"""The `imgbuild` command as tests run it."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LABEL = "imgbuild-test"
"""The label by which what the tests make is found and removed."""

CELLS = (
    "torch-2.13.0-cpu-py3.11",
    "torch-2.13.0-cpu-py3.11-horovod",
    "tensorflow-2.21.0-cpu-py3.11",
    "tensorflow-2.21.0-cpu-py3.11-horovod",
)
"""The cells of the default matrix that the tests build. The others are built by `make test-images`."""


@dataclass(frozen=True, kw_only=True)
class Built:
    """`CELLS`, built once for all tests under this run's prefix, by the command itself.

    Attributes:
        repository: the prefix of its images.
        report: what `imgbuild build --format json` said.
        environment: for further runs of the command: this machine's, with a state directory of this run's own.
        folder: the folder of the matrix; None for the current one.
    """

    repository: str
    report: dict[str, Any]
    environment: dict[str, str]
    folder: Path | None = None

    def run(self, *arguments: str, state: Path | None = None, cwd: Path | None = None) -> Ran:
        """Runs the command under this run's prefix; `state` replaces the state directory."""
        environment = {**self.environment, **({"IMGBUILD_STATE_DIR": str(state)} if state else {})}
        return imgbuild(*arguments, "--repository", self.repository, environment=environment, cwd=cwd or self.folder)

    def cell(self, suffix: str) -> dict[str, Any]:
        """The outcome of the first build of the cell whose id ends in `suffix`."""
        (found,) = [cell for cell in self.report["cells"] if cell["cell"].endswith(suffix)]
        return dict(found)


@dataclass(frozen=True, kw_only=True)
class Ran:
    """What one run of the command came to."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Standard output, which must be one JSON document."""
        return json.loads(self.out)


def imgbuild(*arguments: str, environment: dict[str, str], cwd: Path | None = None) -> Ran:
    """Runs the installed command as a user would."""
    program = Path(sys.executable).with_name("imgbuild")
    ran = subprocess.run(
        [program, *arguments], env=environment, cwd=cwd, capture_output=True, text=True, timeout=1800, check=False
    )
    return Ran(code=ran.returncode, out=ran.stdout, err=ran.stderr)
