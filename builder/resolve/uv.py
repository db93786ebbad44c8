"""Runs uv, the resolver: requirements into files, with this machine's settings and no others.

uv reads neither pip's configuration nor, here, its own: the site says it all. Addresses go through the environment,
because a command line is readable by everybody on the machine.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from builder.errors import ConfigError, ImgbuildError, Impossible, IndexUnavailable, Interrupted, NotLocked
from builder.resolve.indexes import Sources
from builder.resolve.pylock import Release, canonical, pylock_of, read_pylock
from builder.resolve.target import ARCHITECTURE, Target
from builder.site import redact
from builder.site.settings import local_path

if TYPE_CHECKING:
    from builder.site import Site

_UV_GLIBCS = (17, 28, *range(31, 41))
"""Minor versions of the platforms `x86_64-manylinux_2_*` that uv knows."""

_LONGEST = 2000
"""Characters of uv's explanation that are shown."""

_NETWORK = re.compile(r"Failed to fetch|error sending request|client error|HTTP status|dns error|certificate", re.I)
_KEPT = ("UV_CACHE_DIR",)
_SETTINGS = re.compile(r"UV_.*|PIP_.*|RUST_LOG|VIRTUAL_ENV|CONDA_.*|SSL_CERT_(FILE|DIR)|(HTTPS?|ALL|NO)_PROXY", re.I)


def find_uv() -> str:
    """The path of uv: the one that is installed beside imgbuild, or else on PATH.

    Raises:
        ConfigError: there is none.
    """
    try:
        from uv import find_uv_bin
    except ImportError:
        pass
    else:
        with contextlib.suppress(FileNotFoundError):
            return str(find_uv_bin())
    found = shutil.which("uv")
    if found is None:
        raise ConfigError(
            "`imgbuild lock` needs uv, which is not installed here",
            hint=f"{sys.executable} -m pip install 'imgbuild[lock]'",
        )
    return found


