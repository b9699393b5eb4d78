"""Ready-made questions: the source ``rows:PATH``, and the task that a mix makes of it with ``rows: PATH``.

    rows:/data/parquets/train.parquet?root=..
    rows:/data/general.jsonl?question=query&images=picture

PATH is a Parquet file, a file of JSON lines, or a folder of such files. A row has a question, its images and its
answer. These columns are found by their names, in this order; a dot leads into a record:

- question: ``problem``, ``question``, ``prompt`` or ``query``: a text, or one message of a user in a list. Each
  ``<image>`` in it stands for an image. In a question without ``<image>``, the images come first.
- images: ``images`` or ``image``: one or a list of what ``dataset:`` reads from a cell. A path starts at ``root``.
- answer: ``reward_model.ground_truth``, ``answer``, ``solution`` or ``ground_truth``: a text or a number.

Options:

- ``question``, ``images``, ``answer``: names of the columns, if they are others.
- ``scorer``: a column with the name of the scorer of each row; by default the mix names one for all rows.
- ``root``: the folder at which paths of images start, relative to that of PATH: it or one above it.
- ``group``: a column; rows with the same value are held out together. By default these are the rows that share an
  image, if the rows name their images (a path, or the ``path`` of a record); else each row is held out by itself.
- ``files``: pattern for the files of a folder, relative to ``root``.

The id of a row is the path of its file, ``#`` and its number. Rows are read when they are needed, as in ``dataset:``.
"""

from __future__ import annotations

import glob
import os
import posixpath
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any, ClassVar

import numpy as np
from PIL import Image
from pydantic import Field

from ..errors import SourceError, SourceRejected, SSRLError
from ..form import PUBLISHED, extract_answer, published_answer
from ..hookspecs import hookimpl
from ..options import Options
from ..plugins import load_scorer
from ..resampling import resized
from ..seeding import stable_hash
from ..types import Level, Sample, SourceImage, TaskInfo
from .dataset import DatasetSource, Table, content_of, open_table
from .images import read_rgb
from .store import Store, locate

QUESTIONS = ("problem", "question", "prompt", "query")
ANSWERS = ("reward_model.ground_truth", "answer", "solution", "ground_truth")
IMAGES = ("images", "image")
SMALLEST_SIDE = 28
"""Pixels of the shorter side below which an image is rejected: a patch of a vision tower."""

_OPTIONS = ("question", "answer", "images", "scorer", "group", "root", "files")


@dataclass(frozen=True, slots=True, kw_only=True)
class Row(SourceImage):
    """A ready-made question. ``rgb`` is its first image.

    Attributes:
        question: with one ``<image>`` for each image.
        answer: the right one.
        scorer: name of the scorer of this row; "" for that of the mix.
        images: uint8, H x W x 3 each, as stored.
        size: pixels to which the longer side of an image is reduced.
    """

    question: str
    answer: str
    scorer: str
    images: Sequence[np.ndarray]
    size: int


