"""Read depth files: metres with NaN for invalid pixels, in the size of the colour image.

The content decides the format: a NumPy array (``.npy``), a file with several arrays (``.npz``, HDF5) of which one is
called ``depth`` or which has only one, or an image with one channel, used as stored, whatever its orientation tag.
Whole numbers are multiples of ``scale``, by default 0.001; 0, negative values and 65535 are invalid. Floats are metres,
or multiples of a given scale; zero, negative, infinite and NaN values are invalid.
"""

from __future__ import annotations

import io
import math
import re
import zipfile
from collections.abc import Collection, Iterable
from typing import Any

import cv2
import numpy as np

from ..errors import SourceError, SourceRejected
from ..types import Intrinsics
from .images import MOST_PIXELS, read_plane
from .store import MOST_BYTES

_ASPECT_TOLERANCE = 0.01
_SHORTEST_FOCAL = 10  # pixels; a shorter one is in other units, e.g. shares of the image's width
_CAMERA = "the pixels fx,fy,cx,cy, or the rows of a 3 x 3 matrix fx 0 cx, 0 fy cy, 0 0 1"
NO_CAMERA = "intrinsics are neither fx,fy,cx,cy nor the rows of a camera matrix"
_MATRICES = {9: (3, 3), 12: (3, 4), 16: (4, 4)}  # number of values -> shape
_SATURATED = 65535  # several cameras write the largest value if they measured nothing


def read_depth(
    depth: bytes | np.ndarray, *, mask: bytes | None, scale: float | None, size: tuple[int, int], factor: int = 1
) -> np.ndarray:
    """Depth as float32, H x W, in metres, with NaN for invalid pixels.

    Depth of another size but the same aspect ratio is resized to that of the colour image.

    Args:
        depth: content of the depth file, or its array.
        mask: content of a file of the depth's size with 0 where depth is invalid.
        scale: metres per unit; None for 0.001 of whole numbers and 1 of floats.
        size: width and height of the colour image, in pixels.
        factor: by which the sides of the colour image were divided, see ``images.read_rgb``.

    Raises:
        SourceRejected: depth or mask is damaged or does not fit, or no depth is valid.
    """
    raw = _plane(depth, "depth") if isinstance(depth, np.ndarray) else _read_array(depth, "depth")
    valid = None if mask is None else _read_array(mask, "mask") > 0
    if valid is not None and valid.shape != raw.shape:
        raise SourceRejected("depth and mask differ in size")
    (width, height), whole = size, raw.shape
    if abs(whole[1] * height / (whole[0] * width) - 1) > _ASPECT_TOLERANCE and whole != (height, width):
        raise SourceRejected("depth and colour differ in shape")
    if raw.size > width * height:  # convert no more values than there are
        raw, valid = _nearest(raw, size, factor), None if valid is None else _nearest(valid, size, factor)
    metres = _metres(raw, scale)
    if valid is not None:
        metres[~valid] = np.nan
    metres = _nearest(metres, size, factor)
    if np.isnan(metres).all():
        raise SourceRejected("no valid depth")
    return metres


