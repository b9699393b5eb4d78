"""Open image sources, split them into training and held-out images, and resize images to the working size."""

from __future__ import annotations

import os
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np

from ..errors import SourceError, SourceRejected
from ..plugins import load_source_hooks
from ..seeding import stable_hash
from ..types import ImageSource, Intrinsics, SourceImage
from .store import is_remote

SMALLEST_SIDE = 64
"""Images whose shorter side has fewer pixels than this are rejected."""

_LARGEST_CROP = 0.08  # of a side; see to_working_size
_ENUMERABLE = 1_000_000


@lru_cache(maxsize=64)
def open_source(uri: str) -> ImageSource:
    """The image source of a URI, e.g. ``folder:/data/photos``. Its images may be counted later.

    Raises:
        SourceError: the source cannot be opened.
        PluginError: the plugin of the scheme is not installed or broken.
    """
    scheme, colon, _ = uri.partition(":")
    if not colon or not scheme:
        raise SourceError(
            f"image source {uri!r}: expected SCHEME:..., "
            "for example folder:/data/photos, rgbd:/data/frames or synthetic:"
        )
    source: ImageSource | None = load_source_hooks(scheme).ssrl_open_source(uri=uri)
    if source is None:
        raise SourceError(f"image source {uri!r}: the plugin of {scheme!r} does not accept this URI")
    return source


def resolve_uri(uri: str, *, base: Path) -> str:
    """The URI with its path made absolute.

    The text between ``SCHEME:`` and ``?`` is a path, whatever the scheme, unless it is empty, contains ``://`` or
    ``::`` (``s3://bucket/x``), or begins with ``//`` but not ``///`` (``mydb://host/x``).

    Args:
        uri: of an image source; its plugin is not imported.
        base: folder of the file that contains the URI.
    """
    scheme, _, rest = uri.partition(":")
    path, question, query = rest.partition("?")
    is_address = is_remote(path) or (path.startswith("//") and not path.startswith("///"))
    if not path or is_address or "\0" in path:  # open_source rejects null characters
        return uri
    return f"{scheme}:{(base / os.path.expanduser(path)).resolve()}{question}{query}"


class Split:
    """The images that one split may use: those for training, or those held out.

    An image is held out if the hash of its id is below ``fraction``. The two sets have no image in common, whatever
    the seed, and an image stays in its set when others are added. If a set would be empty because the source has few
    images, the image with the lowest hash is held out, or the one with the highest hash is for training.

    Args:
        source: of the images.
        part: ``"train"`` for the images for training; any other name (``"validation"``, ``"heldout"``) for those held
            out. All other splits use the same images.
        fraction: share of the images that is held out, in [0, 1].

    Raises:
        SourceError: the source or the set has no images.
    """

    def __init__(self, source: ImageSource, part: str, *, fraction: float) -> None:
        self._source, self._heldout, self._limit = source, part != "train", fraction * 2**64
        self._positions: np.ndarray | None = None
        if not len(source):
            raise SourceError("the image source has no images")
        if len(source) <= _ENUMERABLE:
            self._positions = _parts(source, fraction)[self._heldout]
            if not len(self._positions):
                raise SourceError(
                    f"none of the {len(source)} images is in the {part} split; change heldout.fraction ({fraction}) "
                    "in the mix, or add images"
                )
        elif fraction <= 0 if self._heldout else fraction >= 1:
            raise SourceError(f"no image is in the {part} split; change heldout.fraction ({fraction}) in the mix")

    @property
    def count(self) -> int | None:
        """Number of images; None if the source has more than a million images, which are not enumerated."""
        return None if self._positions is None else len(self._positions)

    def draw(self, rng: np.random.Generator) -> str:
        """The id of an image drawn uniformly from the set."""
        if self._positions is not None:
            return self._source.image_id(int(self._positions[rng.integers(len(self._positions))]))
        while True:
            image_id = self._source.image_id(int(rng.integers(len(self._source))))
            if (stable_hash(image_id) < self._limit) == self._heldout:
                return image_id


_known: list[tuple[ImageSource, float, tuple[np.ndarray, np.ndarray]]] = []


def _parts(source: ImageSource, fraction: float) -> tuple[np.ndarray, np.ndarray]:
    """Positions of the images for training and of those held out, cached for all tasks and splits of a mix."""
    for known, share, parts in _known:
        if known is source and share == fraction:
            return parts
    count = len(source)
    hashes = np.fromiter((stable_hash.__wrapped__(source.image_id(k)) for k in range(count)), np.uint64, count)
    heldout = hashes.astype(np.float64) < fraction * 2**64
    if count > 1 and 0 < fraction < 1:
        heldout[np.argmin(hashes)] = True
        if heldout.all():
            heldout[np.argmax(hashes)] = False
    train, tested = (np.flatnonzero(part).astype(np.uint32) for part in (~heldout, heldout))
    _known.append((source, fraction, (train, tested)))
    del _known[:-16]
    return train, tested


def load_image(source: ImageSource, image_id: str, *, depth: bool) -> SourceImage:
    """One image, with depth only if ``depth`` is true; otherwise depth is not read if the source can avoid it.

    Raises:
        SourceRejected: the image cannot be used.
    """
    if depth:
        return source.load(image_id)
    image: SourceImage = getattr(source, "load_rgb", source.load)(image_id)
    return replace(image, depth=None)


def to_working_size(image: SourceImage, size: int, *, rng: np.random.Generator) -> SourceImage:
    """The image with its longer side at ``size`` pixels, after a small random crop.

    The size bounds the number of visual tokens. The crop removes up to 8% of each side. It makes the scale non-integer
    and shifts the 8 x 8 grid of JPEG blocks at random, so that the grid does not reveal positions. Colour is averaged
    over areas when shrinking. Depth takes the nearest value, so that no depth is interpolated across an edge.

    Args:
        image: uint8 colour, with or without depth and intrinsics; these are resized alike.
        size: of the longer side, in pixels.
        rng: for the crop.

    Raises:
        SourceRejected: the shorter side is below SMALLEST_SIDE, or the longer one is over 20 times the shorter one.
    """
    height, width = image.rgb.shape[:2]
    if min(height, width) < SMALLEST_SIDE:
        raise SourceRejected("image too small")
    if max(height, width) > 20 * min(height, width):
        raise SourceRejected("image too narrow")
    crop_w, crop_h = (round(side * (1 - _LARGEST_CROP * rng.random())) for side in (width, height))
    left, top = int(rng.integers(width - crop_w + 1)), int(rng.integers(height - crop_h + 1))
    scale = size / max(crop_w, crop_h)
    target = max(1, round(crop_w * scale)), max(1, round(crop_h * scale))
    window = np.s_[top : top + crop_h, left : left + crop_w]
    rgb = cv2.resize(image.rgb[window], target, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    depth = intrinsics = None
    if image.depth is not None:
        # INTER_NEAREST would take the upper left of the pixels that colour is averaged over, not their centre.
        depth = cv2.resize(image.depth[window], target, interpolation=cv2.INTER_NEAREST_EXACT)
    if image.intrinsics is not None:
        sx, sy = target[0] / crop_w, target[1] / crop_h
        k = image.intrinsics
        intrinsics = Intrinsics(
            fx=k.fx * sx, fy=k.fy * sy, cx=(k.cx - left + 0.5) * sx - 0.5, cy=(k.cy - top + 0.5) * sy - 0.5
        )
    return SourceImage(id=image.id, rgb=rgb, depth=depth, intrinsics=intrinsics)
