"""Start-up: what `imgbuild` costs before it does anything, beside a bare interpreter, in turn and in one run.

Usage: python bench/startup.py [RUNS]
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

# As on a user's machine: modules are compiled once, by the warm-up, and not at every start.
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
IMGBUILD = str(Path(sys.executable).with_name("imgbuild"))
COMMANDS = {
    "python -c pass": [sys.executable, "-c", "pass"],
    "imgbuild --help": [IMGBUILD, "--help"],
    "imgbuild matrix --format json": [IMGBUILD, "matrix", "--format", "json"],
}


def wall(command: list[str]) -> float:
    """Seconds that one run of a command takes."""
    started = time.perf_counter()
    subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True, env=ENVIRONMENT)
    return time.perf_counter() - started


def main() -> None:
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 15
    for command in COMMANDS.values():
        wall(command)
    seconds: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(runs):
        for name, command in COMMANDS.items():
            seconds[name].append(wall(command))
    bare = seconds["python -c pass"]
    print(f"{runs} runs each, in turn; median seconds, and the median of the ratios to the bare interpreter")
    for name, times in seconds.items():
        ratio = statistics.median(time_ / base for time_, base in zip(times, bare, strict=True))
        print(f"{statistics.median(times):7.3f} s  {ratio:5.2f} x  {name}")


if __name__ == "__main__":
    main()
