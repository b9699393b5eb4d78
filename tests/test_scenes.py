"""Tasks that take the frames of a scene or clip: what they receive, what a mix refuses, and what is held out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest

from ssrl_core import Intrinsics, Recipe, SourceFrames, SourceImage, SourceRejected, load_mix, render
from ssrl_core.errors import BrokenPlugin, MixError, PluginFailed, SourceError
from ssrl_core.plugins import load_task
from ssrl_core.resume import plan_of_mix
from ssrl_core.sources import Split, open_source
from ssrl_core.sources.scenes import lacking, load_for, with_frames
from ssrl_core.testing.samples import orient, turned_poses
from ssrl_core.types import TaskInfo

# A task that shows two frames of a clip. Its answer says whether the first of them is the earlier one.
CLIP = (
    ("levels={", 'takes="clip", levels={'),
    (
        """def ssrl_generate_sample(rng):
    return Sample((Image.new("RGB", (32, 32)),), "AB"[rng.integers(2)])""",
        """def ssrl_generate_sample(source, rng):
    truth, first = int(rng.integers(2)), int(rng.integers(len(source) - 9))
    shown = [first, first + 9][:: 1 if truth else -1]
    frames = [Image.fromarray(frame.rgb) for frame in source.read(shown)]
    return Sample(tuple(frames), "AB"[truth], {"frames": shown})""",
    ),
    ('"<image>A or B?"', '"<image><image>A or B?"'),
)

# A source of three clips of two scenes. Frame k has the grey level k; reading is counted, and frame 7 is damaged.
CLIPS = """
import numpy as np
from ssrl_core import SourceFrames, SourceImage, SourceRejected, hookimpl

READ = []

class Clips:
    has_depth, has_pose, in_order = False, False, True
    def __len__(self): return 3
    def image_id(self, position): return f"house-{position}" if position < 2 else "garden-0"
    def scene(self, image_id): return image_id.partition("-")[0]
    def load(self, image_id, *, depth):
        def read(positions):
            READ.append(list(positions))
            if 7 in positions: raise SourceRejected("frame damaged")
            if 8 in positions: raise ZeroDivisionError("the server is away")
            return [SourceImage(f"{image_id}#{k}", np.full((120, 160, 3), k, np.uint8)) for k in positions]
        return SourceFrames(image_id, 12, read, times=np.arange(12) / 5)

class Source:
    has_depth, frames = False, Clips()
    def __len__(self): return 0
    def image_id(self, position): raise IndexError
    def load(self, image_id): raise SourceRejected("no single images")

