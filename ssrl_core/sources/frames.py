"""The source ``frames:PATH``: clips whose frames are image files in a folder.

    frames:/data/walks
    frames:/data/walks?fps=30
    frames:s3://bucket/walks

Each folder with at least two image files is a clip, and its id the path of the folder, relative to PATH; PATH itself is
``.``. The frames are its files in the order of their names, with numbers compared as numbers: ``f2.jpg`` comes before
``f10.jpg``. With ``fps``, frames have times. All frames that are read together must have one size. Between frames that
are not neighbours, only a cut that changes the picture a lot is noticed.

A clip is listed when it is first loaded by a process. ``folder`` says which files are images.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np

from ..errors import SourceError, SourceRejected
from ..hookspecs import hookimpl
from ..types import SourceFrames, SourceImage
from .base import Collection
from .clips import OnlyClips, refuse_cut, refuse_unlike, small_luma
from .folder import EXTENSIONS
from .images import read_rgb
from .index import Index, list_ids
from .options import skipped_text
from .store import Store, locate

_FASTEST = 100_000.0  # frames a second


@dataclass(frozen=True, eq=False)
class FolderClips(Collection):
    """Folders of frames in a store.

    Attributes:
        fps: frames a second; None if unknown.
    """

    store: Store
    fps: float | None = None
    has_depth = False
    has_pose = False
    in_order = True

    @cached_property
    def index(self) -> Index:
        """The ids of the clips. Raises SourceError if there are none."""
        skipped, frames = Counter[str](), Counter[str]()
        for path in self.files(skipped):
            frames[path.rpartition("/")[0] or "."] += 1
        clips = [folder for folder, count in frames.items() if count > 1]
        skipped["folder with one image"] = len(frames) - len(clips)
        index = list_ids(sorted(clips), {"skipped": +skipped})
        if not len(index):
            raise SourceError(
                f"image source 'frames:{self.store}': no folder with two images below {str(self.store)!r}"
                f"{skipped_text(skipped)}.\n"
                f"  expected files: {', '.join('*.' + extension for extension in EXTENSIONS)}"
            )
        return index

    def files(self, skipped: Counter[str] | None = None) -> Iterator[str]:
        """Relative paths of all images; ``skipped`` counts the files left out, by reason."""
        skipped = Counter() if skipped is None else skipped
        for path in self.store.files(skipped):
            if _is_image(path):
                yield path
            else:
                skipped["other extension"] += 1

    def facts(self) -> tuple[str, ...]:
        """The rate of the frames."""
        return () if self.fps is None else (f"{self.fps:g}",)

    def load(self, image_id: str, *, depth: bool) -> SourceFrames:
        """One clip. Raises SourceRejected if it cannot be used."""
        names = _names(self.store, "" if image_id == "." else image_id + "/")
        if not names:
            raise SourceRejected("file missing")

        def read(positions: Sequence[int]) -> list[SourceImage]:
            found = {k: SourceImage(f"{image_id}#{k}", read_rgb(self.store.read(names[k]))[0]) for k in positions}
            refuse_unlike(list(found.values()))
            before: tuple[int, np.ndarray] | None = None
            for k in sorted(found):
                luma = small_luma(found[k].rgb)
                if before is not None:
                    refuse_cut(before[1], luma, consecutive=k == before[0] + 1)
                before = k, luma
            return [found[k] for k in positions]

        times = None if self.fps is None else np.arange(len(names)) / self.fps
        return SourceFrames(image_id, len(names), read, times)


def _is_image(path: str) -> bool:
    return "." in path and path.rpartition(".")[2].lower() in EXTENSIONS


@lru_cache(maxsize=256)
def _names(store: Store, folder: str) -> tuple[str, ...]:
    """The relative paths of the images in a folder, in the order of time."""
    paths = [folder + name for name in store.names(folder, Counter()) if _is_image(name)]
    return tuple(sorted(paths, key=_natural))


def _natural(path: str) -> tuple[list[object], str]:
    """A key by which ``f2`` is before ``f10``."""
    parts = re.split(r"([0-9]+)", path.rpartition("/")[2].rpartition(".")[0].casefold())
    return [int(part) if k % 2 else part for k, part in enumerate(parts)], path


@hookimpl
def ssrl_open_source(uri: str) -> OnlyClips | None:
    """The clips of a ``frames:`` URI. Raises SourceError if the folder does not exist."""
    located = locate(uri, "frames", options=("fps",))
    if located is None:
        return None
    text = located.options.get("fps")
    try:
        fps = None if text is None else float(text)
    except ValueError:
        fps = math.nan
    if fps is not None and not 0 < fps <= _FASTEST:
        raise SourceError(f"image source {uri!r}: fps is the number of frames a second, for example 30, not {text!r}")
    return OnlyClips(FolderClips(located.store, fps))
