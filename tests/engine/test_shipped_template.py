"""The shipped template with extras that the default matrix does not have: names that are not their modules' names."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import docker
import pytest
from command import Built

from builder.project import shipped_data

pytestmark = pytest.mark.engine

EXTRAS = """\
extras:
  odd-names: {packages: [typing-extensions, tensorboard-data-server, pyyaml, protobuf], named: true}
"""


def test_extras_are_imported_by_their_modules(built: Built, tmp_path: Path) -> None:
    """Shares every layer but the last ones with the default matrix."""
    matrix = (shipped_data() / "matrix.yaml").read_text()
    matrix = re.sub(r"^include:.*?(?=^bases:)", "", matrix, flags=re.MULTILINE | re.DOTALL)
    matrix = re.sub(r", tensorflow[^],]*", "", matrix)  # on the axis and in the alias
    before, _, after = matrix.partition("extras:\n  horovod:")
    assert after
    before = before.replace("    - [tensorboard, dask]\n    - [horovod, tensorboard, dask]\n", "    - [odd-names]\n")
    after = after.partition("defaults:")[2].replace("-horovod", "-odd-names")
    (tmp_path / "matrix.yaml").write_text(f"{before}{EXTRAS}\ndefaults:{after}")
    # The default matrix's locks, and what they lack of this one.
    shutil.copytree((built.folder or shipped_data()) / "dockerfiles/locks", tmp_path / "dockerfiles/locks")
    assert built.run("build", "--no-check", cwd=tmp_path, state=tmp_path / "state").code == 19
    ran = built.run("lock", "--part", "python", cwd=tmp_path, state=tmp_path / "state")
    assert ran.code == 0, ran.out + ran.err
    arguments = ("build", "--no-check", "--bases", "bootstrap", "--format", "json")
    ran = built.run(*arguments, cwd=tmp_path, state=tmp_path / "state")
    assert ran.code == 0, ran.out + ran.err
    (cell,) = ran.json["cells"]
    client = docker.from_env()
    script = "find /opt/venv/lib -name '*.pyc' | sed 's,.*site-packages/,,'"
    try:
        found = client.containers.run(cell["image_id"], ["sh", "-c", script], remove=True).decode()
    finally:
        client.close()
    for compiled in ("__pycache__/typing_extensions.", "tensorboard_data_server/", "yaml/", "google/protobuf/"):
        assert f"\n{compiled}" in f"\n{found}"
