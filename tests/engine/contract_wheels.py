"""The wheels that the tests of the contract install: small, made on the spot, from no index."""

from __future__ import annotations

import base64
import hashlib
import zipfile
from pathlib import Path

import contract_probe
from package_index import make_wheel


def contract_wheels(folder: Path, framework: str) -> Path:
    """What `contract_probe.py` installs, for one framework; returns the folder."""
    _with_program(make_wheel(folder, "plain", "1.0"), "plain")
    make_wheel(folder, framework, contract_probe.OTHER_VERSION)
    make_wheel(folder, "needs-framework", "1.0", requires=[framework])
    make_wheel(folder, "needs-another", "1.0", requires=[f"{framework}=={contract_probe.OTHER_VERSION}"])
    for path in (folder, *folder.iterdir()):  # for whoever reads them in a container
        path.chmod(0o755 if path.is_dir() else 0o644)
    return folder


def _with_program(wheel: Path, name: str) -> None:
    """Gives a wheel a program that says `NAME works`."""
    stem = "-".join(wheel.name.split("-")[:2])
    with zipfile.ZipFile(wheel) as archive:
        members = {entry: archive.read(entry) for entry in archive.namelist()}
    added = {
        f"{name}/program.py": f"def main():\n    print('{name} works')\n".encode(),
        f"{stem}.dist-info/entry_points.txt": f"[console_scripts]\n{name} = {name}.program:main\n".encode(),
    }
    record = f"{stem}.dist-info/RECORD"
    rows = "".join(f"{path},sha256={_hash(data)},{len(data)}\n" for path, data in added.items())
    members = {**members, **added, record: rows.encode() + members[record]}
    with zipfile.ZipFile(wheel, "w") as archive:
        for path, data in members.items():
            archive.writestr(path, data)


def _hash(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
