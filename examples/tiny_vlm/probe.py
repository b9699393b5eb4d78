"""Direct questions about space whose form is in no lesson and in no pretext task: does what was learnt carry over?

The words are those of the lessons, since a model this small knows no others; what is asked is new. Chance is 1/4 for
the first question and 1/2 for the others.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from asking import answers
from lessons import draw_rings
from PIL import Image

from ssrl_core.answers import extract_answer
from ssrl_core.sources import open_source, to_working_size
from ssrl_core.types import SourceImage

WORLD = "synthetic:?width=192&height=144&seed=2000"
CHANCE = {"farthest ring": 0.25, "farther half": 0.5, "in order": 0.5}


@dataclass(frozen=True, slots=True)
class Question:
    """A picture, what is asked, and the answer."""

    kind: str
    image: Image.Image
    text: str
    truth: str


def farthest_ring(scene: SourceImage, rng: np.random.Generator) -> Question | None:
    """Which of four rings is farthest, by a clear margin."""
    image, _, deep = draw_rings(scene, rng, count=4)
    order = np.argsort(deep)
    if len(deep) < 4 or deep[order[-1]] < 1.25 * deep[order[-2]]:
        return None
    return Question("farthest ring", image, "Which of the rings is farthest?", str(order[-1] + 1))


def farther_half(scene: SourceImage, rng: np.random.Generator) -> Question | None:
    """Whether the left or the right half of a picture is farther, by a clear margin."""
    wanted = ("left", "right")[rng.integers(2)]
    middle = scene.rgb.shape[1] // 2
    left, right = float(np.median(scene.depth[:, :middle])), float(np.median(scene.depth[:, -middle:]))
    if max(left, right) < 1.25 * min(left, right):
        return None
    mirrored = ("left" if left > right else "right") != wanted
    rgb = np.ascontiguousarray(scene.rgb[:, ::-1]) if mirrored else scene.rgb
    return Question("farther half", Image.fromarray(rgb), "Which half is farther, left or right?", wanted)


def in_order(scene: SourceImage, rng: np.random.Generator) -> Question | None:
    """Whether ring 1 is nearer than ring 2."""
    wanted = bool(rng.integers(2))
    image, _, deep = draw_rings(scene, rng, count=2)
    if len(deep) < 2 or max(deep) < 1.25 * min(deep) or (deep[0] < deep[1]) != wanted:
        return None
    return Question("in order", image, "Is ring 1 nearer than ring 2, yes or no?", "yes" if wanted else "no")


KINDS: dict[str, Callable[[SourceImage, np.random.Generator], Question | None]] = {
    "farthest ring": farthest_ring,
    "farther half": farther_half,
    "in order": in_order,
}


def questions(count: int) -> list[Question]:
    """``count`` questions of each kind, the same at every call."""
    source = open_source(WORLD)
    result = []
    for offset, make in enumerate(KINDS.values()):
        found, k = 0, 0
        while found < count:
            rng = np.random.default_rng((offset, k))
            scene = to_working_size(source.load(str(k)), 112, rng=rng)
            k += 1
            if question := make(scene, rng):
                result.append(question)
                found += 1
    return result


def ask(model_path: Path, asked: list[Question], *, instruction: str = "") -> dict[str, float]:
    """Share of right answers by kind, greedily; an answer is what is boxed, or else all that is written."""
    written = answers(model_path, [([question.image], question.text + instruction) for question in asked], longest=24)
    right: dict[str, list[bool]] = {}
    for question, text in zip(asked, written, strict=True):
        answer = extract_answer(text) or text
        right.setdefault(question.kind, []).append(answer.strip().rstrip(".") == question.truth)
    return {kind: sum(values) / len(values) for kind, values in right.items()}
