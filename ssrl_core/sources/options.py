"""Parse the options in the URI of an image source."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from urllib.parse import parse_qsl

from ..errors import SourceError, did_you_mean


def query_options(uri: str, query: str, *, known: Iterable[str]) -> dict[str, str]:
    """The options in a query string, name -> value.

    Args:
        uri: of the source, for error messages.
        query: what follows ``?`` in the URI, percent-encoded.
        known: names of the options that the source has.

    Raises:
        SourceError: an option is unknown or repeated.
    """
    names, options = tuple(known), dict[str, str]()
    # A plus sign does not stand for a space, because file names contain plus signs.
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
    """``; 3 skipped: hidden`` for each reason with a count above 0."""
    return "".join(f"; {count} skipped: {reason}" for reason, count in sorted(skipped.items()) if count)
