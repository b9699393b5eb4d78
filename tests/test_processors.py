"""Samples do not depend on the vector instructions that the processor offers to the libraries."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from ssrl_core.sources import open_source
from ssrl_core.testing.elsewhere import few_instructions
from ssrl_core.testing.samples import Plan, digest, make

# Enlarged and shrunk, with depth and without; and rooms as they are drawn.
FILES, ROOMS = "rgbd:{folder}", "synthetic:?width=320&height=240"
PLANS = tuple(
    (task, level, source, size)
    for task, level, source in (
        ("cropped_patch", "paper", FILES), ("rotated_view", "3", FILES), ("depth_ordering", "1", FILES),
        ("camera_motion", "1", ROOMS),
    )
    for size in (112, 224)
)  # fmt: skip

AVX2 = {"OPENCV_IPP": "avx2", "OPENCV_CPU_DISABLE": "AVX512-SKX", "NPY_DISABLE_CPU_FEATURES": "X86_V4"}
OTHERS = {
    "OpenCV without IPP, as on other architectures": {"OPENCV_IPP": "disabled"},
    "all libraries as with AVX2": AVX2 | {"OPENBLAS_CORETYPE": "Haswell"},
    "all libraries as before AVX2": few_instructions(),
}


@pytest.fixture(scope="module")
def frames(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rooms as RGB-D files."""
    folder = tmp_path_factory.mktemp("frames")
    rooms = open_source("synthetic:?width=160&height=120")
    for k in range(6):
        room = rooms.load(rooms.image_id(k))
        assert room.depth is not None
        cv2.imwrite(str(folder / f"frame-{k:06}.color.jpg"), room.rgb[..., ::-1])
        cv2.imwrite(str(folder / f"frame-{k:06}.depth.png"), np.rint(room.depth * 1000).astype(np.uint16))
    return folder


def digests(folder: str) -> str:
    """Those of four samples of each plan, as text."""
    plans = (Plan(task, level, {}, source.format(folder=folder), size, seed=1) for task, level, source, size in PLANS)
    return " ".join(digest(make(plan, index).sample).hex() for plan in plans for index in range(4))


@pytest.mark.parametrize("settings", OTHERS.values(), ids=OTHERS)
def test_other_vector_instructions_give_the_same_samples(settings: dict[str, str], frames: Path) -> None:
    code = "import sys, test_processors; print(test_processors.digests(sys.argv[1]))"
    done = subprocess.run(
        [sys.executable, "-c", code, str(frames)],
        env={**os.environ, **settings, "PYTHONPATH": str(Path(__file__).parent)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == digests(str(frames)).split()
