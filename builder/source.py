"""YAML with positions: text becomes a tree of `Node`s, and each knows its file, line and column.

`load` and `parse` refuse what a configuration never needs and what makes parsers slow or values
dangerous: files above 1 MB, nesting above 50, aliases that expand to more than 10,000 nodes,
duplicate keys, tags, merge keys, several documents, and control characters in values (so no value
can add a line to a Dockerfile).

`Node` has one reader per type. A reader returns a plain Python value or raises `ConfigError` with
the position and with what was found and expected. YAML 1.1 reads `3.10` as the number 3.1 and `on`
as true; where text is expected, that is an error which says to quote it, never a silent conversion.
"""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, Protocol

import yaml

from builder.errors import ConfigError

MAX_BYTES: Final = 1_000_000
MAX_DEPTH: Final = 50
MAX_ALIASED_NODES: Final = 10_000

Kind = Literal["mapping", "sequence", "string", "integer", "float", "boolean", "null", "timestamp"]

_KIND_BY_TAG: Final[dict[str, Kind]] = {
    "tag:yaml.org,2002:str": "string",
    "tag:yaml.org,2002:int": "integer",
    "tag:yaml.org,2002:float": "float",
    "tag:yaml.org,2002:bool": "boolean",
    "tag:yaml.org,2002:null": "null",
    "tag:yaml.org,2002:timestamp": "timestamp",
    "tag:yaml.org,2002:value": "string",  # a lone `=`
}
_NOUN: Final[dict[Kind, str]] = {
    "mapping": "a mapping",
    "sequence": "a list",
    "string": "a string",
    "integer": "a whole number",
    "float": "a number",
    "boolean": "true or false",
    "null": "nothing",
    "timestamp": "a date",
}
# Eighteen digits fit into 64 bits; more is never meant.
_INTEGER: Final = re.compile(r"-?(0|[1-9][0-9]{0,17})")
# Unicode categories: control, format (invisible, or turning the direction of text), surrogate,
# line separator, paragraph separator.
_REFUSED_CATEGORIES: Final = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})


@dataclass(frozen=True, kw_only=True)
class Position:
    """A place in a file; `line` and `column` count from 1."""

    file: str
    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


