"""The source ``video:PATH``: clips of video files, frame by frame.

    video:/data/walks
    video:/data/walks/one.mp4
    video:s3://bucket/walks?seconds=20

A clip is a file, and its id the path of the file, relative to the folder. With the option ``seconds``, a file is cut
into clips of this length, whose ids are ``PATH#START-END``. All clips of a file are one scene, so that they are held
out together. A rest of less than half the length is left out.

Position k of a clip is the k-th frame in the order of display. The times of all frames are read without decoding them.
A frame is decoded from the last keyframe before it, so that it is the same picture whatever was read before. Rotation
tags are applied, transparent pixels are blended with white, and values of more than 8 bits are reduced to 8.

The times are kept for the last files of a process, and those of large and remote files in the cache (see ``index``).
So are the lengths of all files, which ``seconds`` needs. Without ``seconds``, opening a folder only lists it.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, lru_cache
from importlib.util import find_spec
from itertools import chain
from typing import Any, NamedTuple

import cv2
import numpy as np

from ..errors import SourceError, SourceRejected
from ..hookspecs import hookimpl
from ..types import SourceFrames, SourceImage
from .base import Collection
from .clips import OnlyClips, refuse_cut, refuse_unlike, small_luma
from .images import MOST_PIXELS
from .index import Index, index_by_id, list_ids
from .options import skipped_text
from .store import Store, locate

EXTENSIONS = ("mp4", "m4v", "mov", "webm", "mkv", "avi")

# Formats are detected by content. Playlists are excluded: they load other files.
_FORMATS = "mov,mp4,matroska,webm,avi"
_SHORTEST, _LONGEST = 0.5, 86400.0  # seconds of a clip
_LARGE = 2**25  # bytes of a file whose times are kept in the cache
_TURNS = {90: cv2.ROTATE_90_COUNTERCLOCKWISE, 180: cv2.ROTATE_180, 270: cv2.ROTATE_90_CLOCKWISE}
_THREADS = 8
_WORTH_A_JUMP = 6  # frames that need not be decoded; a jump costs about 3
_EXACT = 2 | 2**18 | 2**19  # for swscale: bilinear chroma, accurate rounding, the same bits on every machine
_UNREADABLE = "unreadable video"


class Timeline(NamedTuple):
    """The frames of a video in the order of display.

    Attributes:
        stamps: int64, times of the frames, increasing, in units of ``unit`` seconds.
        keys: int64, times of the keyframes, increasing.
        unit: seconds.
    """

    stamps: np.ndarray
    keys: np.ndarray
    unit: float


@dataclass(frozen=True, eq=False)
class VideoClips(Collection):
    """Clips of the videos in a store.

    Attributes:
        store: folder of the files.
        name: of the only file; ``""`` for all files below the folder.
        seconds: length of a clip; None if a clip is a whole file.
    """

    store: Store
    name: str = ""
    seconds: float | None = None
    has_depth = False
    has_pose = False
    in_order = True
    blocks = 64

    @cached_property
    def index(self) -> Index:
        """The ids of the clips. Raises SourceError if there are none."""
        skipped = Counter[str]()
        if self.seconds is None:
            index = list_ids(self.files(skipped), {"skipped": skipped})
        else:
            files = list(self.files(skipped))
            stamps = [_stamp(self.store, file) for file in files]
            entries = ((clip, None) for clip in _parts(self.store, files, self.seconds, skipped))
            made_of = ("video 1", str(self.store), files, stamps, self.seconds)
            index = index_by_id(entries, {"skipped": skipped}, made_of=made_of)
        if not len(index):
            raise SourceError(
                f"image source 'video:{self.store}': no video below {str(self.store)!r}"
                f"{skipped_text(index.facts['skipped'])}.\n"
                f"  expected files: {', '.join('*.' + extension for extension in EXTENSIONS)}"
            )
        return index

    def files(self, skipped: Counter[str] | None = None) -> Iterator[str]:
        """Relative paths of all videos; ``skipped`` counts the files left out, by reason."""
        skipped = Counter() if skipped is None else skipped
        for path in [self.name] if self.name else self.store.files(skipped):
            if "." in path and path.rpartition(".")[2].lower() in EXTENSIONS:
                yield path
            else:
                skipped["other extension"] += 1

    def facts(self) -> tuple[str, ...]:
        """The length of a clip."""
        return () if self.seconds is None else (f"{self.seconds:g}",)

    def scene(self, image_id: str) -> str:
        """The path of the file that a clip belongs to."""
        return image_id if self.seconds is None else image_id.rpartition("#")[0]

    def load(self, image_id: str, *, depth: bool) -> SourceFrames:
        """One clip. Raises SourceRejected if it cannot be used."""
        path = self.scene(image_id)
        timeline = _timeline(self.store, path, _stamp(self.store, path))
        times = (timeline.stamps - timeline.stamps[0]) * timeline.unit
        first, last = 0, len(times)
        if self.seconds is not None:
            try:
                first, last = np.searchsorted(times, [float(time) for time in image_id.rpartition("#")[2].split("-")])
            except ValueError:
                first = last
        if not last > first:
            raise SourceRejected("clip without frames")
        stamps = timeline.stamps[first:last]

        def read(positions: Sequence[int]) -> list[SourceImage]:
            known = _read(self.store, path, timeline, sorted({int(stamps[k]) for k in positions}))
            images = [SourceImage(f"{image_id}#{k}", known[int(stamps[k])]) for k in positions]
            refuse_unlike(images)
            return images

        return SourceFrames(image_id, len(stamps), read, times[first:last])


def _stamp(store: Store, path: str) -> str:
    """The stamp of a file; ``""`` if it has none. Raises SourceRejected if the file is missing."""
    try:
        return store.stamp(path)
    except FileNotFoundError as err:
        raise SourceRejected("file missing") from err
    except SourceRejected:
        raise
    except Exception:  # each file system raises its own exceptions
        return ""


def _parts(store: Store, files: Sequence[str], seconds: float, skipped: Counter[str]) -> Iterator[str]:
    """The ids of the clips of all files."""

    def length(path: str) -> float | SourceRejected:
        try:
            return _length(store, path)
        except SourceRejected as rejected:
            return rejected

    with ThreadPoolExecutor(_THREADS) as pool:
        for path, found in zip(files, pool.map(length, files), strict=True):
            if isinstance(found, SourceRejected):
                skipped[found.reason] += 1
                continue
            for k in range(max(1, math.floor(found / seconds + 0.5))):
                yield f"{path}#{k * seconds:g}-{(k + 1) * seconds:g}"


def _length(store: Store, path: str) -> float:
    """The length of a video in seconds, as its header states it, or else by its frames."""
    with _opened(store, path) as (container, stream):
        if stream.duration:
            return float(stream.duration * stream.time_base)
        if container.duration:
            return float(container.duration / 1_000_000)
    timeline = _timeline(store, path, _stamp(store, path))
    return float((timeline.stamps[-1] - timeline.stamps[0]) * timeline.unit)


@contextmanager
def _opened(store: Store, path: str) -> Iterator[tuple[Any, Any]]:
    """A video file and its first stream of pictures. What goes wrong in the block becomes SourceRejected."""
    import av

    where = store.path(path)
    try:
        # A local file is read by FFmpeg itself. It takes any other name than a path for an address.
        with (
            store.open(path) as file,
            av.open(file if store.remote else f"file:{where}", options={"format_whitelist": _FORMATS}) as container,
        ):
            if not container.streams.video:
                raise SourceRejected("no pictures in the video")
            stream = container.streams.video[0]
            # The same pixels, also of damaged files, whatever the number of cores; and of MPEG-4 and older codecs,
            # which leave the transform to the machine.
            stream.codec_context.thread_count = 1
            stream.codec_context.options = {"idct": "simple"}
            yield container, stream
    except SourceRejected:
        raise
    except FileNotFoundError as err:
        raise SourceRejected("file missing") from err
    except Exception as err:  # of many types: FFmpeg's, of the file system, MemoryError, ...
        raise SourceRejected(_UNREADABLE + store.kind(path)) from err


@lru_cache(maxsize=64)
def _timeline(store: Store, path: str, stamp: str) -> Timeline:
    """The frames of a video; ``stamp`` tells versions of a file apart."""
    facts: dict[str, Any] = {}

    def scan() -> Iterator[tuple[str, None]]:
        facts.update(_scan(store, path))
        yield from ()

    if stamp and (store.remote or int(stamp.split()[0]) >= _LARGE):
        facts = index_by_id(scan(), facts, made_of=("video times 1", str(store), path, stamp)).facts
    else:
        facts = _scan(store, path)
    return Timeline(np.array(facts["stamps"], np.int64), np.array(facts["keys"], np.int64), facts["unit"])


def _scan(store: Store, path: str) -> dict[str, Any]:
    """The fields of a Timeline, as plain JSON, from the packets of a file. Raises SourceRejected if it is damaged."""
    stamps, keys, found = set[int](), set[int](), 0
    with _opened(store, path) as (container, stream):
        if stream.width * stream.height > MOST_PIXELS:
            raise SourceRejected("image too large")
        reordered = False
        last = None
        for packet in container.demux(stream):
            if not packet.size:
                continue
            found += 1
            if packet.is_corrupt:
                raise SourceRejected("video is truncated")
            if packet.pts is None:
                raise SourceRejected("frames without times")
            reordered |= last is not None and packet.pts < last
            last = packet.pts
            if packet.is_keyframe:
                keys.add(packet.pts)
            if not packet.is_discard:  # by an edit list: it is decoded and not shown
                stamps.add(packet.pts)
        # AVI states no times. Frames that are stored in another order then have the times of their neighbours.
        if container.format.name == "avi" and stream.codec_context.has_b_frames and not reordered:
            raise SourceRejected("frames without times")
        if found < stream.frames:
            raise SourceRejected("video is truncated")
        if not keys:
            raise SourceRejected("video without a keyframe")
        first = min(keys)  # what is shown before it was cut off
        try:
            container.seek(max(keys), stream=stream)
        except OSError:  # FFmpeg's errors are such. A file without an index is always decoded from its start
            keys = {first}
        unit = float(stream.time_base)
    shown = sorted(stamp for stamp in stamps if stamp >= first)
    if not shown:
        raise SourceRejected("clip without frames")
    return {"stamps": shown, "keys": sorted(keys), "unit": unit}


def _read(store: Store, path: str, timeline: Timeline, wanted: Sequence[int]) -> dict[int, np.ndarray]:
    """The frames at increasing times, time -> uint8, H x W x 3. Raises SourceRejected, also for a cut between them."""
    known: dict[int, np.ndarray] = {}
    with _opened(store, path) as (container, stream):
        decoder = _Decoder(container, stream, timeline)
        before: np.ndarray | None = None
        for time in wanted:
            for frame, consecutive in decoder.up_to(time):
                # Frames between those that were asked for are compared too: what they show of a movement is no cut.
                if before is not None or frame.pts == time:
                    luma = small_luma(_luma(frame))
                    if before is not None:
                        refuse_cut(before, luma, consecutive=consecutive)
                    before = luma
            known[time] = _rgb(frame)
    return known


class _Decoder:
    """Decodes frames in the order of time, and jumps to a later keyframe where that saves frames."""

    def __init__(self, container: Any, stream: Any, timeline: Timeline) -> None:
        self._container, self._stream, self._timeline = container, stream, timeline
        self._reached: int | None = None  # time of the last frame
        self._frames: Iterator[Any] = iter(())
        self._moved = False  # from the start of the file

    def up_to(self, time: int) -> Iterator[tuple[Any, bool]]:
        """The frames up to that at a time, and whether each follows the one before it directly.

        Raises SourceRejected if the frame cannot be decoded.
        """
        stamps, keys, _ = self._timeline
        at = int(np.searchsorted(keys, time, side="right")) - 1
        saved = math.inf
        if self._reached is not None:
            saved = np.searchsorted(stamps, keys[at]) - np.searchsorted(stamps, self._reached)
        consecutive = bool(saved < _WORTH_A_JUMP)
        if not consecutive:
            # After some keyframes a picture is complete only when all of it has been refreshed.
            for start in dict.fromkeys((at, max(at - 1, 0), 0)):
                self._frames = self._decoded(int(keys[start]))
                first = next(self._frames, None)
                if first is not None and first.pts is not None and first.pts <= time:
                    self._frames = chain((first,), self._frames)
                    break
            self._reached = None
        for frame in self._frames:
            shown = frame.pts
            in_order = shown is not None and (self._reached is None or self._reached < shown) and shown <= time
            if frame.is_corrupt or not in_order:
                raise SourceRejected("damaged video")
            self._reached = shown
            yield frame, consecutive
            consecutive = True
            if shown == time:
                return
        raise SourceRejected("damaged video")

    def _decoded(self, key: int) -> Iterator[Any]:
        """The frames from a keyframe on, without those that refer to frames before it."""
        first = int(self._timeline.keys[0])
        for target in (key, first):
            started = False
            if self._moved or target != first:
                self._container.seek(target, stream=self._stream)
            self._moved = True
            for packet in self._container.demux(self._stream):
                if packet.pts is not None and packet.pts > key and not started:
                    break  # the index of the file is wrong
                started |= packet.pts == key
                if started and (packet.pts is None or packet.pts >= key):
                    yield from packet.decode()
            else:
                return


def _luma(frame: Any) -> np.ndarray:
    """The brightness of a frame, uint8, H x W, as stored; without a copy if there is a plane of it."""
    kind = frame.format
    if not (kind.components[0].is_luma and kind.components[0].bits == 8 and (kind.is_planar or kind.name == "gray")):
        frame = frame.reformat(format="gray", interpolation=_EXACT)
    plane = frame.planes[0]
    return np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)[: plane.height, : plane.width]


def _rgb(frame: Any) -> np.ndarray:
    """The picture of a frame, upright, uint8, H x W x 3."""
    if any(component.is_alpha for component in frame.format.components):
        rgba = frame.to_ndarray(format="rgba", interpolation=_EXACT)
        alpha = rgba[..., 3:].astype(np.uint16)
        rgb = ((rgba[..., :3] * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)
    else:
        rgb = frame.to_ndarray(format="rgb24", interpolation=_EXACT)
    turn = round(frame.rotation / 90) * 90 % 360
    return np.asarray(cv2.rotate(rgb, _TURNS[turn])) if turn else np.ascontiguousarray(rgb)


@hookimpl
def ssrl_open_source(uri: str) -> OnlyClips | None:
    """The clips of a ``video:`` URI. Raises SourceError if the path does not exist, or PyAV is not installed."""
    located = locate(uri, "video", options=("seconds",), files=tuple(f".{extension}" for extension in EXTENSIONS))
    if located is None:
        return None
    if not find_spec("av"):
        raise SourceError(f"image source {uri!r}: reading videos needs PyAV: pip install 'ssrl-core[video]'")
    store, name, options = located
    text = options.get("seconds")
    try:
        seconds = None if text is None else float(text)
    except ValueError:
        seconds = math.nan
    if seconds is not None and not _SHORTEST <= seconds <= _LONGEST:
        raise SourceError(
            f"image source {uri!r}: seconds is the length of a clip, from {_SHORTEST:g} to {_LONGEST:g}, not {text!r}"
        )
    return OnlyClips(VideoClips(store, name, seconds))
