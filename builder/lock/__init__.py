"""What cells are built from, as exact bytes: lock files, and bases by digest or by package set."""

from __future__ import annotations

from builder.lock.bases import BasePin, Bases, Pins, Resolver
from builder.lock.model import (
    BaseLock,
    DebianRequest,
    EnvironmentLock,
    LockedPackage,
    MadeBase,
    PythonRequest,
    Requests,
)

__all__ = [
    "BaseLock",
    "BasePin",
    "Bases",
    "DebianRequest",
    "EnvironmentLock",
    "LockedPackage",
    "MadeBase",
    "Pins",
    "PythonRequest",
    "Requests",
    "Resolver",
]
