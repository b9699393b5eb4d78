"""A badge: a small SVG with the result of a check, for a README."""

from __future__ import annotations

from html import escape

from .report import Report

LABEL = "ssrl check"
COLOURS = {"passed": "#2e7d32", "failed": "#c62828"}
"""Of the states that are not grey."""

# The widths of the texts differ between fonts, so textLength sets them.
_SVG = """\
<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="20" role="img" aria-label="{label}: {message}">
<title>{label}: {message}</title>
<clipPath id="r"><rect width="{width}" height="20" rx="3"/></clipPath>
<g clip-path="url(#r)"><path fill="#555" d="M0 0h{left}v20H0z"/>
<path fill="{colour}" d="M{left} 0h{right}v20H{left}z"/></g>
<g fill="#fff" font-family="Verdana,DejaVu Sans,sans-serif" font-size="11">
<text x="6" y="14" textLength="{label_width}">{label}</text>
<text x="{message_at}" y="14" textLength="{message_width}">{message}</text>
</g>
</svg>
"""


def badge(status: str, *, declared: int = 0, failed: int = 0, label: str = LABEL) -> str:
    """The SVG of a badge.

    Args:
        status: ``passed``, ``failed``, ``vanished`` or ``not checked``.
        declared: number of checks that fail as the tasks declare.
        failed: number of checks that fail.
        label: text on the left.
    """
    message = f"{failed} failed" if status == "failed" and failed else status
    if status == "passed" and declared:
        message += f", {declared} declared"
    label_width, message_width = 6.0 * len(label), 6.0 * len(message)
    left, right = label_width + 12, message_width + 12
    return _SVG.format(
        width=left + right,
        left=left,
        right=right,
        colour=COLOURS.get(status, "#757575"),
        label=escape(label),
        message=escape(message),
        label_width=label_width,
        message_at=left + 6,
        message_width=message_width,
    )


def badge_of(report: Report) -> str:
    """The SVG of a badge with the result of a report."""
    failed, declared = len(report.failed), report.counts.get("declared", 0)
    return badge("failed" if failed else "passed", declared=declared, failed=failed)
