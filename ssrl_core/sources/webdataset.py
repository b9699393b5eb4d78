"""The source ``webdataset:PATH``: images in tar files, with random access.

    webdataset:/data/shards
    webdataset:/data/shards/train-000000.tar
    webdataset:s3://bucket/shards?files=train-*.tar&image=rgb.jpg&depth=depth.png&scale=1000

A sample consists of consecutive members whose paths are equal up to the first dot of the file name. The text after that
dot is called an extension here; upper and lower case are the same. The id of an image is the path of its tar file,
``/``, and the common path.

Options:

- ``files``: pattern for the tar files; by default all below the folder.
- ``image``: extension of the image; by default the first of IMAGES that the sample has.
- ``depth`` and ``mask``: extensions, see ``depth``; without ``depth``, the source has no depth.
- ``scale`` and ``intrinsics`` (four numbers): as for ``rgbd:``, the same for all images.

The positions of the members are found once, by reading all headers, and cached (see ``index``) until a tar file
changes. Compressed tar files have no random access: unpack them first.
"""

from __future__ import annotations

import tarfile
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import groupby
from operator import itemgetter

from ..errors import SourceError, SourceRejected
from ..hookspecs import hookimpl
from ..types import Intrinsics
from .base import Files, FileSource
from .depth import intrinsics_option, scale_option
from .index import Index, index_by_id
from .options import skipped_text
from .store import Store, is_text, locate

IMAGES = ("jpg", "jpeg", "png", "webp", "bmp", "tif", "tiff")
"""Extensions of images, in order of preference."""

_OPTIONS = ("files", "image", "depth", "mask", "scale", "intrinsics")
_COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")
_HEADER = tarfile.BLOCKSIZE  # precedes the content of each member

Place = tuple[int, int]
"""Offset of a member's content in its tar file, and its number of bytes."""


@dataclass(frozen=True, eq=False)
class WebDatasetSource(FileSource):
    """Images in tar files.

    Attributes:
        index: id -> number of the tar file in ``facts["files"]``, and the places of image, depth and mask in it.
        scale, intrinsics: of all images.
    """

    store: Store
    index: Index
    has_depth: bool
    scale: float | None
    intrinsics: Intrinsics | None
    blocks = 64

    def read(self, image_id: str, *, depth: bool) -> Files:
        """The contents of the members of a sample."""
        entry = self.index.value(image_id)
        if entry is None:
            raise SourceRejected("file missing")
        file = self.index.facts["files"][entry[0]]
        color, *others = (self._read(file, place) for place in (entry[1:] if depth else entry[1:2]))
        metres, mask = (*others, None, None)[:2]
        return Files(color, metres, mask, self.scale, self.intrinsics)

    def _read(self, file: str, place: Place) -> bytes:
        start, size = place
        content = self.store.read(file, start=start - _HEADER, size=_HEADER + size)
        try:
            header = tarfile.TarInfo.frombuf(content[:_HEADER], "utf-8", "surrogateescape")
        except tarfile.HeaderError as err:
            raise SourceRejected("tar file changed") from err
        if header.size != size or len(content) != _HEADER + size:
            raise SourceRejected("tar file changed")
        return content[_HEADER:]

    def files(self) -> Iterator[str]:
        """Relative paths of the tar files."""
        return iter(self.index.facts["files"])

    def facts(self) -> Iterator[str]:
        """Ids and places of all images."""
        return map(repr, self.index.items())


@hookimpl
def ssrl_open_source(uri: str) -> WebDatasetSource | None:
    """The images of a ``webdataset:`` URI. Raises SourceError if there are none."""
    located = locate(uri, "webdataset", options=_OPTIONS, files=(".tar", *_COMPRESSED))
    if located is None:
        return None
    store, name, options = located
    if "mask" in options and "depth" not in options:
        raise SourceError(f"image source {uri!r}: the option mask needs the option depth")
    scale = scale_option(uri, options, has_depth="depth" in options)
    intrinsics = intrinsics_option(uri, options)
    pattern = options.get("files", "*.[tT][aA][rR]")
    files = [name] if name else [path for path in store.files(Counter()) if fnmatchcase(path, pattern)]
    if not files:
        raise SourceError(
            f"image source {uri!r}: no tar file {options.get('files', '*.tar')} in {str(store)!r}. "
            "Compressed ones must be unpacked"
        )
    parts = tuple(options.get(part, "").lower().lstrip(".") for part in ("image", "depth", "mask"))
    try:
        stamps = [(file, store.stamp(file)) for file in files]
    except Exception as err:  # each file system raises its own exceptions
        raise SourceError(f"image source {uri!r}: cannot access its tar files: {type(err).__name__}: {err}") from err
    skipped = Counter[str]()
    index = index_by_id(
        _entries(store, files, parts, skipped),
        {"files": files, "skipped": skipped},
        made_of=("webdataset 2", str(store), stamps, parts),
    )
    if not len(index):
        raise SourceError(
            f"image source {uri!r}: no sample with {' and '.join(part for part in parts if part) or 'an image'} in "
            f"{len(files)} tar files of {str(store)!r}{skipped_text(index.facts['skipped'])}"
        )
    return WebDatasetSource(store, index, "depth" in options, scale, intrinsics)


def _entries(
    store: Store, files: Iterable[str], parts: tuple[str, ...], skipped: Counter[str]
) -> Iterator[tuple[str, list[object]]]:
    """Id and value of each complete sample."""
    image, *others = parts
    for number, file in enumerate(files):
        for key, run in groupby(_members(store, file, skipped), key=itemgetter(0)):
            found = [member[1:] for member in run]
            members = dict(found)
            if len(found) > len(members):
                skipped["name twice in a row"] += len(found) - len(members)
            wanted = [image or next((name for name in IMAGES if name in members), ""), *filter(None, others)]
            if all(name in members for name in wanted):
                yield f"{file}/{key}", [number, *(members[name] for name in wanted)]
            else:
                endings = tuple(f".{known}" for known in IMAGES)
                dotted = [name for name in members if name.endswith(endings) and name not in others]
                missing = "no image by its extension" + ": its name has a further dot" * bool(dotted and not image)
                skipped["no depth or mask" if wanted[0] in members else missing] += 1


def _members(store: Store, file: str, skipped: Counter[str]) -> Iterator[tuple[str, str, Place]]:
    """The path up to the first dot, extension and place of each member."""
    try:
        with store.open(file) as opened, tarfile.open(fileobj=opened, mode="r:") as archive:
            while member := archive.next():
                archive.members = []  # type: ignore[attr-defined]  # otherwise the memory grows with the members
                if not member.isreg() or member.issparse():
                    if not member.isdir():
                        skipped["link or special file"] += 1
                    continue
                folder, slash, name = member.name.rpartition("/")
                stem, dot, extension = name.partition(".")
                if not is_text(member.name):
                    skipped["name is not Unicode"] += 1
                elif stem and dot:
                    yield folder + slash + stem, extension.lower(), (member.offset_data, member.size)
                else:
                    skipped["hidden" if dot else "member without extension"] += 1
            opened.seek(archive.offset)
            if opened.read(_HEADER).strip(b"\0"):  # tarfile takes a damaged header for the end of the archive
                raise tarfile.ReadError
    except Exception:  # truncated, compressed, not a tar file, or not readable
        skipped[f"tar file not readable to its end{store.kind(file)}"] += 1
