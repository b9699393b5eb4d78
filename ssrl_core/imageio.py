"""Decode image files of any origin into arrays, or reject them: nothing here crashes on what a file contains.

Pillow decodes rather than OpenCV: it reads the size from the header before it decodes, names the mode of the pixels
(OpenCV guesses), and says so when a file is cut short (OpenCV fills the rest with grey). Both decode JPEG alike fast.
"""

from __future__ import annotations

import math
import os
import struct
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
from PIL import (
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageOps,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from .errors import SourceError, SourceRejected

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


def read_rgb(path: Path, *, upright: bool = True, shrink: bool = True) -> np.ndarray:
    """The image in a file as uint8, H x W x 3.

    Transparent pixels lie on white. Values of more than 8 bits are scaled by the range of their bit depth.

    Args:
        path: of a JPEG, PNG, WebP, BMP, TIFF or GIF file; of several frames, the first is taken.
        upright: turn the image as its EXIF orientation says.
        shrink: let the JPEG decoder halve very large photographs, as long as the longer side keeps 2,048 pixels.

    Raises:
        SourceRejected: "file missing", "file not readable", "image too large" or "unreadable image".
    """
    return np.asarray(_read(path, "unreadable image", lambda image: _to_rgb(image, upright=upright, shrink=shrink)))


def read_plane(path: Path) -> np.ndarray:
    """The single channel of an image file, H x W, in the file's own values. Raises SourceRejected, see ``read_rgb``."""

    def plane(image: Image.Image) -> np.ndarray:
        if image.mode not in ("L", "I", "F") and not image.mode.startswith("I;16"):
            raise SourceRejected("depth is not single-channel")
        return np.array(image)

    return np.asarray(_read(path, "unreadable depth", plane))


def _read(path: Path, unreadable: str, convert: Any) -> np.ndarray:
    try:
        with path.open("rb") as file, Image.open(file, formats=_FORMATS) as image:
            if image.width * image.height > MOST_PIXELS:
                raise SourceRejected("image too large")
            return np.asarray(convert(image))
    except SourceRejected:
        raise
    except (FileNotFoundError, NotADirectoryError) as err:
        raise SourceRejected("file missing") from err
    except (PermissionError, IsADirectoryError) as err:
        raise SourceRejected("file not readable") from err
    except (Image.DecompressionBombError, Image.DecompressionBombWarning, MemoryError) as err:
        raise SourceRejected("image too large") from err
    except Exception as err:
        # Damaged files raise whatever the decoder stumbles over: OSError, SyntaxError, struct.error, KeyError, ...
        raise SourceRejected(unreadable) from err


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
    return np.array(image.convert("RGB"))


def _turned(image: Image.Image) -> Image.Image:
    """The image as its EXIF orientation says; as stored, where its EXIF data are damaged."""
    try:
        return ImageOps.exif_transpose(image)
    except (SyntaxError, ValueError, TypeError, KeyError, OSError, struct.error):
        return image


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


def folder_of(uri: str, text: str, *, example: str) -> Path:
    """The folder that a URI names.

    ``text`` is taken as it is written, so that spaces, ``%`` and any script need no encoding; where nothing exists
    under that name, percent-encoding is undone (``%20``, and ``%3F`` for a question mark). ``~`` is the home folder,
    and ``///path`` is ``/path``.

    Raises:
        SourceError: nothing is there, or it is not a folder.
    """
    if not text:
        raise SourceError(f"image source {uri!r}: names no folder. Write it after the colon, for example {example}")
    if "\0" in text or "%00" in text:
        raise SourceError(f"image source {uri!r}: a path cannot contain a null character")
    plain = text[2:] if text.startswith("///") else text
    path = Path(plain).expanduser()
    if not path.exists() and "%" in plain:
        path = Path(unquote(plain)).expanduser()
    if not path.exists():
        raise SourceError(f"image source {uri!r}: there is no folder {str(path)!r}{_nearest(path)}")
    if not path.is_dir():
        raise SourceError(
            f"image source {uri!r}: {str(path)!r} is a file, not a folder.\n"
            f"  name the folder it is in: {str(path.parent)!r}"
        )
    return path


def _nearest(path: Path) -> str:
    """What exists of a path that does not."""
    absolute = path.absolute()
    for parent in absolute.parents:
        if parent.is_dir():
            return f".\n  {str(parent)!r} exists and has no {absolute.relative_to(parent).parts[0]!r} in it"
    return ""


def list_files(root: Path) -> tuple[list[str], dict[str, int]]:
    """The files below a folder as sorted relative POSIX paths, and how many entries were skipped for which reason.

    Links to folders are followed, once each. Names that begin with a dot are left out: they are thumbnails and
    metadata of file managers, some of them with the extension of an image.
    """
    found: list[str] = []
    skipped: dict[str, int] = {}
    seen: set[tuple[int, int]] = set()
    pending = [("", str(root))]

    def skip(reason: str) -> None:
        skipped[reason] = skipped.get(reason, 0) + 1

    while pending:
        prefix, folder = pending.pop()
        try:
            status = os.stat(folder)
            if (status.st_dev, status.st_ino) in seen:
                continue
            seen.add((status.st_dev, status.st_ino))
            with os.scandir(folder) as entries:
                for entry in sorted(entries, key=lambda e: e.name, reverse=True):
                    if entry.name.startswith("."):
                        skip("hidden")
                    elif not _is_text(entry.name):
                        skip("name is not Unicode")
                    elif entry.is_dir():
                        pending.append((f"{prefix}{entry.name}/", entry.path))
                    elif entry.is_file():
                        found.append(prefix + entry.name)
                    else:
                        skip("not a file")
        except OSError:
            skip("folder not readable")
    return sorted(found), skipped


def _is_text(name: str) -> bool:
    """Whether a file name can be an id: names that are not UTF-8 on disk can be neither hashed nor written as JSON."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def path_below(root: Path, relative: str) -> Path:
    """The path of a file in a folder. Raises SourceRejected for what would lead out of it."""
    if relative.startswith("/") or "\0" in relative or ".." in relative.split("/"):
        raise SourceRejected("file missing")
    return root / relative
