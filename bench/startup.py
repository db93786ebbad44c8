"""Start-up: what `imgbuild` costs before it does anything, beside a bare interpreter.

Usage: python bench/startup.py [RUNS]
"""

from __future__ import annotations

import sys

from side_by_side import IMGBUILD, compare

if __name__ == "__main__":
    compare(
        {
            "python -c pass": [sys.executable, "-c", "pass"],
            "imgbuild --help": [IMGBUILD, "--help"],
            "imgbuild matrix --format json": [IMGBUILD, "matrix", "--format", "json"],
        },
        against="python -c pass",
    )
