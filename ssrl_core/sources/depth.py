"""Read depth files: metres with NaN for invalid pixels, in the size of the colour image.

The content decides the format: a NumPy array (``.npy``), an HDF5 file with the data set ``depth`` (MegaDepth), or an
image with one channel. Whole numbers are multiples of ``scale``; 0, negative values and 65535 are invalid. Floats are
metres; zero, negative, infinite and NaN values are invalid.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterable
from typing import Any

import cv2
import numpy as np

from ..errors import SourceError, SourceRejected
from ..types import Intrinsics
from .images import MOST_PIXELS, read_plane

_ASPECT_TOLERANCE = 0.01
_SATURATED = 65535  # several cameras write the largest value if they measured nothing


def read_depth(depth: bytes | np.ndarray, *, mask: bytes | None, scale: float, size: tuple[int, int]) -> np.ndarray:
    """Depth as float32, H x W, in metres, with NaN for invalid pixels.

    Depth of another size but the same aspect ratio is resized to that of the colour image.

    Args:
        depth: content of the depth file, or its array.
        mask: content of a file of the depth's size with 0 where depth is invalid.
        scale: metres per unit of a depth of whole numbers.
        size: width and height of the colour image, in pixels.

    Raises:
        SourceRejected: depth or mask is damaged or does not fit, or no depth is valid.
    """
    metres = _metres(depth if isinstance(depth, np.ndarray) else _read_array(depth), scale=scale)
    if mask is not None:
        valid = _read_array(mask) > 0
        if valid.shape != metres.shape:
            raise SourceRejected("depth and mask differ in size")
        metres[~valid] = np.nan
    if np.isnan(metres).all():
        raise SourceRejected("no valid depth")
    width, height = size
    if metres.shape != (height, width):
        if abs(metres.shape[1] * height / (metres.shape[0] * width) - 1) > _ASPECT_TOLERANCE:
            raise SourceRejected("depth and colour differ in shape")
        metres = cv2.resize(metres, size, interpolation=cv2.INTER_NEAREST_EXACT)
    return metres


def read_scale(text: object) -> float:
    """Metres per unit. A number up to 1 is metres per unit; a larger one is units per metre (1000, 5000).

    Raises:
        ValueError: the text is not a positive number.
    """
    scale = float(text)  # type: ignore[arg-type]
    if not 0 < scale < math.inf:
        raise ValueError(f"scale must be a positive number, not {text!r}")
    return scale if scale <= 1 else 1 / scale


def read_intrinsics(text: str | Iterable[Any]) -> Intrinsics:
    """The intrinsics from the numbers fx, fy, cx, cy, or from a 3 x 3 or 4 x 4 matrix, row by row.

    Raises:
        ValueError: there are other numbers.
    """
    values = text.replace(",", " ").split() if isinstance(text, str) else np.ravel(list(text)).tolist()
    numbers = [float(value) for value in values]
    if len(numbers) in (9, 16):
        side = math.isqrt(len(numbers))
        numbers = [numbers[0], numbers[side + 1], numbers[2], numbers[side + 2]]
    if len(numbers) != 4 or not all(map(math.isfinite, numbers)) or min(numbers[:2]) <= 0:
        raise ValueError(f"expected fx,fy,cx,cy or a 3 x 3 matrix with positive focal lengths, got {numbers[:9]}")
    return Intrinsics(*numbers)


def scale_option(uri: str, options: dict[str, str], default: str = "0.001") -> float:
    """Metres per unit, from the option ``scale`` of a URI. Raises SourceError if it is not a positive number."""
    text = options.get("scale", default)
    try:
        return read_scale(text)
    except ValueError as err:
        raise SourceError(
            f"image source {uri!r}: scale must be a positive number of metres per unit (0.001) or of units per metre "
            f"(1000), not {text!r}"
        ) from err


def intrinsics_option(uri: str, options: dict[str, str]) -> Intrinsics | None:
    """The intrinsics in the options of a URI, or None. Raises SourceError if they are not numbers."""
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
    except Exception as err:  # damaged files raise many types of exceptions
        raise SourceRejected("unreadable depth") from err
    return read_plane(content)


def _read_npy(content: bytes) -> np.ndarray:
    # np.load would unpickle objects, and allocate whatever size the header claims.
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
        raise SourceError("reading HDF5 depth needs h5py: pip install 'ssrl-core[sources]'") from err
    with h5py.File(io.BytesIO(content), "r") as file:
        # Links and external storage can point to any file of the machine.
        inside = isinstance(file.get("depth", getlink=True), h5py.HardLink)
        depth = file["depth"] if inside else None
        if not isinstance(depth, h5py.Dataset) or depth.is_virtual or depth.external:
            raise SourceRejected("unreadable depth")
        if depth.size > MOST_PIXELS:
            raise SourceRejected("image too large")
        return np.asarray(depth[()])
