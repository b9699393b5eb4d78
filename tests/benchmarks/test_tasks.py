"""Benchmarks of a sample: from the image files to encoded images, and in memory."""

from __future__ import annotations

import timeit
from collections.abc import Callable
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any

import cv2
import fpng
import numpy as np
import pytest
import simplejpeg
import yaml
from PIL import Image

from ssrl_core.errors import SourceRejected
from ssrl_core.export.rows import encode
from ssrl_core.mix import load_mix
from ssrl_core.plugins import load_task
from ssrl_core.seeding import generator
from ssrl_core.sources import load_image, open_source, to_working_size
from ssrl_core.sources.scenes import with_frames
from ssrl_core.types import SourceImage

RGB = ("shuffled_patches", "flipped_patch", "cropped_patch", "rotated_view")
DEPTH = ("depth_ordering", "relative_position")
POSES = ("camera_motion", "matched_point", "same_place")
LEVELS = ("1", "paper")
SAMPLES = 12
MANY = 100  # enough samples for a typical share of rejected images


@pytest.fixture(autouse=True)
def one_thread():
    """Uses one OpenCV thread, as exports and training do: idle OpenCV threads spin, which costs up to a third."""
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    yield
    cv2.setNumThreads(threads)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("task", RGB + DEPTH)
def test_from_files_to_encoded_images(in_turns: Any, table: Any, frames: Path, tmp_path: Path, task: str, level: str):
    source = f"rgbd:{frames}" if task in DEPTH else f"folder:{frames}/color"
    text = {"source": source, "size": 640, "samples": MANY, "tasks": {task: {"level": level}}}
    (tmp_path / "mix.yaml").write_text(yaml.safe_dump(text))
    mix = load_mix(tmp_path / "mix.yaml")
    examples = [mix[index] for index in range(MANY)]

    def make() -> None:
        for index in range(MANY):
            for image in mix[index].sample.images:
                encode(image, jpeg=None)

    names = [Path(example.recipe.image_id).stem for example in examples]
    paths = [
        [frames / "color" / f"{name}.jpg", frames / "depth" / f"{name}.png"][: 1 + (task in DEPTH)] for name in names
    ]
    inputs = [[(path, faster_decoder(path)) for path in files] for files in paths]
    outputs = [[np.array(image) for image in example.sample.images] for example in examples]

    def floor() -> None:
        for files, images in zip(inputs, outputs, strict=True):
            for path, decode in files:
                assert decode(path.read_bytes()) is not None
            for pixels in images:
                fpng.from_ndarray(pixels)

    cpu, least = in_turns(make, floor)
    goal = 2.0 if task in DEPTH else 1.5
    table(f"{task} {level}: files to PNG", cpu / MANY, "ms", least / MANY, most=goal)