@functools.cache
def built_in_index(program: str) -> str:
    """The address of the index that uv asks where nobody names another: that of pip.

    Raises:
        ConfigError: uv cannot be run, or does not say.
    """
    environ = {name: value for name, value in os.environ.items() if not _SETTINGS.fullmatch(name)}
    command = [program, "pip", "compile", "-", "--no-config", "--no-header", "--emit-index-url"]
    try:
        ran = subprocess.run(command, input="", env=environ, capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ConfigError(f"uv cannot be run: {error}", where=program) from error
    found = re.search(r"^--index-url (\S+)$", ran.stdout, re.M)
    if found is None:
        raise ConfigError("uv does not say which index it asks", where=program, hint="set `index-url` in the site file")
    return found[1]


@dataclass(frozen=True, kw_only=True)
class Uv:
    """Resolves for one target.

    Attributes:
        program: the path of uv.
        site: this machine's settings.
        sources: where packages come from.
        target: what they run on.
        provided: names of projects that nothing is resolved to, whatever requires them.
        environ: the environment that uv gets, apart from settings, which come from the site.
        cancel: ends uv when set.
    """

    program: str
    site: Site
    sources: Sources
    target: Target
    provided: tuple[str, ...] = ()
    environ: Mapping[str, str] = field(default_factory=lambda: os.environ)
    cancel: threading.Event | None = None

    def releases(
        self,
        requirements: Iterable[str],
        *,
        constraints: str = "",
        preferred: Mapping[str, str] | None = None,
        deps: bool = True,
    ) -> tuple[Release, ...]:
        """One version of everything that the requirements need, with its files.

        Args:
            requirements: what is wanted.
            constraints: the text of a constraints file.
            preferred: versions by name that are taken where they do.
            deps: whether dependencies are wanted too.

        Raises:
            Impossible: no versions satisfy all of them.
            IndexUnavailable: an index cannot be reached.
            NotLocked: uv failed in another way, such as in reading a source distribution.
            Interrupted: `cancel` was set.
        """
        with tempfile.TemporaryDirectory(prefix="imgbuild-lock-") as name:
            folder = Path(name)
            output = folder / "pylock.toml"
            if preferred:
                output.write_text(pylock_of(preferred), encoding="utf-8")
            options = ["--format", "pylock.toml", "--output-file", str(output), *([] if deps else ["--no-deps"])]
            self._run(folder, requirements, constraints, options)
            found = read_pylock(output.read_text(encoding="utf-8"))
        return self._with_all_files(found)

    def _with_all_files(self, releases: tuple[Release, ...]) -> tuple[Release, ...]:
        """The releases with the files that every index has of them.

        uv names the files of the first index that has something fitting; pip takes the best one of all. So each index
        comes first once. What a mirror leaves out must not decide what is locked.
        """
        pins = [f"{release.name}=={release.version}" for release in releases]
        options = ["--format", "pylock.toml", "--no-deps"]
        files = {release.name: {file.name: file for file in release.files} for release in releases}
        for place in range(1, len(self.sources.indexes)):  # the first of them came first already
            for release in read_pylock(self._run_known(pins, "", options, first=place)):
                for file in release.files:
                    known = files[release.name].setdefault(file.name, file)
                    if known.sha256 and file.sha256 and known.sha256 != file.sha256:
                        files[release.name][file.name] = replace(known, disputed=file.sha256)
        return tuple(replace(release, files=tuple(files[release.name].values())) for release in releases)

    def names(self, requirements: Iterable[str], pins: Mapping[str, str]) -> frozenset[str]:
        """The projects that requirements need, given one version of each.

        What was resolved just before is in uv's cache, so that no index is asked again. Where it is not, because an
        index forbids that its pages are kept, they are asked.

        Raises:
            ImgbuildError: as `releases`.
        """
        constraints = "".join(f"{name}=={version}\n" for name, version in sorted(pins.items()))
        text = self._run_known(requirements, constraints, ["--no-annotate", "--no-header"])
        found = (re.match(r"[A-Za-z0-9._-]+", line) for line in text.splitlines())
        return frozenset(canonical(match[0]) for match in found if match)

    def _run_known(
        self, requirements: Iterable[str], constraints: str, options: list[str], *, first: int | None = None
    ) -> str:
        """Runs uv on what it has in its cache, or else on the indexes."""
        wanted = tuple(requirements)
        with tempfile.TemporaryDirectory(prefix="imgbuild-lock-") as name:
            try:
                return self._run(Path(name), wanted, constraints, [*options, "--offline"], first=first)
            except Interrupted:
                raise
            except ImgbuildError:
                return self._run(Path(name), wanted, constraints, options, first=first)

    def _run(
        self,
        folder: Path,
        requirements: Iterable[str],
        constraints: str,
        options: list[str],
        *,
        first: int | None = None,
    ) -> str:
        inputs = folder / "requirements.in"
        inputs.write_text("".join(f"{line}\n" for line in requirements), encoding="utf-8")
        command = [self.program, "pip", "compile", str(inputs), *options, *self._options()]
        if constraints:
            (folder / "constraints.txt").write_text(constraints, encoding="utf-8")
            command += ["--constraints", str(folder / "constraints.txt")]
        if self.provided:
            # A requirement that holds for no Python takes the place of everybody's.
            lines = (f"{name} ; python_version < '0'\n" for name in self.provided)
            (folder / "overrides.txt").write_text("".join(lines), encoding="utf-8")
            command += ["--overrides", str(folder / "overrides.txt")]
        try:
            process = subprocess.Popen(
                command,
                cwd=folder,
                env=self._environment(first),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                encoding="utf-8",
                errors="replace",
            )
        except OSError as error:
            raise ConfigError(f"uv cannot be run: {error.strerror}", where=self.program) from error
        with process:
            try:
                output, errors = self._wait(process)
            except BaseException:
                process.kill()
                raise
        if process.returncode:
            raise self._failed(errors)
        return output

    def _wait(self, process: subprocess.Popen[str]) -> tuple[str, str]:
        while True:
            try:
                return process.communicate(timeout=0.2)
            except subprocess.TimeoutExpired:
                if self.cancel is not None and self.cancel.is_set():
                    raise Interrupted("interrupted while uv was resolving; nothing was written") from None

    def _options(self) -> list[str]:
        minor = max(known for known in _UV_GLIBCS if known <= max(self.target.glibc[1], _UV_GLIBCS[0]))
        options = [
            "--no-config",
            "--no-progress",
            "--no-python-downloads",
            "--color=never",
            # pip's way: the best version, wherever it is.
            "--index-strategy=unsafe-best-match",
            f"--python-version={self.target.python}",
            f"--python-platform={ARCHITECTURE}-manylinux_{self.target.glibc[0]}_{minor}",
        ]
        options += [f"--allow-insecure-host={host}" for host in self.site.trusted_hosts]
        options += [f"--find-links={link}" for link in self.sources.links if local_path(link) is not None]
        return options if self.sources.indexes else [*options, "--no-index"]

    def _environment(self, first: int | None) -> dict[str, str]:
        found = {name: value for name, value in self.environ.items() if name in _KEPT or not _SETTINGS.fullmatch(name)}
        indexes = [_address(index.url) for index in self.sources.indexes]
        if first is not None:
            indexes.insert(0, indexes.pop(first))
        if indexes:
            # uv asks its default index last.
            found["UV_DEFAULT_INDEX"] = indexes[-1]
            found["UV_INDEX"] = " ".join(indexes[:-1])
        remote = [link for link in self.sources.links if local_path(link) is None]
        if remote:
            found["UV_FIND_LINKS"] = ",".join(remote)
        if self.site.ca_bundle is not None:
            found["SSL_CERT_FILE"] = str(self.site.ca_bundle)
        else:
            found["UV_SYSTEM_CERTS"] = "1"  # as pip does
        if self.site.timeout is not None:
            found["UV_HTTP_TIMEOUT"] = str(self.site.timeout)
        for name, value in self.site.proxies.items():
            found[f"{name.upper()}_PROXY"] = value
        return found

    def _failed(self, errors: str) -> ImgbuildError:
        text = _explanation(redact(errors, self.site))
        if "No solution found" in text:
            return Impossible(text)
        if _NETWORK.search(text):
            return IndexUnavailable(
                f"a package index cannot be used: {text}",
                hint="mend `index-url`, `ca-bundle` or `proxies` of this machine; `imgbuild doctor` shows them",
            )
        return NotLocked(f"uv failed: {text}")


def _address(url: str) -> str:
    path = local_path(url)
    return url if path is None else path.as_uri()


def _explanation(errors: str) -> str:
    """What uv says was wrong, in one paragraph."""
    lines = [line.strip() for line in errors.splitlines()]
    start = next((place for place, line in enumerate(lines) if line.startswith("error:")), None)
    if start is None:
        # Older ones mark it with a cross, and lead on with box drawings.
        start = next((place for place, line in enumerate(lines) if "No solution" in line), 0)
    words = [re.sub(r"^(error: |cause: |[×╰─▶│\s]+)", "", line) for line in lines[start:] if line]
    text = " ".join(" ".join(words).split()) or "it gave no reason"
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"
