"""The source ``rgbd:PATH``: colour images with registered depth images, paired by name.

    rgbd:/data/kinect
    rgbd:/data/scans?color=rgb/*.jpg&depth=depth/*.png&scale=0.001&intrinsics=camera.txt
    rgbd:/data/scans?color=*-color.png&depth=*-depth.npy&intrinsics=585,585,319.5,239.5

Options:

- ``color`` and ``depth``: one pattern each, with exactly one ``*``, relative to the folder. What the ``*`` stands for
  is the id of the image and pairs the files; it may contain ``/``, so that ``*.color.jpg`` finds the frames of many
  recordings below one folder. Without both, the first of LAYOUTS that gives a pair is taken.
- ``scale``: metres in one unit of a depth image, by default 0.001. Depth of 0 and the largest 16-bit value are invalid.
  ``.npy`` arrays of floats are in metres already; 0, negative and infinite numbers and NaN are invalid.
- ``intrinsics``: ``fx,fy,cx,cy`` in pixels of the colour image, or a text file relative to the folder with these four
  numbers or a 3 x 3 or 4 x 4 matrix. By default the first of INTRINSICS that exists; unknown where none does.

Options are percent-encoded as in any URL (``%26`` for ``&``); see ``imageio.folder_of`` for the path. Images are used
as they are stored, whatever their EXIF orientation, because depth and intrinsics belong to the stored pixels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from .errors import SourceError, SourceRejected
from .hookspecs import hookimpl
from .imageio import MOST_PIXELS, folder_of, list_files, path_below, read_plane, read_rgb
from .types import Intrinsics, SourceImage
from .uris import query_options

LAYOUTS = (
    ("*.color.jpg", "*.depth.png"),
    ("*.color.png", "*.depth.png"),
    ("*-color.png", "*-depth.png"),
    ("*_color.png", "*_depth.png"),
    ("*_rgb.png", "*_depth.png"),
    ("color/*.jpg", "depth/*.png"),
    ("color/*.png", "depth/*.png"),
    ("rgb/*.jpg", "depth/*.png"),
    ("rgb/*.png", "depth/*.png"),
    ("rgb/*.png", "depth/*.npy"),
    ("image/*.jpg", "depth/*.png"),
)
"""Patterns of colour and depth that are tried in this order: 7-Scenes, YCB-Video, RealSense, ScanNet, ICL-NUIM, ..."""

INTRINSICS = ("camera-intrinsics.txt", "intrinsics.txt", "intrinsic/intrinsic_color.txt")
"""Files that are looked for in the folder where no intrinsics are given."""

_OPTIONS = ("color", "depth", "scale", "intrinsics")
_ASPECT_TOLERANCE = 0.01
_SATURATED = 65535  # several cameras write the largest value where they measure nothing


class Pattern(NamedTuple):
    """A path with one ``*`` in it."""

    before: str
    after: str

    def match(self, path: str) -> str | None:
        """What the ``*`` stands for in a relative path, or None where the path is another."""
        name = path[len(self.before) : len(path) - len(self.after)]
        fits = len(path) > len(self.before) + len(self.after)
        return name if fits and path.startswith(self.before) and path.endswith(self.after) else None

    def path(self, name: str) -> str:
        """The relative path for an id."""
        return self.before + name + self.after


@dataclass(frozen=True, slots=True)
class RgbdSource:
    """Colour and depth images in a folder.

    Attributes:
        root: the folder.
        color, depth: how the files of an id are called.
        ids: sorted.
        scale: metres in one unit of a depth image.
        intrinsics: of the colour images, or None.
        skipped: reason -> number of files that have no counterpart.
    """

    root: Path
    color: Pattern
    depth: Pattern
    ids: tuple[str, ...]
    scale: float = 0.001
    intrinsics: Intrinsics | None = None
    skipped: dict[str, int] = field(default_factory=dict)
    has_depth: bool = field(default=True, init=False)

    def __len__(self) -> int:
        return len(self.ids)

    def image_id(self, position: int) -> str:
        """The id at a position in the sorted list."""
        return self.ids[position]

    def load(self, image_id: str) -> SourceImage:
        """Decode one pair. Raises SourceRejected where either is missing or damaged, or where they do not fit."""
        rgb = read_rgb(path_below(self.root, self.color.path(image_id)), upright=False, shrink=False)
        depth = _read_depth(path_below(self.root, self.depth.path(image_id)), scale=self.scale)
        height, width = rgb.shape[:2]
        if depth.shape != (height, width):
            if abs(depth.shape[1] * height / (depth.shape[0] * width) - 1) > _ASPECT_TOLERANCE:
                raise SourceRejected("depth and colour differ in shape")
            depth = cv2.resize(depth, (width, height), interpolation=cv2.INTER_NEAREST_EXACT)
        return SourceImage(id=image_id, rgb=rgb, depth=depth, intrinsics=self.intrinsics)

    def describe(self) -> str:
        """What the source is, in a line."""
        camera = "unknown intrinsics" if self.intrinsics is None else "known intrinsics"
        left_out = "".join(f"; {count} skipped: {reason}" for reason, count in sorted(self.skipped.items()))
        return (
            f"{len(self)} pairs of {self.color.path('*')} and {self.depth.path('*')} in {self.root}, {camera}{left_out}"
        )


def _read_depth(path: Path, *, scale: float) -> np.ndarray:
    """Depth in metres, float32 H x W, NaN where invalid."""
    raw = _read_array(path) if path.suffix.lower() == ".npy" else read_plane(path)
    metres = raw.astype(np.float32)
    invalid = ~np.isfinite(metres) | (metres <= 0)
    if raw.dtype.kind in "iu":
        invalid |= raw == _SATURATED
        metres *= np.float32(scale)
    metres[invalid] = np.nan
    if invalid.all():
        raise SourceRejected("no valid depth")
    return metres


def _read_array(path: Path) -> np.ndarray:
    try:
        # Mapped first, so that the header's size is checked before memory is taken for it.
        array = np.load(path, mmap_mode="r", allow_pickle=False)
        if not isinstance(array, np.ndarray) or array.ndim != 2 or array.dtype.kind not in "fiu" or not array.size:
            raise SourceRejected("depth is not single-channel")
        if array.size > MOST_PIXELS:
            raise SourceRejected("image too large")
        return np.array(array)
    except SourceRejected:
        raise
    except (FileNotFoundError, NotADirectoryError) as err:
        raise SourceRejected("file missing") from err
    except Exception as err:
        raise SourceRejected("unreadable depth") from err


@hookimpl
def ssrl_open_source(uri: str) -> RgbdSource | None:
    """The image pairs of an ``rgbd:`` URI. Raises SourceError where there are none."""
    scheme, _, rest = uri.partition(":")
    if scheme != "rgbd":
        return None
    text, _, query = rest.partition("?")
    options = query_options(uri, query, known=_OPTIONS)
    root = folder_of(uri, text, example="rgbd:/data/frames")
    if ("color" in options) != ("depth" in options):
        raise SourceError(f"image source {uri!r}: give both color and depth, or neither")
    layouts: tuple[tuple[str, str], ...] = LAYOUTS
    if "color" in options:
        layouts = ((options["color"], options["depth"]),)
    patterns = [(_pattern(uri, "color", color), _pattern(uri, "depth", depth)) for color, depth in layouts]
    scale = _scale(uri, options.get("scale", "0.001"))
    intrinsics = _intrinsics(uri, root, options.get("intrinsics"))
    files, skipped = list_files(root)
    for color, depth in patterns:
        colors = {name for file in files if (name := color.match(file)) is not None}
        depths = {name for file in files if (name := depth.match(file)) is not None}
        pairs = tuple(sorted(colors & depths))
        if pairs:
            unpaired = {"colour without depth": len(colors - depths), "depth without colour": len(depths - colors)}
            skipped |= {reason: count for reason, count in unpaired.items() if count}
            return RgbdSource(root, color, depth, pairs, scale, intrinsics, skipped)
    tried = "\n".join(f"    color={color}&depth={depth}" for color, depth in layouts)
    raise SourceError(
        f"image source {uri!r}: no pair of colour and depth in {str(root)!r}, of {len(files)} files below it. Tried:\n"
        f"{tried}\n  say how the files are called, for example rgbd:{text}?color=*_rgb.png&depth=*_depth.png"
    )


def _pattern(uri: str, key: str, text: str) -> Pattern:
    if text.count("*") != 1:
        raise SourceError(f"image source {uri!r}: {key} must contain exactly one *, not {text!r}")
    before, _, after = text.removeprefix("./").partition("*")
    return Pattern(before, after)


def _scale(uri: str, text: str) -> float:
    try:
        scale = float(text)
    except ValueError:
        scale = math.nan
    if not 0 < scale < math.inf:
        raise SourceError(f"image source {uri!r}: scale must be a positive number of metres, not {text!r}")
    return scale


def _intrinsics(uri: str, root: Path, text: str | None) -> Intrinsics | None:
    if text is None:
        text = next((name for name in INTRINSICS if (root / name).is_file()), None)
        if text is None:
            return None
    path = root / text
    where = f"image source {uri!r}: intrinsics {text!r}"
    is_file = not text.replace(",", "").replace(".", "").replace(" ", "").isdigit()
    try:
        content = path.read_text() if is_file else text
        numbers = [float(number) for number in content.replace(",", " ").split()]
    except (OSError, ValueError) as err:
        raise SourceError(
            f"{where}: {err}. Give a text file in {str(root)!r} with a 3 x 3 matrix, or fx,fy,cx,cy"
        ) from err
    if len(numbers) in (9, 16):
        side = math.isqrt(len(numbers))
        numbers = [numbers[0], numbers[side + 1], numbers[2], numbers[side + 2]]
    if len(numbers) != 4 or not all(map(math.isfinite, numbers)) or min(numbers[:2]) <= 0:
        raise SourceError(f"{where}: need fx,fy,cx,cy or a 3 x 3 matrix with positive focal lengths, got {numbers[:9]}")
    return Intrinsics(*numbers)