def _nearest(values: np.ndarray, size: tuple[int, int], factor: int) -> np.ndarray:
    """The values nearest to the centres of pixels of another size; ``factor`` as for ``read_depth``."""
    if values.shape == size[::-1]:
        return values
    if tuple(side // factor for side in values.shape) == size[::-1]:
        return values[factor // 2 :: factor, factor // 2 :: factor][: size[1], : size[0]]
    if values.dtype == np.float32:
        return cv2.resize(values, size, interpolation=cv2.INTER_NEAREST_EXACT)
    rows, columns = (
        cv2.resize(np.arange(old, dtype=np.float32)[:, None], (1, new), interpolation=cv2.INTER_NEAREST_EXACT)
        for old, new in zip(values.shape, size[::-1], strict=True)
    )
    nearest: np.ndarray = values[rows.astype(int), columns.astype(int).T]
    return nearest


def read_scale(text: object) -> float:
    """Metres per unit. A number up to 1 is metres per unit; a larger one is units per metre (1000, 5000).

    Raises:
        ValueError: the text is not a positive number.
    """
    scale = math.nan if isinstance(text, bool) else float(text)  # type: ignore[arg-type]
    if not 0 < scale < math.inf:
        raise ValueError(f"scale must be a positive number, not {text!r}")
    return scale if scale <= 1 else 1 / scale


def read_intrinsics(text: str | Iterable[Any]) -> Intrinsics:
    """The intrinsics from the numbers fx, fy, cx, cy, or from a matrix without skew, row by row: 3 x 3, 3 x 4 or 4 x 4.

    A text may have brackets around its numbers, and comments after ``#``.

    Raises:
        ValueError: there are other numbers.
    """
    try:
        values = (
            re.sub(r"#.*|[\[\](),;]", " ", text).split() if isinstance(text, str) else np.ravel(list(text)).tolist()
        )
        numbers = [float(value) for value in values]
    except (TypeError, ValueError):
        raise ValueError(f"expected {_CAMERA}, got {text!r:.80}") from None
    hint = ""
    if len(numbers) in _MATRICES:
        matrix = np.reshape(numbers, _MATRICES[len(numbers)])
        numbers = [*matrix[[0, 1], [0, 1]].tolist(), *matrix[:2, 2].tolist()]
        rest = matrix - np.eye(*matrix.shape)
        rest[[0, 1, 0, 1], [0, 1, 2, 2]] = 0  # not NaN, if a number is infinite
        if not np.abs(rest).max() <= 1e-3:
            hint = f", got {matrix.tolist()}" + ". Is it transposed?" * bool(matrix[2, :2].all())
    if hint or len(numbers) != 4 or not all(map(math.isfinite, numbers)) or min(numbers[:2]) < _SHORTEST_FOCAL:
        raise ValueError(f"expected {_CAMERA}{hint or f', got {numbers[:9]}'}")
    return Intrinsics(*numbers)


def read_intrinsics_file(content: bytes) -> Intrinsics:
    """The intrinsics in a text file. Raises ValueError, as ``read_intrinsics``."""
    try:
        return read_intrinsics(content.decode("utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"))
    except UnicodeDecodeError:
        raise ValueError(f"expected {_CAMERA}, in a text file") from None


def scale_option(
    uri: str, options: dict[str, str], default: str = "", *, key: str = "scale", has_depth: bool = True
) -> float | None:
    """Metres per unit, from the option ``scale`` of a URI, or another one; None without one.

    Raises:
        SourceError: it is not a positive number, or the source has no depth.
    """
    text = options.get(key, default)
    if key in options and not has_depth:
        raise SourceError(f"image source {uri!r}: {key} has no effect, because the source has no depth")
    if not text:
        return None
    try:
        return read_scale(text)
    except ValueError as err:
        raise SourceError(
            f"image source {uri!r}: {key} must be a positive number of metres per unit (0.001) or of units per metre "
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


def _plane(raw: np.ndarray, what: str) -> np.ndarray:
    if raw.ndim == 3 and 1 in (raw.shape[0], raw.shape[2]):  # the last axis in DIODE, the first one in PyTorch
        raw = raw[..., 0] if raw.shape[2] == 1 else raw[0]
    if raw.dtype.kind not in ("fiu" if what == "depth" else "fiub"):
        raise SourceRejected(f"{what} is no array of numbers")
    if raw.ndim != 2 or not raw.size:
        raise SourceRejected(f"{what} is not single-channel" if raw.ndim > 2 else f"{what} is no array of H x W")
    return raw


def _metres(raw: np.ndarray, scale: float | None) -> np.ndarray:
    whole = raw.dtype.kind in "iu"
    if whole and raw.itemsize == 1 and scale is None:  # a picture of depth rather than depth; some show near as bright
        raise SourceRejected("depth of 8 bits needs a scale")
    with np.errstate(over="ignore"):
        metres = raw.astype(np.float32)
        metres *= np.float32(scale or (0.001 if whole else 1))
    invalid = (raw <= 0) | (raw == _SATURATED) if whole else ~((metres > 0) & (metres < np.inf))
    np.copyto(metres, np.float32(np.nan), where=invalid)
    return metres


def _read_array(content: bytes, what: str) -> np.ndarray:
    try:
        for start, read in ((b"\x93NUMPY", _read_npy), (b"PK", _read_npz), (b"\x89HDF", _read_hdf5)):
            if content.startswith(start):
                return _plane(read(content, what), what)
    except (SourceRejected, SourceError):
        raise
    except Exception as err:  # damaged files raise many types of exceptions
        raise SourceRejected(f"unreadable {what}") from err
    return read_plane(content, what)


def _only(names: Collection[str], what: str, kind: str) -> str:
    """The name of the array ``what``, or of the only one. Raises SourceRejected."""
    if what not in names and len(names) != 1:
        raise SourceRejected(f"{kind} file without {what!r}")
    return what if what in names else next(iter(names))


def _read_npz(content: bytes, what: str) -> np.ndarray:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        arrays = {info.filename.removesuffix(".npy"): info for info in archive.infolist() if not info.is_dir()}
        info = arrays[_only(arrays, what, "npz")]
        if info.file_size > MOST_BYTES:
            raise SourceRejected("file too large")
        with archive.open(info) as file:
            return _read_npy(file.read(info.file_size), what)


def _read_npy(content: bytes, what: str) -> np.ndarray:
    # np.load would unpickle objects, and allocate whatever size the header claims.
    file = io.BytesIO(content)
    major, _ = np.lib.format.read_magic(file)
    read_header = np.lib.format.read_array_header_1_0 if major == 1 else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read_header(file)
    if dtype.hasobject:
        raise SourceRejected(f"unreadable {what}: pickled objects")
    if math.prod(shape) > MOST_PIXELS:
        raise SourceRejected("image too large")
    flat = np.frombuffer(content, dtype, count=math.prod(shape), offset=file.tell())
    return flat.reshape(shape, order="F" if fortran else "C")


def _read_hdf5(content: bytes, what: str) -> np.ndarray:
    try:
        import h5py
    except ImportError as err:
        raise SourceError("reading HDF5 depth needs h5py: pip install 'ssrl-core[sources]'") from err
    with h5py.File(io.BytesIO(content), "r") as file:
        # Links and external storage can point to any file of the machine.
        inside = {name: isinstance(file.get(name, getlink=True), h5py.HardLink) for name in file}
        name = _only([n for n in file if not inside[n] or isinstance(file[n], h5py.Dataset)], what, "HDF5")
        depth = file[name] if inside[name] else None
        if not isinstance(depth, h5py.Dataset) or depth.is_virtual or depth.external:
            raise SourceRejected(f"unreadable {what}")
        if depth.size > MOST_PIXELS:
            raise SourceRejected("image too large")
        return np.asarray(depth[()])
