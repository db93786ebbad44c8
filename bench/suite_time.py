"""The check suite at level cpu beside the bare import of the same framework, in two processes at once.

Usage: python bench/suite_time.py [--runs 5] [BASE=IMAGE ...]

Both run in a container of the same image, in turn, with the same limits; the time is the container's. The suite imports
the framework several times: to see what an import does, in its own process, and in each of two ranks. BASE=IMAGE: see
`healthy_images`.
"""

from __future__ import annotations

import argparse
import statistics
import sys

from healthy_images import Base, healthy_images

from builder.check import VerdictStatus, check_image
from builder.engine.connection import Engine
from builder.engine.containers import RunRequest, run

DEADLINE = 1800.0
FRAMEWORKS = {Base.HOROVOD: "torch", Base.PLAIN: "torch", Base.TENSORFLOW: "tensorflow"}
#: Two processes at once, each of which does nothing but import; fails when one of them does.
IMPORTS = "python3 -c 'import {0}' & first=$!; python3 -c 'import {0}' && wait $first"


def main() -> int:
    parser = argparse.ArgumentParser(description="Times the check suite beside the bare import of the framework.")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("images", nargs="*", metavar="BASE=IMAGE")
    arguments = parser.parse_args()
    images = healthy_images(arguments.images)
    print(f"{arguments.runs} runs each, in turn; median seconds of the container, and the median of the ratios")
    with Engine.connect() as engine:
        for base, framework in FRAMEWORKS.items():
            suites, imports = [], []
            for _ in range(arguments.runs):
                imports.append(bare(engine, images[base], framework))
                suites.append(checked(engine, images[base]))
            ratio = statistics.median(suite / least for suite, least in zip(suites, imports, strict=True))
            print(
                f"{base.value:12} suite at level cpu {statistics.median(suites):6.1f} s, "
                f"import {framework} in two processes {statistics.median(imports):5.1f} s: {ratio:.1f} x",
                flush=True,
            )
    return 0


def checked(engine: Engine, image: str) -> float:
    """Seconds of the whole suite, which must pass."""
    found = check_image(engine, image, None, deadline=DEADLINE)
    if found.verdict.status is not VerdictStatus.PASSED:
        raise SystemExit(f"{image} did not pass: {'; '.join(found.verdict.reasons)}")
    return found.seconds


def bare(engine: Engine, image: str, framework: str) -> float:
    """Seconds of two processes at once that import a framework, confined as the suite is."""
    request = RunRequest(
        image=image,
        command=("/bin/sh", "-c", IMPORTS.format(framework)),
        user="12345:12345",
        tmpfs={"/tmp": "rw,exec,nosuid,nodev,mode=1777,size=1g"},
        deadline=DEADLINE,
    )
    done = run(engine, request)
    if done.exit_code != 0:
        raise SystemExit(f"importing {framework} in {image} ended with exit code {done.exit_code}: {done.log_tail}")
    return done.seconds


if __name__ == "__main__":
    sys.exit(main())
