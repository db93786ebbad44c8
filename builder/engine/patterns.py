"""Path patterns as Docker reads them: `.dockerignore` lines, and the paths that a build step needs.

A pattern is relative and uses `/`; `*` and `?` stay within one name, `**` spans any number of names, `[a-z]` is a
class, a backslash takes the next character literally. A pattern that matches a directory matches all below it. Of
several patterns the last one that matches decides; one with a leading `!` takes a path back.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Sequence
from dataclasses import dataclass


class PatternError(ValueError):
    """A pattern that cannot be read, such as one with an unclosed bracket."""


@dataclass(frozen=True)
class _Pattern:
    negated: bool
    text: str
    regex: re.Pattern[str]


class Patterns:
    """An ordered list of patterns.

    Raises:
        PatternError: a pattern cannot be read.
    """

    def __init__(self, lines: Sequence[str]) -> None:
        self._patterns: list[_Pattern] = []
        for line in lines:
            negated = line.startswith("!")
            cleaned = clean(line[1:] if negated else line)
            if cleaned:
                regex = re.compile(translate(cleaned), re.DOTALL)
                self._patterns.append(_Pattern(negated, cleaned, regex))

    def match(self, path: str, parent: Verdict | None = None) -> Verdict:
        """Judges a path. `parent` is what this method returned for its directory, None at the root."""
        matched, each = False, []
        for index, pattern in enumerate(self._patterns):
            inherited = parent is not None and parent.each[index]
            hit = inherited or pattern.regex.fullmatch(path) is not None
            each.append(hit)
            if hit:
                matched = not pattern.negated
        return Verdict(matched, tuple(each))

    def may_match_below(self, directory: str, *, negated: bool) -> bool:
        """Whether a pattern (of those with, or those without a leading `!`) may match below a directory.

        It may say yes where nothing matches in the end, never no where something would.
        """
        names = directory.split("/")
        return any(p.negated is negated and _reaches_below(p.text.split("/"), names) for p in self._patterns)


def _reaches_below(parts: Sequence[str], names: Sequence[str]) -> bool:
    for part, name in zip(parts, names, strict=False):
        # A bracket may hold a slash, so that the parts are not what they seem.
        if "**" in part or "[" in part:
            return True
        if re.fullmatch(translate(part), name, re.DOTALL) is None:
            return False
    return len(parts) > len(names)


@dataclass(frozen=True)
class Verdict:
    """What a list of patterns says of one path: matched in all, and which pattern alone matched."""

    matched: bool
    each: tuple[bool, ...]


def clean(pattern: str) -> str:
    """A pattern without surrounding blanks, leading or trailing slashes and `.` or `..` parts."""
    stripped = pattern.strip()
    if not stripped:
        return ""
    # Absolute first, so that leading `..` vanish, as they do at the root of a file system.
    normal = posixpath.normpath("/" + stripped).lstrip("/")
    return normal


def has_wildcard(name: str) -> bool:
    """Whether a name means more than itself."""
    return any(char in name for char in "*?[\\")


def translate(pattern: str) -> str:
    """A pattern as a regular expression for the whole path.

    Raises:
        PatternError: a bracket is not closed, or a backslash ends the pattern.
    """
    out, at = [], 0
    while at < len(pattern):
        char = pattern[at]
        at += 1
        if char == "*" and pattern.startswith("*", at):
            while pattern.startswith("*", at):
                at += 1
            if pattern.startswith("/", at):
                at += 1
                out.append("(?:.*/)?")
            else:
                out.append(".*")
        elif char == "*":
            out.append("[^/]*")
        elif char == "?":
            out.append("[^/]")
        elif char == "[":
            group, at = _character_class(pattern, at)
            out.append(group)
        elif char == "\\":
            if at == len(pattern):
                raise PatternError(f"pattern {pattern!r} ends with a backslash")
            out.append(re.escape(pattern[at]))
            at += 1
        else:
            out.append(re.escape(char))
    return "".join(out)


def _character_class(pattern: str, at: int) -> tuple[str, int]:
    """Reads `a-z]` (after the bracket); returns it as a regular expression and where it ends."""
    negated = pattern[at : at + 1] in ("^", "!")
    if negated:
        at += 1
    parts: list[str] = []
    while at < len(pattern) and (pattern[at] != "]" or not parts):
        low, at = _class_member(pattern, at)
        high = low
        if pattern.startswith("-", at) and pattern[at + 1 : at + 2] not in ("", "]"):
            high, at = _class_member(pattern, at + 1)
        if high < low:
            raise PatternError(f"pattern {pattern!r} has a reversed range {low}-{high}")
        parts.append(re.escape(low) if low == high else f"{re.escape(low)}-{re.escape(high)}")
    if at >= len(pattern):
        raise PatternError(f"pattern {pattern!r} has an unclosed bracket")
    return f"(?!/)[{'^' if negated else ''}{''.join(parts)}]", at + 1


def _class_member(pattern: str, at: int) -> tuple[str, int]:
    if pattern[at] == "\\":
        at += 1
    if at >= len(pattern):
        raise PatternError(f"pattern {pattern!r} has an unclosed bracket")
    return pattern[at], at + 1
