"""The questions of a benchmark as prompts with images."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from math import isqrt
from typing import Any

from PIL import Image

from ..form import Thinking
from .contract import Benchmark, BenchmarkError, Recipe, Row
from .video import bounded


class Question:
    """A row as a prompt with images. The images are read at the first access."""

    def __init__(self, row: Row, benchmark: Benchmark, recipe: Recipe, thinking: Thinking) -> None:
        self.row, self._most, self.video = row, benchmark.most_images, benchmark.video
        self._pixels = benchmark.pixels_of(recipe)
        self._text = benchmark.prompt(row, recipe, thinking)

    @cached_property
    def images(self) -> tuple[Any, ...]:
        """The images, each with as many pixels as the recipe allows. Raises BenchmarkError."""
        least, most = self._pixels
        images = tuple(bounded(image, most, least=least) for image in self.row.images())
        if len(images) > self._most:
            raise BenchmarkError(
                f"question {self.row.id} has {len(images)} images, and its benchmark states at most {self._most} "
                "(Benchmark.most_images)"
            )
        return images

    @cached_property
    def prompt(self) -> str:
        """The text with ``<image>`` for each image."""
        return self._text if "<image>" in self._text else "<image>" * len(self.images) + self._text


@dataclass(frozen=True, slots=True)
class Longest:
    """A prompt with the longest text of the questions, and as many images, as large, as any of them may have.

    A server is started with limits for it.
    """

    prompt: str
    images: tuple[Any, ...]
    video: bool

    @classmethod
    def of(cls, benchmark: Benchmark, rows: Iterable[Row], recipe: Recipe, thinking: Thinking) -> Longest:
        """The longest prompt of a benchmark. No image is read."""
        text = max((benchmark.prompt(row, recipe, thinking) for row in rows), key=len).replace("<image>", "")
        side = isqrt(benchmark.pixels_of(recipe)[1])
        images = (Image.new("RGB", (side, side)),) * benchmark.most_images
        return cls("<image>" * len(images) + text, images, benchmark.video)
