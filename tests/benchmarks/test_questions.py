"""``ssrl benchmark``: the frames of a video, and what a question costs besides its images and the model."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ssrl_core.benchmarks.contract import Row
from ssrl_core.benchmarks.installed import load
from ssrl_core.benchmarks.run import evaluate_benchmark
from ssrl_core.benchmarks.video import bounded, frames, positions
from ssrl_core.evaluate.models import Written

QUESTIONS = 5000
PIXELS = 256 * 28 * 28


def _film(path: Path, total: int) -> Path:
    """A video of 640 x 480 pixels, H.264 with the usual distance of key frames, of a camera that moves."""
    import av

    random = np.random.default_rng(0)
    coarse = Image.fromarray(random.integers(0, 255, (60, 160, 3), dtype=np.uint8))
    view = np.array(coarse.resize((1280, 480), Image.Resampling.BICUBIC))
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=24)
        stream.width, stream.height, stream.pix_fmt, stream.options = 640, 480, "yuv420p", {"preset": "veryfast"}
        for number in range(total):
            left = int(320 + 320 * np.sin(number / 100))
            pixels = np.ascontiguousarray(view[:, left : left + 640])
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    return path


def test_video(in_turns: Any, table: Any, tmp_path: Path) -> None:
    import av

    film = _film(tmp_path / "film.mp4", 1000)
    size = bounded(Image.new("RGB", (640, 480)), PIXELS).size

    def loop() -> list[Image.Image]:
        with av.open(str(film)) as container:
            container.streams.video[0].thread_type = "AUTO"
            wanted = set(positions(1000, 128))
            return [
                frame.to_image(width=size[0], height=size[1], interpolation="BICUBIC")
                for number, frame in enumerate(container.decode(video=0))
                if number in wanted
            ]

    ours, floor = in_turns(lambda: frames.__wrapped__(film, 128, PIXELS), loop)
    same = zip(frames.__wrapped__(film, 128, PIXELS), loop(), strict=True)
    assert all(np.array_equal(np.array(a), np.array(b)) for a, b in same)
    table("video: 128 of 1,000 frames, to PyAV's loop with equal output", ours, "ms", floor, most=1.05)


class _Yes:
    """A model that answers every question with A."""

    written, facts = None, {"engine": "none", "model": "yes"}

    def answer(self, examples: Any, sampling: Any) -> Any:
        for numbered in examples:
            yield numbered, Written("<think>" + "I look. " * 50 + "</think>A", cut=False)


def test_questions(in_turns: Any, table: Any, tmp_path: Path) -> None:
    benchmark, plugin = load("whatsup")
    image = Image.new("RGB", (64, 64))
    made = [
        Row(
            id=str(k), kind="A", unit=str(k // 4), question="Which caption describes the image?", truth="ABCD"[k % 4],
            options=("a mug on a table",) * 4, images=lambda: [image], facts={"axis": "x"},
        )
        for k in range(QUESTIONS)
    ]  # fmt: skip
    many = replace(benchmark, files={}, questions=None, rows=lambda folder, recipe: iter(made))
    turn = iter(range(100))

    def evaluate() -> None:
        evaluate_benchmark("whatsup", many, plugin, tmp_path, _Yes(), tmp_path / str(next(turn)), thinking="required")

    cpu, _ = in_turns(evaluate, rounds=2)
    table("benchmark: a question besides its images and the model", cpu / QUESTIONS, "ms", most=5)
    tracemalloc.start()
    evaluate()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    table("benchmark: memory a question, 5,000 questions", peak / QUESTIONS / 1024, "KiB", most=8)