@hookimpl
def ssrl_open_source(uri): return Source()
"""


@pytest.fixture
def clips(install):
    install("ssrl-plugin-clips", entry_points={"ssrl.sources": {"clips": "ssrl_plugin_clips"}}, code=CLIPS)
    return open_source("clips:")


@pytest.fixture
def clip_task(install_toy):
    install_toy(*CLIP, name="earlier")
    return load_task("earlier")


def test_a_mix_trains_a_task_on_clips_and_rebuilds_its_samples(clip_task, write_mix):
    mix = load_mix(write_mix('seed: 3\nsource: "synthetic:?width=96&height=72"\nsize: 64\ntasks: {earlier: }'))
    examples = [mix[index] for index in range(12)]
    assert Counter(len(example.images) for example in examples) == {2: 12}
    assert {example.images[0].size for example in examples} <= {(64, h) for h in range(40, 60)}
    assert len({example.recipe.image_id for example in examples}) == 12  # each from a clip of its own
    for example in examples:
        again = render(Recipe.from_json(example.recipe.to_json()))
        assert again.params == example.sample.params and list(again.images) == list(example.sample.images)
    # The time to render frames is not the plugin's.
    assert sum(example.seconds for example in examples) < 0.2
    assert plan_of_mix(mix)["sources"]["synthetic:?width=96&height=72"]["frames"]["images"] == 2**31


@pytest.mark.parametrize(
    ("source", "missing"),
    [
        ("blank:", "a clip of frames in order. These sources have it: video:PATH"),
        ("clips:", "depth. These sources have it: rgbd:PATH or synthetic:"),
    ],
)
def test_a_mix_names_what_a_source_lacks_and_who_has_it(install_toy, clips, probe, write_mix, source, missing):
    install_toy(("levels={", 'takes="clip", needs_depth=True, levels={'), name="deep")
    with pytest.raises(MixError, match=rf"tasks\.deep: the source '{source}' has not what this task needs: {missing}"):
        load_mix(write_mix(f'source: "{source}"\ntasks: {{deep: }}'))


def test_every_need_is_compared_with_what_the_source_has(clips):
    def info(**needs):
        return TaskInfo("1", "s", {}, **needs)

    rooms = open_source("synthetic:")
    assert lacking(info(takes="views", needs_depth=True, needs_pose=True), rooms) is None
    assert lacking(info(takes="image", needs_depth=True), rooms) is None
    assert lacking(info(), clips).startswith("single images. ")
    assert lacking(info(takes="views"), clips) is None
    assert lacking(info(takes="views", needs_pose=True), clips).startswith("poses of frames. ")
    clips.frames.in_order = False
    assert lacking(info(takes="clip"), clips).startswith("a clip of frames in order. ")


def test_a_task_that_takes_something_unknown_is_broken(install_toy):
    install_toy(("levels={", 'takes="sound", levels={'), name="loud")
    with pytest.raises(BrokenPlugin, match=r"must return one of image, views, clip.* for takes"):
        load_task("loud")


def test_frames_are_read_when_asked_for_and_once(clips):
    import ssrl_plugin_clips

    frames = load_for(TaskInfo("1", "s", {}, takes="clip"), clips, "house-0", 64, rng=np.random.default_rng(0))
    assert ssrl_plugin_clips.READ == [] and len(frames) == 12 and frames.times[5] == 1.0
    assert [image.rgb.mean() for image in frames.read([5, 2])] == [5, 2]
    frames.read([2])
    assert ssrl_plugin_clips.READ == [[5, 2]]
    assert not frames.read([2])[0].rgb.flags.writeable
    with pytest.raises(SourceRejected, match="frame damaged"):
        frames.read([2, 7])
    with pytest.raises(PluginFailed, match=r"ZeroDivisionError: the server is away, on frames \[8\] of 'house-0'"):
        frames.read([8])
    for outside in (-1, 12):
        with pytest.raises(IndexError, match=r"is not in 0 \.\. 11 of 'house-0'"):
            frames.read([outside])


def test_a_damaged_frame_costs_the_clip_and_a_failing_source_is_named(install_toy, clips, write_mix):
    # The first sample draws a clip and two of its frames anew until none of them is damaged.
    install_toy(*CLIP, ("source.read(shown)", "source.read([*shown, 7])"), name="damaged")
    mix = load_mix(write_mix('source: "clips:"\ntasks: {damaged: }'))
    with pytest.raises(SourceError, match="frame damaged: 64"):
        mix[0]
    assert mix.rejections["damaged"] == {"frame damaged": 64}
    install_toy(*CLIP, ("source.read(shown)", "source.read([8])"), name="away")
    with pytest.raises(PluginFailed, match="ZeroDivisionError: the server is away"):
        load_mix(write_mix('source: "clips:"\ntasks: {away: }'))[0]


def test_all_frames_of_a_sample_have_one_crop_and_their_own_depth():
    columns = np.tile(np.arange(200, dtype=np.uint8), (150, 1))
    camera = Intrinsics(100, 100, 99.5, 74.5)

    def read(positions: Sequence[int]) -> list[SourceImage]:
        return [
            SourceImage(str(k), np.dstack([columns] * 3), (columns + k).astype(np.float32), camera) for k in positions
        ]

    class Source:
        class frames:
            @staticmethod
            def load(image_id: str, *, depth: bool) -> SourceFrames:
                return SourceFrames(image_id, 9, read)

    info = TaskInfo("1", "s", {}, takes="views", needs_depth=True)
    crops = set()
    for seed in range(6):
        frames = load_for(info, Source(), "a", 200, rng=np.random.default_rng(seed)).read(range(9))
        assert all((frame.rgb == frames[0].rgb).all() and frame.intrinsics == frames[0].intrinsics for frame in frames)
        assert all((frame.depth == frames[0].depth + k).all() for k, frame in enumerate(frames))
        crops.add(frames[0].intrinsics)
    assert len(crops) == 6  # and every sample has a crop of its own


def test_clips_of_one_scene_are_held_out_together(clips):
    parts = {
        part: {Split(clips.frames, part, fraction=0.5).draw(np.random.default_rng(k)) for k in range(40)}
        for part in ("train", "heldout")
    }
    assert {frozenset(ids) for ids in parts.values()} == {frozenset({"house-0", "house-1"}), frozenset({"garden-0"})}


def test_in_a_turned_or_mirrored_scene_depth_and_poses_still_agree():
    """A point of view 1 that is projected into view 2 has the colour and depth that view 2 shows there."""
    clip = open_source("synthetic:?width=160&height=120").frames.load("5", depth=True)
    for which in range(8):
        frames = with_frames(clip, lambda image, which=which: orient(image, which)).read([20, 22])
        poses = turned_poses(clip.poses, which)
        rotations = poses[:, :3, :3]
        assert np.allclose(np.linalg.det(rotations), 1) and np.allclose(rotations @ rotations.mT, np.eye(3))
        one, two = frames
        k = one.intrinsics
        v, u = np.mgrid[: one.rgb.shape[0], : one.rgb.shape[1]]
        at = np.stack([(u - k.cx) / k.fx * one.depth, (v - k.cy) / k.fy * one.depth, one.depth], axis=-1)
        change = np.linalg.inv(poses[22]) @ poses[20]
        at = at @ change[:3, :3].T + change[:3, 3]
        x, y = (np.rint(at[..., i] / at[..., 2] * f + c) for i, f, c in ((0, k.fx, k.cx), (1, k.fy, k.cy)))
        inside = (x >= 0) & (x < one.rgb.shape[1]) & (y >= 0) & (y < one.rgb.shape[0])
        assert inside.mean() > 0.5
        shown = two.depth[y[inside].astype(int), x[inside].astype(int)]
        agree = np.abs(shown - at[..., 2][inside]) < 0.03 * shown
        assert agree.mean() > 0.85, which
