"""Open image sources, split them into training and held-out images, and resize images to the working size."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np

from ..errors import SourceError, SourceRejected, UnknownPlugin
from ..plugins import load_source_hooks
from ..resampling import halvings, resized
from ..seeding import stable_hash
from ..types import FrameSource, ImageSource, SourceImage
from ..yamlfile import control_characters
from .store import is_remote

SMALLEST_SIDE = 64
"""Images whose shorter side has fewer pixels than this are rejected."""

_LARGEST_CROP = 0.08  # largest fraction of a side that to_working_size removes
_MAX_ENUMERATED = 1_000_000  # images of a source whose ids are listed


@lru_cache(maxsize=64)
def open_source(uri: str) -> ImageSource:
    """The image source of a URI, e.g. ``folder:/data/photos``. A source may list its images when first asked for them.

    Raises:
        SourceError: the source cannot be opened.
        PluginError: the plugin of the scheme is not installed, or is broken.
    """
    scheme, colon, path = uri.partition(":")
    if not colon or not scheme:
        raise SourceError(
            f"image source {uri!r}: expected SCHEME:..., "
            "for example folder:/data/photos, rgbd:/data/frames or synthetic:"
        )
    if found := control_characters(uri):
        raise SourceError(f"image source {uri!r}: {found}")
    try:
        source: ImageSource | None = load_source_hooks(scheme).ssrl_open_source(uri=uri)
    except UnknownPlugin as err:
        if len(scheme) > 1 and not path.startswith("//"):
            raise
        raise SourceError(
            f"image source {uri!r}: {scheme!r} is no kind of source. Write the kind before the address or the drive, "
            f"for example folder:{uri}"
        ) from err
    if source is None:
        raise SourceError(f"image source {uri!r}: the plugin of {scheme!r} does not accept this URI")
    return source


def resolve_uri(uri: str, *, base: Path) -> str:
    """The URI of an image source with its path made absolute. Imports no plugin.

    The text between ``SCHEME:`` and ``?`` is taken for a path, whatever the scheme. ``~`` is expanded. These URIs have
    no path and are returned unchanged::

        synthetic:?width=448                    nothing before the question mark
        folder:s3://bucket/x                    contains ``://``
        folder:simplecache::s3://bucket/x       contains ``::``
        mydb://host/x                           begins with exactly two slashes

    Args:
        uri: the URI.
        base: the folder where a relative path starts: that of the file which contains the URI.
    """
    scheme, _, rest = uri.partition(":")
    path, question, query = rest.partition("?")
    is_address = is_remote(path) or (path.startswith("//") and not path.startswith("///"))
    if not path or is_address or "\0" in path:  # the source rejects a path with a null character
        return uri
    return f"{scheme}:{(base / os.path.expanduser(path)).resolve()}{question}{query}"


class Split:
    """The images that one split of a mix may use: the training images, or the held-out images.

    An image is held out if the 64-bit hash of its id, divided by 2**64, is below ``fraction``. The two sets have no
    image in common. They depend on the ids alone, not on a seed, so an image stays in its set when others are added.
    A FrameSource is split by its scenes: the hash is that of a scene's name.
    Few images are an exception. If no image would be held out, the one with the lowest hash is; if all would be, the
    one with the highest hash is used for training. Such an image may change sets when others are added.

    Args:
        source: the source of the images, or of scenes and clips.
        part: name of the split. ``"train"`` uses the training images; every other split (``"validation"``,
            ``"heldout"``) uses the held-out images.
        fraction: share of the images that is held out, in [0, 1].

    Raises:
        SourceError: the source or the set has no images.
    """

    def __init__(self, source: ImageSource | FrameSource, part: str, *, fraction: float) -> None:
        self._scene: Callable[[str], str] = getattr(source, "scene", str)
        self._source, self._heldout, self._limit = source, part != "train", fraction * 2**64
        self._positions: np.ndarray | None = None
        self._part = part
        self._order: tuple[int, np.ndarray] | None = None
        if not len(source):
            raise SourceError("the image source has no images")
        if len(source) <= _MAX_ENUMERATED:
            self._positions = _parts(source, fraction)[self._heldout]
            if not len(self._positions):
                raise SourceError(
                    f"none of the {len(source)} images is in the {part} split; change heldout.fraction ({fraction}) "
                    "in the mix, or add images"
                )
        elif (fraction <= 0) if self._heldout else (fraction >= 1):
            raise SourceError(f"no image is in the {part} split; change heldout.fraction ({fraction}) in the mix")

    @property
    def count(self) -> int | None:
        """Number of images; None if the source has more than a million images, which are not enumerated."""
        return None if self._positions is None else len(self._positions)

    def in_turn(self, number: int, rng_of: Callable[[int], np.random.Generator]) -> str:
        """The id of image ``number`` in a random order of all, then in another one. ``count`` must be known.

        ``"validation"`` and ``"heldout"`` have every other of the held-out images each, if there are two.

        Args:
            number: from 0.
            rng_of: the generator of each order, from 0; the same for equal splits.
        """
        assert self._positions is not None
        pool = self._positions
        if self._heldout and len(pool) > 1:
            pool = pool[self._part == "heldout" :: 2]
        turn, place = divmod(number, len(pool))
        order = self._order  # other threads may replace it
        if order is None or order[0] != turn:
            order = self._order = turn, rng_of(turn).permutation(len(pool))
        return self._source.image_id(int(pool[order[1][place]]))

    def draw(self, rng: np.random.Generator) -> str:
        """The id of an image drawn uniformly from the set."""
        if self._positions is not None:
            return self._source.image_id(int(self._positions[rng.integers(len(self._positions))]))
        while True:
            image_id = self._source.image_id(int(rng.integers(len(self._source))))
            if (stable_hash(self._scene(image_id)) < self._limit) == self._heldout:
                return image_id


_cached_parts: list[tuple[ImageSource | FrameSource, float, tuple[np.ndarray, np.ndarray]]] = []


def _parts(source: ImageSource | FrameSource, fraction: float) -> tuple[np.ndarray, np.ndarray]:
    """Positions of the training images and of the held-out images. All tasks and splits of a mix share the result."""
    for known, known_fraction, parts in _cached_parts:
        if known is source and known_fraction == fraction:
            return parts
    count = len(source)
    # Without the cache of stable_hash, which a million ids would only fill.
    scene: Callable[[str], str] = getattr(source, "scene", str)
    hashes = np.fromiter((stable_hash.__wrapped__(scene(source.image_id(k))) for k in range(count)), np.uint64, count)
    heldout = hashes.astype(np.float64) < fraction * 2**64
    if count > 1 and 0 < fraction < 1:
        heldout[hashes == hashes.min()] = True
        if heldout.all():
            heldout[hashes == hashes.max()] = False
    train, held = (np.flatnonzero(part).astype(np.uint32) for part in (~heldout, heldout))
    _cached_parts.append((source, fraction, (train, held)))
    del _cached_parts[:-16]  # a process rarely uses more sources
    return train, held


def load_image(source: ImageSource, image_id: str, *, depth: bool, size: int | None = None) -> SourceImage:
    """One image. Without ``depth`` it has no depth, and a source with ``load_rgb`` does not even read it.

    With a working size, a source with ``load_reduced`` may load fewer pixels: at least two for each that is left after
    the largest crop, across and down. The decoder of a JPEG file averages within the file's blocks of 8 x 8 pixels;
    averaging once more leaves no more of their edges than if the whole file was decoded.

    Raises:
        SourceRejected: the image cannot be used.
    """
    if size is not None and (reduced := getattr(source, "load_reduced", None)):
        least = math.ceil(2 * size / (1 - _LARGEST_CROP)), SMALLEST_SIDE
        loaded: SourceImage = reduced(image_id, depth=depth, least=least)
        return loaded
    if depth:
        return source.load(image_id)
    image: SourceImage = getattr(source, "load_rgb", source.load)(image_id)
    return replace(image, depth=None)


def to_working_size(image: SourceImage, size: int, *, rng: np.random.Generator) -> SourceImage:
    """The image with its longer side at ``size`` pixels, after a small random crop.

    The size limits the number of tokens that a model needs for the image. The crop removes up to 8% of each side. It
    shifts the 8 x 8 grid of JPEG blocks at random, so that a model cannot tell from block edges where a patch was.
    Colour is smoothed when shrinking, as far as the new pixels are wider than the old ones. Depth takes the nearest
    value, so that no depth is interpolated across an edge.

    Args:
        image: uint8 colour, with or without depth and intrinsics, which are adjusted to match.
        size: length of the longer side in pixels.
        rng: draws the crop.

    Raises:
        SourceRejected: the shorter side is below SMALLEST_SIDE, or the longer one is over 20 times the shorter one.
    """
    height, width = image.rgb.shape[:2]
    if min(height, width) < SMALLEST_SIDE:
        raise SourceRejected("image too small")
    if max(height, width) > 20 * min(height, width):
        raise SourceRejected("image too narrow")
    crop_w, crop_h = (round(side * (1 - _LARGEST_CROP * rng.random())) for side in (width, height))
    part = 2 ** halvings(max(crop_w, crop_h) / size)
    crop_w, crop_h = crop_w // part * part, crop_h // part * part
    left, top = int(rng.integers(width - crop_w + 1)), int(rng.integers(height - crop_h + 1))
    scale = size / max(crop_w, crop_h)
    target = max(1, round(crop_w * scale)), max(1, round(crop_h * scale))
    window = np.s_[top : top + crop_h, left : left + crop_w]
    rgb = resized(image.rgb[window], target, 1 / scale)
    depth = intrinsics = None
    if image.depth is not None:
        # When shrinking, an output pixel covers a block of input pixels. INTER_NEAREST reads the upper-left pixel of
        # the block, INTER_NEAREST_EXACT the central one.
        depth = cv2.resize(image.depth[window], target, interpolation=cv2.INTER_NEAREST_EXACT)
    if image.intrinsics is not None:
        k = image.intrinsics
        intrinsics = replace(k, cx=k.cx - left, cy=k.cy - top).scaled(target[0] / crop_w, target[1] / crop_h)
    return SourceImage(id=image.id, rgb=rgb, depth=depth, intrinsics=intrinsics)
