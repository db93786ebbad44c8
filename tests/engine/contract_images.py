"""The images whose contract is tested, and containers of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker

HERE = Path(__file__).parent
WHERE = "/mnt"
"""Where a container finds the files of `mounted`."""


@dataclass(frozen=True)
class Ran:
    """How a container ended: its exit code, and what it wrote to stdout and to stderr."""

    code: int
    out: str
    err: str


def run(client: docker.DockerClient, image: str, command: Sequence[str], **options: Any) -> Ran:
    """`docker run` with these options of the SDK, and without a network unless they say otherwise."""
    container = client.containers.create(image, command=list(command), **{"network_mode": "none", **options})
    try:
        container.start()
        code = int(container.wait(timeout=300)["StatusCode"])
        out, err = (container.logs(stdout=out, stderr=not out).decode() for out in (True, False))
        return Ran(code, out, err)
    finally:
        container.remove(force=True, v=True)


def probe(client: docker.DockerClient, image: str, wheels: Path, framework: str, **options: Any) -> dict[str, Any]:
    """What `contract_probe.py` finds in a container with these options."""
    volumes = {**mounted(wheels), **options.pop("volumes", {})}
    command = ["python", f"{WHERE}/code/contract_probe.py", f"{WHERE}/wheels", framework]
    ran = run(client, image, command, volumes=volumes, **options)
    assert ran.code == 0, ran.out + ran.err
    assert ran.err == ""
    return dict(json.loads(ran.out))


def mounted(wheels: Path | None = None) -> dict[str, dict[str, str]]:
    """The programs of these tests and a folder of wheels, for a container to read."""
    folders = {HERE: "code", **({wheels: "wheels"} if wheels else {})}
    return {str(folder): {"bind": f"{WHERE}/{name}", "mode": "ro"} for folder, name in folders.items()}


def framework_of(cell: str) -> str:
    """The project that a cell of the default matrix is about."""
    return cell.partition("-")[0]
