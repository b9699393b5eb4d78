"""The task ``cropped_patch``: a square was cut out of a picture; say which of four pieces fills the hole.

After Spatial-SSRL (arXiv 2510.27606), "cropped patch inpainting". Two rules keep the truth from being told without
looking at the hole. Every piece, the true one included, is resampled alike, to the same band limit. And the four pieces
form a square: the true piece, one change of it, another change, and both changes at once. Seen from any corner of a
square, the other three look alike, so neither the odd piece out nor the one in the middle is the truth.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

import numpy as np
from pydantic import AfterValidator

from ssrl_core import Level, Options, Sample, SourceImage, SourceRejected, TaskInfo, TaskPlugin, hookimpl
from ssrl_core.answers import match_choice
from ssrl_core.drawing import INK, View, cut_views, look_alike, seam_steps, to_image
from ssrl_core.prompts import draw_wording, fill_wording, wording_option

PIECES = "A: <image>\nB: <image>\nC: <image>\nD: <image>"
WORDINGS = {
    "plain": f"""Picture: <image>
{PIECES}
A black square hides a part of the picture. Exactly one of the pieces A to D shows this part as it is. Each of the \
others is from elsewhere, shifted, at another scale, turned or mirrored. Which piece belongs in the square? Answer \
with its letter: A, B, C or D.""",
    "plain 2": f"""A picture with a black square hole: <image>
Four pieces:
{PIECES}
Only one piece was cut out of the hole and fits into it unchanged. Every other one comes from another place, or is \
shifted, scaled, turned or mirrored. Which one fits? Give only its letter: A, B, C or D.""",
    "plain 3": f"""Part of this picture is covered by a black square: <image>
One of these crops shows what is under the square:
{PIECES}
The other crops show something else: another part of the picture, or a shifted, scaled, turned or mirrored view. Which \
crop is the right one? Answer with one letter: A, B, C or D.""",
    "paper": """<image> <image> <image> <image> <image>
