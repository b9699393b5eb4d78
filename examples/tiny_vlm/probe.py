"""Direct questions about space that are in no lesson and no pretext task, to measure transfer.

The questions are new, but use the words of the lessons, because the small model knows no others. The model chooses
between given answers, because its free completions would not be any of them; see ``ask``.
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
MARGIN = 1.25  # minimum ratio of depths that are compared
SIDES = ("left", "right")


@dataclass(frozen=True, slots=True)
class Question:
    """A question about an image, with its possible answers and the truth."""

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
    """``count`` questions of each kind; the same at every call. Another seed uses other rooms."""
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
    """The answer to each question: the choice whose log-probability exceeds its mean over all questions the most.

    The mean is subtracted because the model prefers some choices for any image. The rest is the effect of the image.

    Args:
        model_path: folder of the model.
        asked: the questions.
        instruction: text after each question.
        form: template of a completion, with ``{truth}`` for the choice.
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
