"""Runs inside an image, as root: what lies in its file system that should not, as one line of JSON.

    python3 contract_scan.py

Python 3.9, standard library only.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import stat
from collections.abc import Iterator

#: Directories whose content a build leaves empty: lists and archives of packages, caches, temporary files.
EMPTY = (
    "/var/lib/apt/lists",
    "/var/cache/apt/archives",
    "/root/.cache",
    "/home/user",
    "/workspace",
    "/tmp",
    "/var/tmp",
)
#: What apt keeps there in any case.
KEPT = ("/var/cache/apt/archives/partial", "/var/cache/apt/archives/lock")
CREDENTIALS = re.compile(
    r"/(\.netrc|\.pypirc|\.git-credentials|pip\.conf|\.docker/config\.json|\.aws/credentials|\.ssh/.+|ssh_host_.+_key"
    r"|run/secrets/.+)$"
)
PRIVATE_KEY = re.compile(rb"^-----BEGIN [A-Z ]*PRIVATE KEY-----", re.MULTILINE)
#: Bytes; a file that is nothing but a key is much smaller.
KEY_LIMIT = 1 << 16


def main() -> None:
    kinds = ("setuid", "capabilities", "writable", "left", "credentials", "keys")
    found: dict[str, list[str]] = {kind: [] for kind in kinds}
    published = {str(file.locate()) for each in importlib.metadata.distributions() for file in each.files or ()}
    for path, status in walk("/"):
        kind = status.st_mode
        if stat.S_ISREG(kind) and kind & (stat.S_ISUID | stat.S_ISGID):
            found["setuid"].append(path)
        if not stat.S_ISLNK(kind) and kind & stat.S_IWOTH:
            found["writable"].append(path)
        if CREDENTIALS.search(path):
            found["credentials"].append(path)
        if any(path.startswith(f"{empty}/") for empty in EMPTY) and not stat.S_ISDIR(kind) and path not in KEPT:
            found["left"].append(path)
        if stat.S_ISREG(kind):
            if "security.capability" in os.listxattr(path):
                found["capabilities"].append(path)
            if status.st_size < KEY_LIMIT and path not in published and holds_key(path):
                found["keys"].append(path)
    print(json.dumps({key: sorted(paths) for key, paths in found.items()}))


def walk(top: str) -> Iterator[tuple[str, os.stat_result]]:
    """Everything on the image's own file system: not /proc, /sys, /dev, and not what is mounted into the container."""
    device = os.lstat(top).st_dev
    for directory, directories, files in os.walk(top):
        for name in (*directories, *files):
            path = os.path.join(directory, name)  # noqa: PTH118
            status = os.lstat(path)
            if status.st_dev == device:
                yield path, status
        directories[:] = [d for d in directories if os.lstat(os.path.join(directory, d)).st_dev == device]  # noqa: PTH118


def holds_key(path: str) -> bool:
    with open(path, "rb") as file:  # noqa: PTH123
        return PRIVATE_KEY.search(file.read()) is not None


if __name__ == "__main__":
    main()
