"""Decode image files of any origin into arrays, or reject them. No content of a file raises another exception.

Pillow reads every header, so size and mode are known before anything is decoded. simplejpeg decodes JPEG files of grey
or RGB that have no fault, to Pillow's pixels in two thirds of its time. kornia-rs decodes PNG files of 16 bits, in half
of its time. Pillow decodes everything else, and decides about damaged files (OpenCV would fill a missing part with
grey).
"""

from __future__ import annotations

import io
import math
import re
import struct
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from typing import Any

import cv2
import kornia_rs
import numpy as np
import simplejpeg
from PIL import (
    BmpImagePlugin,
    ExifTags,
    GifImagePlugin,
    Image,
    ImageOps,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from ..errors import SourceRejected

MOST_PIXELS = 100_000_000
"""Images with more pixels are rejected by their header, before memory is allocated."""

# Formats are detected by content, not by file name. EPS, PDF and SVG are excluded: they run programs or load files.
# The modules are imported because Pillow registers a format when its module is imported. JPEG includes MPO.
_FORMATS = (
    JpegImagePlugin.JpegImageFile.format,
    PngImagePlugin.PngImageFile.format,
    WebPImagePlugin.WebPImageFile.format,
    BmpImagePlugin.BmpImageFile.format,
    TiffImagePlugin.TiffImageFile.format,
    GifImagePlugin.GifImageFile.format,
)
_OTHER_KINDS = (
    (b"....ftyp(heic|heix|mif1|msf1)", "HEIC"),
    (b"....ftypavif", "AVIF"),
    (rb"\x76\x2f\x31\x01", "OpenEXR"),
    (rb"P[Ff]\s", "PFM"),
    (rb"P[1-6]\s", "PNM"),
    (rb"\0\0\0\x0cjP", "JPEG 2000"),
    (rb"\x93NUMPY|PK\x03\x04", "NumPy or zip"),
    (rb"\x89HDF|MATLAB", "HDF5 or MATLAB"),
    (rb"\x1f\x8b|BZh|\xfd7zXZ|\x28\xb5\x2f\xfd", "compressed"),
    (b"version https://git-lfs", "Git LFS pointer"),
    (rb"\s*<(\?xml|!DOCTYPE|html|svg)", "HTML or SVG"),
)
"""Pattern of the first bytes, and the name of a kind of file that is not read where an image is expected."""


def read_rgb(content: bytes, *, upright: bool = True, least: tuple[int, int] | None = None) -> tuple[np.ndarray, int]:
    """The image in a file as uint8, H x W x 3, and the number by which its sides were divided: 1, 2, 4 or 8.

    A pixel of a divided image shows whole pixels of the file: at the right and lower border, the rest is left out.
    Transparent pixels are blended with white. Values of more than 8 bits are scaled by the range of their bit depth.

    Args:
        content: of a JPEG, PNG, WebP, BMP, TIFF or GIF file; of several frames, the first is used.
        upright: whether to apply the EXIF orientation; otherwise the pixels are as stored.
        least: lengths that the longer and the shorter side must keep; None for all pixels. A JPEG file is decoded at
            the smallest size that keeps them, which takes half of the time.

    Raises:
        SourceRejected: "image too large" or "unreadable image".
    """

    def convert(image: Image.Image) -> tuple[np.ndarray, int]:
        factor = _reduction(image, least)
        return _to_rgb(image, content, factor, upright=upright), factor

    found: tuple[np.ndarray, int] = _read(content, "unreadable image", convert)
    return found


def read_plane(content: bytes, what: str = "depth") -> np.ndarray:
    """The single channel of an image file, H x W, as stored, in the file's own values.

    A mask may also have one bit, a palette, or colours; its values are then 0 for black and 1 for any other colour.

    Args:
        content: of the file.
        what: ``"depth"`` or ``"mask"``, for the reasons of rejections.

    Raises:
        SourceRejected: see ``read_rgb``, or there are several channels.
    """

    def plane(image: Image.Image) -> np.ndarray:
        if getattr(image, "n_frames", 1) > 1:
            raise SourceRejected(f"{what} has several frames")
        if image.format == "PNG" and image.mode == "I;16":
            with suppress(Exception):  # Pillow decides about damaged files
                values: np.ndarray = kornia_rs.io.decode_image_png_u16(content, image.size[::-1], "mono")
                return values[..., 0]
        image = _as_stored(image)
        if image.mode in ("L", "I", "F") or image.mode.startswith("I;16"):
            return np.asarray(image)
        if image.has_transparency_data:
            raise SourceRejected(f"{what} has transparency")
        if what == "mask":
            return np.asarray(np.asarray(image.convert("RGB")).any(axis=2))
        raise SourceRejected(f"{what} is not single-channel" if len(image.getbands()) > 1 else f"{what} of few values")

    found: np.ndarray = _read(content, f"unreadable {what}", plane)
    return found


def kind_suffix(content: bytes) -> str:
    """``": OpenEXR file"`` for the content of a file of a known kind that is not read; else an empty string."""
    return next((f": {name} file" for start, name in _OTHER_KINDS if re.match(start, content, re.DOTALL)), "")


def _as_stored(image: Image.Image) -> Image.Image:
    """The decoded image. Pillow itself applies the orientation of TIFF files, and only of these; this undoes it."""
    orientation = image.getexif().get(ExifTags.Base.Orientation, 1) if image.format == "TIFF" else 1
    image.load()
    if orientation == 1:
        return image
    image.getexif()[ExifTags.Base.Orientation] = {6: 8, 8: 6}.get(
        orientation, orientation
    )  # the others are involutions
    return ImageOps.exif_transpose(image)


def _read(content: bytes, unreadable: str, convert: Callable[[Image.Image], Any]) -> Any:
    _keep_freed_memory()
    try:
        with Image.open(io.BytesIO(content), formats=_FORMATS) as image:
            if image.width * image.height > MOST_PIXELS:
                raise SourceRejected("image too large")
            return convert(image)
    except SourceRejected:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning, MemoryError) as err:
        raise SourceRejected("image too large") from err
    except Exception as err:
        # Damaged files raise many types of exceptions: OSError, SyntaxError, struct.error, KeyError, ...
        raise SourceRejected(unreadable + kind_suffix(content)) from err


