"""The flags that a server shows of itself, without keys."""

from __future__ import annotations

import re

from kvparity_contracts.json_types import JsonObject, JsonValue

_SECRET = re.compile(r"key|secret|passw|credential|auth|token$|cookie|header", re.IGNORECASE)
_MOST_TEXT = 300


def shown_flags(found: JsonValue, key: str | None) -> JsonObject:
    """Flags with a plain value, by name. What is named like a key, or holds ``key``, is left out,
    and so is what is longer than a flag."""
    if not isinstance(found, dict):
        return {}
    return {
        name: value
        for name, value in sorted(found.items())
        if not _SECRET.search(name)
        and isinstance(value, (bool, int, float, str))
        and len(str(value)) <= _MOST_TEXT
        and not (key is not None and key in str(value))
    }
