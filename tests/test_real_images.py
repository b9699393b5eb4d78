"""All tasks on real photographs and real RGB-D frames."""

from __future__ import annotations

from pathlib import Path

import pytest

from ssrl_core.mix import load_mix
from ssrl_core.plugins import load_task

KINECT = Path(__file__).parents[2] / "shared" / "data" / "rgbd_kinect"
RGB = ("shuffled_patches", "flipped_patch", "cropped_patch", "rotated_view")
DEPTH = ("depth_ordering", "relative_position")
needs_frames = pytest.mark.skipif(not KINECT.is_dir(), reason=f"needs the RGB-D frames in {KINECT}")


@pytest.mark.parametrize("level", ["1", "2", "3", "paper"])
@pytest.mark.parametrize("task", RGB)
def test_colour_tasks_make_samples_of_photographs_at_every_level(write_mix, photographs, task, level):
    assert level in load_task(task).info.levels
    mix = load_mix(write_mix(f"source: 'folder:{photographs}'\ntasks: {{{task}: {{level: {level}}}}}"))
    made = [mix[index] for index in range(30)]
    assert len({example.recipe.image_id for example in made}) >= 3
    assert sum(mix.rejections[task].values()) < 15  # less than a third of the images


@needs_frames
@pytest.mark.parametrize("level", ["1", "2", "3", "paper"])
@pytest.mark.parametrize("task", DEPTH)
def test_depth_tasks_make_samples_of_frames_at_every_level(write_mix, task, level):
    mix = load_mix(write_mix(f"source: 'rgbd:{KINECT}'\ntasks: {{{task}: {{level: {level}}}}}"))
    made = [mix[index] for index in range(30)]
    assert len({example.recipe.image_id for example in made}) >= 10
    assert sum(mix.rejections[task].values()) < 15
