"""What a check leaves behind for people and for CI systems: a directory with files that their tools can read."""

from __future__ import annotations

from builder.runs.events import event_file
from builder.runs.files import KEEP, Stored, add, latest, place, read_run, runs_directory, write_run
from builder.runs.junit import junit
from builder.runs.markdown import Unchecked, append_summary, summary
from builder.runs.model import Run, run_of

__all__ = [
    "KEEP",
    "Run",
    "Stored",
    "Unchecked",
    "add",
    "append_summary",
    "event_file",
    "junit",
    "latest",
    "place",
    "read_run",
    "run_of",
    "runs_directory",
    "summary",
    "write_run",
]
