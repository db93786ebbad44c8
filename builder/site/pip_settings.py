"""pip's own configuration, read from where pip reads it, without importing or running pip.

What a team has told pip about its index should not have to be told again. The order is pip's, later wins: global,
user and environment files, section `global` before `install`, and then `PIP_*` variables.
"""

from __future__ import annotations

import configparser
import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from builder.errors import ConfigError

_OTHER_NAMES = {"default-timeout": "timeout", "pypi-url": "index-url"}


@dataclass(frozen=True, kw_only=True)
class PipSetting:
    """One of pip's settings: its value as written, and the file or variable that it comes from."""

    value: str
    origin: str

    @property
    def words(self) -> tuple[str, ...]:
        """The parts of a value that holds several."""
        return tuple(self.value.split())


def pip_settings(
    environ: Mapping[str, str], *, prefix: Path | None = None, root: Path = Path("/")
) -> Mapping[str, PipSetting]:
    """What `pip install` is set to, by the option's long name without dashes, such as `extra-index-url`.

    Args:
        environ: the environment.
        prefix: the Python environment whose `pip.conf` counts; None for the running one.
        root: where `/etc` is looked for.

    Raises:
        ConfigError: a file that pip would read cannot be read, or is malformed.
    """
    sections: dict[str, dict[str, PipSetting]] = {"global": {}, "install": {}}
    for path in _files(environ, prefix or Path(sys.prefix), root):
        for section, name, value in _read(path):
            sections[section][name] = PipSetting(value=value, origin=str(path))
    found = {**sections["global"], **sections["install"]}
    for variable, value in environ.items():
        # pip takes an empty variable for one that is not set.
        if variable.startswith("PIP_") and variable != "PIP_CONFIG_FILE" and value:
            found[_name(variable[len("PIP_") :])] = PipSetting(value=value, origin=variable)
    return found


def _files(environ: Mapping[str, str], prefix: Path, root: Path) -> Iterator[Path]:
    explicit = environ.get("PIP_CONFIG_FILE", "")
    if explicit == os.devnull:
        return
    directories = environ.get("XDG_CONFIG_DIRS") or str(root / "etc/xdg")
    for directory in filter(None, directories.split(os.pathsep)):
        yield Path(directory) / "pip" / "pip.conf"
    yield root / "etc/pip.conf"
    named = Path(explicit) if explicit else None
    home = environ.get("HOME")
    if home and not (named and named.exists()):
        yield Path(home) / ".pip" / "pip.conf"
        yield Path(environ.get("XDG_CONFIG_HOME") or f"{home}/.config") / "pip" / "pip.conf"
    yield prefix / "pip.conf"
    if named:
        yield named


def _read(path: Path) -> Iterator[tuple[str, str, str]]:
    """Section, option and value of the sections that count; nothing when there is no such file."""
    parser = configparser.RawConfigParser()
    try:
        text = path.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        return
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"pip's configuration cannot be read: {error}", where=str(path)) from error
    try:
        parser.read_string(text, source=str(path))
    except configparser.Error as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"pip's configuration is malformed: {reason}", where=str(path)) from error
    for section in ("global", "install"):
        if parser.has_section(section):
            for name, value in parser.items(section):
                if value:
                    yield section, _name(name), value.strip()


def _name(name: str) -> str:
    plain = name.lower().replace("_", "-").removeprefix("--")
    return _OTHER_NAMES.get(plain, plain)
