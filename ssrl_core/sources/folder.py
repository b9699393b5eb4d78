"""The source ``folder:PATH``: the photographs below a folder.

    folder:/data/coco
    folder:~/my pictures
    folder:s3://bucket/photos

The id of an image is its path relative to the folder, with ``/`` between parts. Every file with the extension of an
image belongs to the source; files that cannot be decoded are rejected when they are loaded. The folder is listed when
its images are first counted: a process that only loads images by their ids never lists it. ``store.locate`` describes
the syntax of paths.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from ..errors import SourceError
from ..hookspecs import hookimpl
from .base import Files, FileSource
from .index import Index, list_ids
from .options import skipped_text
from .store import Store, locate

EXTENSIONS = ("jpg", "jpeg", "png", "webp", "bmp", "tif", "tiff")


@dataclass(frozen=True, eq=False)
class FolderSource(FileSource):
    """Photographs in a folder, by their relative paths in sorted order."""

    store: Store
    has_depth = False

    @cached_property
    def index(self) -> Index:
        """The ids of the images. Raises SourceError if there are none."""
        skipped = Counter[str]()
        index = list_ids(self.files(skipped), {"skipped": skipped})
        if not len(index):
            raise SourceError(
                f"image source 'folder:{self.store}': no image among the {skipped['other extension']} files below "
                f"{str(self.store)!r}{skipped_text(skipped)}.\n"
                f"  expected files: {', '.join('*.' + extension for extension in EXTENSIONS)}"
            )
        return index

    def files(self, skipped: Counter[str] | None = None) -> Iterator[str]:
        """Relative paths of all images; ``skipped`` counts the files left out, by reason."""
        skipped = Counter() if skipped is None else skipped
        for path in self.store.files(skipped):
            if "." in path and path.rpartition(".")[2].lower() in EXTENSIONS:
                yield path
            else:
                skipped["other extension"] += 1

    def read(self, image_id: str, *, depth: bool) -> Files:
        """The content of a photograph."""
        return Files(self.store.read(image_id))


@hookimpl
def ssrl_open_source(uri: str) -> FolderSource | None:
    """The photographs of a ``folder:`` URI. Raises SourceError if the folder does not exist."""
    if uri.startswith("folder:") and "?" in uri:
        raise SourceError(f"image source {uri!r}: folder takes no options. Write a question mark in the path as %3F")
    located = locate(uri, "folder")
    return located and FolderSource(located.store)
