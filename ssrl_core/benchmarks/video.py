"""Frames of a video, decoded once for all of its questions."""

from __future__ import annotations

from functools import lru_cache
from math import ceil, sqrt
from pathlib import Path

import numpy as np
from PIL import Image

from .contract import BenchmarkError

_KEPT = 2  # videos whose frames stay in memory


def bounded(image: Image.Image, most: int, *, least: int = 1) -> Image.Image:
    """The image, resized if its number of pixels is not in [least, most]. The aspect ratio is kept up to rounding."""
    size = _size(image.width, image.height, most, least)
    return image if size == image.size else image.resize(size, Image.Resampling.BICUBIC)


def _size(width: int, height: int, most: int, least: int = 1) -> tuple[int, int]:
    pixels = width * height
    if pixels < least:
        return ceil(width * sqrt(least / pixels)), ceil(height * sqrt(least / pixels))
    scale = min(1.0, sqrt(most / pixels))
    return max(1, int(width * scale)), max(1, int(height * scale))


def positions(total: int, count: int) -> list[int]:
    """Numbers of evenly spaced frames, from the first to the last: ``int(linspace(0, total - 1, count))``."""
    return [int(position) for position in np.linspace(0, total - 1, min(count, total), dtype=int)]


@lru_cache(maxsize=_KEPT)
def frames(path: Path, count: int, pixels: int) -> tuple[Image.Image, ...]:
    """Evenly spaced frames of a video: all if it has fewer than ``count``. Each has at most ``pixels`` pixels.

    Raises BenchmarkError if the video is missing, damaged or cut, or PyAV is not installed.
    """
    try:
        import av
        from av.video.reformatter import VideoReformatter
    except ImportError as err:
        raise BenchmarkError("videos need PyAV: pip install 'ssrl-core[benchmarks]'") from err
    if not path.is_file():
        raise BenchmarkError(f"{path}: the video is missing. Unzip the archives of the benchmark")
    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            total = stream.frames or _count(path)
            wanted = set(positions(total, count))
            chosen, scaler = [], VideoReformatter()  # one for all frames: it keeps the filter
            for number, frame in enumerate(container.decode(stream)):
                if number in wanted:
                    width, height = _size(frame.width, frame.height, pixels)
                    small = scaler.reformat(frame, width, height, format="rgb24", interpolation="BICUBIC")
                    chosen.append(small.to_image())
    except (av.FFmpegError, IndexError, OSError, ValueError) as err:
        raise BenchmarkError(f"{path}: not readable as a video ({err}). Download it again") from err
    if len(chosen) < len(wanted):
        raise BenchmarkError(
            f"{path}: it ends before frame {max(wanted)}, though its header states {total} frames. Download it again"
        )
    return tuple(chosen)


def _count(path: Path) -> int:
    """The number of frames of a video whose header does not state it."""
    import av

    with av.open(str(path)) as container:
        return sum(1 for _ in container.decode(video=0))