@cache
def _keep_freed_memory() -> None:
    """Raise glibc's mmap threshold so that freed buffers are reused; no effect on other systems.

    Requesting the same pages again for each image takes longer than decoding a JPEG. Freeing a mapped block raises the
    threshold to the size of the block, and the trim threshold to twice that size; the maximum is 32 MB.
    """
    bytearray(31 * 2**20)


def _reduction(image: Image.Image, least: tuple[int, int] | None) -> int:
    if least is None or image.format not in ("JPEG", "MPO") or image.mode not in ("L", "RGB"):
        return 1
    most = min(max(image.size) // least[0], min(image.size) // least[1])
    return next((factor for factor in (8, 4, 2) if factor <= most), 1)


def _to_rgb(image: Image.Image, content: bytes, factor: int, *, upright: bool) -> np.ndarray:
    if image.format in ("JPEG", "MPO") and image.mode in ("L", "RGB"):
        width, height = (math.ceil(side / factor) for side in image.size)
        whole = np.s_[: image.height // factor, : image.width // factor]
        try:
            rgb: np.ndarray = simplejpeg.decode_jpeg(content, min_width=width, min_height=height)
        except ValueError:  # Pillow decides about damaged files
            image.draft(None, (width, height))
            rgb = pixels(_as_stored(image))
        return _TURNS[_orientation(image)](rgb[whole]) if upright else rgb[whole]
    image = _turned(image) if upright else _as_stored(image)
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return np.repeat(_to_8_bits(np.array(image))[..., None], 3, axis=2)
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        image = image.convert("RGBA")
        ground = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(ground, image)
    return pixels(image)


def _turned(image: Image.Image) -> Image.Image:
    """The decoded image with its EXIF orientation applied; as stored if the EXIF data are damaged."""
    image.load()
    return image if _orientation(image) == 1 else ImageOps.exif_transpose(image)


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 to 8; 1 if the EXIF data are damaged."""
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    except (SyntaxError, ValueError, TypeError, KeyError, OSError, struct.error):
        return 1
    return orientation if orientation in _TURNS else 1


_TURNS: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    1: lambda rgb: rgb,
    2: lambda rgb: cv2.flip(rgb, 1),
    3: lambda rgb: cv2.flip(rgb, -1),
    4: lambda rgb: cv2.flip(rgb, 0),
    5: cv2.transpose,
    6: lambda rgb: cv2.rotate(rgb, cv2.ROTATE_90_CLOCKWISE),
    7: lambda rgb: cv2.flip(cv2.transpose(rgb), -1),
    8: lambda rgb: cv2.rotate(rgb, cv2.ROTATE_90_COUNTERCLOCKWISE),
}
"""EXIF orientation -> what turns the pixels upright."""


def pixels(image: Image.Image) -> np.ndarray:
    """A Pillow image as uint8, H x W x 3. Equals ``np.asarray(image.convert("RGB"))`` in two thirds of the time."""
    return cv2.cvtColor(rgbx(image), cv2.COLOR_RGBA2RGB)


def rgbx(image: Image.Image) -> np.ndarray:
    """A Pillow image as uint8, H x W x 4, a plain copy of how Pillow keeps RGB in memory; the last is unused."""
    rgb = image if image.mode == "RGB" else image.convert("RGB")
    return np.frombuffer(rgb.tobytes("raw", "RGBX"), np.uint8).reshape(rgb.height, rgb.width, 4)


def _to_8_bits(values: np.ndarray) -> np.ndarray:
    """Grey values as uint8: whole numbers scaled by the smallest common bit depth, floats by their range."""
    if values.dtype.kind in "iu":
        top = int(values.max())
        bits = next((b for b in (8, 10, 12, 14, 16, 24, 32) if top < 2**b), 64)
        scaled = np.clip(values, 0, None) * (255.0 / (2**bits - 1))
    else:
        finite = np.isfinite(values)
        if not finite.any():
            raise SourceRejected("unreadable image")
        low, high = (0.0, 1.0)
        if values[finite].min() < 0 or values[finite].max() > 1:
            low, high = float(values[finite].min()), float(values[finite].max())
        scaled = (np.where(finite, values, low) - low) * (255.0 / (high - low))
    return np.asarray(np.clip(np.round(scaled), 0, 255), np.uint8)