In image 1 a square region is masked in black. Images 2 to 5 are the options for this region: option A is image 2, B \
is image 3, C is image 4 and D is image 5. Choose the option that restores image 1: its content, scale and orientation \
must all continue what surrounds the mask. Answer with the letter of the option: A, B, C or D.""",
}
LETTERS = "ABCD"

Family = Literal["elsewhere", "shifted", "scaled", "turned", "mirrored", "published"]


class Setting(NamedTuple):
    """What a level is made of."""

    summary: str
    hole: float  # side, as a share of the picture's shorter side
    families: tuple[Family, ...]  # of changes
    shifts: tuple[float, float]  # least and most, in sides of the hole
    scales: tuple[float, ...]  # pixels of the picture in a pixel of the piece


FAR, NEAR = (1 / 1.6, 1.6), (1 / 1.3, 1.3)
SETTINGS = {
    "1": Setting("four places", 1 / 3, ("elsewhere",), (0.4, 0.6), FAR),
    "2": Setting("mirrored, shifted or scaled much", 0.4, ("mirrored", "shifted", "scaled"), (0.4, 0.6), FAR),
    "3": Setting("shifted or scaled a little", 0.4, ("shifted", "scaled"), (0.2, 0.35), NEAR),
    "paper": Setting("a large hole; turned or scaled", 0.5, ("turned", "scaled"), (0.2, 0.35), FAR + NEAR),
}
Change = tuple[str, View]  # its name, and what it adds to the view that is the true piece
TURNED = [("turned left", View(turns=1)), ("turned right", View(turns=-1))]
SCALED = {scale: ("interior" if scale < 1 else "surround", View(growth=scale - 1)) for scale in FAR + NEAR}
PUBLISHED = [*TURNED, SCALED[1 / 1.6], SCALED[1.3], SCALED[1.6]]

SMALLEST_HOLE = 24  # pixels
PLACEMENTS = 6  # places in one picture that are tried before it is rejected
# Limits in grey levels of 255: mean difference between two pieces, and how much worse a wrong piece joins the rim. Set
# by eye on 240 random crops of six photographs: below them, a mast that is shifted along itself passes for the truth.
SAME_LOOK, SAME_RIM = 10.0, 6.0


def _check_families(families: tuple[Family, ...]) -> tuple[Family, ...]:
    if "published" in families and len(families) > 1:
        raise ValueError("'published' is a set of its own: name no other family besides it")
    if len(set(families)) == 1 and families[0] in ("scaled", "turned", "mirrored"):
        raise ValueError(f"{families[0]!r} alone is one change, and a sample takes two: name another family besides it")
    return families


class CroppedPatchOptions(Options):
    prompt: Annotated[str, wording_option(WORDINGS)] = "plain"
    """A name in WORDINGS, ``varied``, or a wording of your own."""

    families: Annotated[tuple[Family, ...], AfterValidator(_check_families)] = ()
    """How wrong pieces are made, instead of as the level says. ``published`` takes three of the five published
    distractors. All of them are made from the true piece, which partly gives it away; see the README."""


@hookimpl
def ssrl_task_info() -> TaskInfo:
    levels = {name: Level(setting.summary, 1 / 4, tuple(LETTERS)) for name, setting in SETTINGS.items()}
    summary = "find the piece that fills the hole in a picture"
    known = {
        "relations.matching@1": "the other pieces occur elsewhere in the picture, and the right one does not; 0.99",
        "relations.colours@1": "the picture has the colours of the other pieces, and the right one's are hidden; 0.37",
        "relations.continuity@2": "a small effect on 4,000 samples, whose cause is not known; 0.31",
        "relations.detail@paper": "a small effect on 4,000 samples, whose cause is not known; 0.30",
        "relations.continuity@paper": "a large piece resembles the borders of the picture, which shows its turn; 0.43",
    }
    return TaskInfo(version="6", summary=summary, levels=levels, options=CroppedPatchOptions, known_failures=known)


@hookimpl
def ssrl_generate_sample(
    source: SourceImage, rng: np.random.Generator, level: str, options: CroppedPatchOptions
) -> Sample:
    setting = SETTINGS[level]
    answer = int(rng.integers(4))
    order = np.argsort([answer, *rng.permutation([place for place in range(4) if place != answer])])
    # The changes, too, are drawn before the picture is looked at: if interiors were rejected more often than surrounds
    # and then drawn again, the smoother pieces would be the true ones.
    changes = draw_changes(setting, options.families or setting.families, rng=rng)
    views = [View(*map(sum, zip(View(), *(view for _, view in piece), strict=True))) for piece in changes]
    prompt = draw_wording(WORDINGS, options.prompt, rng=rng)

    side = round(setting.hole * min(source.rgb.shape[:2]))
    if side < SMALLEST_HOLE:
        raise SourceRejected("hole too small")
    for tries_left in reversed(range(PLACEMENTS)):
        try:
            pieces, (left, top) = cut_views(source.rgb, views, rng, side=side)
            check_one_solution(source.rgb, pieces, left=left, top=top)
            break
        except SourceRejected:
            if not tries_left:
                raise
    images = tuple(to_image(image) for image in (source.rgb, *(pieces[k] for k in order)))
    images[0].paste(INK, (left, top, left + side, top + side))
    names = [", ".join(name for name, _ in changes[k]) or "hole" for k in order]
    return Sample(images, LETTERS[answer], {"hole": [left, top, side], "pieces": names, "prompt": prompt})


@hookimpl
def ssrl_format_prompt(sample: Sample) -> str:
    return fill_wording(WORDINGS, sample.params["prompt"])


@hookimpl
def ssrl_verify_answer(answer: str, truth: str, params: Mapping[str, Any]) -> float:
    return match_choice(answer, truth)


def draw_changes(setting: Setting, families: tuple[Family, ...], *, rng: np.random.Generator) -> list[list[Change]]:
    """The changes of each of the four pieces, the true one first."""
    if "published" in families:
        return [[], *([PUBLISHED[k]] for k in rng.choice(len(PUBLISHED), size=3, replace=False))]
    x, y = rng.uniform(*setting.shifts, size=2) * rng.choice((-1, 1), size=2)
    every: dict[str, list[Change]] = {
        "elsewhere": [("elsewhere", View(place=1)), ("elsewhere", View(place=2))],
        "shifted": [("shifted sideways", View(x=x)), ("shifted up or down", View(y=y))],
        "scaled": [SCALED[setting.scales[rng.integers(len(setting.scales))]]],
        "turned": [TURNED[rng.integers(2)]],
        "mirrored": [("mirrored", View(mirrored=1))],
    }
    pool = [change for family in dict.fromkeys(families) for change in every[family]]
    a, b = (pool[k] for k in rng.choice(len(pool), size=2, replace=False))
    return [[], [a], [b], [a, b]]


def check_one_solution(rgb: np.ndarray, pieces: list[np.ndarray], *, left: int, top: int) -> None:
    """Raises SourceRejected where two pieces look the same, or a wrong one joins the rim of the hole about as well."""
    if look_alike(pieces, side=16, limit=SAME_LOOK):
        raise SourceRejected("two pieces look alike")
    right, bottom = left + len(pieces[0]), top + len(pieces[0])
    rim = rgb[top - 1, left:right], rgb[bottom, left:right], rgb[top:bottom, left - 1], rgb[top:bottom, right]
    edges = [np.concatenate((piece[0], piece[-1], piece[:, 0], piece[:, -1])) for piece in pieces]
    true, *wrong = seam_steps([np.concatenate(rim)], edges)[0]
    if min(wrong) - true < SAME_RIM:
        raise SourceRejected("another piece joins the rim as well")


if TYPE_CHECKING:  # mypy and editors check the hooks above against their specification
    import ssrl_plugin_cropped_patch

    _: TaskPlugin = ssrl_plugin_cropped_patch
