"""Keeps secret values out of what a build prints: its steps may echo what they were given."""

from __future__ import annotations

import re
import threading

from builder.engine.urls import SHORTEST_SECRET, redact_urls, url_secrets

MASK = "***"

_NAMED_VALUE = re.compile(r"(?i)(?:password|passwd|token|secret|api[-_]?key)['\"]?[\s:=]+['\"]?([^\s'\"]+)")


class Redactor:
    """Masks known secret values, and the credentials in URLs. Safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: set[str] = set()
        self._pattern: re.Pattern[str] | None = None

    def learn(self, secret: bytes) -> None:
        """Takes the content of a secret.

        A value of one word is masked as it is. Of a file, such as pip.conf or .netrc, the credentials in its URLs
        and the values after words such as `password` are: masking every line of it would hide ordinary text.
        """
        text = secret.decode("utf-8", "replace").strip()
        values = url_secrets(text)
        values.update(_NAMED_VALUE.findall(text))
        if "://" not in text and not re.search(r"\s", text):
            values.add(text)
        with self._lock:
            self._known.update(v for v in values if len(v) >= SHORTEST_SECRET)
            # The longest first, so that a value that contains another is masked whole.
            ordered = sorted(self._known, key=len, reverse=True)
            self._pattern = re.compile("|".join(map(re.escape, ordered))) if ordered else None

    def __call__(self, text: str) -> str:
        """The text with every known value masked."""
        with self._lock:
            pattern = self._pattern
        if pattern is not None:
            text = pattern.sub(MASK, text)
        return redact_urls(text) if "://" in text else text
