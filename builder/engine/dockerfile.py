"""Finds the lines of a Dockerfile that a build step came from.

BuildKit names a step `[stage 3/7] RUN make`: the stage, the step's place in it, and the instruction with its
variables expanded. The engine's API gives no line numbers. This reads a Dockerfile just far enough to count as
BuildKit counts.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

_STEP = re.compile(r"\[(?:(?P<stage>.+) )? *(?P<index>\d+)/(?P<total>\d+)\] (?P<command>.*)", re.DOTALL)
_DIRECTIVE = re.compile(r"#\s*([a-zA-Z][a-zA-Z0-9]*)\s*=\s*(.+?)\s*")
_FROM = re.compile(r"FROM\s+(?:--\S+\s+)*(?P<base>\S+)(?:\s+AS\s+(?P<name>\S+))?\s*", re.IGNORECASE)
_HEREDOC = re.compile(r"<<(?P<dash>-?)(?P<quote>['\"]?)(?P<word>[A-Za-z_][A-Za-z0-9_]*)(?P=quote)")
_COUNTED = ("ADD", "COPY", "RUN", "WORKDIR")


@dataclass(frozen=True)
class Instruction:
    """An instruction, on one line and with single blanks, and its first and last line in the file, from 1."""

    keyword: str
    text: str
    lines: tuple[int, int]


@dataclass
class _Stage:
    name: str
    counts_base: bool
    instructions: list[Instruction] = field(default_factory=list)


def instructions(dockerfile: str) -> list[Instruction]:
    """Splits a Dockerfile into its instructions."""
    lines = dockerfile.splitlines()
    escape = _escape(lines)
    found: list[Instruction] = []
    at = 0
    while at < len(lines):
        first = at
        if not lines[at].strip() or lines[at].lstrip().startswith("#"):
            at += 1
            continue
        parts: list[str] = []
        last = at
        while at < len(lines):
            line = lines[at].rstrip()
            at += 1
            # Comments and empty lines between continued lines do not end the instruction.
            if parts and (not line.strip() or line.lstrip().startswith("#")):
                continue
            last = at
            if line.endswith(escape):
                parts.append(line[:-1])
                continue
            parts.append(line)
            break
        text = " ".join(" ".join(parts).split())
        keyword = text.split(" ", 1)[0].upper()
        if keyword in ("RUN", "COPY", "ADD"):
            for match in _HEREDOC.finditer(text):
                at = _end_of_heredoc(lines, at, match["word"], bool(match["dash"]))
                last = max(last, at)
        found.append(Instruction(keyword, text, (first + 1, last)))
    return found


def _escape(lines: list[str]) -> str:
    """The character that continues a line: a backslash, or what the directive at the top says."""
    for line in lines:
        match = _DIRECTIVE.fullmatch(line.strip())
        if match is None:
            break
        if match[1].lower() == "escape":
            return match[2]
    return "\\"


def _end_of_heredoc(lines: list[str], at: int, word: str, tabs: bool) -> int:
    """The number of lines up to and including the one that ends a here-document."""
    for index in range(at, len(lines)):
        if (lines[index].lstrip("\t") if tabs else lines[index]) == word:
            return index + 1
    # It has no end, so that it was none: `<<` of a shell's own.
    return at


def lines_of_step(dockerfile: str, step: str) -> tuple[int, int] | None:
    """The first and last line of the instruction behind a step's name; None when that cannot be said for sure.

    Args:
        dockerfile: the text of the Dockerfile.
        step: BuildKit's name of the step.
    """
    match = _STEP.fullmatch(step)
    if match is None:
        return None
    command = " ".join(match["command"].split())
    keyword = command.split(" ", 1)[0].upper()
    index, total = int(match["index"]), int(match["total"])
    all_stages = _stages(instructions(dockerfile))
    # With several platforms the stage's name stands behind the platform's.
    named = (match["stage"] or "").split(" ")[-1].lower()
    # BuildKit gives the name of a stage only when it builds several.
    stages = [s for s in all_stages if not named or s.name == named]
    by_place = [found for s in stages if (found := _at(s, index, total, keyword)) is not None]
    by_text = [i for s in stages for i in s.instructions if _same(i.text, command)]
    for candidates in ([i for i in by_place if i in by_text], by_text, by_place):
        if len(candidates) == 1:
            return candidates[0].lines
    return None


def _same(text: str, command: str) -> bool:
    keyword, _, rest = text.partition(" ")
    return f"{keyword.upper()} {rest}" == command


def _stages(found: list[Instruction]) -> list[_Stage]:
    stages: list[_Stage] = []
    for instruction in found:
        match = _FROM.fullmatch(instruction.text)
        if match is not None:
            base = match["base"].lower()
            counts = base != "scratch" and base not in [s.name for s in stages]
            name = (match["name"] or f"stage-{len(stages)}").lower()
            stages.append(_Stage(name, counts))
        if stages:
            stages[-1].instructions.append(instruction)
    return stages


def _at(stage: _Stage, index: int, total: int, keyword: str) -> Instruction | None:
    """The instruction at a place of a stage, if the stage has that many and it is of that kind."""
    counted = [i for i in stage.instructions if i.keyword in _COUNTED or (i.keyword == "FROM" and stage.counts_base)]
    if len(counted) != total or not 1 <= index <= total:
        return None
    found = counted[index - 1]
    return found if found.keyword == keyword else None
