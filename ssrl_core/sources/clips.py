"""What sources of clips share: a source without single images, and what the frames of a clip must have in common."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn

import cv2
import numpy as np

from ..errors import SourceRejected
from ..types import FrameSource, SourceImage

CUT = "a cut lies between the frames"

_SIZE = 32, 24  # of the luma that is compared, in pixels
_BINS = 8
# Least difference of two frames that belong to different shots: mean difference of luma (of 255), and mean distance of
# the histograms of four quarters (0 to 1). Between consecutive frames: 99% of 2,000 pairs of unrelated pictures are
# above 20 and 0.24; of pairs within a shot, rooms at 5 frames a second stay below 19 and 0.13, three videos at 25 to 30
# below 15 and 0.1. Frames a second apart, of a camera that turns, reach 79 and 0.68: there only half of all cuts show.
_CUT = 18.0, 0.2
_CUT_APART = 60.0, 0.7


@dataclass(frozen=True, eq=False)
class OnlyClips:
    """The image source of a collection of clips: it has no single images.

    Attributes:
        frames: the clips.
    """

    frames: FrameSource
    has_depth = False

    def __len__(self) -> int:
        return 0

    def image_id(self, position: int) -> NoReturn:
        """Raises IndexError: there are no single images."""
        raise IndexError("the source has clips and no single images")

    def load(self, image_id: str) -> NoReturn:
        """Raises SourceRejected: there are no single images."""
        raise SourceRejected("not a single image")


def small_luma(luma: np.ndarray) -> np.ndarray:
    """Brightness as cuts are found by it: uint8, 24 x 32, of uint8, H x W or H x W x 3."""
    step = max(1, min(luma.shape[0] // (4 * _SIZE[1]), luma.shape[1] // (4 * _SIZE[0])))
    part = np.ascontiguousarray(luma[::step, ::step])  # averaging all pixels would take half as long as decoding
    if part.ndim == 3:
        part = cv2.cvtColor(part, cv2.COLOR_RGB2GRAY)
    return cv2.resize(part, _SIZE, interpolation=cv2.INTER_AREA)


def refuse_cut(before: np.ndarray, after: np.ndarray, *, consecutive: bool) -> None:
    """Raise SourceRejected if two frames belong to different shots, by their ``small_luma``.

    Args:
        before, after: in the order of time.
        consecutive: whether no frame lies between them; otherwise only large differences count.
    """
    least, apart = _CUT if consecutive else _CUT_APART
    if cv2.absdiff(before, after).mean() >= least and _histogram_distance(before, after) >= apart:
        raise SourceRejected(CUT)


def _histogram_distance(first: np.ndarray, second: np.ndarray) -> float:
    height, width = first.shape[0] // 2, first.shape[1] // 2
    total = 0.0
    for quarter in (np.s_[y : y + height, x : x + width] for y in (0, height) for x in (0, width)):
        counts = [np.bincount(luma[quarter].ravel() // (256 // _BINS), minlength=_BINS) for luma in (first, second)]
        total += np.abs(counts[0] - counts[1]).sum() / (2 * height * width)
    return total / 4


def refuse_unlike(frames: Sequence[SourceImage]) -> None:
    """Raise SourceRejected if frames of a clip differ in size."""
    if len({frame.rgb.shape for frame in frames}) > 1:
        raise SourceRejected("frames differ in size")
