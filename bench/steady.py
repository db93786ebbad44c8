"""The check suite many times in a row on a healthy image, while every core is busy with something else.

Usage: python bench/steady.py [--runs 20] [--base horovod] [BASE=IMAGE ...]

Prints a line for each run, and how many passed with the smallest, the median and the largest time. The exit code is 1
when one did not pass. BASE=IMAGE: see `healthy_images`.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator

from healthy_images import Base, healthy_images

from builder.check import VerdictStatus, check_image
from builder.engine.connection import Engine

#: Seconds: a run takes about a minute on idle cores, and two to three beside as many busy loops as there are cores.
DEADLINE = 1800.0


def main() -> int:
    parser = argparse.ArgumentParser(description="Runs the check suite many times in a row under load.")
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--base", type=Base, default=Base.HOROVOD, choices=list(Base))
    parser.add_argument("images", nargs="*", metavar="BASE=IMAGE")
    arguments = parser.parse_args()
    image = healthy_images(arguments.images)[arguments.base]
    seconds: list[float] = []
    passed = 0
    with Engine.connect() as engine, busy() as loops:
        for number in range(1, arguments.runs + 1):
            run = check_image(engine, image, None, deadline=DEADLINE)
            good = run.verdict.status is VerdictStatus.PASSED
            passed += good
            seconds.append(run.seconds)
            why = "" if good else f": {'; '.join(run.verdict.reasons)}"
            print(f"{number:3} {run.verdict.status.value} in {run.seconds:.1f} s{why}", flush=True)
        least, middle, most = min(seconds), statistics.median(seconds), max(seconds)
        print(
            f"{passed} of {arguments.runs} passed beside {loops} busy loops on {os.cpu_count()} cores; "
            f"min {least:.1f} s, median {middle:.1f} s, max {most:.1f} s"
        )
    return 0 if passed == arguments.runs else 1


@contextlib.contextmanager
def busy() -> Iterator[int]:
    """A process for each core that computes as long as this one is there; yields how many."""
    count = os.cpu_count() or 1
    # A signal may end this process before it ends them.
    program = f"import os\nwhile os.getppid() == {os.getpid()}: pass"
    loops = [subprocess.Popen([sys.executable, "-c", program]) for _ in range(count)]
    try:
        yield count
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


if __name__ == "__main__":
    sys.exit(main())