@dataclass(frozen=True, kw_only=True)
class Node:
    """One value of a YAML file and where it stands.

    Attributes:
        position: where the value begins; for an alias, where the anchored value stands.
        label: how messages call the value, for example "`python`" or "item 2 of `python`".
        kind: what YAML 1.1 takes the value for.
        text: a scalar's text as written, without quotes; empty for mappings and lists.
        children: a list's items, or a mapping's keys and values in turn; empty for scalars.
        size: number of nodes in this tree, with aliases expanded.
    """

    position: Position
    label: str
    kind: Kind
    text: str = ""
    children: tuple[Node, ...] = ()
    size: int = 1

    def error(self, message: str, *, hint: str = "") -> ConfigError:
        """A `ConfigError` at this node's position, to be raised by the caller."""
        return ConfigError(message, where=str(self.position), hint=hint)

    def items(self) -> tuple[tuple[Node, Node], ...]:
        """A mapping's (key, value) pairs in file order; the keys are distinct strings."""
        self._expect("mapping")
        return tuple(zip(self.children[::2], self.children[1::2], strict=True))

    def mapping(self, *, allowed: Collection[str] | None = None, required: Iterable[str] = ()) -> dict[str, Node]:
        """A mapping's values by key.

        Args:
            allowed: the keys that may occur; None allows every key.
            required: the keys that must occur.
        """
        found: dict[str, Node] = {}
        for key, value in self.items():
            if allowed is not None and key.text not in allowed:
                raise key.error(
                    f"unknown key {quote(key.text)} in {self.label}",
                    hint=nearest(key.text, allowed),
                )
            found[key.text] = value
        for name in required:
            if name not in found:
                raise self.error(f"{self.label} lacks the required key `{name}`", hint=f"add `{name}: …` to it")
        return found

    def sequence(self) -> tuple[Node, ...]:
        """A list's items."""
        self._expect("sequence")
        return self.children

    def string(self) -> str:
        """The text of a string, which is not empty."""
        self._expect("string")
        if not self.text.strip():
            raise self.error(f"{self.label} is an empty string", hint="give it a value, or remove it")
        return self.text

    def strings(self) -> tuple[str, ...]:
        """A list's items, each of them a string."""
        return tuple(item.string() for item in self.sequence())

    def choice(self, choices: Collection[str]) -> str:
        """The text of a string that is one of `choices`."""
        word = self.string()
        if word not in choices:
            raise self.error(f"{self.label} cannot be {quote(word)}", hint=nearest(word, choices))
        return word

    def integer(self) -> int:
        """A whole number in plain decimal digits."""
        self._expect("integer")
        if not _INTEGER.fullmatch(self.text):
            # YAML 1.1 takes 010 for 8 and 1:30 for 90.
            raise self.error(
                f"{self.label} is not a plain decimal number: {quote(self.text)}",
                hint="write it in decimal digits, without leading zeros, colons or underscores",
            )
        return int(self.text)

    def boolean(self) -> bool:
        """True or false, written as `true` or `false`."""
        self._expect("boolean")
        if self.text not in ("true", "false"):
            meant = "true" if self.text.lower() in ("yes", "on", "true") else "false"
            raise self.error(
                f"{self.label} must be `true` or `false`, found {quote(self.text)}",
                hint=f"write `{meant}`",
            )
        return self.text == "true"

    def _expect(self, kind: Kind) -> None:
        if self.kind == kind:
            return
        hint = ""
        if kind == "string" and self.text:
            hint = f'quote it: "{self.text}"'
        elif kind in ("boolean", "integer") and self.kind == "string":
            hint = "write it without quotes" if self._looks_like(kind) else ""
        elif kind == "sequence" and self.kind not in ("mapping", "null"):
            hint = f"write it as a list: [{self.text}]"
        raise self.error(f"{self.label} must be {_NOUN[kind]}, found {self._found()}", hint=hint)

    def _looks_like(self, kind: Kind) -> bool:
        if kind == "boolean":
            return self.text in ("true", "false")
        return _INTEGER.fullmatch(self.text) is not None

    def _found(self) -> str:
        if self.kind in ("mapping", "sequence", "null"):
            return _NOUN[self.kind]
        if self.kind == "string":
            return f"the string {quote(self.text)}"
        if self.kind == "boolean":
            return f"{quote(self.text)}, which YAML reads as true or false"
        return f"{quote(self.text)}, which YAML reads as {_NOUN[self.kind]}"


def quote(text: str, limit: int = 60) -> str:
    """`text` for a message: in backticks, at most `limit` characters, control codes escaped."""
    shown = "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in text[:limit])
    return f"`{shown}…`" if len(text) > limit else f"`{shown}`"


def nearest(word: str, candidates: Iterable[str]) -> str:
    """A hint naming the candidate most like `word`.

    When none is like it, the hint lists all candidates if they are few, and else is empty.
    """
    known = sorted(set(candidates))
    by_lower = {candidate.lower(): candidate for candidate in known}
    # Longer words are typing accidents of another kind; comparing them costs quadratic time.
    close = difflib.get_close_matches(word[:200].lower(), by_lower, n=1, cutoff=0.6)
    if close:
        return f"did you mean {quote(by_lower[close[0]])}?"
    if 0 < len(known) <= 12:
        return f"known: {', '.join(known)}"
    return ""


