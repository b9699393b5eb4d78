"""The task ``ordered_frames``: the first frame of a clip is shown as such; put the later ones in the order of time.

Visual Jigsaw and others order frames or parts of clips as a pretext task. A movement is as plausible backwards as
forwards, so that frames without an anchor have two right orders; here the first one is always given. Entry k of the
truth is the number of the frame that comes k-th after it.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import permutations as orders
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from pydantic import Field

from ssrl_core import FramesTaskPlugin, Level, Options, Sample, SourceFrames, SourceRejected, TaskInfo, hookimpl
from ssrl_core.answers import match_sequence, permutations, share_in_place
from ssrl_core.drawing import thumbnail, to_image
from ssrl_core.prompts import draw_wording, fill_wording, wording_option

SSRL_API = "1.1"

WORDINGS = {
    "plain": """This is the first frame of a clip:
<image>
These are {count} later frames of the clip, in mixed order:
{frames}
In which order do they follow the first frame? Answer with the {count} numbers joined by dashes. For example, \
{example} means that frame {first} comes next after the first frame, then frame {second}, and so on.""",
    "plain 2": """A camera filmed a scene without a cut. The film begins with this frame:
<image>
Here are {count} frames from later in the film. They were shuffled and then numbered:
{frames}
Sort them by time, the earliest one first. List the {count} frame numbers with dashes between them: {example} would \
say that frame {first} was filmed first and frame {second} after it.""",
    "plain 3": """Here is the beginning of a short video:
<image>
{count} frames that come after it have lost their order:
{frames}
Work out how the view changes from the beginning on, and write down the numbers of the {count} frames in the order in \
which they were shown, joined by dashes. {example} stands for frame {first}, then frame {second}, and so on.""",
}
EXAMPLES = {3: "2-3-1", 4: "2-4-1-3", 5: "4-2-5-1-3", 6: "3-6-1-5-2-4"}

# Level -> number of shuffled frames, and seconds between frames.
LEVELS = {"1": (3, 0.4), "2": (4, 0.4), "3": (5, 0.4), "4": (6, 0.4)}
RATE = 25  # frames a second of a clip whose times are unknown
TRIES = 6  # places in a clip, at equal distances, the first one drawn

# Mean differences of thumbnails in grey levels of 255; see the README.
LEAST_STEP = 3.5
MOST_STEP = 40.0
SAME_LENGTH = 2.0
UNEVEN = 4.0  # times the median step
BACK = 0.9  # share of the greatest distance from the first frame so far


STEADY = "what changes steadily as the camera moves tells the order of the frames: that is the task"
# Criterion -> largest share of one part of the answer at any level, on 1,000 samples of rooms at 128 pixels.
TOLD = {
    "leaks.sizes": 0.65,
    "leaks.sharpness": 0.66,
    "leaks.seams": 0.69,
    "leaks.borders": 0.79,
    "leaks.colours": 0.83,
    "relations.colours": 0.93,
    "relations.detail": 0.68,
    "relations.continuity": 0.95,
    "relations.aberration": 0.63,
}


class OrderedFramesOptions(Options):
    prompt: Annotated[str, wording_option(WORDINGS)] = "plain"
    """A name in WORDINGS, ``varied``, or a wording of your own, which may have the same fields in braces."""

    spacing: Annotated[float, Field(gt=0, le=60)] | None = None
    """Seconds between frames; by default those of the level."""

    partial_credit: bool = False
    """Score a wrong order by the share of frames in their place."""


@hookimpl
def ssrl_task_info() -> TaskInfo:
    levels = {}
    for name, (count, spacing) in LEVELS.items():
        answers = permutations(count)
        levels[name] = Level(f"{count} frames, {spacing:g} s apart", 1 / len(answers), answers)
    return TaskInfo(
        version="3",
        summary="put shuffled frames of a clip in order",
        levels=levels,
        options=OrderedFramesOptions,
        takes="clip",
        known_failures={criterion: f"{STEADY}; {found}" for criterion, found in TOLD.items()},
    )


@hookimpl
def ssrl_generate_sample(
    source: SourceFrames, rng: np.random.Generator, level: str, options: OrderedFramesOptions
) -> Sample:
    count, spacing = LEVELS[level]
    shown = rng.permutation(count)  # shown[k]: how many of the frames come before the one with number k + 1
    prompt = draw_wording(WORDINGS, options.prompt, rng=rng)

    rejected = SourceRejected("clip too short")
    for start in (rng.random() + np.arange(TRIES) / TRIES) % 1:
        try:
            frames = source.read(_positions(source, start, options.spacing or spacing, count))
            _refuse_ambiguous(np.stack([thumbnail(frame.rgb, 16) for frame in frames]))
            break
        except SourceRejected as err:  # another part of the clip may do
            rejected = err
    else:
        raise rejected
    images = tuple(to_image(frames[k].rgb) for k in (0, *(shown + 1)))
    truth = "-".join(str(k + 1) for k in np.argsort(shown))
    return Sample(images, truth, {"count": count, "prompt": prompt, "partial_credit": options.partial_credit})


@hookimpl
def ssrl_format_prompt(sample: Sample) -> str:
    count = sample.params["count"]
    frames = "\n".join(f"{k}: <image>" for k in range(1, count + 1))
    example = EXAMPLES[count]
    fields = {"frames": frames, "example": example, "first": example[0], "second": example[2]}
    return fill_wording(WORDINGS, sample.params["prompt"], count=count, **fields)


@hookimpl
def ssrl_verify_answer(answer: str, truth: str, params: Mapping[str, Any]) -> float:
    """1.0 for the right order; else 0.0, or with the option the share of frames in their place."""
    return share_in_place(answer, truth) if params.get("partial_credit") else match_sequence(answer, truth)


def _positions(source: SourceFrames, start: float, spacing: float, count: int) -> list[int]:
    """The positions of the first frame and ``count`` later ones; ``start`` is in [0, 1), from the earliest possible."""
    times = np.arange(source.count) / RATE if source.times is None else source.times
    room = times[-1] - times[0] - spacing * count
    if room < 0:
        raise SourceRejected("clip too short")
    wanted = times[0] + start * room + spacing * np.arange(count + 1)
    after = np.searchsorted(times, wanted).clip(1, len(times) - 1)
    positions = after - (wanted - times[after - 1] < times[after] - wanted)
    if np.diff(positions).min() < 1:
        raise SourceRejected("too few frames a second")
    return [int(position) for position in positions]


def _refuse_ambiguous(looks: np.ndarray) -> None:
    """Raise SourceRejected unless the frames, thumbnails in the order of time, show it. N x h x w x 3."""
    count = len(looks) - 1
    apart = np.abs(looks[:, None] - looks).mean(axis=(2, 3, 4))
    steps, far = np.diagonal(apart, 1), apart[0, 1:]
    if steps.min() < LEAST_STEP:
        raise SourceRejected("frames hardly differ")
    if steps.max() > min(MOST_STEP, UNEVEN * np.median(steps)):
        raise SourceRejected("frames have little in common")
    if (far < BACK * np.maximum.accumulate(far)).any():
        raise SourceRejected("the camera comes back")
    every = np.array(list(orders(range(1, count + 1))))  # the true order first
    lengths = apart[0, every[:, 0]] + apart[every[:, :-1], every[:, 1:]].sum(axis=1)
    if lengths[1:].min() < lengths[0] + SAME_LENGTH:
        raise SourceRejected("another order is as smooth")


if TYPE_CHECKING:  # mypy and editors check the hooks above against their specification
    import ssrl_plugin_ordered_frames

    _: FramesTaskPlugin = ssrl_plugin_ordered_frames
