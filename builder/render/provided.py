"""Wheels without code: one installed package says that it is another as well.

A wheel's metadata has no field for that which pip would read. TensorFlow's own builds name themselves after what they
are for (`tensorflow-cpu`), and packages require `tensorflow`: pip would install that beside it, over the same files.
A wheel of that name, which holds nothing and requires the build that is there, satisfies them. TensorFlow publishes
such wheels itself, of `tensorflow` for Windows, which require `tensorflow-intel`.
"""

from __future__ import annotations

import base64
import hashlib
import io
import zipfile

DIRECTORY = "provided"
"""The directory of these wheels in the build context."""

_MODE = 0o100644 << 16
_EPOCH = (1980, 1, 1, 0, 0, 0)
"""The earliest date that an archive of this kind can hold: the same bytes on every day."""


def wheel_name(project: str, version: str) -> str:
    """The file name of a wheel for every Python and platform."""
    return f"{project.replace('-', '_')}-{version}-py3-none-any.whl"


def provided_wheel(project: str, version: str, by: str) -> bytes:
    """A wheel of `project` that holds nothing and requires `by`; the same bytes every time.

    Args:
        project: normalised name.
        version: in PEP 440's normal form.
        by: the requirement that stands for it, such as "tensorflow-cpu==2.21.0".
    """
    info = f"{project.replace('-', '_')}-{version}.dist-info"
    files = {
        f"{info}/METADATA": (
            f"Metadata-Version: 2.1\nName: {project}\nVersion: {version}\n"
            f"Summary: Holds nothing: {by} is installed in its place\nRequires-Dist: {by}\n"
        ),
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: imgbuild\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{path},{_digest(text)},{len(text.encode())}\n" for path, text in files.items())
    files[f"{info}/RECORD"] = f"{record}{info}/RECORD,,\n"
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_STORED) as archive:
        for path, text in files.items():
            entry = zipfile.ZipInfo(path, _EPOCH)
            entry.create_system = 3  # Unix, wherever this runs
            entry.external_attr = _MODE
            archive.writestr(entry, text.encode())
    return data.getvalue()


def _digest(text: str) -> str:
    """As RECORD holds it."""
    return "sha256=" + base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