def load(path: Path) -> Node:
    """The tree of a YAML file; positions name it as `path` was given.

    Raises:
        ConfigError: the file cannot be read or is not valid; see `parse`.
    """
    try:
        with path.open("rb") as file:
            # One byte more than allowed shows "too large" without reading the rest.
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ConfigError(
            f"the file cannot be read: {error.strerror}",
            where=str(path),
            hint="check the path and its permissions",
        ) from error
    if len(data) > MAX_BYTES:
        raise _too_large(str(path))
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = data[: error.start].decode("utf-8-sig")
        raise ConfigError(
            "the file is not UTF-8 text",
            where=str(_position_at(before, len(before), str(path))),
            hint="save it as UTF-8",
        ) from error
    return parse(text, str(path))


def parse(text: str, name: str) -> Node:
    """The tree of one YAML document; positions call the file `name`.

    An empty document is a node of kind "null".

    Raises:
        ConfigError: the text is not YAML, or holds what the module's docstring lists as refused.
    """
    if len(text.encode("utf-8", "surrogatepass")) > MAX_BYTES:
        raise _too_large(name)
    try:
        return _Composer(text, name).document()
    except yaml.reader.ReaderError as error:
        raise ConfigError(
            f"the character U+{_code_point(error.character):04X} is not allowed in YAML",
            where=str(_position_at(text, error.position, name)),
            hint="remove it",
        ) from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = str(_position(mark, name)) if mark is not None else name
        reason = " ".join(part for part in (error.context, error.problem) if part)
        alias = "scanning an alias" in reason
        raise ConfigError(
            f"this is not valid YAML: {reason}",
            where=where,
            hint="quote a value that begins with `*`" if alias else "",
        ) from error
    except (ValueError, OverflowError) as error:
        # PyYAML takes the numbers in an escape and in a %YAML line as they come.
        raise ConfigError(
            "this is not valid YAML: the number of a character, or of YAML's version, is out of range",
            where=name,
            hint='look for "\\U" in double quotes, and for a line that begins with "%YAML"',
        ) from error


class _Mark(Protocol):
    """What PyYAML's two kinds of marks have in common; both count from 0."""

    line: int
    column: int


