"""The vocabulary in which the fields of `matrix.yaml` are declared (in `builder.matrix.fields`).

One declaration serves three readers: `check` compares a `Node` with it, `json` is its JSON Schema,
and `words` is its type in the documentation. So what is accepted, what an editor completes and what
is documented cannot drift apart.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from builder.source import Node, nearest, quote

Json = dict[str, object]


class Type(Protocol):
    """What a value may be."""

    def check(self, node: Node) -> None:
        """Raises `ConfigError` at the first place where `node` is not of this type."""

    def json(self) -> Json:
        """This type as JSON Schema; records are references into `$defs`."""

    def words(self) -> str:
        """This type in a few words of Markdown."""

    def records(self) -> tuple[Record, ...]:
        """The records inside this type, itself included, outermost first."""


@dataclass(frozen=True, kw_only=True)
class Text:
    """A string of a strict form.

    Attributes:
        noun: what it is, for messages and documentation: "a name".
        pattern: a regular expression that the whole string matches, in the syntax that Python and
            ECMAScript share.
        example: a valid value.
        limit: the greatest length in characters.
        placeholders: names that may stand in braces; `pattern` allows for them.
        explain: a hint for an invalid value, or an empty string; None shows the example.
    """

    noun: str
    pattern: str
    example: str
    limit: int = 128
    placeholders: tuple[str, ...] = ()
    explain: Callable[[str], str] | None = None

    def check(self, node: Node) -> None:
        text = node.string()
        self.check_text(text, node)

    def check_text(self, text: str, node: Node) -> None:
        """As `check`, for a text that is at hand already, such as a mapping's key."""
        if len(text) > self.limit:
            raise node.error(
                f"{node.label} has {len(text)} characters, more than {self.limit}: {quote(text)}",
                hint="shorten it",
            )
        if self.placeholders:
            for name in re.findall(r"\{([^{}]*)\}", text):
                if name not in self.placeholders:
                    raise node.error(
                        f"unknown placeholder {quote('{' + name + '}')} in {node.label}",
                        hint=nearest(name, self.placeholders),
                    )
        if not self.matches(text):
            hint = self.explain(text) if self.explain is not None else ""
            raise node.error(
                f"{node.label} cannot be {quote(text)}: it must be {self.noun}",
                hint=hint or f"for example `{self.example}`",
            )

    def matches(self, text: str) -> bool:
        """Whether the text has this form."""
        return len(text) <= self.limit and re.fullmatch(self.pattern, text) is not None

    def json(self) -> Json:
        return {
            "type": "string",
            "pattern": f"^(?:{self.pattern})$",
            "maxLength": self.limit,
            "examples": [self.example],
        }

    def words(self) -> str:
        return self.noun

    def records(self) -> tuple[Record, ...]:
        return ()


@dataclass(frozen=True, kw_only=True)
class Choice:
    """One of a few words."""

    values: tuple[str, ...]

    def check(self, node: Node) -> None:
        node.choice(self.values)

    def json(self) -> Json:
        return {"enum": list(self.values)}

    def words(self) -> str:
        return ", ".join(f"`{value}`" for value in self.values[:-1]) + f" or `{self.values[-1]}`"

    def records(self) -> tuple[Record, ...]:
        return ()


@dataclass(frozen=True, kw_only=True)
class Flag:
    """True or false."""

    def check(self, node: Node) -> None:
        node.boolean()

    def json(self) -> Json:
        return {"type": "boolean"}

    def words(self) -> str:
        return "`true` or `false`"

    def records(self) -> tuple[Record, ...]:
        return ()


@dataclass(frozen=True, kw_only=True)
class Number:
    """One fixed whole number."""

    value: int

    def check(self, node: Node) -> None:
        found = node.integer()
        if found != self.value:
            raise node.error(
                f"{node.label} is {found}, but this imgbuild reads version {self.value}",
                hint="install an imgbuild that reads this version, or convert the file",
            )

    def json(self) -> Json:
        return {"const": self.value}

    def words(self) -> str:
        return f"`{self.value}`"

    def records(self) -> tuple[Record, ...]:
        return ()


@dataclass(frozen=True, kw_only=True)
class Days:
    """A whole number of days, at least one.

    Attributes:
        limit: the greatest.
    """

    limit: int = 3650

    def check(self, node: Node) -> None:
        found = node.integer()
        if not 1 <= found <= self.limit:
            raise node.error(
                f"{node.label} cannot be {found}: it must be {self.words()}",
                hint="remove it where the age does not matter" if found > self.limit else "for example `30`",
            )

    def json(self) -> Json:
        return {"type": "integer", "minimum": 1, "maximum": self.limit}

    def words(self) -> str:
        return f"a number of days from 1 to {self.limit}"

    def records(self) -> tuple[Record, ...]:
        return ()


