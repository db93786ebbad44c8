"""Commands timed in turn, in one run, as ratios to one of them: what a claim about speed is made of."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

# As on a user's machine: modules are compiled once, by the warm-up, and not at every start.
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
IMGBUILD = str(Path(sys.executable).with_name("imgbuild"))


def wall(command: Sequence[str]) -> float:
    """Seconds that one run of a command takes.

    Raises:
        subprocess.CalledProcessError: it failed.
    """
    started = time.perf_counter()
    subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True, env=ENVIRONMENT)
    return time.perf_counter() - started


def compare(commands: Mapping[str, Sequence[str]], against: str) -> None:
    """Times commands in turn, as often as the first argument of this process says (15), and prints a line for each."""
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 15
    for command in commands.values():
        wall(command)
    seconds: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(runs):
        for name, command in commands.items():
            seconds[name].append(wall(command))
    print(f"{runs} runs each, in turn; median seconds, and the median of the ratios to: {against}")
    for name, times in seconds.items():
        ratio = statistics.median(time_ / least for time_, least in zip(times, seconds[against], strict=True))
        print(f"{statistics.median(times):7.3f} s  {ratio:5.2f} x  {name}")
