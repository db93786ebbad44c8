"""What a failed step's output says of why it failed: pip's hashes, a script's last word, what was not reached."""

from __future__ import annotations

import pytest

from builder.engine.causes import named_cause, unreached

WANTED, FOUND = "a" * 64, "b" * 64
# As pip 26 and Debian's pip 23 write it.
PIP = f"""\
Collecting absl-py==2.5.1 (from -r /run/packages/list.txt (line 1))
  Downloading absl_py-2.5.1-py3-none-any.whl (135 kB)
ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE. If you have updated the package versions, \
please update the hashes. Otherwise, examine the package contents carefully; someone may have tampered with them.
    absl-py==2.5.1 from https://index.invalid/packages/absl_py-2.5.1-py3-none-any.whl (from -r /run/list.txt (line 1)):
        Expected sha256 {WANTED}
             Got        {FOUND}
"""


def test_a_hash_that_differs_is_named() -> None:
    cause = named_cause([*PIP.splitlines(), "", "[notice] something else"])
    assert cause is not None
    message, hint = cause
    assert message == (
        "the hash of absl-py==2.5.1 (absl_py-2.5.1-py3-none-any.whl) differs from the lock: "
        f"it is sha256:{FOUND}, the lock says sha256:{WANTED}"
    )
    assert "imgbuild lock --upgrade PACKAGE" in hint


def test_a_hash_of_a_file_that_is_not_named() -> None:
    log = PIP.replace(" from https://index.invalid/packages/absl_py-2.5.1-py3-none-any.whl", "")
    cause = named_cause(log.splitlines())
    assert cause is not None
    assert cause[0].startswith("the hash of absl-py==2.5.1 differs from the lock: it is sha256:b")
    # Only the report's first line was kept.
    cause = named_cause(PIP.splitlines()[:3])
    assert cause is not None
    assert cause[0] == "the hash of a package differs from the lock"


def test_the_last_word_of_a_script_is_the_cause() -> None:
    log = ["Unpacking b", "imgbuild: b is 1:3, the lock says 1:2; run: imgbuild lock --upgrade debian", ""]
    assert named_cause(log) == ("b is 1:3, the lock says 1:2", "run: imgbuild lock --upgrade debian")
    assert named_cause(["imgbuild: no lists"]) == ("no lists", "")


@pytest.mark.parametrize("log", [[], ["error: no"], ["see imgbuild: it is good"], [f"        Got        {FOUND}"]])
def test_anything_else_names_no_cause(log: list[str]) -> None:
    assert named_cause(log) is None


# As uv 0.11 writes it where no name is resolved.
UV = """\
error: Failed to install cpython-3.12.16-linux-x86_64-gnu
  cause: Request failed after 3 retries in 11.1s
  cause: Failed to download `https://downloads.invalid/python/cpython-3.12.16.tar.gz`
  cause: error sending request for url (https://downloads.invalid/python/cpython-3.12.16.tar.gz)
  cause: client error (Connect)
  cause: dns error
  cause: failed to lookup address information: Name or service not known
"""


def test_what_a_step_could_not_reach() -> None:
    why = "Name or service not known"
    assert unreached(UV.splitlines()) == ("https://downloads.invalid/python/cpython-3.12.16.tar.gz", why)
    assert unreached(["curl: (7) Failed to connect: Connection refused"]) == ("", "Connection refused")


def test_a_step_that_went_on_without_it_did_not_fail_for_it() -> None:
    assert unreached([*UV.splitlines(), *["compiling"] * 12]) is None
    assert unreached(["see https://docs.invalid", "exit 1"]) is None
    assert unreached([]) is None
