"""Direct questions about space whose form is in no lesson and in no pretext task: does what was learnt carry over?

The words are those of the lessons, since a model this small knows no others; what is asked is new. It has to choose: of
what it writes freely, nothing would be a choice (see ``ask``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from asking import log_probs
from lessons import draw_rings
from PIL import Image

from ssrl_core.sources import open_source, to_working_size
from ssrl_core.types import SourceImage

WORLD = "synthetic:?width=192&height=144&seed={}"
MARGIN = 1.25  # between depths that are told apart
SIDES = ("left", "right")


@dataclass(frozen=True, slots=True)
class Question:
    """A picture, what is asked, what may be answered, and the truth."""

    kind: str
    image: Image.Image
    text: str
    choices: tuple[str, ...]
    truth: str


def nearest_ring(scene: SourceImage, rng: np.random.Generator) -> Question | None:
    """Which of four rings is nearest, by a clear margin."""
    image, _, deep = draw_rings(scene, rng, count=4)
    order = np.argsort(deep)
    if len(deep) < 4 or deep[order[1]] < MARGIN * deep[order[0]]:
        return None
    return Question("nearest ring", image, "Which of the rings is nearest?", tuple("1234"), str(order[0] + 1))


def farthest_ring(scene: SourceImage, rng: np.random.Generator) -> Question | None:
    """Which of four rings is farthest, by a clear margin."""
    image, _, deep = draw_rings(scene, rng, count=4)
    order = np.argsort(deep)
    if len(deep) < 4 or deep[order[-1]] < MARGIN * deep[order[-2]]:
        return None
    return Question("farthest ring", image, "Which of the rings is farthest?", tuple("1234"), str(order[-1] + 1))


def farther_half(scene: SourceImage, rng: np.random.Generator) -> Question | None:
    """Whether the left or the right half of a picture is farther, by a clear margin."""
    wanted = SIDES[rng.integers(2)]
    middle = scene.rgb.shape[1] // 2
    left, right = float(np.median(scene.depth[:, :middle])), float(np.median(scene.depth[:, -middle:]))
    if max(left, right) < MARGIN * min(left, right):
        return None
    mirrored = ("left" if left > right else "right") != wanted
    rgb = np.ascontiguousarray(scene.rgb[:, ::-1]) if mirrored else scene.rgb
    return Question("farther half", Image.fromarray(rgb), "Which half is farther, left or right?", SIDES, wanted)


def in_order(scene: SourceImage, rng: np.random.Generator) -> Question | None:
    """Whether ring 1 is nearer than ring 2."""
    wanted = bool(rng.integers(2))
    image, _, deep = draw_rings(scene, rng, count=2)
    if len(deep) < 2 or max(deep) < MARGIN * min(deep) or (deep[0] < deep[1]) != wanted:
        return None
    truth = "yes" if wanted else "no"
    return Question("in order", image, "Is ring 1 nearer than ring 2, yes or no?", ("yes", "no"), truth)


KINDS: dict[str, Callable[[SourceImage, np.random.Generator], Question | None]] = {
    "farther half": farther_half,
    "in order": in_order,
    "farthest ring": farthest_ring,
    "nearest ring": nearest_ring,
}


def questions(count: int, *, seed: int = 0) -> list[Question]:
    """``count`` questions of each kind, the same at every call; another seed asks about other rooms."""
    source = open_source(WORLD.format(2000 + seed))
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


def ask(model_path: Path, asked: Sequence[Question], *, instruction: str = "", form: str = "{truth}") -> list[str]:
    """What the model answers: of the choices the one whose probability is highest above its mean over these questions.

    A model that was trained to answer other questions would rather give one of their answers than any choice, and
    prefers some choices whatever it sees; what a picture adds to their probabilities is all that can be compared.

    Args:
        model_path: folder of the model.
        asked: the questions.
        instruction: stands after each question.
        form: of a whole answer, with ``{truth}`` where the choice stands.
    """
    wanted = [
        ([question.image], question.text + instruction, form.format(truth=choice))
        for question in asked
        for choice in question.choices
    ]
    known = iter(log_probs(model_path, wanted))
    scores = [np.array([next(known) for _ in question.choices]) for question in asked]
    means = {
        kind: np.mean([score for score, q in zip(scores, asked, strict=True) if q.kind == kind], axis=0)
        for kind in {q.kind for q in asked}
    }
    return [q.choices[int(np.argmax(score - means[q.kind]))] for score, q in zip(scores, asked, strict=True)]
