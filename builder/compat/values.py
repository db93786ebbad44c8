"""Values of a fact table that know where they stand, so that an error can name file and path.

Unlike `builder.source`, which gives line and column in a user's file, this reads through YAML's C parser when there is
one: the tables are ours, formatted by machine, and read on every run.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from builder.errors import ConfigError

SCHEMA: Final = "imgbuild.facts/1"
# More than any table has; a file above it is not one of ours.
_MAX_BYTES: Final = 5_000_000


class Value:
    """One value: what YAML gave, where it stands, and the sources that its file names.

    Where it stands is written out only when something is wrong: a table has thousands of values.
    """

    __slots__ = ("_parent", "_step", "named_sources", "raw")

    def __init__(self, raw: object, step: str, named_sources: Mapping[str, str], parent: Value | None = None) -> None:
        self.raw = raw
        self.named_sources = named_sources
        self._step = step
        self._parent = parent

    @property
    def where(self) -> str:
        """File and path, such as `torch.yaml: rows[3].builds[0].cuda`."""
        if self._parent is None:
            return f"{self._step}:"
        before = self._parent.where
        separator = "" if self._step.startswith("[") else (" " if before.endswith(":") else ".")
        return f"{before}{separator}{self._step}"

    def _is(self, raw: object, step: str) -> Value:
        return Value(raw, step, self.named_sources, self)

    def error(self, message: str) -> ConfigError:
        return ConfigError(message, where=self.where, hint="docs/facts.md describes the tables")

    def _as_mapping(self) -> Mapping[str, object]:
        if not isinstance(self.raw, dict):
            raise self.error(f"expected a mapping, found {_shown(self.raw)}")
        return self.raw

    def known(self, *keys: str) -> None:
        """Refuses every other key."""
        for key in self._as_mapping():
            if key not in keys:
                raise self._is(None, str(key)).error(f"unknown key; known here: {', '.join(sorted(keys))}")

    def has(self, key: str) -> bool:
        raw = self.raw
        return (raw if isinstance(raw, dict) else self._as_mapping()).get(key) is not None

    def field(self, key: str) -> Value:
        mapping = self._as_mapping()
        if mapping.get(key) is None:
            raise self._is(None, key).error("is missing")
        return self._is(mapping[key], key)

    def mapping(self) -> Mapping[str, Value]:
        """The values of a mapping whose keys are data."""
        raw_mapping = self._as_mapping()
        for key in raw_mapping:
            if not isinstance(key, str):
                raise self._is(None, f"[{key}]").error("a key must be text (a version must be quoted)")
        return {key: self._is(raw, f"[{key}]") for key, raw in raw_mapping.items()}

    def items(self) -> list[Value]:
        if not isinstance(self.raw, list):
            raise self.error(f"expected a list, found {_shown(self.raw)}")
        return [self._is(raw, f"[{index}]") for index, raw in enumerate(self.raw)]

    def text(self) -> str:
        if not isinstance(self.raw, str) or not self.raw:
            quote = " (a version must be quoted)" if isinstance(self.raw, float) else ""
            raise self.error(f"expected text, found {_shown(self.raw)}{quote}")
        return self.raw

    def truth(self) -> bool:
        if not isinstance(self.raw, bool):
            raise self.error(f"expected true or false, found {_shown(self.raw)}")
        return self.raw

    def whole(self) -> int:
        if not isinstance(self.raw, int) or isinstance(self.raw, bool):
            raise self.error(f"expected a whole number, found {_shown(self.raw)}")
        return self.raw

    def one_of(self, choices: Iterable[str]) -> str:
        text = self.text()
        known = tuple(choices)
        if text not in known:
            raise self.error(f"{text!r} is none of {', '.join(known)}")
        return text

    def optional(self, key: str) -> str | None:
        return self.field(key).text() if self.has(key) else None

    def flag(self, key: str, *, default: bool = False) -> bool:
        return self.field(key).truth() if self.has(key) else default

    def list_of(self, key: str) -> list[Value]:
        return self.field(key).items() if self.has(key) else []

    def texts(self, key: str) -> tuple[str, ...] | None:
        """None when there is no such key; an empty list is an empty tuple."""
        return tuple(item.text() for item in self.field(key).items()) if self.has(key) else None

    def text_mapping(self, key: str) -> Mapping[str, str]:
        if not self.has(key):
            return {}
        return {name: item.text() for name, item in self.field(key).mapping().items()}

    def sources(self, key: str) -> tuple[str, ...]:
        """The sources that a record names, written out."""
        items = self.field(key).items()
        if not items:
            raise self._is(None, key).error("a fact needs a source")
        for item in items:
            if item.text() not in self.named_sources:
                raise item.error(f"{item.raw!r} is not among the file's `sources`")
        return tuple(self.named_sources[item.text()] for item in items)


def read_table(path: Path) -> Value:
    """A table as one value.

    Raises:
        ConfigError: it cannot be read, is not YAML, or is not one of our tables.
    """
    import yaml  # 10 ms, for commands that ask no facts

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    where = path.name
    try:
        text = path.read_text(encoding="utf-8")
        if len(text) > _MAX_BYTES:
            raise ConfigError(f"the table is larger than {_MAX_BYTES:,} bytes", where=where)
        raw = yaml.load(text, Loader=loader)
    except OSError as error:
        raise ConfigError(f"the table cannot be read: {error.strerror}", where=str(path)) from error
    except (yaml.YAMLError, UnicodeDecodeError, ValueError) as error:
        raise ConfigError(f"the table is not YAML: {' '.join(str(error).split())}", where=where) from error
    table = Value(raw, where, {})
    table.field("schema").one_of((SCHEMA,))
    return Value(raw, where, table.text_mapping("sources"))


def _shown(raw: object) -> str:
    if raw is None:
        return "nothing"
    text = repr(raw)
    return text if len(text) <= 60 else f"{text[:57]}..."