class _Composer:
    """Turns the events of one YAML document into nodes.

    PyYAML's own composer recurses without a limit and lets a later duplicate key win.
    """

    def __init__(self, text: str, name: str) -> None:
        loader = yaml.SafeLoader(text)
        self._get_event: Callable[[], object] = loader.get_event
        self._peek_event: Callable[[], object] = loader.peek_event
        self._resolve: Callable[[type, str, tuple[bool, bool]], object] = loader.resolve
        self._name = name
        self._anchors: dict[str, Node] = {}
        self._aliased_nodes = 0

    def document(self) -> Node:
        self._next()  # the start of the stream
        if isinstance(self._peek(), yaml.StreamEndEvent):
            position = Position(file=self._name, line=1, column=1)
            return Node(position=position, label="the file", kind="null")
        self._next()  # the start of the document
        root = self._node("the file", depth=1)
        self._next()  # the end of the document
        event = self._next()
        if not isinstance(event, yaml.StreamEndEvent):
            raise self._error(event, "a second document begins here", "keep one document per file")
        return root

    def _node(self, label: str, *, depth: int) -> Node:
        event = self._next()
        if depth > MAX_DEPTH:
            raise self._error(event, f"values are nested more than {MAX_DEPTH} deep", "flatten them")
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event)
        tag = getattr(event, "tag", None)
        if tag is not None:
            raise self._error(
                event,
                f"tags such as {quote(str(tag))} are not supported",
                "quote the value if it is text that begins with `!`",
            )
        position = _position(event.start_mark, self._name)
        if isinstance(event, yaml.MappingStartEvent):
            children = tuple(self._mapping(label, depth=depth))
            node = Node(
                position=position,
                label=label,
                kind="mapping",
                children=children,
                size=_size(children),
            )
        elif isinstance(event, yaml.SequenceStartEvent):
            children = tuple(self._sequence(label, depth=depth))
            node = Node(
                position=position,
                label=label,
                kind="sequence",
                children=children,
                size=_size(children),
            )
        elif isinstance(event, yaml.ScalarEvent):
            node = self._scalar(event, position, label)
        else:
            raise AssertionError(f"YAML event out of order: {event}")
        anchor = getattr(event, "anchor", None)
        if anchor is not None:
            # Only a finished node is known by its anchor, so no alias can make a cycle.
            self._anchors[str(anchor)] = node
        return node

    def _mapping(self, label: str, *, depth: int) -> Iterator[Node]:
        first: dict[str, Position] = {}
        while not isinstance(self._peek(), yaml.MappingEndEvent):
            key = self._node(f"a key of {label}", depth=depth + 1)
            if key.kind == "null" and key.text == "":
                raise key.error(f"a key of {label} is empty")
            key.string()
            if key.text in first:
                raise key.error(
                    f"the key {quote(key.text)} occurs twice",
                    hint=f"it stands at {first[key.text]} already; remove one of them",
                )
            first[key.text] = key.position
            yield key
            yield self._node(quote(key.text), depth=depth + 1)
        self._next()

    def _sequence(self, label: str, *, depth: int) -> Iterator[Node]:
        number = 0
        while not isinstance(self._peek(), yaml.SequenceEndEvent):
            number += 1
            yield self._node(f"item {number} of {label}", depth=depth + 1)
        self._next()

    def _scalar(self, event: yaml.ScalarEvent, position: Position, label: str) -> Node:
        text = str(event.value)
        for character in text:
            if unicodedata.category(character) in _REFUSED_CATEGORIES:
                raise ConfigError(
                    f"{label} contains the control character U+{ord(character):04X}",
                    where=str(position),
                    hint=(
                        "write the value on one line, or fold a long one with `>-`"
                        if character == "\n"
                        else "remove it"
                    ),
                )
        tag = str(self._resolve(yaml.ScalarNode, text, event.implicit))
        if tag == "tag:yaml.org,2002:merge":
            raise self._error(event, "merge keys (`<<`) are not supported", "write the keys out")
        return Node(position=position, label=label, kind=_KIND_BY_TAG[tag], text=text)

    def _alias(self, event: yaml.AliasEvent) -> Node:
        name = str(event.anchor)
        node = self._anchors.get(name)
        if node is None:
            raise self._error(
                event,
                f"the alias {quote('*' + name)} has no finished anchor before it",
                nearest(name, self._anchors) or "quote a value that begins with `*`",
            )
        self._aliased_nodes += node.size
        if self._aliased_nodes > MAX_ALIASED_NODES:
            raise self._error(event, f"aliases expand to more than {MAX_ALIASED_NODES} values", "write fewer")
        return node

    def _error(self, event: yaml.Event, message: str, hint: str = "") -> ConfigError:
        return ConfigError(message, where=str(_position(event.start_mark, self._name)), hint=hint)

    def _next(self) -> yaml.Event:
        event = self._get_event()
        assert isinstance(event, yaml.Event)
        return event

    def _peek(self) -> yaml.Event:
        event = self._peek_event()
        assert isinstance(event, yaml.Event)
        return event


def _size(children: tuple[Node, ...]) -> int:
    return 1 + sum(child.size for child in children)


def _too_large(name: str) -> ConfigError:
    return ConfigError(
        f"the file is larger than {MAX_BYTES:,} bytes",
        where=name,
        hint="a configuration is a few kilobytes; is this the right file?",
    )


def _position(mark: _Mark | None, name: str) -> Position:
    assert mark is not None  # events that come from text always carry a mark
    return Position(file=name, line=int(mark.line) + 1, column=int(mark.column) + 1)


def _position_at(text: str, index: int, name: str) -> Position:
    before = text[:index]
    return Position(file=name, line=before.count("\n") + 1, column=index - (before.rfind("\n") + 1) + 1)


def _code_point(character: object) -> int:
    """PyYAML reports a character, or its number, depending on where it was found."""
    return ord(character) if isinstance(character, str) else int(str(character))
