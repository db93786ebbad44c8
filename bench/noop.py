"""A run that changes nothing: `imgbuild build` on a matrix that is verified, beside what it must at least cost.

Usage: python bench/noop.py [RUNS], where `imgbuild build` has passed before.
"""

from __future__ import annotations

import sys

from side_by_side import IMGBUILD, compare

if __name__ == "__main__":
    compare(
        {
            "python -c pass": [sys.executable, "-c", "pass"],
            "python -c 'import docker' and one ping": [
                sys.executable,
                "-c",
                "import docker; docker.from_env().ping()",
            ],
            "docker image ls": ["docker", "image", "ls"],
            "imgbuild build, nothing to do": [IMGBUILD, "build"],
        },
        against="python -c 'import docker' and one ping",
    )
