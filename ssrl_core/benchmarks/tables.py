"""Rows and images of TSV, JSON, JSON Lines and Parquet files. Images are read when they are asked for."""

from __future__ import annotations

import ast
import base64
import binascii
import csv
import io
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, BinaryIO

from PIL import Image
from PIL.ExifTags import Base

from ..evaluate.endpoint import SENT
from .contract import BenchmarkError

csv.field_size_limit(min(sys.maxsize, 2**31 - 1))

ORIENTATION = Base.Orientation
Images = Callable[[], list[Image.Image]]


def opened_image(content: Path | bytes, *, name: str) -> Image.Image:
    """An image in RGB. Raises BenchmarkError if it is missing or damaged.

    A JPEG or PNG file in RGB is sent to a server as it is.
    """
    try:
        encoded = content if isinstance(content, bytes) else content.read_bytes()
        with Image.open(io.BytesIO(encoded)) as image:
            read = image.convert("RGB")
            turned = image.getexif().get(ORIENTATION, 1) != 1  # some servers turn the image, others do not
            if image.format in ("JPEG", "PNG") and image.mode == "RGB" and not turned:
                text = base64.b64encode(encoded).decode()
                setattr(read, SENT, f"data:image/{image.format.lower()};base64,{text}")
            return read
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as err:
        raise BenchmarkError(f"{name}: not readable as an image ({err}). Download it again") from err


def images_at(*paths: Path) -> Images:
    """Reads image files."""
    return partial(_open_all, paths)


def _open_all(paths: Sequence[Path]) -> list[Image.Image]:
    return [opened_image(path, name=str(path)) for path in paths]


def find_below(folder: Path, path: str) -> Path:
    """A file in a folder by a path whose first parts may be missing there. If no part fits, the whole path."""
    parts = Path(path).parts
    tails = (folder.joinpath(*parts[start:]) for start in range(len(parts)))
    return next((tail for tail in tails if tail.is_file()), folder / path)


def tsv_rows(path: Path) -> Iterator[tuple[dict[str, str], Images]]:
    """The rows of a TSV file of VLMEvalKit as texts, without ``image``, each with the reader of its images.

    Images are Base64, several as a list. A row may name the index of the row that has its image. Empty cells are left
    out. Raises BenchmarkError if the file has no columns of a benchmark or ends inside a row.
    """
    places: dict[str, int] = {}
    with open(path, "rb") as file:
        lines = _Lines(file)
        reader = csv.reader(lines, delimiter="\t", strict=True)
        try:
            header = next(reader, [])
            if missing := [name for name in ("index", "question", "image") if name not in header]:
                raise BenchmarkError(f"{path}: its first line has no column {missing[0]!r}; it has {header[:8]}")
            start = lines.offset
            for cells in reader:
                if len(cells) != len(header):
                    raise BenchmarkError(
                        f"{path}, line {reader.line_num}: {len(cells)} columns instead of {len(header)}. The file may "
                        "have been cut: download it again"
                    )
                facts = {name: cell for name, cell in zip(header, cells, strict=True) if cell not in ("", "nan")}
                image = facts.pop("image", "")
                reference = 0 < len(image) <= 64  # an index; no image is that small
                places[facts["index"]] = places.get(image, start) if reference else start
                name = f"{path}, index {facts['index']}"
                if reference and image not in places:
                    raise BenchmarkError(f"{name}: its image is that of index {image}, which is not above it")
                yield facts, partial(_tsv_images, path, places[facts["index"]], header.index("image"), name)
                start = lines.offset
        except (csv.Error, UnicodeDecodeError) as err:
            raise BenchmarkError(f"{path}, line {reader.line_num}: not a TSV file ({err})") from err


class _Lines:
    """The lines of a binary file as text, with the offset of the next one."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self.offset = file, file.tell()

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        line = self._file.readline()
        if not line:
            raise StopIteration
        self.offset += len(line)
        return line.decode("utf-8-sig" if self.offset == len(line) else "utf-8")


def _tsv_images(path: Path, offset: int, column: int, name: str) -> list[Image.Image]:
    with open(path, "rb") as file:
        file.seek(offset)
        cell = next(csv.reader(_Lines(file), delimiter="\t"))[column]
    texts = ast.literal_eval(cell) if cell.startswith("[") else [cell]
    try:
        return [opened_image(base64.b64decode(text), name=name) for text in texts]
    except binascii.Error as err:
        raise BenchmarkError(f"{name}: its image is not Base64 ({err}). Download the file again") from err


def options_of(facts: Mapping[str, str], letters: str = "ABCDEFGHIJ") -> tuple[str, ...]:
    """The texts of the options in columns ``A``, ``B``, ...: up to the first empty one."""
    options = []
    for letter in letters:
        if letter not in facts:
            break
        options.append(facts[letter])
    return tuple(options)


def records(path: Path) -> list[dict[str, Any]]:
    """The records of a JSON, JSON Lines or Parquet file. Columns with images in Parquet are left out."""
    try:
        if path.suffix == ".parquet":
            return _parquet(path)
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".jsonl":
            return [json.loads(line) for line in text.splitlines() if line.strip()]
        content = json.loads(text)
    except (OSError, ValueError) as err:
        raise BenchmarkError(f"{path}: not readable ({err}). Download it again") from err
    if isinstance(content, dict):
        content = content.get("questions")
    if not isinstance(content, list) or not all(isinstance(record, dict) for record in content):
        raise BenchmarkError(f"{path}: it holds no list of records, so it is not a file of this benchmark")
    return content


def _arrow() -> Any:
    try:
        import pyarrow.parquet
    except ImportError as err:
        raise BenchmarkError("Parquet files need pyarrow: pip install 'ssrl-core[benchmarks]'") from err
    return pyarrow.parquet


def _parquet(path: Path) -> list[dict[str, Any]]:
    file = _arrow().ParquetFile(path)
    names = [name for name in file.schema_arrow.names if name != "image"]
    rows: list[dict[str, Any]] = file.read(columns=names).to_pylist()
    return rows


def parquet_images(path: Path, index: int) -> Images:
    """Reads the image of a row of a Parquet file: column ``image`` with ``bytes``."""
    return partial(_parquet_images, path, index)


def _parquet_images(path: Path, index: int) -> list[Image.Image]:
    rows = _parquet_column(path, path.stat().st_mtime_ns)
    content = rows[index]["bytes"].as_py()
    return [opened_image(content or b"", name=f"{path}, row {index}")]


@lru_cache(maxsize=1)
def _parquet_column(path: Path, changed: int) -> Any:
    """The column ``image`` of a Parquet file, mapped into memory."""
    return _arrow().read_table(path, columns=["image"], memory_map=True).column("image")


def need(record: Mapping[str, Any], *names: str, where: str) -> list[Any]:
    """The values of the names in a record. Raises BenchmarkError if one is missing."""
    if missing := [name for name in names if name not in record]:
        raise BenchmarkError(f"{where}: it has no {missing[0]!r}; it has {', '.join(map(str, record))}")
    return [record[name] for name in names]
