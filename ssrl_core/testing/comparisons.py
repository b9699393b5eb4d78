"""What comparing the pictures of a sample, or the cells of a single one, measures.

A ``Comparison`` gives a number to each of several items: the candidates (all pictures but the first), all pictures,
pairs of pictures, cells of the picture, or marks on it. A cheap rule is then: take the item with the highest number.
Comparisons are in groups, one for each kind of shortcut.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import combinations, permutations
from typing import NamedTuple

import cv2
import numpy as np

from ..answers import split_answer

INSETS = (0, 3, 8)
"""Pixels between the border of a picture and the lines whose continuity is measured: tasks may leave a gap."""

CELLS = 9
"""Cells and marks are compared in pairs up to this number."""

LONGEST_SIDE = 4
"""Cells of a grid in a row or in a column, at most."""

_LINE = 48  # samples of a line
_SIDES = ("top", "bottom", "left", "right")
_MIDDLE = 96  # pixels of a side, in the middle of a picture, that colour fringes are measured in
_MATCHED = 128  # pixels of the longer side of a picture in which candidates are searched
_MARGIN = 0.15  # of a cell's side that a gutter or label may take


class Comparison(NamedTuple):
    """Numbers for items.

    Attributes:
        name: what is compared.
        items: names of the items.
        values: a number for each.
        pairs: whether the items are pairs.
    """

    name: str
    items: tuple[str, ...]
    values: np.ndarray
    pairs: bool = False


class Form(NamedTuple):
    """What the comparisons of a sample depend on besides its pixels; samples of one form have the same comparisons.

    Attributes:
        pictures: number of pictures.
        grids: (rows, columns) that a single picture may be made of.
        labels: of the marks on the first picture.
    """

    pictures: int
    grids: tuple[tuple[int, int], ...]
    labels: tuple[str, ...]


@dataclass(frozen=True)
class Seen:
    """What comparisons measure of a sample.

    Attributes:
        pictures: uint8, h x w x 3, in the order of the prompt.
        grids: see ``Form``.
        marks: label -> (x, y) of marks on the first picture, in shares of its width and height.
    """

    pictures: Sequence[np.ndarray]
    grids: tuple[tuple[int, int], ...]
    marks: Mapping[str, tuple[float, float]]

    @property
    def form(self) -> Form:
        """The form of the sample."""
        return Form(len(self.pictures), self.grids, tuple(sorted(self.marks)))

    @cached_property
    def cells(self) -> dict[tuple[int, int], list[np.ndarray]]:
        """For each grid the cells of the last picture in reading order, without gutters and labels at their borders."""
        picture, found = self.pictures[-1], {}
        for rows, columns in self.grids:
            tops = np.linspace(0, picture.shape[0], rows + 1).astype(int)
            lefts = np.linspace(0, picture.shape[1], columns + 1).astype(int)
            boxes = [np.s_[tops[r] : tops[r + 1], lefts[c] : lefts[c + 1]] for r in range(rows) for c in range(columns)]
            found[rows, columns] = [_trimmed(picture[box]) for box in boxes]
        return found


def _distances(table: np.ndarray) -> np.ndarray:
    """n x n Euclidean distances of the rows."""
    return np.asarray(np.linalg.norm(table[:, None] - table[None], axis=-1))


def _compared(what: str, table: np.ndarray, items: Sequence[str]) -> Iterator[Comparison]:
    """Comparisons of items that are described by a row each: how high, how unlike the others, and in pairs."""
    apart, names = _distances(table), tuple(items)
    if table.shape[1] in (1, 3):  # a number, or a colour; the mean of other descriptions means nothing
        yield Comparison(what, names, table.mean(axis=1))
    if len(names) > 2:
        yield Comparison(f"{what}, unlike the others", names, apart.sum(axis=1))
    if 2 < len(names) <= CELLS:
        yield from _in_pairs(f"{what}, apart", apart, names)


def _in_pairs(what: str, apart: np.ndarray, items: Sequence[str], *, ordered: bool = False) -> Iterator[Comparison]:
    couples = [*(permutations if ordered else combinations)(range(len(items)), 2)]
    names = tuple(f"{items[i]} and {items[j]}" for i, j in couples)
    yield Comparison(what, names, np.array([apart[i, j] for i, j in couples]), pairs=True)


def _pictures(what: str, table: np.ndarray) -> Iterator[Comparison]:
    """Comparisons of pictures, and of the candidates with the first picture."""
    names = [f"picture {k + 1}" for k in range(len(table))]
    yield from _compared(what, table, names)
    if len(table) > 2:
        candidates = tuple(names[1:])
        apart = _distances(table)
        yield Comparison(f"{what}, unlike picture 1", candidates, apart[0, 1:])
        if table.shape[1] in (1, 3):
            yield Comparison(f"{what}, among the candidates", candidates, table[1:].mean(axis=1))
        yield Comparison(f"{what}, unlike the other candidates", candidates, apart[1:, 1:].sum(axis=1))


def _described(
    what: str, seen: Seen, describe: Callable[[np.ndarray], Sequence[float] | np.ndarray]
) -> Iterator[Comparison]:
    """Comparisons of the pictures, and of the cells of a single picture, by what ``describe`` says of each."""
    if len(seen.pictures) > 1:
        yield from _pictures(what, np.array([describe(picture) for picture in seen.pictures], np.float64))
    for (rows, columns), cells in seen.cells.items():
        table = np.array([describe(cell) for cell in cells], np.float64)
        yield from _compared(f"{what} in {rows} x {columns} cells", table, _cell_names(len(cells)))


def _cell_names(count: int) -> list[str]:
    return [f"cell {k + 1}" for k in range(count)]


def _trimmed(cell: np.ndarray) -> np.ndarray:
    """A cell without the lines at its borders of which most pixels have one colour, such as gutters with a label."""
    grey = cell[..., 1].astype(np.int16)

    def first(lines: np.ndarray) -> int:
        most = max(1, int(len(lines) * _MARGIN))
        plain = (np.abs(lines[:most] - np.median(lines[:most], axis=1, keepdims=True)) <= 3).mean(axis=1) > 0.6
        return int(np.flatnonzero(plain).max() + 1) if plain.any() else 0

    top, bottom, left, right = first(grey), first(grey[::-1]), first(grey.T), first(grey.T[::-1])
    return np.ascontiguousarray(cell[top : cell.shape[0] - bottom, left : cell.shape[1] - right])


def _colours(seen: Seen) -> Iterator[Comparison]:
    yield from _described("mean colour", seen, lambda picture: cv2.meanStdDev(picture)[0].ravel())
    yield from _described("spread of colours", seen, lambda picture: cv2.meanStdDev(picture)[1].ravel())
    yield from _described("histogram", seen, _histogram)


def _histogram(picture: np.ndarray) -> np.ndarray:
    counts = [cv2.calcHist([picture], [k], None, [8], [0, 256]).ravel() for k in range(3)]
    return np.concatenate(counts) / picture[..., 0].size


def _detail(seen: Seen) -> Iterator[Comparison]:
    yield from _described("sharpness", seen, lambda picture: [np.log(_laplacian(picture).var() + 1e-3)])
    yield from _described("noise", seen, lambda picture: [float(np.median(np.abs(_laplacian(picture))))])
    yield from _described("blocks of 8 pixels", seen, _blocks)


def _laplacian(picture: np.ndarray) -> np.ndarray:
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
    inner = cv2.Laplacian(grey, cv2.CV_32F)[2:-2, 2:-2]
    return inner if inner.size else np.zeros((1, 1), np.float32)


def _blocks(picture: np.ndarray) -> list[float]:
    """How much the steps at one of eight phases exceed the mean step, in percent, across and down; and that phase."""
    found: list[float] = []
    for axis in (0, 1):
        steps = np.abs(np.diff(picture[..., 1].astype(np.float32), axis=axis)).mean(axis=1 - axis)
        whole = len(steps) // 8 * 8
        phases = steps[:whole].reshape(-1, 8).mean(axis=0) if whole else np.zeros(8)
        found += [100 * float(phases.max() / (phases.mean() + 1e-3) - 1), float(phases.argmax())]
    return found


def _sizes(seen: Seen) -> Iterator[Comparison]:
    if len(seen.pictures) > 1:
        yield from _pictures("size", np.array([picture.shape[:2] for picture in seen.pictures], np.float64))


def _continuity(seen: Seen) -> Iterator[Comparison]:
    pictures = seen.pictures
    names = [f"picture {k + 1}" for k in range(len(pictures))]
    for inset in INSETS if len(pictures) > 1 else ():
        steps = _steps([_lines(picture, inset) for picture in pictures])
        told = f"{inset} pixels inside" if inset else "outermost"
        if len(pictures) > 2:
            for a, one in enumerate(_SIDES):
                for b, other in enumerate(_SIDES):
                    what = f"step from the {one} line of picture 1 to the {other} line of a candidate, {told}"
                    yield Comparison(what, tuple(names[1:]), steps[0, a, 1:, b])
            best = steps[0, :, 1:].min(axis=(0, 2))
            yield Comparison(f"least step from any line of picture 1, {told}", tuple(names[1:]), best)
        yield from _least_steps(steps, names, told)
        if len(pictures) <= CELLS:
            for a, b in ((3, 2), (1, 0)):
                what = f"step from the {_SIDES[a]} line to the {_SIDES[b]} line, {told}"
                yield from _in_pairs(what, steps[:, a, :, b], names, ordered=True)
    for (rows, columns), cells in seen.cells.items():
        grid, items = f"in {rows} x {columns} cells", _cell_names(len(cells))
        for inset in INSETS[:2]:
            steps = _steps([_lines(cell, inset) for cell in cells])
            beside = np.zeros(len(cells))
            for k in range(len(cells)):
                for after, (a, b) in ((k + 1, (3, 2)), (k + columns, (1, 0))):
                    if after < len(cells) and not (a == 3 and after % columns == 0):
                        beside[[k, after]] += steps[k, a, after, b]
            yield Comparison(f"steps to the cells beside it, {inset} pixels inside, {grid}", tuple(items), beside)
            yield from _least_steps(steps, items, f"{inset} pixels inside, {grid}")
            if len(cells) <= CELLS:
                for a, b in ((3, 2), (1, 0)):
                    what = f"step from the {_SIDES[a]} to the {_SIDES[b]} line, {inset} pixels inside, {grid}"
                    yield from _in_pairs(what, steps[:, a, :, b], items, ordered=True)


def _least_steps(steps: np.ndarray, items: Sequence[str], told: str) -> Iterator[Comparison]:
    """For each item and each of its sides, how well the best of the others continues it."""
    for a, b in ((3, 2), (1, 0), (2, 3), (0, 1)):
        least = (steps[:, a, :, b] + 1e3 * np.eye(len(items))).min(axis=1)
        yield Comparison(
            f"least step from the {_SIDES[a]} line to the {_SIDES[b]} line of another, {told}", tuple(items), least
        )


def _lines(picture: np.ndarray, inset: int) -> np.ndarray:
    """The lines of a picture along its top, bottom, left and right, float32, 4 x ``_LINE`` x 3."""
    inset = min(inset, (min(picture.shape[:2]) - 1) // 2)
    last = -1 - inset
    sides = (picture[inset], picture[last], picture[:, inset], picture[:, last])
    return np.stack([cv2.resize(side[None].astype(np.float32), (_LINE, 1))[0] for side in sides])


def _steps(lines: Sequence[np.ndarray]) -> np.ndarray:
    """[i, a, j, b]: the mean step in grey levels from line a of item i to line b of item j."""
    table = np.stack(lines)
    return np.asarray(np.abs(table[:, :, None, None] - table[None, None]).mean(axis=(-2, -1)))


def _matching(seen: Seen) -> Iterator[Comparison]:
    if len(seen.pictures) < 2:
        return
    first, *candidates = seen.pictures
    scale = min(1.0, _MATCHED / max(first.shape[:2]))
    field = _shrunk(first, scale)
    found = np.zeros((len(candidates), 3))
    for k, candidate in enumerate(candidates):
        piece = _shrunk(candidate, scale)
        if all(part < whole for part, whole in zip(piece.shape, field.shape, strict=True)):
            least, _, (x, y), _ = cv2.minMaxLoc(cv2.matchTemplate(field, piece, cv2.TM_SQDIFF))
            found[k] = np.sqrt(max(least, 0.0) / piece.size), x + piece.shape[1] / 2, y + piece.shape[0] / 2
    names = [f"picture {k + 2}" for k in range(len(candidates))]
    yield from _compared("difference from the most similar place of picture 1", found[:, :1], names)
    yield from _compared("distance of that place from the left", found[:, 1:2], names)
    yield from _compared("distance of that place from the top", found[:, 2:], names)


def _shrunk(picture: np.ndarray, scale: float) -> np.ndarray:
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
    return cv2.resize(grey, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) if scale < 1 else grey


def _aberration(seen: Seen) -> Iterator[Comparison]:
    yield from _described("shift of red against green", seen, lambda picture: _shift(picture, 0))
    yield from _described("shift of blue against green", seen, lambda picture: _shift(picture, 2))


def _shift(picture: np.ndarray, channel: int) -> np.ndarray:
    """By how many hundredths of a pixel a channel lies right of and below green, by the method of Lucas and Kanade."""
    top, left = (max(0, side - _MIDDLE) // 2 for side in picture.shape[:2])
    middle = picture[top : top + _MIDDLE, left : left + _MIDDLE].astype(np.float32)
    green, other = (_normal(middle[..., k]) for k in (1, channel))
    across, down = (np.zeros_like(green) for _ in range(2))
    across[:, 1:-1] = (green[:, 2:] - green[:, :-2]) / 2
    down[1:-1] = (green[2:] - green[:-2]) / 2
    slopes = np.stack((across.ravel(), down.ravel()))
    found: np.ndarray = np.linalg.solve(slopes @ slopes.T + 1e-3 * np.eye(2), slopes @ (green - other).ravel())
    return 100 * found


def _normal(channel: np.ndarray) -> np.ndarray:
    return np.asarray((channel - channel.mean()) / (channel.std() + 1e-3))


def _marks(seen: Seen) -> Iterator[Comparison]:
    if len(seen.marks) < 2:
        return
    labels = seen.form.labels
    places = np.array([seen.marks[label] for label in labels], np.float64)
    names = tuple(f"mark {label}" for label in labels)
    yield from _compared("distance of a mark from the left", places[:, :1], names)
    yield from _compared("distance of a mark from the top", places[:, 1:], names)
    yield Comparison("distance of a mark from the centre", names, np.linalg.norm(places - 0.5, axis=1))
    if len(names) > 2:
        yield Comparison("distance of a mark from the others", names, _distances(places).sum(axis=1))


def grids_of(truth: str, answers: Sequence[str]) -> tuple[tuple[int, int], ...]:
    """The grids that a picture may be made of, with as many cells as an answer orders, or as one of its words names."""
    words = split_answer(truth)
    if len(words) > 2:
        counts = {len(words)}
    else:
        counts = {len(set(part)) for part in zip(*map(split_answer, answers), strict=False)}
    return tuple(
        (rows, count // rows)
        for count in sorted(counts)
        for rows in range(1, LONGEST_SIDE + 1)
        if count > 1 and count % rows == 0 and count // rows <= LONGEST_SIDE
    )


GROUPS: Mapping[str, Callable[[Seen], Iterator[Comparison]]] = {
    "colours": _colours,
    "detail": _detail,
    "sizes": _sizes,
    "continuity": _continuity,
    "matching": _matching,
    "aberration": _aberration,
    "marks": _marks,
}
"""Group -> its comparisons of a sample."""


def values_of(group: str, seen: Seen) -> np.ndarray:
    """The numbers of all comparisons of a group, float32, one after the other."""
    found = [comparison.values for comparison in GROUPS[group](seen)]
    return np.nan_to_num(np.concatenate(found)).astype(np.float32) if found else np.zeros(0, np.float32)


@lru_cache(maxsize=256)
def layout(group: str, form: Form) -> tuple[Comparison, ...]:
    """The comparisons that ``values_of`` puts one after the other, for samples of this form."""
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 256, (64, 64, 3), dtype=np.uint8) for _ in range(form.pictures)]
    marks = {label: (float(x), float(y)) for label, (x, y) in zip(form.labels, rng.random((99, 2)), strict=False)}
    return tuple(GROUPS[group](Seen(pictures, form.grids, marks)))
