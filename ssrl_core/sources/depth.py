"""Depth as files have it, as the core wants it: metres with NaN, on the pixels of the colour image.

What a file is tells its content: an array of NumPy (``.npy``), an HDF5 file with the array ``depth`` (MegaDepth), or an
image with one channel. Whole numbers are units of ``scale``, and 0 and the largest 16-bit value are invalid; floats are
in metres already, and 0, negative and infinite numbers and NaN are invalid.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterable
from typing import Any

import cv2
import numpy as np

from ..errors import SourceError, SourceRejected
from ..types import Intrinsics, SourceImage
from .images import MOST_PIXELS, read_plane, read_rgb

_ASPECT_TOLERANCE = 0.01
_SATURATED = 65535  # several cameras write the largest value where they measure nothing


def join_depth(
    image_id: str,
    color: bytes,
    depth: bytes | np.ndarray | None,
    *,
    mask: bytes | None = None,
    scale: float = 0.001,
    intrinsics: Intrinsics | None = None,
) -> SourceImage:
    """A colour image with its depth.

    The image is used as it is stored, whatever its EXIF orientation, because depth and intrinsics belong to the stored
    pixels. Depth of another size but the same shape is brought to the size of the image.

    Args:
        image_id: of the image.
        color: the content of its file.
        depth: the content of the depth file, or an array as it would hold; None where depth is not wanted.
        mask: the content of a file of the depth's size with 0 where depth is invalid.
        scale: metres in one unit of a depth of whole numbers.
        intrinsics: of the colour image.

    Raises:
        SourceRejected: one of them is damaged, nowhere valid, or does not fit the others.
    """
    rgb = read_rgb(color, upright=False, shrink=False)
    if depth is None:
        return SourceImage(id=image_id, rgb=rgb, intrinsics=intrinsics)
    metres = _metres(depth if isinstance(depth, np.ndarray) else _read_array(depth), scale=scale)
    if mask is not None:
        valid = _read_array(mask) > 0
        if valid.shape != metres.shape:
            raise SourceRejected("depth and mask differ in size")
        metres[~valid] = np.nan
    if np.isnan(metres).all():
        raise SourceRejected("no valid depth")
    height, width = rgb.shape[:2]
    if metres.shape != (height, width):
        if abs(metres.shape[1] * height / (metres.shape[0] * width) - 1) > _ASPECT_TOLERANCE:
            raise SourceRejected("depth and colour differ in shape")
        metres = cv2.resize(metres, (width, height), interpolation=cv2.INTER_NEAREST_EXACT)
    return SourceImage(id=image_id, rgb=rgb, depth=metres, intrinsics=intrinsics)


def read_scale(text: object) -> float:
    """Metres in one unit: a number up to 1 says it so, a larger one says how many units a metre has (1000, 5000).

    Raises:
        ValueError: it is not a positive number.
    """
    scale = float(text)  # type: ignore[arg-type]
    if not 0 < scale < math.inf:
        raise ValueError(f"scale must be a positive number of metres, not {text!r}")
    return scale if scale <= 1 else 1 / scale


def read_intrinsics(text: str | Iterable[Any]) -> Intrinsics:
    """The camera of the numbers fx, fy, cx, cy, or of a 3 x 3 or 4 x 4 matrix, row by row.

    Raises:
        ValueError: these are no such numbers.
    """
    values = text.replace(",", " ").split() if isinstance(text, str) else np.ravel(list(text)).tolist()
    numbers = [float(value) for value in values]
    if len(numbers) in (9, 16):
        side = math.isqrt(len(numbers))
        numbers = [numbers[0], numbers[side + 1], numbers[2], numbers[side + 2]]
    if len(numbers) != 4 or not all(map(math.isfinite, numbers)) or min(numbers[:2]) <= 0:
        raise ValueError(f"need fx,fy,cx,cy or a 3 x 3 matrix with positive focal lengths, got {numbers[:9]}")
    return Intrinsics(*numbers)


def scale_option(uri: str, options: dict[str, str], default: str = "0.001") -> float:
    """The scale that a URI's options give. Raises SourceError where it is no positive number."""
    text = options.get("scale", default)
    try:
        return read_scale(text)
    except ValueError as err:
        raise SourceError(
            f"image source {uri!r}: scale must be a positive number of metres (0.001), or of units in a metre (1000), "
            f"not {text!r}"
        ) from err


def intrinsics_option(uri: str, options: dict[str, str]) -> Intrinsics | None:
    """The camera that a URI's options give as four numbers, or None. Raises SourceError for anything else."""
    if "intrinsics" not in options:
        return None
    try:
        return read_intrinsics(options["intrinsics"])
    except ValueError as err:
        raise SourceError(f"image source {uri!r}: intrinsics {options['intrinsics']!r}: {err}") from err


def _metres(raw: np.ndarray, *, scale: float) -> np.ndarray:
    raw = raw[..., 0] if raw.ndim == 3 and raw.shape[2] == 1 else raw  # DIODE
    if raw.ndim != 2 or raw.dtype.kind not in "fiu" or not raw.size:
        raise SourceRejected("depth is not single-channel")
    metres = raw.astype(np.float32)
    if raw.dtype.kind in "iu":
        invalid = (raw <= 0) | (raw == _SATURATED)
        metres *= np.float32(scale)
    else:
        invalid = ~((metres > 0) & (metres < np.inf))
    np.copyto(metres, np.float32(np.nan), where=invalid)
    return metres


def _read_array(content: bytes) -> np.ndarray:
    try:
        if content.startswith(b"\x93NUMPY"):
            return _read_npy(content)
        if content.startswith(b"\x89HDF"):
            return _read_hdf5(content)
    except (SourceRejected, SourceError):
        raise
    except Exception as err:  # damaged files raise whatever the reader stumbles over
        raise SourceRejected("unreadable depth") from err
    return read_plane(content)


def _read_npy(content: bytes) -> np.ndarray:
    # Not np.load: nothing here takes memory that the header asks for, or unpickles.
    file = io.BytesIO(content)
    major, _ = np.lib.format.read_magic(file)
    read_header = np.lib.format.read_array_header_1_0 if major == 1 else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read_header(file)
    if dtype.hasobject:
        raise SourceRejected("unreadable depth")
    if math.prod(shape) > MOST_PIXELS:
        raise SourceRejected("image too large")
    flat = np.frombuffer(content, dtype, count=math.prod(shape), offset=file.tell())
    return flat.reshape(shape, order="F" if fortran else "C")


def _read_hdf5(content: bytes) -> np.ndarray:
    try:
        import h5py
    except ImportError as err:
        raise SourceError("depth in HDF5 files needs h5py: pip install 'ssrl-core[sources]'") from err
    with h5py.File(io.BytesIO(content), "r") as file:
        # Links and external storage could lead to any file of this machine.
        inside = isinstance(file.get("depth", getlink=True), h5py.HardLink)
        depth = file["depth"] if inside else None
        if not isinstance(depth, h5py.Dataset) or depth.is_virtual or depth.external:
            raise SourceRejected("unreadable depth")
        if depth.size > MOST_PIXELS:
            raise SourceRejected("image too large")
        return np.asarray(depth[()])