@dataclass(frozen=True, eq=False)
class RowsSource(DatasetSource):
    """Questions in the rows of tables. ``image`` is the column of their images; "" for a column found by its name."""

    question: str
    answer: str
    scorer: str
    group: str
    scheme: ClassVar[str] = "rows"
    tables: ClassVar[tuple[str, ...]] = ("*.parquet", "*.jsonl")

    def columns(self, names: Sequence[str]) -> list[str]:
        """The columns to read of a table with these columns."""
        wanted = (*self._three(names), self.scorer, self.group)
        return list(dict.fromkeys(name.partition(".")[0] for name in wanted if name))

    def _three(self, names: Sequence[str]) -> tuple[str, str, str]:
        """The columns of question, answer and images; the first possible name of a column that is missing."""

        def first(given: str, known: Sequence[str]) -> str:
            return given or next((name for name in known if name.partition(".")[0] in names), known[-1])

        return first(self.question, QUESTIONS), first(self.answer, ANSWERS), first(self.image, IMAGES)

    def row(self, image_id: str, *, size: int) -> Row:
        """A row, for images of at most ``size`` pixels. Raises SourceRejected if it is no question with an answer."""
        path, _, number = image_id.rpartition("#")
        if not number.isdecimal() or not self._is_table(path):
            raise SourceRejected("file missing")
        try:
            names = self._table(path).names
        except Exception as err:  # damaged files raise many types of exceptions
            raise SourceRejected("file missing" if isinstance(err, FileNotFoundError) else "unreadable table") from err
        cells = self.cells(path, int(number), [name for name in self.columns(names) if name in names])
        question, answer, images = (_cell(cells, name) for name in self._three(names))
        pictures = images if isinstance(images, list) else [images]
        least = 2 * size, SMALLEST_SIDE
        arrays = [read_rgb(self._content(cell, "image"), least=least)[0] for cell in pictures if cell is not None]
        if not arrays:
            raise SourceRejected("row without an image")
        for array in arrays:
            if min(array.shape[:2]) < SMALLEST_SIDE:
                raise SourceRejected("image too small")
            if max(array.shape[:2]) > 20 * min(array.shape[:2]):
                raise SourceRejected("image too narrow")
        scorer = str(_cell(cells, self.scorer) or "") if self.scorer else ""
        return Row(
            id=image_id,
            rgb=arrays[0],
            question=_with_places(_text(question), len(arrays)),
            answer=_answer(answer),
            scorer=scorer,
            images=arrays,
            size=size,
        )

    def load(self, image_id: str) -> SourceImage:
        """Never an image: a question must not be asked about something else."""
        raise SourceRejected("a question, not an image")

    load_rgb = load

    def files(self) -> Iterator[str]:
        """Relative paths of the tables; if the first row names files of images, of all files below the folder."""
        files = self._rows.files
        column = self._three(self._table(files[0]).names)[2]
        with suppress(SourceRejected):
            cell = _cell(self.cells(files[0], 0, [column.partition(".")[0]]), column)
            if any(isinstance(content_of(each), str) for each in (cell if isinstance(cell, list) else [cell])):
                return self.store.files(Counter())
        return iter(files)

    def scene(self, image_id: str) -> str:
        """What is held out together with a row; see the module."""
        path, _, number = image_id.rpartition("#")
        files, ends, _ = self._rows
        at = files.index(path)
        found = int(self._groups[int(number) + (ends[at - 1] if at else 0)])
        return str(found) if found else image_id

    @cached_property
    def _groups(self) -> np.ndarray:
        """uint64, a number for the group of each row; 0 for a row by itself."""
        joined: dict[int, int] = {}

        def root(number: int) -> int:
            while (above := joined.get(number, number)) != number:
                joined[number] = number = joined.get(above, above)
            return number

        groups = np.zeros(len(self), np.uint64)
        for k, values in enumerate(self._names()):
            hashes = [stable_hash.__wrapped__(value) or 1 for value in values]
            for other in hashes[1:]:
                joined[root(other)] = root(hashes[0])
            groups[k] = hashes[0] if hashes else 0
        if joined:
            groups = np.array([root(int(number)) for number in groups], np.uint64)
        return groups

    def _names(self) -> Iterator[list[str]]:
        """For each row the value of ``group``, or the names of its images."""
        for path in self._rows.files:
            table = self._table(path)
            column, first = self.group or self._three(table.names)[2], 0
            top = column.partition(".")[0]
            texts = [leaf for leaf in table.texts if leaf == column or leaf.startswith(f"{column}.")]
            read = top if self.group or not table.texts else next((t for t in texts if t.endswith(".path")), "")
            read = read or next(iter(texts), "")
            for number, end in enumerate(table.ends):
                try:
                    cells = [cell.as_py() for cell in table.chunk(number, [read])[0]] if read else []
                except Exception:  # damaged files raise many types of exceptions; these rows are rejected when drawn
                    cells = []
                for cell in cells or [None] * (end - first):
                    value = _cell({top: cell}, column)
                    yield [str(value)] if self.group and value is not None else _named(value)
                first = end

    def _table(self, path: str) -> Table:
        return open_table(self.store, path, self.store.stamp(path))


@hookimpl
def ssrl_open_source(uri: str) -> RowsSource | None:
    """The questions of a ``rows:`` URI. Raises SourceError if the file or folder does not exist."""
    located = locate(uri, "rows", options=_OPTIONS, files=(".parquet", ".jsonl"))
    if located is None:
        return None
    try:
        import pyarrow  # noqa: F401
    except ImportError as err:
        raise SourceError(f"{uri!r}: rows need pyarrow: pip install 'ssrl-core[sources]'") from err
    store, name, options = located
    if root := options.get("root", ""):
        folder = posixpath.normpath(posixpath.join(store.root, os.path.expanduser(root)))
        below = posixpath.relpath(store.root, folder)
        if below.startswith(".."):
            raise SourceError(f"{uri!r}: root: {folder!r} is not {store.root!r} or a folder above it")
        name = posixpath.normpath(posixpath.join(below, name)) if name else ""
        store = Store(folder, store.remote)
    given = {key: options.get(key, "") for key in ("question", "answer", "scorer", "group")}
    pattern = glob.escape(name) or options.get("files", "")
    return RowsSource(store, pattern, options.get("images", ""), "", "", None, None, **given)


