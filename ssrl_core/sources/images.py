"""Decode image files of any origin into arrays, or reject them: nothing here crashes on what a file contains.

Pillow decodes rather than OpenCV: it reads the size from the header before it decodes, names the mode of the pixels
(OpenCV guesses), and says so when a file is cut short (OpenCV fills the rest with grey). Both decode JPEG alike fast.
"""

from __future__ import annotations

import io
import math
import struct
from functools import cache
from typing import Any

import cv2
import numpy as np
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
"""Images with more pixels are rejected by their header, before memory is taken for them."""

# Formats by content, whatever the file is called. No EPS, PDF or SVG: these run programs or fetch things.
# Named through their modules, because Pillow knows a format only once its module is imported. JPEG includes MPO.
_FORMATS = (
    JpegImagePlugin.JpegImageFile.format,
    PngImagePlugin.PngImageFile.format,
    WebPImagePlugin.WebPImageFile.format,
    BmpImagePlugin.BmpImageFile.format,
    TiffImagePlugin.TiffImageFile.format,
    GifImagePlugin.GifImageFile.format,
)
_LONGEST_USEFUL = 2048


def read_rgb(content: bytes, *, upright: bool = True, shrink: bool = True) -> np.ndarray:
    """The image that a file holds as uint8, H x W x 3.

    Transparent pixels lie on white. Values of more than 8 bits are scaled by the range of their bit depth.

    Args:
        content: of a JPEG, PNG, WebP, BMP, TIFF or GIF file; of several frames, the first is taken.
        upright: turn the image as its EXIF orientation says.
        shrink: let the JPEG decoder halve very large photographs, as long as the longer side keeps 2,048 pixels.

    Raises:
        SourceRejected: "image too large" or "unreadable image".
    """
    return np.asarray(_read(content, "unreadable image", lambda image: _to_rgb(image, upright=upright, shrink=shrink)))


def read_plane(content: bytes) -> np.ndarray:
    """The single channel of an image file, H x W, in the file's own values. Raises SourceRejected, see ``read_rgb``."""

    def plane(image: Image.Image) -> np.ndarray:
        if image.mode not in ("L", "I", "F") and not image.mode.startswith("I;16"):
            raise SourceRejected("depth is not single-channel")
        return np.asarray(image)

    return np.asarray(_read(content, "unreadable depth", plane))


def _read(content: bytes, unreadable: str, convert: Any) -> np.ndarray:
    _keep_freed_memory()
    try:
        with Image.open(io.BytesIO(content), formats=_FORMATS) as image:
            if image.width * image.height > MOST_PIXELS:
                raise SourceRejected("image too large")
            return np.asarray(convert(image))
    except SourceRejected:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning, MemoryError) as err:
        raise SourceRejected("image too large") from err
    except Exception as err:
        # Damaged files raise whatever the decoder stumbles over: OSError, SyntaxError, struct.error, KeyError, ...
        raise SourceRejected(unreadable) from err


@cache
def _keep_freed_memory() -> None:
    """Have glibc reuse the memory of images instead of giving it back after each; nothing happens in other systems.

    To ask for the same pages again, picture by picture, takes longer than to decode a JPEG. Of what it has once freed
    in one piece, glibc keeps as much again, and up to twice as much besides; 32 MB is the most that it takes a hint of.
    """
    bytearray(31 * 2**20)


def _to_rgb(image: Image.Image, *, upright: bool, shrink: bool) -> np.ndarray:
    longer = max(image.size)
    if shrink and image.format in ("JPEG", "MPO") and longer >= 2 * _LONGEST_USEFUL:
        scale = _LONGEST_USEFUL / longer
        image.draft(None, (math.ceil(image.width * scale), math.ceil(image.height * scale)))
    image.load()
    if upright:
        image = _turned(image)
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return np.repeat(_to_8_bits(np.array(image))[..., None], 3, axis=2)
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        image = image.convert("RGBA")
        ground = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(ground, image)
    return pixels(image)


def _turned(image: Image.Image) -> Image.Image:
    """The image as its EXIF orientation says; as stored, where its EXIF data are damaged."""
    try:
        if image.getexif().get(ExifTags.Base.Orientation, 1) == 1:
            return image  # of which exif_transpose would make a copy
        return ImageOps.exif_transpose(image)
    except (SyntaxError, ValueError, TypeError, KeyError, OSError, struct.error):
        return image


def pixels(image: Image.Image) -> np.ndarray:
    """A Pillow image as uint8, H x W x 3; the same as ``np.asarray`` of it in RGB, in two thirds of the time."""
    rgb = image if image.mode == "RGB" else image.convert("RGB")
    rgbx = np.frombuffer(rgb.tobytes("raw", "RGBX"), np.uint8)  # as Pillow has them in memory: it only copies these
    return cv2.cvtColor(rgbx.reshape(rgb.height, rgb.width, 4), cv2.COLOR_RGBA2RGB)


def _to_8_bits(values: np.ndarray) -> np.ndarray:
    """Grey values as uint8: whole numbers by the least usual bit depth that holds them, floats by their range."""
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
