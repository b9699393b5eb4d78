"""The source ``folder:PATH``: the photographs below a folder.

    folder:/data/photos
    folder:~/my pictures

The id of an image is its path relative to the folder, with ``/`` between parts. Every file that has an extension of
an image belongs to the source; whether it can be decoded turns out when it is loaded. See ``imageio.folder_of`` for
how paths are written.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from .errors import SourceError
from .hookspecs import hookimpl
from .imageio import folder_of, list_files, path_below, read_rgb
from .types import SourceImage

EXTENSIONS = ("jpg", "jpeg", "png", "webp", "bmp", "tif", "tiff")


@dataclass(frozen=True, slots=True)
class FolderSource:
    """Photographs in a folder.

    Attributes:
        root: the folder.
        ids: relative paths, sorted.
        skipped: reason -> number of files that do not belong to the source.
    """

    root: Path
    ids: tuple[str, ...]
    skipped: dict[str, int] = field(default_factory=dict)
    has_depth: bool = field(default=False, init=False)

    def __len__(self) -> int:
        return len(self.ids)

    def image_id(self, position: int) -> str:
        """The relative path at a position in the sorted list."""
        return self.ids[position]

    def load(self, image_id: str) -> SourceImage:
        """Decode one photograph. Raises SourceRejected, see ``read_rgb``."""
        return SourceImage(id=image_id, rgb=read_rgb(path_below(self.root, image_id)))

    def describe(self) -> str:
        """What the source is, in a line."""
        left_out = "".join(f"; {count} skipped: {reason}" for reason, count in sorted(self.skipped.items()))
        return f"{len(self)} photographs in {self.root}{left_out}"


@hookimpl
def ssrl_open_source(uri: str) -> FolderSource | None:
    """The photographs of a ``folder:`` URI. Raises SourceError where there are none."""
    scheme, _, rest = uri.partition(":")
    if scheme != "folder":
        return None
    text, question, _ = rest.partition("?")
    if question:
        raise SourceError(f"image source {uri!r}: folder takes no options. Write a question mark in the path as %3F")
    root = folder_of(uri, text, example="folder:/data/photos")
    files, skipped = list_files(root)
    ids = tuple(name for name in files if name.rpartition(".")[2].lower() in EXTENSIONS and "." in name)
    if not ids:
        raise SourceError(
            f"image source {uri!r}: no image in {str(root)!r}, of {len(files)} files below it.\n"
            f"  looked for: {', '.join('*.' + extension for extension in EXTENSIONS)}"
        )
    if len(files) > len(ids):
        skipped["not an image"] = len(files) - len(ids)
    return FolderSource(root, ids, skipped)
