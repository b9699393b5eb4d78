"""The base class of the built-in sources: images by position, decoding with or without depth, and the digest."""

from __future__ import annotations

import hashlib
import logging
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count, islice
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ..types import Intrinsics, SourceImage
from .depth import read_depth
from .images import read_rgb
from .index import Index
from .store import Store

MOST_HASHED = 100_000
"""Number of files whose content a digest covers; of further files it covers the size."""

logger = logging.getLogger(__name__)

_seen = set[tuple[Store, bool]]()  # sources of which the first image was looked at, without depth or with it
_NEAR, _FAR = 1.0, 100.0  # metres; depth that ends before the one or begins after the other is doubtful
_UNUSUAL = 0.2  # of a camera's centre, as a share of the image's side, and of a difference between focal lengths
_THREADS = 8  # network file systems and object stores answer slowly, but many requests at a time


class Files(NamedTuple):
    """What a source has read for one image.

    Attributes:
        color: content of the image file.
        depth: content of the depth file, or its array; None if depth is not wanted or the source has none.
        mask: content of an image file or array with 0 where depth is invalid.
        scale: metres per unit of depth; None for the default of its type, see ``depth``.
        intrinsics: of the colour image as stored; None if unknown.
    """

    color: bytes
    depth: bytes | np.ndarray | None = None
    mask: bytes | None = None
    scale: float | None = None
    intrinsics: Intrinsics | None = None


def doubts(image: SourceImage) -> Iterator[str]:
    """What lets one doubt the units of depth and intrinsics, which no file states."""
    height, width = image.rgb.shape[:2]
    if (camera := image.intrinsics) and (
        max(abs(camera.cx / width - 0.5), abs(camera.cy / height - 0.5), abs(1 - camera.fx / camera.fy)) > _UNUSUAL
    ):
        yield (
            f"{camera} is unusual for {width} x {height} pixels: its centre is not in the middle, or fx is not fy. "
            "Intrinsics are those of the colour image as stored, in the order fx, fy, cx, cy"
        )
    if image.depth is not None:
        low, high = float(np.nanmin(image.depth)), float(np.nanmax(image.depth))
        if low > _FAR or high <= _NEAR:
            yield f"its depth is from {low:g} to {high:g} m. The scale may be wrong, or the depth inverse or relative"


class Collection(ABC):
    """Things with ids in files of a store: their order, and the digest of the files.

    Attributes:
        store: folder of the files.
        index: ids of the images, scenes or clips.
    """

    blocks = 2  # of a file that the digest covers; 64 for files that contain many images

    if TYPE_CHECKING:
        store: Store

        @property
        def index(self) -> Index: ...

    def __len__(self) -> int:
        return len(self.index)

    @property
    def skipped(self) -> dict[str, int]:
        """Reason -> number of files or entries that the source leaves out."""
        return dict(self.index.facts["skipped"])

    def image_id(self, position: int) -> str:
        """The id at a position, in the order of the index."""
        return self.index.id(position)

    def digest(self) -> str:
        """A text that changes if the set of files or the content of a file changes.

        It covers relative paths, sizes, and blocks of 4 KiB at the start and the end of the first 100,000 files. Of
        files that contain many images it covers 64 blocks, spread evenly. Modification times of local files do not
        count. For remote files it covers size and ``ukey``, the identifier that the file system gives to a version.
        """
        return self.digest_of(self.facts(), self.files())

    def digest_of(self, facts: Iterable[str], paths: Iterable[str]) -> str:
        """The digest of facts and of the files at paths relative to the folder; see ``digest``."""
        total = hashlib.sha256()
        for fact in facts:
            total.update(fact.encode() + b"\0")
        files, number = iter(paths), count()
        with ThreadPoolExecutor(_THREADS) as pool:
            while batch := [(path, next(number)) for path in islice(files, 1000)]:
                for fingerprint in pool.map(self._fingerprint, batch):
                    total.update(fingerprint.encode() + b"\0")
        return total.hexdigest()

    def _fingerprint(self, file: tuple[str, int]) -> str:
        path, number = file
        return f"{path} {self.store.fingerprint(path, blocks=self.blocks if number < MOST_HASHED else 0)}"

    @abstractmethod
    def files(self) -> Iterator[str]:
        """Relative paths of all files on which the images depend."""

    def facts(self) -> Iterable[str]:
        """What the images depend on besides the content of ``files``."""
        return ()


class FileSource(Collection):
    """Images in files of a store.

    Attributes:
        has_depth: whether the images have depth.
    """

    if TYPE_CHECKING:

        @property
        def has_depth(self) -> bool: ...

    def load(self, image_id: str) -> SourceImage:
        """One image, with depth if the source has depth.

        Raises:
            SourceRejected: a file is missing or damaged, or depth does not fit the image.
        """
        return self.load_reduced(image_id, depth=self.has_depth)

    def load_rgb(self, image_id: str) -> SourceImage:
        """As ``load``, but without depth: its file is not read."""
        return self.load_reduced(image_id, depth=False)

    def load_reduced(self, image_id: str, *, depth: bool, least: tuple[int, int] | None = None) -> SourceImage:
        """One image with or without depth, at the smallest size that a decoder gives cheaply; see ``read_rgb``.

        Raises:
            SourceRejected: as for ``load``.
        """
        files = self.read(image_id, depth=depth and self.has_depth)
        # Depth and intrinsics belong to the pixels as stored, whatever the EXIF orientation.
        stored = self.has_depth or files.intrinsics is not None
        rgb, factor = read_rgb(files.color, upright=not stored, least=least)
        height, width = rgb.shape[:2]
        metres = None
        if files.depth is not None:
            metres = read_depth(files.depth, mask=files.mask, scale=files.scale, size=(width, height), factor=factor)
        camera = files.intrinsics and files.intrinsics.scaled(1 / factor, 1 / factor)
        image = SourceImage(id=image_id, rgb=rgb, depth=metres, intrinsics=camera)
        if (first := (self.store, metres is None)) not in _seen:
            _seen.add(first)
            for doubt in doubts(image):
                logger.warning("image %r of %s: %s. Later images are not looked at", image_id, self.store, doubt)
        return image

    @abstractmethod
    def read(self, image_id: str, *, depth: bool) -> Files:
        """The contents of the files of one image. Raises SourceRejected."""
