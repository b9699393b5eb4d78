"""The source ``rgbd:PATH``: colour images with registered depth images, paired by name.

    rgbd:/data/kinect
    rgbd:/data/diode/train/indoors?layout=diode
    rgbd:s3://bucket/scans?color=rgb/*.jpg&depth=depth/*.png&scale=1000&intrinsics=camera.txt

Options:

- ``layout``: one of LAYOUTS, which sets all others as that data set needs them.
- ``color`` and ``depth``: one pattern each, with exactly one ``*``, relative to the folder. What the ``*`` stands for
  is the id of the image and pairs the files; it may contain ``/``, so that ``*.color.jpg`` finds the frames of many
  recordings below one folder. Where a pattern begins with ``**/``, this stands for the folder of a recording: with
  ``**/rgb/*.jpg`` and ``**/depth/*.png``, ``a/rgb/7.jpg`` belongs to ``a/depth/7.png``, and its id is ``a/7``. Without
  both, the first of GUESSES that gives a pair is taken.
- ``mask``: a pattern for files that are 0 where depth is invalid.
- ``scale``: metres in one unit of a depth image of whole numbers (0.001, the default), or units in a metre (1000,
  5000). See ``source_depth`` for kinds of files and what is invalid in them.
- ``intrinsics``: ``fx,fy,cx,cy`` in pixels of the colour image, or a text file with these four numbers or a 3 x 3 or
  4 x 4 matrix; its name may be a pattern with ``**/``, with ``*``, or with both. By default the first of INTRINSICS
  that exists; unknown where none does.

Options are percent-encoded as in any URL (``%26`` for ``&``); see ``source_files.locate`` for the path. With a layout
or patterns, the folder is listed when its images are first counted, else at once.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property, lru_cache
from importlib.util import find_spec
from itertools import compress, islice
from math import inf
from typing import Any, NamedTuple

import numpy as np

from ..errors import SourceError, SourceRejected, did_you_mean
from ..hookspecs import hookimpl
from ..seeding import stable_hash
from ..types import Intrinsics, SourceImage
from .depth import join_depth, read_intrinsics, scale_option
from .index import Index, Indexed, index_by_id, list_ids
from .options import query_options, skipped_text
from .store import Store, locate


class Layout(NamedTuple):
    """How the files of a data set are called, and what is in them; see the options of the same names."""

    color: str
    depth: str
    mask: str = ""
    scale: str = "0.001"
    intrinsics: str = ""


LAYOUTS = {
    # 65535 marks what was not measured; one camera for all scenes.
    "7scenes": Layout("*.color.png", "*.depth.png", intrinsics="585,585,320,240"),
    # As the reader that comes with it exports a scan; depth has fewer pixels than colour.
    "scannet": Layout("**/color/*.jpg", "**/depth/*.png", intrinsics="**/intrinsic/intrinsic_color.txt"),
    # "sync" and "official_splits", the form in which depth estimation uses NYU Depth v2.
    "nyu": Layout("**/rgb_*.jpg", "**/sync_depth_*.png", intrinsics="518.8579,519.4696,325.5824,253.7362"),
    # Names are times in seconds; depth is registered to colour, for which its authors recommend these intrinsics.
    "tum": Layout("**/rgb/*.png", "**/depth/*.png", scale="5000", intrinsics="525,525,319.5,239.5"),
    "diode": Layout("*.png", "*_depth.npy", mask="*_depth_mask.npy", intrinsics="886.81,927.06,512,384"),
    # Depth is known up to a factor for each scene; the cameras are in another download.
    "megadepth": Layout("**/imgs/*.jpg", "**/depths/*.h5"),
}
"""Data sets by name."""

GUESSES = (
    Layout("*.color.jpg", "*.depth.png"),
    Layout("*.color.png", "*.depth.png"),
    Layout("*-color.png", "*-depth.png"),
    Layout("*_color.png", "*_depth.png"),
    Layout("*_rgb.png", "*_depth.png"),
    Layout("color/*.jpg", "depth/*.png"),
    Layout("color/*.png", "depth/*.png"),
    Layout("rgb/*.jpg", "depth/*.png"),
    Layout("rgb/*.png", "depth/*.png"),
    Layout("rgb/*.png", "depth/*.npy"),
    Layout("image/*.jpg", "depth/*.png"),
    LAYOUTS["scannet"],
    # Without the camera, which the names of files do not tell.
    *(LAYOUTS[name]._replace(intrinsics="") for name in ("nyu", "diode", "megadepth")),
)
"""What is tried, in this order, where neither layout nor patterns are given."""

INTRINSICS = ("camera-intrinsics.txt", "intrinsics.txt", "intrinsic/intrinsic_color.txt")
"""Files that are looked for in the folder where no intrinsics are given."""

_OPTIONS = ("layout", "color", "depth", "mask", "scale", "intrinsics")
_SAME_TIME = 0.02  # seconds between colour and depth of one frame, as the tools of TUM have it


class Pattern(NamedTuple):
    """A relative path with one ``*`` in it, or none, perhaps after ``**/``."""

    deep: bool
    before: str
    star: bool
    after: str

    @classmethod
    def of(cls, text: str) -> Pattern:
        """The pattern that a text writes."""
        rest = text.removeprefix("./")
        before, star, after = rest.removeprefix("**/").partition("*")
        return cls(rest.startswith("**/"), before, bool(star), after)

    def __str__(self) -> str:
        return f"{'**/' * self.deep}{self.before}{'*' * self.star}{self.after}"

    def match(self, path: str) -> str | None:
        """What the stars stand for in a relative path, or None where the path is another."""
        if not path.endswith(self.after):
            return None
        if self.deep:
            found = re.fullmatch(f"((?:.*/)?){re.escape(self.before)}([^/]+){re.escape(self.after)}", path, re.DOTALL)
            return found and found[1] + found[2]
        longer = len(path) > len(self.before) + len(self.after)
        return path[len(self.before) : len(path) - len(self.after)] if longer and path.startswith(self.before) else None

    def path(self, image_id: str) -> str:
        """The relative path for an id."""
        head, slash, name = image_id.rpartition("/") if self.deep else ("", "", image_id)
        return f"{head}{slash}{self.before}{name * self.star}{self.after}"


@dataclass(frozen=True, eq=False)
class RgbdSource(Indexed):
    """Colour and depth images in a folder.

    Attributes:
        store: the folder.
        color, depth: how the files of an id are called.
        mask: how the file is called that says where depth is valid, if there is one.
        scale: metres in one unit of a depth image.
        intrinsics: of all colour images, how the file of an id is called that has them, or None.
        by_time: names are times in seconds, and colour goes with the nearest depth.
    """

    store: Store
    color: Pattern
    depth: Pattern
    mask: Pattern | None = None
    scale: float = 0.001
    intrinsics: Intrinsics | Pattern | None = None
    by_time: bool = False
    has_depth = True

    @cached_property
    def index(self) -> Index:
        """The list of the pairs. Raises SourceError where there are none."""
        skipped = Counter[str]()
        files = list_ids(self.store.files(skipped), {})
        index = _pairs_by_time(self, files, skipped) if self.by_time else _pairs(self, files, skipped)
        if not len(index):
            raise SourceError(_no_pair(f"rgbd:{self.store}", self.store, files, [(str(self.color), str(self.depth))]))
        return index

    def load(self, image_id: str) -> SourceImage:
        """Decode one pair. Raises SourceRejected where either is missing or damaged, or where they do not fit."""
        partner = self.index.value(image_id) if self.by_time else image_id
        if partner is None:
            raise SourceRejected("file missing")
        return join_depth(
            image_id,
            self.store.read(self.color.path(image_id)),
            self.store.read(self.depth.path(partner)),
            mask=self.store.read(self.mask.path(partner)) if self.mask else None,
            scale=self.scale,
            intrinsics=self._camera_of(image_id),
        )

    def load_rgb(self, image_id: str) -> SourceImage:
        """As ``load``, without depth: its file is not read."""
        color = self.store.read(self.color.path(image_id))
        return join_depth(image_id, color, None, intrinsics=self._camera_of(image_id))

    def _camera_of(self, image_id: str) -> Intrinsics | None:
        camera = self.intrinsics
        return _camera(self.store, camera.path(image_id)) if isinstance(camera, Pattern) else camera

    def describe(self) -> str:
        """What the source is, in a line."""
        camera = "unknown" if self.intrinsics is None else "known"
        return (
            f"{len(self)} pairs of {self.color} and {self.depth} in {self.store}, {camera} intrinsics"
            f"{skipped_text(self.skipped)}"
        )


def _pairs(source: RgbdSource, files: Iterable[str], skipped: Counter[str]) -> Index:
    """The ids for which there is a colour and a depth file; their hashes are compared, for they take less memory."""
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
    """The ids of colour files with the id of the depth file of nearly the same time in the same recording."""
    frames: dict[str, tuple[list[str], list[str]]] = {}
    for path in files:
        for kind, pattern in enumerate((source.color, source.depth)):
            if (name := pattern.match(path)) is not None and _seconds(name) is not None:
                frames.setdefault(name.rpartition("/")[0], ([], []))[kind].append(name)
    pairs: dict[str, str] = {}
    for colors, depths in frames.values():
        by_time = {_seconds(name): name for name in depths}
        times = sorted(by_time)
        for name in colors:
            after = bisect_left(times, time := _seconds(name))
            around = times[max(after - 1, 0) : after + 1]
            apart, nearest = min(((abs(other - time), other) for other in around), default=(inf, 0.0))
            if apart <= _SAME_TIME:
                pairs[name] = by_time[nearest]
    count = sum(len(colors) for colors, _ in frames.values())
    skipped["colour without depth"] = count - len(pairs)
    return index_by_id(pairs.items(), {"skipped": +skipped})


def _seconds(name: str) -> Any:
    try:
        return float(name.rpartition("/")[2])
    except ValueError:
        return None


@lru_cache(maxsize=4096)
def _camera(store: Store, path: str) -> Intrinsics:
    try:
        return read_intrinsics(store.read(path).decode())
    except ValueError as err:
        raise SourceRejected("unreadable intrinsics") from err


@hookimpl
def ssrl_open_source(uri: str) -> RgbdSource | None:
    """The image pairs of an ``rgbd:`` URI. Raises SourceError where there are none."""
    scheme, _, rest = uri.partition(":")
    if scheme != "rgbd":
        return None
    text, _, query = rest.partition("?")
    options = query_options(uri, query, known=_OPTIONS)
    store, _ = locate(uri, text, example="rgbd:/data/frames")
    name = options.get("layout")
    if name is not None and name not in LAYOUTS:
        raise SourceError(
            f"image source {uri!r}: there is no layout {name!r}.{did_you_mean(name, LAYOUTS)}\n"
            f"  layouts: {', '.join(LAYOUTS)}"
        )
    if ("color" in options) != ("depth" in options):
        raise SourceError(f"image source {uri!r}: give both color and depth, or neither")
    given = {key: options[key] for key in ("color", "depth", "mask") if key in options}
    if name is not None:
        candidates: tuple[Layout, ...] = (LAYOUTS[name]._replace(**given),)
    elif "color" in options:
        candidates = (Layout(**given),)
    else:
        candidates = tuple(layout._replace(**given) for layout in GUESSES)
    scale = scale_option(uri, options, candidates[0].scale)
    if len(candidates) == 1:
        return _open(uri, store, candidates[0], options, scale=scale, by_time=name == "tum")
    files = list_ids(store.files(Counter()), {})
    for layout in candidates:
        source = _open(uri, store, layout, options, scale=scale)
        if len(_pairs(source, files, Counter())):
            _refuse_tum(uri, files, options)
            return source
    raise SourceError(_no_pair(uri, store, files, [layout[:2] for layout in candidates]))


def _open(
    uri: str, store: Store, layout: Layout, options: dict[str, str], *, scale: float, by_time: bool = False
) -> RgbdSource:
    if layout.depth.endswith(".h5") and not find_spec("h5py"):
        raise SourceError(f"image source {uri!r}: depth in HDF5 files needs h5py: pip install 'ssrl-core[sources]'")
    return RgbdSource(
        store,
        _pattern(uri, "color", layout.color),
        _pattern(uri, "depth", layout.depth),
        _pattern(uri, "mask", layout.mask) if layout.mask else None,
        scale,
        _intrinsics(uri, store, options.get("intrinsics", layout.intrinsics)),
        by_time,
    )


def _no_pair(uri: str, store: Store, files: Index, tried: Iterable[tuple[str, ...]]) -> str:
    lines = "".join(f"    color={color}&depth={depth}\n" for color, depth in tried)
    return (
        f"image source {uri!r}: no pair of colour and depth in {str(store)!r}, of {len(files)} files below it. Tried:\n"
        f"{lines}  name a layout ({', '.join(LAYOUTS)}), or say how the files are called, for example\n"
        f"  rgbd:{store}?color=*_rgb.png&depth=*_depth.png"
    )


def _refuse_tum(uri: str, files: Index, options: dict[str, str]) -> None:
    """Raise a SourceError where the guess would take depth of 1/5000 m for millimetres."""
    if "scale" not in options and {"rgb.txt", "depth.txt"} <= set(islice(files, 100_000)):
        raise SourceError(
            f"image source {uri!r}: this looks like a recording of TUM RGB-D (rgb.txt and depth.txt). Add layout=tum, "
            "or the scale if it is something else"
        )


def _pattern(uri: str, key: str, text: str) -> Pattern:
    if text.removeprefix("**/").count("*") != 1:
        raise SourceError(f"image source {uri!r}: {key} must contain exactly one *, not {text!r}")
    return Pattern.of(text)


def _intrinsics(uri: str, store: Store, text: str) -> Intrinsics | Pattern | None:
    where = f"image source {uri!r}: intrinsics {text!r}"
    name = ""
    if "*" in text:
        return Pattern.of(text)
    try:
        if text and not re.search("[A-Za-z]", text):
            return read_intrinsics(text)
        for name in [text] if text else INTRINSICS:
            with suppress(SourceRejected):
                return read_intrinsics(store.read(name).decode())
    except ValueError as err:
        raise SourceError(f"{where}{f', file {name!r}' if name else ''}: {err}") from err
    if text:
        raise SourceError(
            f"{where}: there is no such file in {str(store)!r}. Give a text file with a 3 x 3 matrix, or fx,fy,cx,cy"
        )
    return None