@pytest.fixture(scope="module")
def photographs(frames: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photographs of 4000 x 3000 pixels with depth of 640 x 480 pixels."""
    folder = tmp_path_factory.mktemp("photographs")
    for number in range(12):
        large = cv2.resize(cv2.imread(str(frames / "color" / f"{number}.jpg")), (4000, 3000))
        noise = generator(0, stream="detail", index=number).normal(0, 2, size=(3000, 4000, 1))
        pixels = np.clip(large + noise, 0, 255).astype(np.uint8)
        cv2.imwrite(str(folder / f"{number}.color.jpg"), pixels, [cv2.IMWRITE_JPEG_QUALITY, 90])
        (folder / f"{number}.depth.png").symlink_to((frames / "depth" / f"{number}.png").resolve())
    return folder


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("task", RGB + DEPTH)
def test_large_photographs(in_turns: Any, table: Any, photographs: Path, tmp_path: Path, task: str, level: str):
    """Also against decoding the photographs at the smallest size that has the working size: a quarter."""
    text = {
        "source": f"rgbd:{photographs}",
        "size": 640,
        "samples": 8,
        "heldout": {"fraction": 0.2},
        "tasks": {task: {"level": level}},
    }
    (tmp_path / "mix.yaml").write_text(yaml.safe_dump(text))
    mix = load_mix(tmp_path / "mix.yaml")
    contents = [path.read_bytes() for path in sorted(photographs.glob("*.jpg"))]

    def make() -> None:
        for index in range(8):
            _ = mix[index]

    def floor() -> None:
        for index in range(8):
            simplejpeg.decode_jpeg(contents[index], min_width=640, min_height=480)

    cpu, least = in_turns(make, floor)
    table(f"{task} {level}: photograph of 4000 x 3000", cpu / 8, "ms", most=60 if task in DEPTH else 30)
    table(f"{task} {level}: the same, to decoding at 1000 x 750", cpu / 8, "ms", least / 8)


@pytest.mark.parametrize("task", POSES)
def test_views_from_files(in_turns: Any, table: Any, frames: Path, task: str):
    """Level 1 on a recording with poses, against decoding the frames that were read for the samples."""
    if not (frames / "pose").is_dir():
        pytest.skip("the frames with poses are not there")
    plugin, scenes, count = load_task(task, wrappers=()), open_source(f"rgbd:{frames}?intrinsics=camera.txt").frames, 12
    read: list[tuple[Path, Callable[[bytes], Any]]] = []
    made: list[int] = []

    def make() -> None:
        read.clear()
        made.clear()
        for index in range(count):
            source = with_frames(
                scenes.load(scenes.image_id(0), depth=plugin.info.needs_depth),
                lambda image: to_working_size(image, 640, rng=np.random.default_rng(0)),
            )
            rng = generator(0, stream="bench", index=index)
            try:
                plugin.generate_sample(source, rng=rng, level="1", options=plugin.options_model())
                made.append(index)
            except SourceRejected:
                pass
            for image in source.read.known.values():
                files = [f"color/{image.id}.jpg", f"depth/{image.id}.png"][: 1 + plugin.info.needs_depth]
                read.extend((frames / name, faster_decoder(frames / name)) for name in files)

    def floor() -> None:
        for path, decode in read:
            assert decode(path.read_bytes()) is not None

    make()
    cpu, least = in_turns(make, floor)
    table(f"{task} 1: {len(read) / count:.1f} files", cpu / len(made), "ms", least / len(made), most=2.5)


@pytest.mark.parametrize("gop", [12, 250])
def test_ordered_frames_from_a_video(in_turns: Any, table: Any, frames: Path, tmp_path: Path, gop: int):
    """Level 1 on a video of 640 x 480 pixels, against decoding the frames of the samples and those that they need."""
    import av

    path, plugin, count = tmp_path / "walk.mp4", load_task("ordered_frames", wrappers=()), 8
    _write_pan(path, cv2.imread(str(next((frames / "color").glob("*.jpg")))), gop=gop)
    clip = open_source(f"video:{path}").frames
    made: list[list[int]] = []

    def make() -> None:
        made.clear()
        for index in range(count):
            rng = generator(0, stream="bench", index=index)
            source = with_frames(
                clip.load("walk.mp4", depth=False),
                lambda image: to_working_size(image, 640, rng=np.random.default_rng(0)),
            )
            plugin.generate_sample(source, rng=rng, level="1", options=plugin.options_model())
            made.append(sorted(source.read.known))

    def floor() -> None:
        for positions in made:
            with av.open(str(path)) as container:
                stream, reached = container.streams.video[0], -1
                stream.codec_context.thread_count = 1
                for position in positions:
                    key = position // gop * gop
                    if key > reached:
                        container.seek(int(key / 25 / stream.time_base), stream=stream)
                        decoded = container.decode(stream)
                    next(f for f in decoded if f.time > (position - 0.5) / 25).to_ndarray(format="rgb24")
                    reached = position

    make()
    cpu, least = in_turns(make, floor)
    table(f"ordered_frames 1: video, keyframe every {gop}", cpu / count, "ms", least / count, most=1.5)


def _write_pan(path: Path, bgr: np.ndarray, *, gop: int) -> None:
    """A camera that moves over a picture, 640 x 480 pixels, 500 frames."""
    import av

    wide = cv2.resize(bgr, (1640, 1230))
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"preset": "fast", "sc_threshold": "0"})
        stream.width, stream.height, stream.pix_fmt, stream.gop_size = 640, 480, "yuv420p", gop
        for k in range(500):
            part = np.ascontiguousarray(wide[k : k + 480, 2 * k : 2 * k + 640])
            container.mux(stream.encode(av.VideoFrame.from_ndarray(part, format="bgr24")))
        container.mux(stream.encode())


@cache
def faster_decoder(path: Path) -> Callable[[bytes], Any]:
    """The decoder, Pillow or OpenCV, that is faster for this file on this machine."""
    content = path.read_bytes()
    return min((with_pillow, with_opencv), key=lambda decode: min(timeit.repeat(lambda: decode(content), number=2)))


def with_pillow(content: bytes) -> Any:
    image = Image.open(BytesIO(content))
    image.load()
    return image


def with_opencv(content: bytes) -> Any:
    return cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)


@pytest.mark.parametrize("size", [(640, 480), (1280, 960), (4000, 3000)], ids=lambda size: f"{size[0]}x{size[1]}")
@pytest.mark.parametrize("task", RGB + DEPTH)
def test_in_memory(in_turns: Any, table: Any, frames: Path, task: str, size: tuple[int, int]):
    """Level 1, source and result of this size; the time of rejected images counts for the accepted ones."""
    images = [_image(frames, number, size, depth=task in DEPTH) for number in range(3 if size[0] > 2000 else 8)]
    plugin = load_task(task, wrappers=())
    options = plugin.options_model()
    made: list[int] = []

    def make() -> None:
        made.clear()
        for index in range(4 if size[0] > 2000 else SAMPLES):
            image = to_working_size(images[index % len(images)], size[0], rng=generator(0, stream="crop", index=index))
            try:
                plugin.generate_sample(image, rng=generator(0, stream="bench", index=index), level="1", options=options)
            except SourceRejected:
                continue
            made.append(index)

    cpu, _ = in_turns(make)
    goal = {"most": 5 if task in DEPTH else 2} if size[0] == 640 else {}
    table(f"{task} 1: {size[0]} x {size[1]} in memory", cpu / max(1, len(made)), "ms", **goal)


def _image(frames: Path, number: int, size: tuple[int, int], *, depth: bool) -> SourceImage:
    source = open_source(f"rgbd:{frames}")
    image = load_image(source, source.image_id(number), depth=depth)
    metres = None if image.depth is None else cv2.resize(image.depth, size, interpolation=cv2.INTER_NEAREST)
    return SourceImage(id=image.id, rgb=cv2.resize(image.rgb, size, interpolation=cv2.INTER_CUBIC), depth=metres)