@dataclass(frozen=True, kw_only=True)
class ListOf:
    """A list of items of one type; strings among them are distinct.

    Attributes:
        item: the type of every item.
        empty: whether the list may be empty.
    """

    item: Type
    empty: bool = False

    def check(self, node: Node) -> None:
        items = node.sequence()
        if not items and not self.empty:
            raise node.error(f"{node.label} is an empty list", hint="add an item, or remove the key")
        first: dict[str, Node] = {}
        for item in items:
            self.item.check(item)
            if item.kind != "string":
                continue
            if item.text in first:
                raise item.error(
                    f"{quote(item.text)} occurs twice in {node.label}",
                    hint=f"it stands at {first[item.text].position} already; remove one of them",
                )
            first[item.text] = item

    def json(self) -> Json:
        schema: Json = {"type": "array", "items": self.item.json()}
        if isinstance(self.item, Text):
            schema["uniqueItems"] = True
        if not self.empty:
            schema["minItems"] = 1
        return schema

    def words(self) -> str:
        return f"list: {self.item.words()}"

    def records(self) -> tuple[Record, ...]:
        return self.item.records()


@dataclass(frozen=True, kw_only=True)
class MapOf:
    """A mapping whose keys the user names."""

    key: Text
    value: Type

    def check(self, node: Node) -> None:
        for key, value in node.items():
            self.key.check_text(key.text, key)
            self.value.check(value)

    def json(self) -> Json:
        return {
            "type": "object",
            "propertyNames": self.key.json(),
            "additionalProperties": self.value.json(),
        }

    def words(self) -> str:
        return f"mapping: {self.key.noun} → {self.value.words()}"

    def records(self) -> tuple[Record, ...]:
        return self.value.records()


@dataclass(frozen=True, kw_only=True)
class Either:
    """A string, or something that is not a scalar."""

    text: Text
    other: ListOf | Record

    def check(self, node: Node) -> None:
        if node.kind in ("mapping", "sequence"):
            self.other.check(node)
        else:
            self.text.check(node)

    def json(self) -> Json:
        return {"anyOf": [self.text.json(), self.other.json()]}

    def words(self) -> str:
        return f"{self.text.words()}, or {self.other.words()}"

    def records(self) -> tuple[Record, ...]:
        return self.other.records()


@dataclass(frozen=True, kw_only=True)
class Field:
    """One key of a record.

    Attributes:
        name: the key.
        type: what its value may be.
        doc: its meaning, one or two sentences of Markdown.
        example: a value in YAML's flow style.
        required: whether the key must be there.
        default: what holds without the key, in words; empty for required keys.
    """

    name: str
    type: Type
    doc: str
    example: str
    required: bool = False
    default: str = ""


@dataclass(frozen=True, kw_only=True)
class Record:
    """A mapping with fixed keys.

    Attributes:
        name: its name in `$defs` and its heading in the documentation.
        doc: its meaning.
        fields: its keys.
        some: whether at least one key must be there although none is required.
        former: keys that it had in earlier versions of imgbuild, each with what to write instead.
    """

    name: str
    doc: str
    fields: tuple[Field, ...]
    some: bool = False
    former: tuple[tuple[str, str], ...] = ()

    def check(self, node: Node) -> None:
        for name, instead in self.former:
            for key, _ in node.items():
                if key.text == name:
                    raise key.error(f"{node.label} no longer takes {quote(name)}", hint=instead)
        found = node.mapping(
            allowed=tuple(field.name for field in self.fields),
            required=tuple(field.name for field in self.fields if field.required),
        )
        if self.some and not found:
            raise node.error(
                f"{node.label} is an empty mapping",
                hint=f"known: {', '.join(field.name for field in self.fields)}",
            )
        for field in self.fields:
            if field.name in found:
                field.type.check(found[field.name])

    def json(self) -> Json:
        return {"$ref": f"#/$defs/{self.name}"}

    def words(self) -> str:
        return f"[{self.name}](#{self.name})"

    def records(self) -> tuple[Record, ...]:
        inner = (record for field in self.fields for record in field.type.records())
        return tuple(dict.fromkeys((self, *inner)))
