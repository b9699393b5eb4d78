"""Confusion matrices: of whole answers, or of each position if the truths are orders."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from ..answers import normalize
from .folder import Answer

MOST_LABELS = 12
"""Maximum number of truths in a matrix."""

OTHER, NONE = "other", "none"
"""Columns for answers that are no truth, and for completions without the required format."""

_BETWEEN = re.compile(r"[\s,;>→-]+")


@dataclass(frozen=True, slots=True)
class Matrix:
    """Counts of answers by truth (rows) and prediction (columns).

    Attributes:
        position: position in the answer, from 1; None for whole answers.
        truths, predictions: names of rows and columns.
        counts: one list for each row.
    """

    position: int | None
    truths: list[str]
    predictions: list[str]
    counts: list[list[int]]


def matrices(answers: Sequence[Answer]) -> list[Matrix]:
    """The matrices of one task and level.

    One matrix of whole answers if there are few truths; else one for each position; none if a position has many truths.
    """
    truths = {_parts(answer.truth): answer.truth for answer in answers}
    if len(truths) <= MOST_LABELS:
        return [
            _matrix(
                None, [(answer.truth, _given(answer, truths.get(_parts(answer.pred), OTHER))) for answer in answers]
            )
        ]
    positions = {len(parts) for parts in truths}
    if len(positions) > 1 or any(len(set(labels)) > MOST_LABELS for labels in zip(*truths, strict=True)):
        return []
    return [_matrix(at + 1, [_at(answer, at) for answer in answers]) for at in range(*positions)]


def _matrix(position: int | None, pairs: Sequence[tuple[str, str]]) -> Matrix:
    truths = sorted({truth for truth, _ in pairs})
    counts = Counter((truth, said if said in (*truths, NONE) else OTHER) for truth, said in pairs)
    columns = [*truths, OTHER, NONE]
    return Matrix(position, truths, columns, [[counts[truth, column] for column in columns] for truth in truths])


def _at(answer: Answer, position: int) -> tuple[str, str]:
    """Truth and prediction at a position of the answer."""
    truth, said = _parts(answer.truth), _parts(answer.pred)
    return truth[position], _given(answer, said[position] if len(said) == len(truth) else OTHER, part=truth[position])


def _given(answer: Answer, said: str, *, part: str | None = None) -> str:
    """The prediction to count. An answer that the verifier accepted counts as the truth, however it is written."""
    if not answer.format:
        return NONE
    return (answer.truth if part is None else part) if answer.acc else said


def _parts(text: str) -> tuple[str, ...]:
    """The words of a normalized answer, without separators."""
    return tuple(filter(None, _BETWEEN.split(normalize(text))))
