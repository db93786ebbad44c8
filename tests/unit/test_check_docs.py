"""The host's own checks stand in the documentation as the code has them."""

from __future__ import annotations

import re
from pathlib import Path

from builder.check import HOST_CHECKS


def test_the_host_s_checks_are_documented() -> None:
    text = (Path(__file__).parents[2] / "docs/check.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `((?:run|cell)\.[a-z]+)` \| ([a-z]+) \| (.*) \|$", text, re.MULTILINE)
    assert rows == [(name, level.value, catches) for name, (level, catches) in HOST_CHECKS.items()]