def _cell(cells: Mapping[str, Any], name: str) -> Any:
    """The cell of a column; a dot in its name leads into a record."""
    if name in cells:
        return cells[name]
    value: Any = cells
    for part in name.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def _named(cell: Any) -> list[str]:
    """The names of the images in a cell."""
    found = []
    for each in cell if isinstance(cell, list) else [cell]:
        name = each.get("path") if isinstance(each, dict) else content_of(each)
        found += [name] if isinstance(name, str) and name else []
    return found


def _text(question: Any) -> str:
    """A question as text: of a text, or of a list with one message."""
    if isinstance(question, list):
        if len(question) != 1 or not isinstance(question[0], dict) or question[0].get("role") not in ("user", "human"):
            raise SourceRejected("question is not one message of a user")
        question = question[0].get("content")
    if isinstance(question, list):
        parts = [part if isinstance(part, dict) else {"text": part} for part in question]
        question = "".join("<image>" if part.get("type") == "image" else str(part.get("text")) for part in parts)
    if not isinstance(question, str) or not question.replace("<image>", "").strip():
        raise SourceRejected("row without a question")
    return question.strip()


def _with_places(question: str, images: int) -> str:
    places = question.count("<image>")
    if places not in (0, images):
        raise SourceRejected("number of <image> is not that of the images")
    return question if places else "<image>" * images + "\n" + question


def _answer(answer: Any) -> str:
    if isinstance(answer, bool | list | dict) or answer is None or not str(answer).strip():
        raise SourceRejected("row without an answer")
    return str(answer).strip()


class RowsOptions(Options):
    """Options of a task of ready-made questions.

    Attributes:
        scorer: name of an installed scorer; ``rows`` tasks of a mix have it as a key.
        size: pixels to which the longer side of an image is reduced, never enlarged; the mix's ``size`` if None.
    """

    scorer: str = "strict"
    size: Annotated[int, Field(ge=64, le=4096)] | None = None


@hookimpl
def ssrl_task_info() -> TaskInfo:
    """Constant; the chance of a right guess is not known."""
    return TaskInfo(
        version="1",
        summary="ready-made questions with answers",
        levels={"1": Level("the question of a row", chance=0.0)},
        options=RowsOptions,
        takes="row",
    )


@hookimpl
def ssrl_generate_sample(source: Row, options: RowsOptions) -> Sample:
    """The question of a row. Raises SourceRejected if its scorer would not accept its own answer."""
    scorer = source.scorer or options.scorer
    published = scorer == PUBLISHED
    right = f"<think>.</think>\\boxed{{{source.answer}}}"
    found = published_answer(right)[0] if published else extract_answer(right)
    try:
        if found is None or load_scorer(scorer)(found, source.answer) != 1:
            raise SourceRejected(f"answer that the scorer {scorer!r} would not accept")
    except SSRLError as err:
        raise SourceRejected(f"no usable scorer {scorer!r}") from err
    images = tuple(Image.fromarray(_reduced(array, options.size or source.size)) for array in source.images)
    params = {"question": source.question, "scorer": scorer} | ({"form": PUBLISHED} if published else {})
    return Sample(images=images, truth=source.answer, params=params)


@hookimpl
def ssrl_format_prompt(sample: Sample) -> str:
    """The question of the row."""
    question: str = sample.params["question"]
    return question


@hookimpl
def ssrl_verify_answer(answer: str, truth: str, params: Mapping[str, Any]) -> float:
    """The score that the row's scorer gives."""
    return load_scorer(params["scorer"])(answer, truth)


def _reduced(rgb: np.ndarray, size: int) -> np.ndarray:
    height, width = rgb.shape[:2]
    scale = size / max(height, width)
    if scale >= 1:
        return rgb
    return resized(rgb, (max(1, round(width * scale)), max(1, round(height * scale))), 1 / scale)
