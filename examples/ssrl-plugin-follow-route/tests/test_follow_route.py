"""Tests of the task follow_route."""

from __future__ import annotations

import re

import numpy as np
import pytest
from ssrl_core import Sample, SourceImage
from ssrl_core.drawing import split_grid
from ssrl_core.testing import PretextTaskTests

from ssrl_plugin_follow_route import ROUTES, describe

COMPASS = ["up", "right", "down", "left"]  # clockwise
STEP = {"up": (0, -1), "right": (1, 0), "down": (0, 1), "left": (-1, 0)}


def walk(route: str) -> tuple[int, int]:
    """The end of a route in words: cells to the right, cells down."""
    facing, across, down = "", 0, 0
    for turn, word, cells, way in re.findall(r"(turn|face) (\w+) and |go (\d) (\w+)", route):
        if turn == "face":
            facing = word
        elif turn == "turn":
            facing = COMPASS[(COMPASS.index(facing) + {"right": 1, "left": -1}[word]) % 4]
        else:
            x, y = STEP[facing if way == "forward" else way]
            across, down = across + x * int(cells), down + y * int(cells)
    return across, down


class TestConformance(PretextTaskTests):
    task = "follow_route"

    def solve(self, source: SourceImage, sample: Sample) -> set[str]:
        """Follow the words of the prompt from the dot, and compare the cell there with the pieces."""
        picture, *pieces = map(np.asarray, sample.images)
        views = source.rgb, source.rgb[::-1, ::-1]  # half of the pictures are upside down
        cells = split_grid(min(views, key=lambda view: np.abs(picture - view.astype(int)).sum()), 5, 5)
        pairs = zip(split_grid(picture, 5, 5), cells, strict=True)
        changed = [(shown != cell)[3:-3, 3:-3].any() for shown, cell in pairs]
        (start,) = np.flatnonzero(changed)
        across, down = walk(sample.params["route"])
        row, column = start // 5 + down, start % 5 + across
        assert 0 <= row < 5 and 0 <= column < 5
        end = cells[5 * row + column].astype(int)
        return {letter for letter, piece in zip("ABCD", pieces, strict=True) if np.abs(end - piece).mean() < 1}


@pytest.mark.parametrize("level", ["1", "2", "3"])
def test_words_lead_where_the_legs_lead(level: str) -> None:
    for route in ROUTES[level]:
        assert complex(*walk(describe(route, by_turns=level == "3"))) == route.sum()


def test_turns() -> None:
    assert describe(np.array([-2, -1j]), by_turns=True) == "face left and go 2 forward, turn right and go 1 forward"
