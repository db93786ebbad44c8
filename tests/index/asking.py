"""This machine's package index, asked through uv and pip as they are.

Wheels that pip finds in a folder (`find-links`) are left out: they are somebody's own, and not what an index has.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from combinations import Resolution

from builder.site import Site

_SECONDS = 150
# What uv says when it did reach the index and there is no solution. Everything else is no answer.
_REFUSED = "No solution found when resolving dependencies"


@dataclass(frozen=True, kw_only=True)
class Said:
    """What a resolver said: True for a solution, False for none, None when it got no answer; and its words."""

    resolves: bool | None
    words: str


class Resolver:
    """Resolves as this machine would, several at once."""

    def __init__(self, program: str, site: Site, scratch: Path) -> None:
        self._program = program
        self._scratch = scratch
        self._answers: dict[tuple[tuple[str, ...], str, str], Said] = {}
        self._environment = {name: value for name, value in os.environ.items() if not name.startswith("UV_")}
        # Through the environment, since addresses may hold a password and arguments are everybody's to read.
        if site.index_url:
            self._environment["UV_DEFAULT_INDEX"] = site.index_url
        if site.extra_index_urls:
            self._environment["UV_INDEX"] = " ".join(site.extra_index_urls)
        if site.ca_bundle is not None:
            self._environment["SSL_CERT_FILE"] = str(site.ca_bundle)
        self._insecure = [word for host in site.trusted_hosts for word in ("--allow-insecure-host", host)]

    def ask(self, what: Resolution) -> Said:
        """Whether wheels exist that can be installed together. The same question is asked once."""
        question = (what.packages, what.python, what.glibc)
        if question not in self._answers:
            try:
                self._answers[question] = self._pip(what) if what.python.endswith("t") else self._uv(what)
            except subprocess.TimeoutExpired:
                return Said(resolves=None, words=f"no answer within {_SECONDS} seconds")
        return self._answers[question]

    def _uv(self, what: Resolution) -> Said:
        command = [self._program, "pip", "compile", "-", "--no-config", "--no-python-downloads"]
        # As pip does it: an extra index that has some releases does not hide those that the first one has.
        command += ["--index-strategy", "unsafe-best-match", "--only-binary", ":all:", *self._insecure]
        command += ["--python-version", what.python]
        command += ["--python-platform", f"x86_64-manylinux_{what.glibc.replace('.', '_')}"]
        ran = subprocess.run(
            [*command, "--quiet", "--color", "never"],
            input="\n".join(what.packages),
            capture_output=True,
            text=True,
            check=False,
            timeout=_SECONDS,
            env=self._environment,
            cwd=self._scratch,
        )
        return _said(ran.returncode, ran.stderr)

    def _pip(self, what: Resolution) -> Said:
        """For a free-threaded Python, for which uv resolves only where one is installed: that each wheel is there.

        pip takes any Python. It only reads the index: a dry run would download wheels of an index without metadata.
        """
        for package in what.packages:
            name, _, wanted = package.partition("==")
            said = self._versions(what, name)
            if said.resolves is None:
                return said
            if wanted not in said.words.split(", "):
                return Said(resolves=False, words=f"{package} is not among {said.words}")
        return Said(resolves=True, words="")

    def _versions(self, what: Resolution, name: str) -> Said:
        """The releases of a project that have wheels, separated by commas."""
        version = what.python.rstrip("t")
        command = [sys.executable, "-m", "pip", "index", "versions", name, "--only-binary", ":all:"]
        command += ["--implementation", "cp", "--python-version", version, "--abi", f"cp{version.replace('.', '')}t"]
        command += ["--platform", f"manylinux_{what.glibc.replace('.', '_')}_x86_64"]
        ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_SECONDS, cwd=self._scratch)
        found = re.search(r"^Available versions: (.*)$", ran.stdout, re.MULTILINE)
        return Said(resolves=True, words=found[1]) if found else Said(resolves=None, words=ran.stderr[-2000:])


def _said(code: int, errors: str) -> Said:
    if code == 0:
        return Said(resolves=True, words="")
    return Said(resolves=False if _REFUSED in errors else None, words=errors[-2000:])
