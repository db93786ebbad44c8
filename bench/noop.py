"""A run that changes nothing: `imgbuild build` on a matrix that is verified, beside what it must at least cost.

Usage: python bench/noop.py [RUNS], where `imgbuild build` has passed before.
"""

from __future__ import annotations

import statistics
import sys

from startup import IMGBUILD, wall

COMMANDS = {
    "python -c pass": [sys.executable, "-c", "pass"],
    "python -c 'import docker' and one ping": [sys.executable, "-c", "import docker; docker.from_env().ping()"],
    "docker image ls": ["docker", "image", "ls"],
    "imgbuild build, nothing to do": [IMGBUILD, "build"],
}


def main() -> None:
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 15
    for command in COMMANDS.values():
        wall(command)
    seconds: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(runs):
        for name, command in COMMANDS.items():
            seconds[name].append(wall(command))
    floor = seconds["python -c 'import docker' and one ping"]
    print(f"{runs} runs each, in turn; median seconds, and the median of the ratios to importing docker and one ping")
    for name, times in seconds.items():
        ratio = statistics.median(time / least for time, least in zip(times, floor, strict=True))
        print(f"{statistics.median(times):7.3f} s  {ratio:5.2f} x  {name}")


if __name__ == "__main__":
    main()
