"""Where two nested mappings differ: a configuration or a plan then, and now."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


def differences(before: Any, now: Any, path: str = "") -> Iterator[str]:
    """``key.of.value: old -> new`` for every value that differs; values are cut after 200 characters."""
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        for key in sorted({*before, *now}):
            yield from differences(before.get(key), now.get(key), f"{path}.{key}" if path else str(key))
    elif before != now:
        yield f"{path}: {before!r:.200} -> {now!r:.200}"
