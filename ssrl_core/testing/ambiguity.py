"""Ambiguity: every sample has exactly one right answer."""

from __future__ import annotations

from itertools import combinations

import cv2
import numpy as np
from PIL import Image

from ..errors import SourceRejected
from .criteria import Family, NotRun, Trial
from .images import hard_for
from .report import CASES, Case, Outcome
from .samples import make_on

family = Family("ambiguity")

TWINS = 3.0
"""Grey levels in [0, 255]: images look the same if their 16 x 16 thumbnails differ by less on average."""

LOOKALIKE = 2.0
"""Grey levels in [0, 255]: samples look the same if all cells of their 24 x 24 thumbnails differ by less."""

TRIES = 48


@family("oracle", "an oracle that is told the definition, not the generator's variables, finds the truth and no other")
def oracle(trial: Trial) -> Outcome:
    """Compares the truth with the answers of the author's ``solve``."""
    if trial.solve is None:
        raise NotRun("no oracle: override solve(source, sample) in a subclass of PretextTaskTests")
    wrong = []
    for made in trial.few:
        if found := trial.contradiction(made):
            wrong.append(Case(made.index, note=found))
    example = f", e.g. sample {wrong[0].index}: {wrong[0].note}" if wrong else ""
    seen = 1 - 0.05 ** (1 / len(trial.few))  # the share of wrong samples of which 95% of all runs find at least one
    return Outcome(
        not wrong,
        f"{len(wrong)} of {len(trial.few)} samples{example}",
        f"0 (finds {seen:.3f} in 95%)",
        figures={"wrong": len(wrong), "samples": len(trial.few)},
        cases=wrong[:CASES],
    )


@family("twins", "no two pictures of one sample look the same")
def twins(trial: Trial) -> Outcome:
    """Compares thumbnails of the images of one size in each sample."""
    found: list[tuple[float, Case]] = []
    for made in trial.few:
        for (i, one), (j, other) in combinations(enumerate(made.sample.images), 2):
            if one.size == other.size:
                apart = float(np.abs(_thumbnail(one, 16) - _thumbnail(other, 16)).mean())
                found.append((apart, Case(made.index, note=f"{apart:.1f} grey levels apart", pictures=(i, j))))
    if not found:
        raise NotRun("no sample has two pictures of one size: there are no candidates")
    found.sort(key=lambda pair: pair[0])
    least = found[0][0]
    return Outcome(
        least >= TWINS,
        f"{least:.1f} grey levels between the closest of {len(found)} pairs",
        f"at least {TWINS}",
        figures={"least": least, "pairs": len(found)},
        remedy="reject images whose candidates look alike",
        cases=[case for apart, case in found[:CASES] if apart < TWINS],
    )


@family("lookalikes", "two samples of one image that look the same have the same truth")
def lookalikes(trial: Trial) -> Outcome:
    """Compares all pairs of samples of one image with the same prompt and different truths, also on hard images."""
    least, what, pairs = 255.0, "", 0
    pool = [(f"image {made.source.id!r}", made.source) for made in trial.few[:4]]
    for name, image in [*pool, *((image.id, image) for image in hard_for(trial.task.info, trial.plan.size))]:
        seen: dict[tuple[object, ...], list[tuple[np.ndarray, str]]] = {}
        for number in range(TRIES):
            try:
                made = make_on(trial.plan, image, number)
            except SourceRejected:
                continue
            pictures = made.sample.images
            key = (made.prompt, tuple(picture.size for picture in pictures))
            cells = np.stack([_thumbnail(picture, 24) for picture in pictures])
            seen.setdefault(key, []).append((cells, made.sample.truth))
        for alike in seen.values():
            for (a, truth), (b, other) in combinations(alike, 2):
                if truth != other:
                    pairs += 1
                    apart = float(np.abs(a - b).max())
                    if apart < least:
                        least, what = apart, f"{truth!r} and {other!r} on {name}"
    if not pairs:
        raise NotRun("no two samples of an image with different truths have the same prompt and sizes")
    return Outcome(
        least >= LOOKALIKE,
        f"{least:.1f} grey levels between the closest of {pairs} pairs ({what})",
        f"at least {LOOKALIKE}",
        figures={"least": least, "pairs": pairs},
        remedy="reject images on which another answer gives the same pictures",
    )


def _thumbnail(image: Image.Image, side: int) -> np.ndarray:
    return cv2.resize(np.asarray(image), (side, side), interpolation=cv2.INTER_AREA).astype(np.float32)
