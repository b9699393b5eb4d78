"""A sample beside the published scripts of Spatial-SSRL, on the same files; skipped without SSRL_PUBLISHED.

SSRL_PUBLISHED holds ``data_process/*.py`` of the published repository. Their figures need matplotlib and h5py.
"""

from __future__ import annotations

import ast
import contextlib
import io
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml
from PIL import Image

from ssrl_core.export.rows import encode
from ssrl_core.mix import load_mix
from ssrl_core.seeding import generator

PUBLISHED = os.environ.get("SSRL_PUBLISHED", "")
pytestmark = pytest.mark.skipif(not PUBLISHED, reason="SSRL_PUBLISHED names no folder with the published scripts")

COLOUR = ("shuffled_patches", "flipped_patch", "cropped_patch")
SIZES = ((640, 480), (800, 600))
SAMPLES = 24


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """One OpenCV thread for both, and a folder of their own, because the scripts write where they are."""
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    monkeypatch.setenv("MPLBACKEND", "Agg")
    monkeypatch.chdir(tmp_path)
    yield
    cv2.setNumThreads(threads)


def script(name: str, **settings: Any) -> dict[str, Any]:
    """The functions of a published script, without the demonstration that it runs when it is imported."""
    tree = ast.parse((Path(PUBLISHED) / f"{name}.py").read_text(encoding="utf-8"))
    kept = [
        node
        for node in tree.body
        if isinstance(node, ast.FunctionDef)
        or (isinstance(node, ast.Import | ast.ImportFrom) and "IPython" not in ast.unparse(node))
        or (isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant))
    ]
    module = dict(settings)
    exec(compile(ast.Module(kept, []), name, "exec"), module)
    return module


def photographs(frames: Path, folder: Path, size: tuple[int, int]) -> list[Path]:
    """The frames as JPEG files of quality 90 and of that size, with as much fine detail as a photograph has."""
    folder.mkdir()
    paths = []
    for number, path in enumerate(sorted((frames / "color").iterdir())[:12]):
        picture = cv2.resize(cv2.imread(str(path)), size, interpolation=cv2.INTER_CUBIC)
        noise = generator(0, stream="detail", index=number).normal(0, 2, size=(*picture.shape[:2], 1))
        paths.append(folder / f"{number}.jpg")
        detailed = np.clip(picture + noise, 0, 255).astype(np.uint8)
        cv2.imwrite(str(paths[-1]), detailed, [cv2.IMWRITE_JPEG_QUALITY, 90])
    return paths


def published_colour(task: str) -> Callable[[str], Any]:
    """A function that makes the published sample of a photograph, and writes it as JPEG."""
    if task == "cropped_patch":
        crop: Callable[[str], Any] = script("Crop")["random_crop_blacken"]
        return crop
    if task == "shuffled_patches":
        shuffle = script("Shuffle")["split_shuffle_and_renumber"]
        return lambda path: cv2.imwrite("shuffled.jpg", shuffle(path)[0])
    flip = script("Flip", direction=0)["split_and_flip_one_patch"]
    return lambda path: cv2.imwrite("flipped.jpg", flip(path, flip_index=random.randint(0, 3)))


def ours(task: str, level: str, source: str) -> Callable[[int], None]:
    """A function that makes sample k, and encodes it as OpenCV's own JPEG files are: at quality 95."""
    text = {"source": source, "size": 640, "samples": 9000, "tasks": {task: {"level": level}}}
    Path("mix.yaml").write_text(yaml.safe_dump(text))
    mix = load_mix("mix.yaml")

    def make(k: int) -> None:
        for number, image in enumerate(mix[k].sample.images):
            Path(f"{number}.jpg").write_bytes(encode(image, jpeg=95))

    return make


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
@pytest.mark.parametrize("level", ["1", "paper"])
@pytest.mark.parametrize("task", COLOUR)
def test_colour(in_turns: Any, table: Any, frames: Path, tmp_path: Path, task: str, level: str, size: tuple[int, int]):
    paths = photographs(frames, tmp_path / "photographs", size)
    theirs, mine = published_colour(task), ours(task, level, f"folder:{tmp_path}/photographs")

    def published() -> None:
        for k in range(SAMPLES):
            theirs(str(paths[k % len(paths)]))

    def make() -> None:
        for k in range(SAMPLES):
            mine(k)

    cpu, least = in_turns(make, published, rounds=5)
    what = f"{task} {level}, {size[0]} x {size[1]}: JPEG to JPEG; floor: published script"
    table(what, cpu / SAMPLES, "ms", least / SAMPLES, most=1)


@pytest.mark.parametrize("level", ["1", "paper"])
@pytest.mark.parametrize("task", ["depth_ordering", "relative_position"])
def test_depth(in_turns: Any, table: Any, frames: Path, task: str, level: str):
    h5py = pytest.importorskip("h5py")
    pytest.importorskip("matplotlib")
    mine, samples = ours(task, level, f"rgbd:{frames}"), 8 if task == "depth_ordering" else 2
    inputs = []  # depth in the files that the published scripts read
    for k, path in enumerate(sorted((frames / "color").iterdir())[:samples]):
        metres = np.asarray(Image.open(frames / "depth" / f"{path.stem}.png")).astype(np.float32) / 1000
        np.save(f"{k}.npy", metres[..., None])
        np.save(f"{k}-mask.npy", metres > 0)
        with h5py.File(f"{k}.h5", "w") as file:
            file["depth"] = metres
        inputs.append(str(path))
    theirs = script("Depth")["process_sample_3"] if samples == 8 else script("Position")["one_sample_far"]

    def published() -> None:
        with contextlib.redirect_stdout(io.StringIO()):
            for k, path in enumerate(inputs):
                _ = theirs(path, f"{k}.npy", f"{k}-mask.npy") if samples == 8 else theirs(f"{k}.h5", path)

    def make() -> None:
        for k in range(samples):
            mine(k)

    cpu, least = in_turns(make, published)
    table(f"{task} {level}: files to JPEG; floor: published script", cpu / samples, "ms", least / samples, most=1)
