"""Path patterns as Docker reads them: `.dockerignore` lines, and the paths that a build step needs.

A pattern is relative and uses `/`; `*` and `?` stay within one name, `**` spans any number of names, `[a-z]` is a
class, a backslash takes the next character literally. A pattern that matches a directory matches all below it. Of
several patterns the last one that matches decides; one with a leading `!` takes a path back.
"""

from __future__ import annotations

import itertools
import posixpath
import re
from collections.abc import Sequence
from dataclasses import dataclass


class PatternError(ValueError):
    """A pattern that cannot be read, such as one with an unclosed bracket."""


_IN_NAME, _ANYTHING, _ANY_DIRECTORIES = "[^/]*", ".*", "(?:.*/)?"
_WILDCARDS = (_IN_NAME, _ANYTHING, _ANY_DIRECTORIES)

_FEW = 2
"""Wildcards of any length that a regular expression may have: its time grows with the length to this power."""


class _Glob:
    """One pattern, without its `!`. Its time to match stays small whatever the pattern and the path are.

    Raises:
        PatternError: the pattern cannot be read.
    """

    def __init__(self, pattern: str) -> None:
        tokens = _tokens(pattern)
        self._steps: list[str | re.Pattern[str]] = []
        self._regex: re.Pattern[str] | None = None
        if sum(token in _WILDCARDS for token in tokens) <= _FEW:
            self._regex = re.compile("".join(tokens), re.DOTALL)
            return
        for wild, group in itertools.groupby(tokens, lambda token: token in _WILDCARDS):
            run = list(group)
            self._steps += run if wild else [re.compile("".join(run), re.DOTALL)]

    def matches(self, path: str) -> bool:
        """Whether it matches the whole path."""
        if self._regex is not None:
            return self._regex.fullmatch(path) is not None
        # Every position that the pattern can have reached, token by token; a regular expression tries them one by one.
        reached = [0]
        for step in self._steps:
            reached = _advance(step, path, reached)
            if not reached:
                return False
        return reached[-1] == len(path)


def _advance(step: str | re.Pattern[str], path: str, reached: list[int]) -> list[int]:
    """The positions, in ascending order, that one step leads to from those of `reached`."""
    if isinstance(step, re.Pattern):
        return [match.end() for start in reached if (match := step.match(path, start))]
    first = reached[0]
    if step == _ANYTHING:
        return list(range(first, len(path) + 1))
    if step == _ANY_DIRECTORIES:
        return sorted({*reached, *(at + 1 for at in range(first, len(path)) if path[at] == "/")})
    out: list[int] = []
    for start in reached:
        if not out or start > out[-1]:
            end = path.find("/", start)
            out += range(start, (end if end >= 0 else len(path)) + 1)
    return out


@dataclass(frozen=True)
class _Pattern:
    """A pattern, and each of its parts between slashes; None for a part that says nothing of a name alone."""

    negated: bool
    whole: _Glob
    parts: tuple[_Glob | None, ...]


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
                self._patterns.append(_Pattern(negated, _Glob(cleaned), tuple(map(_part, cleaned.split("/")))))

    def match(self, path: str, parent: Verdict | None = None) -> Verdict:
        """Judges a path. `parent` is what this method returned for its directory, None at the root."""
        matched, each = False, []
        for index, pattern in enumerate(self._patterns):
            inherited = parent is not None and parent.each[index]
            hit = inherited or pattern.whole.matches(path)
            each.append(hit)
            if hit:
                matched = not pattern.negated
        return Verdict(matched, tuple(each))

    def may_match_below(self, directory: str, *, negated: bool) -> bool:
        """Whether a pattern (of those with, or those without a leading `!`) may match below a directory.

        It may say yes where nothing matches in the end, never no where something would.
        """
        names = directory.split("/")
        return any(p.negated is negated and _reaches_below(p.parts, names) for p in self._patterns)


def _part(part: str) -> _Glob | None:
    # A bracket may hold a slash, and a slash may follow a backslash: then the parts are not what they seem.
    return None if "**" in part or "[" in part or "\\" in part else _Glob(part)


def _reaches_below(parts: Sequence[_Glob | None], names: Sequence[str]) -> bool:
    for part, name in zip(parts, names, strict=False):
        if part is None:
            return True
        if not part.matches(name):
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
    """A pattern as a regular expression for the whole path. With many wildcards its time to match grows without bound.

    Raises:
        PatternError: a bracket is not closed, or a backslash ends the pattern.
    """
    return "".join(_tokens(pattern))


def _tokens(pattern: str) -> list[str]:
    """Regular expressions for one character each, or one of `_WILDCARDS`."""
    out: list[str] = []
    at = 0
    while at < len(pattern):
        char = pattern[at]
        at += 1
        if char == "*" and pattern.startswith("*", at):
            while pattern.startswith("*", at):
                at += 1
            if pattern.startswith("/", at):
                at += 1
                out.append(_ANY_DIRECTORIES)
            else:
                out.append(_ANYTHING)
        elif char == "*":
            out.append(_IN_NAME)
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
    return out


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
