"""The source ``rgbd:PATH``: colour images with registered depth images, paired by name.

    rgbd:/data/kinect
    rgbd:/data/diode/train/indoors?layout=diode
    rgbd:s3://bucket/scans?color=rgb/*.jpg&depth=depth/*.png&scale=1000&intrinsics=camera.txt

Options:

- ``layout``: one of LAYOUTS, which sets all other options for a published data set.
- ``color`` and ``depth``: one pattern each, with exactly one ``*``, relative to the folder. The text that ``*`` matches
  is the id of the image and pairs the files. It may contain ``/``: ``*.color.jpg`` finds the frames of all recordings
  below the folder. ``**/`` at the start of a pattern matches the folder of a recording: with ``**/rgb/*.jpg`` and
  ``**/depth/*.png``, ``a/rgb/7.jpg`` is paired with ``a/depth/7.png``, and the id is ``a/7``. Without both options,
  the first of GUESSES that finds a pair is used.
- ``mask``: pattern for files that are 0 where depth is invalid.
- ``scale``: metres per unit of depth, or units per metre (1000, 5000); by default 0.001 for whole numbers and 1 for
  floats. See ``depth`` for formats of files and invalid values.
- ``intrinsics``: ``fx,fy,cx,cy`` in pixels of the colour image as stored, or a text file with these four numbers or a 3
  x 3 or 4 x 4 matrix, row by row; its path may be a pattern with ``**/``, with ``*``, or with both. By default the
  first of INTRINSICS that exists; unknown if none exists.
- ``pose``: pattern of the files with the pose of each frame, or, without ``*`` in its name, with a trajectory for each
  folder (``**/groundtruth.txt``). See ``poses`` for both. ``none`` for no poses, where a layout has some.
- ``pose_is``: ``camera-to-world``, ``world-to-camera`` or ``opengl``; by default the first.
- ``pose_scale``: metres per unit of the poses, or units per metre (1000); by default 1.

The frames of a folder are a recording, with poses if there are files of them; see ``recordings``.

Options are percent-encoded as in any URL (``%26`` for ``&``); ``store.locate`` describes the syntax of paths. With a
layout or patterns, the folder is listed when its images are first counted; otherwise, when the source is opened.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property, lru_cache
from importlib.util import find_spec
from itertools import compress, islice
from typing import Any, NamedTuple

import numpy as np

from ..errors import SourceError, SourceRejected, did_you_mean
from ..hookspecs import hookimpl
from ..seeding import stable_hash
from ..types import Intrinsics
from .base import Files, FileSource
from .depth import NO_CAMERA, read_intrinsics, read_intrinsics_file, scale_option
from .index import Index, index_by_id, list_ids
from .patterns import SAME_TIME, Pattern, seconds
from .recordings import OPTIONS as POSE_OPTIONS
from .recordings import PoseFiles, Recordings, pose_options
from .store import Store, locate


class Layout(NamedTuple):
    """File names and units of a data set; see the options with the same names."""

    color: str
    depth: str
    mask: str = ""
    scale: str = ""
    intrinsics: str = ""
    pose: str = ""
    in_order: bool = True  # the names of a folder's images are in the order of time


LAYOUTS = {
    # 65535 is invalid depth; all scenes have the same camera.
    "7scenes": Layout("*.color.png", "*.depth.png", intrinsics="585,585,320,240", pose="*.pose.txt"),
    # As exported by the reader of the data set; depth has fewer pixels than colour.
    "scannet": Layout(
        "**/color/*.jpg", "**/depth/*.png", intrinsics="**/intrinsic/intrinsic_color.txt", pose="**/pose/*.txt"
    ),
    # The folders "sync" and "official_splits" of NYU Depth v2, as prepared for depth estimation.
    "nyu": Layout(
        "**/rgb_*.jpg", "**/sync_depth_*.png", intrinsics="518.8579,519.4696,325.5824,253.7362", in_order=False
    ),
    # Names are times in seconds. Depth is registered to colour; the authors recommend these intrinsics for both.
    "tum": Layout(
        "**/rgb/*.png",
        "**/depth/*.png",
        scale="5000",
        intrinsics="525,525,319.5,239.5",
        pose="**/groundtruth.txt",
    ),
    "diode": Layout(
        "*.png", "*_depth.npy", mask="*_depth_mask.npy", intrinsics="886.81,927.06,512,384", in_order=False
    ),
    # Depth is relative to an unknown scale per scene; the cameras are a separate download.
    "megadepth": Layout("**/imgs/*.jpg", "**/depths/*.h5", in_order=False),
}
"""Data sets by name."""

GUESSES = (
    Layout("*.color.jpg", "*.depth.png", pose="*.pose.txt"),
    Layout("*.color.png", "*.depth.png", pose="*.pose.txt"),
    Layout("*-color.png", "*-depth.png", pose="*-pose.txt"),
    Layout("*_color.png", "*_depth.png", pose="*_pose.txt"),
    Layout("*_rgb.png", "*_depth.png"),
    Layout("color/*.jpg", "depth/*.png", pose="pose/*.txt"),
    Layout("color/*.png", "depth/*.png", pose="pose/*.txt"),
    Layout("rgb/*.jpg", "depth/*.png", pose="pose/*.txt"),
    Layout("rgb/*.png", "depth/*.png", pose="pose/*.txt"),
    Layout("rgb/*.png", "depth/*.npy"),
    Layout("image/*.jpg", "depth/*.png"),
    LAYOUTS["scannet"],
    # Without intrinsics, which the names of files do not determine.
    *(LAYOUTS[name]._replace(intrinsics="") for name in ("nyu", "diode", "megadepth")),
)
"""Layouts that are tried in this order if neither layout nor patterns are given."""

INTRINSICS = ("camera-intrinsics.txt", "intrinsics.txt", "intrinsic/intrinsic_color.txt")
"""Files in the folder that are tried in this order if no intrinsics are given."""

_OPTIONS = ("layout", "color", "depth", "mask", "scale", "intrinsics", *POSE_OPTIONS)


@dataclass(frozen=True, eq=False)
class RgbdSource(FileSource):
    """Colour and depth images in a folder.

    Attributes:
        color, depth: patterns of the files.
        mask: pattern of the files that are 0 where depth is invalid, if there are any.
        scale: metres per unit of depth; None for the default of its type.
        intrinsics: of all colour images, pattern of the files that contain them, or None.
        by_time: names are times in seconds, and each colour image is paired with the nearest depth image.
        poses: files with the poses of the colour images, if there are any.
        in_order: whether the names of a folder's images are in the order of time.
    """

    store: Store
    color: Pattern
    depth: Pattern
    mask: Pattern | None
    scale: float | None
    intrinsics: Intrinsics | Pattern | None
    by_time: bool = False
    poses: PoseFiles | None = None
    in_order: bool = True
    has_depth = True

    @cached_property
    def frames(self) -> Recordings:
        """The frames of each folder."""
        return Recordings(self, self.poses, in_order=self.in_order, timed=self.by_time)

    @cached_property
    def index(self) -> Index:
        """The ids of the pairs. Raises SourceError if there are none."""
        skipped = Counter[str]()
        files = list_ids(self.store.files(skipped), {})
        index = (_pairs_by_time if self.by_time else _pairs)(self, files, skipped)
        if not len(index):
            raise SourceError(_no_pair(f"rgbd:{self.store}", self.store, files, [(str(self.color), str(self.depth))]))
        patterns: dict[str, object] = {"mask": self.mask, "intrinsics": self.intrinsics}
        if self.poses and self.poses.needed:
            patterns["pose"] = self.poses.pattern
        for name, pattern in patterns.items():
            if isinstance(pattern, Pattern) and not any(pattern.match(path) is not None for path in files):
                raise SourceError(
                    f"image source 'rgbd:{self.store}': none of the {len(files)} files matches {name}={pattern}"
                )
        return index

    def read(self, image_id: str, *, depth: bool) -> Files:
        """The contents of the files of a pair."""
        camera = self.intrinsics
        if isinstance(camera, Pattern):
            camera = _camera(self.store, camera.path(image_id))
        if not depth:
            return Files(self.store.read(self.color.path(image_id)), intrinsics=camera)
        partner = self.index.value(image_id) if self.by_time else image_id
        if partner is None:
            raise SourceRejected("file missing")
        return Files(
            self.store.read(self.color.path(image_id)),
            self.store.read(self.depth.path(partner)),
            self.store.read(self.mask.path(partner)) if self.mask else None,
            self.scale,
            camera,
        )

    def files(self) -> Iterator[str]:
        """Relative paths of all files that match a pattern."""
        parts = (self.color, self.depth, self.mask, self.intrinsics)
        patterns = [part for part in parts if isinstance(part, Pattern)]
        return (path for path in self.store.files(Counter()) if any(p.match(path) is not None for p in patterns))

    def facts(self) -> tuple[str, ...]:
        """The intrinsics, which may come from one file."""
        return (repr(self.intrinsics),)


def _pairs(source: RgbdSource, files: Iterable[str], skipped: Counter[str]) -> Index:
    """The ids that have a colour and a depth file. Hashes are compared, because they take less memory than ids."""
    colors, depths = (
        np.fromiter(
            (stable_hash.__wrapped__(name) for name in map(pattern.match, files) if name is not None), np.uint64
        )
        for pattern in (source.color, source.depth)
    )
    paired = np.isin(colors, depths)
    skipped["colour without depth"] = int((~paired).sum())
    skipped["depth without colour"] = len(depths) - int(paired.sum())
    names = (name for name in map(source.color.match, files) if name is not None)
    return list_ids(compress(names, paired), {"skipped": +skipped})


def _pairs_by_time(source: RgbdSource, files: Iterable[str], skipped: Counter[str]) -> Index:
    """Id of each colour file -> id of the depth file in the same recording that is nearest in time."""
    frames: dict[str, tuple[list[str], list[str]]] = {}
    for path in files:
        for kind, pattern in enumerate((source.color, source.depth)):
            if (name := pattern.match(path)) is not None and seconds(name) is not None:
                frames.setdefault(name.rpartition("/")[0], ([], []))[kind].append(name)
    pairs: dict[str, str] = {}
    for colors, depths in frames.values():
        by_time = {seconds(name): name for name in depths}
        times = sorted(by_time)
        for name in colors:
            after = bisect_left(times, time := seconds(name))
            around = times[max(after - 1, 0) : after + 1]
            nearest = min(around, key=lambda other: (abs(other - time), other), default=None)
            if nearest is not None and abs(nearest - time) <= SAME_TIME:
                pairs[name] = by_time[nearest]
    count = sum(len(colors) for colors, _ in frames.values())
    skipped["colour without depth"] = count - len(pairs)
    return index_by_id(pairs.items(), {"skipped": +skipped})


@lru_cache(maxsize=4096)
def _camera(store: Store, path: str) -> Intrinsics:
    try:
        return read_intrinsics_file(store.read(path))
    except ValueError as err:
        raise SourceRejected(NO_CAMERA) from err


@hookimpl
def ssrl_open_source(uri: str) -> RgbdSource | None:
    """The image pairs of an ``rgbd:`` URI. Raises SourceError if there are none."""
    located = locate(uri, "rgbd", options=_OPTIONS)
    if located is None:
        return None
    store, _, options = located
    name = options.get("layout")
    if name is not None and name not in LAYOUTS:
        raise SourceError(
            f"image source {uri!r}: there is no layout {name!r}.{did_you_mean(name, LAYOUTS)}\n"
            f"  layouts: {', '.join(LAYOUTS)}"
        )
    if ("color" in options) != ("depth" in options):
        raise SourceError(f"image source {uri!r}: give both color and depth, or neither")
    known = [LAYOUTS[name]] if name else [Layout("", "")] if "color" in options else GUESSES
    patterns = ("color", "depth", "mask", "intrinsics", "pose")
    given: dict[str, Any] = {key: options[key].removeprefix(f"{store.root}/") for key in patterns if key in options}
    candidates = [layout._replace(**given) for layout in known]
    scale = scale_option(uri, options, candidates[0].scale)
    if len(candidates) == 1:
        return _open(uri, store, candidates[0], options, scale=scale, by_time=name == "tum")
    files = list_ids(store.files(Counter()), {})
    for layout in candidates:
        source = _open(uri, store, layout, options, scale=scale)
        if len(_pairs(source, files, Counter())):
            # In TUM's recordings a unit is 1/5000 m, which no guess can know.
            if "scale" not in options and {"rgb.txt", "depth.txt"} <= set(islice(files, 100_000)):
                raise SourceError(
                    f"image source {uri!r}: this looks like a recording of TUM RGB-D (rgb.txt and depth.txt). Add "
                    "layout=tum, or the scale if it is another data set"
                )
            return source
    raise SourceError(_no_pair(uri, store, files, [layout[:2] for layout in candidates]))


def _open(
    uri: str, store: Store, layout: Layout, options: dict[str, str], *, scale: float | None, by_time: bool = False
) -> RgbdSource:
    if layout.depth.endswith((".h5", ".hdf5")) and not find_spec("h5py"):
        raise SourceError(f"image source {uri!r}: reading HDF5 depth needs h5py: pip install 'ssrl-core[sources]'")
    for key in ("color", "depth", "mask"):
        text = getattr(layout, key)
        if text.removeprefix("**/").count("*") != 1 and (text or key != "mask"):
            raise SourceError(f"image source {uri!r}: {key} must contain exactly one *, not {text!r}")
    color, depth, mask_of = map(Pattern, layout[:3])
    intrinsics = _intrinsics(uri, store, layout.intrinsics)
    poses = pose_options(uri, options, layout.pose)
    mask = mask_of if layout.mask else None
    return RgbdSource(store, color, depth, mask, scale, intrinsics, by_time, poses, layout.in_order)


def _no_pair(uri: str, store: Store, files: Index, tried: Iterable[tuple[str, ...]]) -> str:
    lines = "".join(f"    color={color}&depth={depth}\n" for color, depth in tried)
    return (
        f"image source {uri!r}: no pair of colour and depth among the {len(files)} files below {str(store)!r}. Tried:\n"
        f"{lines}  add a layout ({', '.join(LAYOUTS)}), or the patterns of the files, for example\n"
        f"  rgbd:{store}?color=*_rgb.png&depth=*_depth.png"
    )


def _intrinsics(uri: str, store: Store, text: str) -> Intrinsics | Pattern | None:
    where, name = f"image source {uri!r}: intrinsics {text!r}".removesuffix(" ''"), ""
    if "*" in text:
        return Pattern(text)
    try:
        if re.fullmatch(r"[-+.,;\s\[\]()0-9eE]+", text):
            return read_intrinsics(text)
        for name in [text] if text else INTRINSICS:
            with suppress(SourceRejected):
                return read_intrinsics_file(store.read(name))
    except ValueError as err:
        raise SourceError(f"{where}{f', file {name!r}' if name else ''}: {err}") from err
    if text:
        raise SourceError(
            f"{where}: there is no such file in {str(store)!r}. Give a text file with a 3 x 3 matrix, or fx,fy,cx,cy"
        )
    return None
