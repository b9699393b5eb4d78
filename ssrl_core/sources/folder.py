"""The source ``folder:PATH``: the photographs below a folder.

    folder:/data/coco
    folder:~/my pictures
    folder:s3://bucket/photos

The id of an image is its path relative to the folder, with ``/`` between parts. Every file that has an extension of
an image belongs to the source; whether it can be decoded turns out when it is loaded. The folder is listed when its
images are first counted: a process that only loads images by their ids never lists it. See ``source_files.locate`` for
how paths are written.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from ..errors import SourceError
from ..hookspecs import hookimpl
from ..types import SourceImage
from .images import read_rgb
from .index import Index, Indexed, list_ids
from .options import skipped_text
from .store import Store, locate

EXTENSIONS = ("jpg", "jpeg", "png", "webp", "bmp", "tif", "tiff")


@dataclass(frozen=True, eq=False)
class FolderSource(Indexed):
    """Photographs in a folder, by their relative paths in sorted order.

    Attributes:
        store: the folder.
    """

    store: Store
    has_depth = False

    @cached_property
    def index(self) -> Index:
        """The list of the images. Raises SourceError where there are none."""
        skipped = Counter[str]()
        index = list_ids(self._images(skipped), {"skipped": skipped})
        if not len(index):
            raise SourceError(
                f"image source 'folder:{self.store}': no image in {str(self.store)!r}, of "
                f"{skipped['not an image']} files below it{skipped_text(skipped)}.\n"
                f"  looked for: {', '.join('*.' + extension for extension in EXTENSIONS)}"
            )
        return index

    def _images(self, skipped: Counter[str]) -> Iterator[str]:
        for path in self.store.files(skipped):
            if "." in path and path.rpartition(".")[2].lower() in EXTENSIONS:
                yield path
            else:
                skipped["not an image"] += 1

    def load(self, image_id: str) -> SourceImage:
        """Decode one photograph. Raises SourceRejected, see ``Store.read`` and ``read_rgb``."""
        return SourceImage(id=image_id, rgb=read_rgb(self.store.read(image_id)))

    def describe(self) -> str:
        """What the source is, in a line."""
        return f"{len(self)} photographs in {self.store}{skipped_text(self.skipped)}"


@hookimpl
def ssrl_open_source(uri: str) -> FolderSource | None:
    """The photographs of a ``folder:`` URI. Raises SourceError where there is no such folder."""
    scheme, _, rest = uri.partition(":")
    if scheme != "folder":
        return None
    text, question, _ = rest.partition("?")
    if question:
        raise SourceError(f"image source {uri!r}: folder takes no options. Write a question mark in the path as %3F")
    store, _ = locate(uri, text, example="folder:/data/photos")
    return FolderSource(store)
