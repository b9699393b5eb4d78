"""The source ``webdataset:PATH``: the images in tar files, read at any place and not from end to end.

    webdataset:/data/shards
    webdataset:/data/shards/train-000000.tar
    webdataset:s3://bucket/shards?files=train-*.tar&image=rgb.jpg&depth=depth.png&scale=1000

A sample is the run of members whose names are the same up to the first dot of the last part; what follows the dot is
what the options call an extension. The id of an image is the path of its tar file, ``/``, and this common name.

Options:

- ``files``: a pattern for the tar files; by default all below the folder.
- ``image``: the extension of the image; by default the first that a sample has of IMAGES.
- ``depth`` and ``mask``: extensions, see ``source_depth``; without ``depth``, the source has none.
- ``scale`` and ``intrinsics`` (four numbers): as for ``rgbd:``, the same for all images.

Where the members begin is found out once, by a walk over all headers, and kept in the cache (see ``source_index``)
until a tar file changes. Compressed tar files cannot be read at any place: unpack them first.
"""

from __future__ import annotations

import tarfile
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase

from ..errors import SourceError, SourceRejected
from ..hookspecs import hookimpl
from ..types import Intrinsics, SourceImage
from .depth import intrinsics_option, join_depth, scale_option
from .images import read_rgb
from .index import Index, Indexed, index_by_id
from .options import query_options, skipped_text
from .store import Store, locate

IMAGES = ("jpg", "jpeg", "png", "webp", "bmp", "tif", "tiff")
"""Extensions of images, in the order in which they are looked for."""

_OPTIONS = ("files", "image", "depth", "mask", "scale", "intrinsics")
_HEADER = tarfile.BLOCKSIZE  # stands before the content of each member

Place = tuple[int, int]
"""Where the content of a member begins, and how many bytes it has."""


@dataclass(frozen=True, eq=False)
class WebDatasetSource(Indexed):
    """Images in tar files.

    Attributes:
        store: where the tar files lie.
        index: id -> number of its tar file in ``facts["files"]``, and the places of image, depth and mask there.
        has_depth: whether the images have depth.
        scale, intrinsics: of all images.
    """

    store: Store
    index: Index
    has_depth: bool
    scale: float
    intrinsics: Intrinsics | None

    def load(self, image_id: str) -> SourceImage:
        """Decode one image. Raises SourceRejected where it is damaged, or its tar file has changed."""
        return self._load(image_id, depth=self.has_depth)

    def load_rgb(self, image_id: str) -> SourceImage:
        """As ``load``, without depth: it is not read."""
        return self._load(image_id, depth=False)

    def _load(self, image_id: str, *, depth: bool) -> SourceImage:
        entry = self.index.value(image_id)
        if entry is None:
            raise SourceRejected("file missing")
        file = self.index.facts["files"][entry[0]]
        color, *others = (self._read(file, place) for place in (entry[1:] if depth else entry[1:2]))
        if not self.has_depth:
            return SourceImage(id=image_id, rgb=read_rgb(color), intrinsics=self.intrinsics)
        metres, mask = (*others, None, None)[:2]
        return join_depth(image_id, color, metres, mask=mask, scale=self.scale, intrinsics=self.intrinsics)

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

    def describe(self) -> str:
        """What the source is, in a line."""
        depth = " with depth" * self.has_depth
        return (
            f"{len(self)} images{depth} in {len(self.index.facts['files'])} tar files of {self.store}"
            + skipped_text(self.skipped)
        )


@hookimpl
def ssrl_open_source(uri: str) -> WebDatasetSource | None:
    """The images of a ``webdataset:`` URI. Raises SourceError where there are none."""
    scheme, _, rest = uri.partition(":")
    if scheme != "webdataset":
        return None
    text, _, query = rest.partition("?")
    options = query_options(uri, query, known=_OPTIONS)
    if "mask" in options and "depth" not in options:
        raise SourceError(f"image source {uri!r}: mask needs depth")
    scale, intrinsics = scale_option(uri, options), intrinsics_option(uri, options)
    store, name = locate(uri, text, example="webdataset:/data/shards", files=(".tar",))
    skipped = Counter[str]()
    files = (
        [name] if name else [path for path in store.files(skipped) if fnmatchcase(path, options.get("files", "*.tar"))]
    )
    if not files:
        raise SourceError(f"image source {uri!r}: no tar file {options.get('files', '*.tar')} in {str(store)!r}")
    parts = tuple(options.get(part, "") for part in ("image", "depth", "mask"))
    skipped.clear()
    try:
        stamps = [(file, store.stamp(file)) for file in files]
    except Exception as err:  # each file system has errors of its own
        raise SourceError(f"image source {uri!r}: cannot look at its tar files: {type(err).__name__}: {err}") from err
    index = index_by_id(
        _entries(store, files, parts, skipped),
        {"files": files, "skipped": skipped},
        made_of=("webdataset 1", str(store), stamps, parts),
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
    """Id and value of each sample that is whole."""
    image, *others = parts
    for number, file in enumerate(files):
        for key, members in _samples(store, file, skipped):
            wanted = [image or next((name for name in IMAGES if name in members), ""), *filter(None, others)]
            if all(name in members for name in wanted):
                yield f"{file}/{key}", [number, *(members[name] for name in wanted)]
            else:
                skipped["no depth or mask" if wanted[0] in members else "no image"] += 1


def _samples(store: Store, file: str, skipped: Counter[str]) -> Iterator[tuple[str, dict[str, Place]]]:
    """The common name of each sample, and the places of its members by their extensions."""
    current, members = "", dict[str, Place]()
    for path, place in _members(store, file, skipped):
        folder, slash, name = path.rpartition("/")
        stem, dot, extension = name.partition(".")
        if not stem or not dot:
            skipped["hidden" if dot else "member without extension"] += 1
            continue
        key = folder + slash + stem
        if key != current and members:
            yield current, members
            members = {}
        current = key
        members[extension.lower()] = place
    if members:
        yield current, members


def _members(store: Store, file: str, skipped: Counter[str]) -> Iterator[tuple[str, Place]]:
    try:
        with store.open(file) as opened, tarfile.open(fileobj=opened, mode="r:") as archive:
            while member := archive.next():
                archive.members = []  # type: ignore[attr-defined]  # or else it remembers them all
                if not member.isreg() or member.issparse():
                    continue
                try:
                    member.name.encode()
                except UnicodeEncodeError:
                    skipped["name is not Unicode"] += 1
                    continue
                yield member.name, (member.offset_data, member.size)
            opened.seek(archive.offset)
            if opened.read(_HEADER).strip(b"\0"):  # a damaged header ends the walk like the end of the archive
                raise tarfile.ReadError
    except Exception:  # cut short, compressed, no tar file at all, or not to be had
        skipped["tar file not readable to its end"] += 1
