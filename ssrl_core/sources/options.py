"""The URI of an image source: where it is, and the options that stand after its ``?``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from urllib.parse import parse_qsl

from ..errors import SourceError, did_you_mean


def query_options(uri: str, query: str, *, known: Iterable[str]) -> dict[str, str]:
    """The options in the query of ``uri``, by name. Raises SourceError for an unknown or repeated one."""
    names, options = tuple(known), dict[str, str]()
    # A plus sign is no space here: file names have plus signs.
    for key, value in parse_qsl(query.replace("+", "%2B"), keep_blank_values=True):
        if key not in names:
            raise SourceError(
                f"image source {uri!r}: there is no option {key!r}.{did_you_mean(key, names)}\n"
                f"  options: {', '.join(names)}"
            )
        if key in options:
            raise SourceError(f"image source {uri!r}: option {key!r} is given twice")
        options[key] = value
    return options


def skipped_text(skipped: Mapping[str, int]) -> str:
    """``; 3 skipped: hidden`` for what a source left out, by reason; empty where that is nothing."""
    return "".join(f"; {count} skipped: {reason}" for reason, count in sorted(skipped.items()) if count)
