"""What apt's simulations say, as `files/apt-resolve` writes them."""

from __future__ import annotations

import pytest

from builder.errors import BaseError
from builder.resolve.debian import parse_simulations

PYTHON = """\
request
NOTE: This is only a simulation!
Reading package lists...
The following NEW packages will be installed:
  libssl3 python3
Inst libssl3 (3.0.22-1~deb12u2 Debian:12.15/oldstable [amd64])
Inst libc6 [2.36-9+deb12u8] (2.36-9+deb12u9 Debian:12.15/oldstable, Debian-Security:12 [amd64]) []
Inst python3 (3.11.2-1+b1 Debian:12.15/oldstable [amd64])
Inst libfoo:i386 (1:1.0 Debian:12.15/oldstable [i386])
Conf libssl3 (3.0.22-1~deb12u2 Debian:12.15/oldstable [amd64])
status 0
"""
NOTHING = "request\nReading package lists...\n0 upgraded, 0 newly installed, 0 to remove\nstatus 0\n"


def test_versions_are_read() -> None:
    assert parse_simulations(PYTHON + NOTHING, ["python3", "tini"], "base b") == [
        {"libssl3": "3.0.22-1~deb12u2", "libc6": "2.36-9+deb12u9", "python3": "3.11.2-1+b1", "libfoo": "1:1.0"},
        {},
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "request\nReading package lists...\nE: Unable to locate package pythn3\nstatus 100\n",
            "apt cannot install pythn3: Unable to locate package pythn3",
        ),
        ("request\nRemv libold [1.0]\nInst pythn3 (1.0 x [amd64])\nstatus 0\n", "apt would remove libold to install"),
        ("request\nInst a (1.0 x [amd64])\n", "apt cannot install pythn3: it says nothing"),
        ("", "apt answered 0 of 1 questions"),
    ],
)
def test_what_apt_cannot_do_is_an_error(text: str, message: str) -> None:
    with pytest.raises(BaseError) as caught:
        parse_simulations(text, ["pythn3"], "base b")
    assert message in caught.value.message
    assert caught.value.where == "base b"
