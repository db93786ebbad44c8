"""Makes the release of the suite that images carry as `imgcheck`; see `docs/imgcheck.md`.

    python -m builder.check.release dockerfiles/files/imgcheck.pyz

The file is committed and part of the images' keys. So it is written anew only on purpose: an edited check judges the
next image, through the suite that imgbuild copies in, and rebuilds none.
"""

from __future__ import annotations

import importlib.resources
import io
import json
import sys
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import builder
from builder.check.suite import modules_in, pack
from builder.errors import ConfigError

#: The controller must start without site-packages, as in a check; its processes have them. `env -S`: coreutils 8.30.
SHEBANG = b"#!/usr/bin/env -S python3 -I -S\n"

_MAIN = b"""import sys

from builder.checks.imgcheck import main

if __name__ == "__main__":
    sys.exit(main())
"""
_MANIFEST = "builder/checks/release.json"


@dataclass(frozen=True, kw_only=True)
class Release:
    """What a released suite says of itself.

    Attributes:
        version: of the imgbuild that made it.
        suite: hash of the suite's files, as `Suite.sha256`.
        checks: how many it has.
    """

    version: str
    suite: str
    checks: int


def make(sources: Mapping[str, bytes] | None = None) -> bytes:
    """The release as a program: the same bytes for the same sources, with one build of zlib.

    Args:
        sources: modules by path relative to `checks/`; None for those of this imgbuild.
    """
    if sources is None:
        sources = modules_in(importlib.resources.files("builder") / "checks")
    packed = pack(sources)
    manifest = {"version": builder.__version__, "suite": packed.sha256, "checks": len(packed.checks)}
    members = {f"builder/checks/{path}": data for path, data in sources.items()}
    members |= {"builder/__init__.py": b"", "__main__.py": _MAIN, _MANIFEST: json.dumps(manifest).encode()}
    stream = io.BytesIO()
    stream.write(SHEBANG)
    with zipfile.ZipFile(stream, "a", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name in sorted(members):
            entry = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
            entry.create_system = 3
            entry.external_attr = 0o100644 << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, members[name])
    return stream.getvalue()


def read(data: bytes) -> Release:
    """Reads what a released suite says of itself, and whether its files are those that its hash names.

    Raises:
        ConfigError: it is no release of the suite, or was changed after it was made.
    """
    if not data.startswith(SHEBANG):
        raise ConfigError("this is no imgcheck: it does not begin with its interpreter")
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = {name: archive.read(name) for name in archive.namelist()}
        manifest: object = json.loads(members[_MANIFEST])
    except (KeyError, ValueError, zipfile.BadZipFile) as error:
        raise ConfigError(f"this is no imgcheck: {error}") from None
    prefix = "builder/checks/"
    sources = {name[len(prefix) :]: text for name, text in members.items() if name.startswith(prefix)}
    del sources["release.json"]
    fields = manifest if isinstance(manifest, dict) else {}
    packed = pack(sources)
    if fields.get("suite") != packed.sha256:
        raise ConfigError("this imgcheck was changed after it was made", hint="make imgcheck")
    return Release(version=str(fields.get("version")), suite=packed.sha256, checks=len(packed.checks))


def main(arguments: list[str]) -> int:
    """Writes the release into the file that is named."""
    if len(arguments) != 1:
        sys.stderr.write("usage: python -m builder.check.release FILE\n")
        return 2
    data = make()
    path = Path(arguments[0])
    path.write_bytes(data)
    path.chmod(0o755)
    found = read(data)
    sys.stdout.write(
        f"{path}: imgcheck {found.version}, {found.checks} checks, {len(data):,} bytes, suite {found.suite}\n"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
