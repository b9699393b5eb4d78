"""Recordings of rgbd: frames in order, the poses of every layout, and what is said of poses that cannot be right."""

import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from ssrl_core import SourceError, SourceImage, SourceRejected, TaskInfo
from ssrl_core.sources import open_source
from ssrl_core.sources.poses import contradiction, read_matrix, read_trajectory, stack_poses
from ssrl_core.sources.scenes import lacking
from ssrl_core.views import inverse, overlap, relative_pose

KINECT = Path(__file__).parents[2] / "shared" / "data" / "rgbd_kinect"
COUNT = 24
CAMERA = "intrinsics.txt"


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """A folder with colour, depth and camera of a clip of 24 frames, without poses; and its poses."""
    folder = tmp_path_factory.mktemp("recorded")
    clip = open_source(f"synthetic:?width=160&height=120&frames={COUNT}").frames.load("6", depth=True)
    for k, image in enumerate(clip.read(range(COUNT))):
        cv2.imwrite(str(folder / f"{k}.color.png"), image.rgb[..., ::-1])
        cv2.imwrite(str(folder / f"{k}.depth.png"), (image.depth * 1000).astype(np.uint16))
    k = image.intrinsics
    (folder / CAMERA).write_text(f"{k.fx} {k.fy} {k.cx} {k.cy}")
    return folder, clip.poses


def write(folder, poses, *, name="{}.pose.txt"):
    folder.mkdir(parents=True, exist_ok=True)
    for k, pose in enumerate(poses):
        if pose is not None:
            text = pose if isinstance(pose, str) else "\n".join(" ".join(map(repr, row)) for row in pose.tolist())
            (folder / name.format(k)).parent.mkdir(exist_ok=True)
            (folder / name.format(k)).write_text(text)


def copy(recorded, folder, *, names="{}.{}.png"):
    """The pictures of the clip in another folder, under other names."""
    for k in range(COUNT):
        for kind in ("color", "depth"):
            target = folder / names.format(k, kind)
            target.parent.mkdir(parents=True, exist_ok=True)
            os.link(recorded / f"{k}.{kind}.png", target)


def changed(pose, **parts):
    return {name: change(pose.copy()) for name, change in parts.items()}


def mirrored(pose):
    pose[:3, 0] *= -1
    return pose


def stretched(pose):
    pose[:3, :3] *= 1.02
    return pose


def transposed(pose):
    return pose.T


def millimetres(pose):
    pose[:3, 3] *= 1000
    return pose


def opengl(pose):
    pose[:, 1:3] *= -1
    return pose


def lost(pose):
    return np.full((4, 4), -np.inf)


def broken(pose):
    return "1 0 0 zero"


def short(pose):
    return "1 0 0 0\n0 1 0 0"


def missing(pose):
    return None


EVERY = {
    # a change of every pose of a recording -> the reason for which it is rejected
    "mirrored": (mirrored, "poses are no rotations"),
    "stretched by 2%": (stretched, "poses are no rotations"),
    "transposed": (transposed, "poses are no rotations"),
    "in millimetres": (millimetres, "poses look like millimetres: set pose_scale=0.001"),
    "world to camera": (inverse, "poses look like world-to-camera: set pose_is=world-to-camera"),
    "axes of OpenGL": (opengl, "poses look like opengl: set pose_is=opengl"),
    "both": (lambda pose: millimetres(inverse(pose)), "poses look like millimetres: set pose_scale=0.001"),
    "tracking lost": (lost, "fewer than two known poses"),
    "not a number": (lambda pose: pose * np.nan, "fewer than two known poses"),
    "text": (broken, "unreadable poses"),
    "two rows": (short, "unreadable poses"),
}


@pytest.mark.parametrize("fault", EVERY)
def test_a_recording_whose_poses_cannot_be_right_is_rejected_for_a_constant_reason(recorded, tmp_path, fault):
    pictures, poses = recorded
    change, reason = EVERY[fault]
    copy(pictures, tmp_path)
    write(tmp_path, [change(pose.copy()) for pose in poses])
    os.link(pictures / CAMERA, tmp_path / CAMERA)
    frames = open_source(f"rgbd:{tmp_path}").frames
    for depth in (True, False):
        with pytest.raises(SourceRejected) as rejected:
            frames.load(".", depth=depth)
        assert rejected.value.reason == reason
    # The pictures by themselves are as good as before.
    assert len(open_source(f"rgbd:{tmp_path}")) == COUNT


@pytest.mark.parametrize(
    ("fault", "query"),
    [
        ("world to camera", "pose_is=world-to-camera"),
        ("axes of OpenGL", "pose_is=opengl"),
        ("in millimetres", "pose_scale=1000"),
        ("both", "pose_scale=0.001&pose_is=world-to-camera"),
    ],
)
def test_the_option_that_the_reason_names_makes_the_poses_right(recorded, tmp_path, fault, query):
    pictures, poses = recorded
    copy(pictures, tmp_path)
    write(tmp_path, [EVERY[fault][0](pose.copy()) for pose in poses])
    os.link(pictures / CAMERA, tmp_path / CAMERA)
    loaded = open_source(f"rgbd:{tmp_path}?{query}").frames.load(".", depth=True)
    assert np.allclose(loaded.poses, poses) and not loaded.poses.flags.writeable


def test_an_option_that_the_poses_do_not_need_is_found_too(recorded, tmp_path):
    pictures, poses = recorded
    copy(pictures, tmp_path)
    write(tmp_path, poses)
    os.link(pictures / CAMERA, tmp_path / CAMERA)
    for kind in ("world-to-camera", "opengl"):
        with pytest.raises(SourceRejected, match="poses look like camera-to-world: set pose_is=camera-to-world"):
            open_source(f"rgbd:{tmp_path}?pose_is={kind}").frames.load(".", depth=True)


SOME = {"tracking lost": lost, "missing": missing, "mirrored": mirrored, "text": broken}


@pytest.mark.parametrize("fault", SOME)
def test_few_bad_poses_cost_their_frames_only(recorded, tmp_path, fault):
    pictures, poses = recorded
    copy(pictures, tmp_path)
    os.link(pictures / CAMERA, tmp_path / CAMERA)
    write(tmp_path, [SOME[fault](pose.copy()) if k in (3, 8) else pose for k, pose in enumerate(poses)])
    loaded = open_source(f"rgbd:{tmp_path}").frames.load(".", depth=True)
    assert np.flatnonzero(np.isnan(loaded.poses).any(axis=(1, 2))).tolist() == [3, 8]
    assert np.isnan(loaded.poses[[3, 8]]).all() and len(loaded) == COUNT
    assert loaded.read([8])[0].rgb.shape == (120, 160, 3)


def test_a_sequence_with_fewer_poses_than_pictures_is_rejected_but_lost_tracking_is_not(recorded, tmp_path):
    pictures, poses = recorded
    for name, change in (("missing", missing), ("lost", lost)):
        copy(pictures, tmp_path / name)
        os.link(pictures / CAMERA, tmp_path / name / CAMERA)
        write(tmp_path / name, [change(pose) if k < 8 else pose for k, pose in enumerate(poses)])
    with pytest.raises(SourceRejected, match="fewer poses than pictures"):
        open_source(f"rgbd:{tmp_path}/missing").frames.load(".", depth=True)
    loaded = open_source(f"rgbd:{tmp_path}/lost").frames.load(".", depth=True)
    assert np.isfinite(loaded.poses[:, 0, 0]).sum() == COUNT - 8


def trajectory(poses, times):
    """The lines of a file of TUM, with quaternions by SciPy."""
    from scipy.spatial.transform import Rotation

    turns = Rotation.from_matrix(poses[:, :3, :3]).as_quat()
    lines = [
        f"{time:.4f} {' '.join(f'{v:.6f}' for v in (*p[:3, 3], *q))}"
        for time, p, q in zip(times, poses, turns, strict=True)
    ]
    return "# timestamp tx ty tz qx qy qz qw\n" + "\n".join(lines)


def test_tums_trajectory_gives_each_frame_the_pose_nearest_in_time(recorded, tmp_path):
    pictures, poses = recorded
    times = 1305031102.175304 + np.arange(COUNT) / 30
    folder = tmp_path / "freiburg1_xyz"
    for k, time in enumerate(times):
        for kind, name in (("color", "rgb"), ("depth", "depth")):
            (folder / name).mkdir(parents=True, exist_ok=True)
            os.link(pictures / f"{k}.{kind}.png", folder / name / f"{time + 0.004 * (kind == 'depth'):.6f}.png")
    # The measurements are in another rhythm, shuffled, and lack the time around the sixth frame.
    moments = np.delete(times + 0.006, 5)
    text = trajectory(np.delete(poses, 5, axis=0), moments).splitlines()
    (folder / "groundtruth.txt").write_text("\n".join([text[0], *text[:0:-1]]))
    camera = (pictures / CAMERA).read_text().replace(" ", ",")
    frames = open_source(f"rgbd:{tmp_path}?layout=tum&scale=1000&intrinsics={camera}").frames
    assert len(frames) == 1 and frames.image_id(0) == "freiburg1_xyz" == frames.scene("freiburg1_xyz")
    loaded = frames.load("freiburg1_xyz", depth=True)
    assert np.isnan(loaded.poses[5]).all()
    assert np.allclose(np.delete(loaded.poses, 5, axis=0), np.delete(poses, 5, axis=0), atol=1e-4)
    assert np.allclose(loaded.times, times) and (np.diff(loaded.times) > 0).all()
    assert loaded.read([2])[0].id == f"freiburg1_xyz/{times[2]:.6f}"

    for content, reason in (
        ("1 2 3", "unreadable poses"),
        ("# nothing", "fewer than two known poses"),
        (trajectory(poses, times + 10), "fewer than two known poses"),
    ):
        (folder / "groundtruth.txt").write_text(content)
        open_source.cache_clear()
        with pytest.raises(SourceRejected, match=reason):
            open_source(f"rgbd:{tmp_path}?layout=tum").frames.load("freiburg1_xyz", depth=True)
    (folder / "groundtruth.txt").unlink()
    open_source.cache_clear()
    frames = open_source(f"rgbd:{folder}?layout=tum&scale=1000").frames
    assert not frames.has_pose and frames.load(".", depth=False).poses is None


def test_a_quaternion_that_is_no_rotation_is_faulty_and_one_that_is_rounded_is_not():
    times = np.arange(4.0)
    lines = ["0 0 0 0 0 0 0 1", "1 0 0 0 0 0 0.7071 0.7071", "2 0 0 0 0 0 0 0", "3 0 0 0 0.5 0 0 1"]
    poses = read_trajectory("\n".join(lines).encode(), times)
    with pytest.raises(SourceRejected, match="poses are no rotations"):
        stack_poses(list(poses))
    assert np.allclose(poses[1, :3, :3], [[0, -1, 0], [1, 0, 0], [0, 0, 1]], atol=1e-6)


@pytest.mark.parametrize(
    ("folder", "names", "poses_at", "query", "scene"),
    [
        ("chess/seq-02/", "frame-{:06d}.{}.png", "frame-{:06d}.pose.txt", "layout=7scenes", "chess"),
        ("scene0013_02/", "{1}/{0}.png", "pose/{}.txt", "layout=scannet", "scene0013"),
        ("x/", "{0}_{1}.png", "{0}_cam.txt", "color=*_color.png&depth=*_depth.png&pose=*_cam.txt", "x"),
        ("", "{0}-{1}.png", "{0}-pose.txt", "", "."),
        ("", "{1}/{0}.png", "pose/{0}.txt", "", "."),
    ],
)
def test_layouts_patterns_and_guesses_have_poses(recorded, tmp_path, folder, names, poses_at, query, scene):
    pictures, poses = recorded
    recording = folder.strip("/") or "."
    copy(pictures, tmp_path / folder, names=names)
    write(tmp_path / folder, poses, name=poses_at)
    if scene == "scene0013":
        (tmp_path / "scene0013_02" / "intrinsic").mkdir()
        os.link(pictures / CAMERA, tmp_path / "scene0013_02" / "intrinsic" / "intrinsic_color.txt")
        query += "&color=**/color/*.png&depth=**/depth/*.png"
    else:
        query += f"&intrinsics={(pictures / CAMERA).read_text().replace(' ', ',')}"
    source = open_source(f"rgbd:{tmp_path}?{query.strip('&')}")
    frames = source.frames
    assert [frames.image_id(k) for k in range(len(frames))] == [recording]
    assert (frames.has_depth, frames.has_pose, frames.in_order, frames.scene(recording)) == (True, True, True, scene)
    loaded = frames.load(recording, depth=True)
    assert np.allclose(loaded.poses, poses)  # frame 10 comes after frame 9
    view, other = loaded.read([0, 5])
    assert view.depth is not None and frames.load(recording, depth=False).read([0])[0].depth is None
    share = overlap(view.depth, view.intrinsics, relative_pose(loaded.poses, 0, 5), other.depth, other.intrinsics)
    assert share > 0.5


def test_recordings_are_read_when_they_are_loaded_and_their_poses_once(recorded, tmp_path, monkeypatch):
    pictures, poses = recorded
    for name in ("a", "b"):
        copy(pictures, tmp_path / name)
        write(tmp_path / name, poses)
    source = open_source(f"rgbd:{tmp_path}")
    read = []
    store = type(source.store)
    original = store.read
    monkeypatch.setattr(store, "read", lambda self, path, **more: read.append(path) or original(self, path, **more))
    frames = source.frames
    assert sorted(frames.image_id(k) for k in range(len(frames))) == ["a", "b"] and frames.has_pose
    assert read == []
    frames.load("a", depth=True)
    assert {path.split("/")[0] for path in read} == {"a"} and sum("pose" in path for path in read) == COUNT
    before = len(read)
    frames.load("a", depth=False).read([1])
    assert read[before:] == ["a/1.color.png"]
    with pytest.raises(SourceRejected, match="recording missing"):
        frames.load("c", depth=True)


def test_the_digest_covers_poses_and_their_options_and_that_of_the_images_does_not(recorded, tmp_path):
    pictures, poses = recorded
    copy(pictures, tmp_path)
    write(tmp_path, poses)
    source = open_source(f"rgbd:{tmp_path}")
    images, frames = source.digest(), source.frames.digest()
    assert open_source(f"rgbd:{tmp_path}?pose_is=opengl").frames.digest() != frames
    write(tmp_path, poses[::-1])
    assert source.digest() == images and source.frames.digest() != frames


def test_without_poses_recordings_are_clips_and_a_task_that_needs_poses_is_told(recorded, tmp_path):
    copy(recorded[0], tmp_path)
    source = open_source(f"rgbd:{tmp_path}")
    assert source.frames.in_order and not source.frames.has_pose
    assert source.frames.load(".", depth=True).poses is None
    facts = {"version": "1", "summary": "", "levels": {}}
    assert lacking(TaskInfo(**facts, takes="clip"), source) is None
    assert lacking(TaskInfo(**facts, takes="image", needs_depth=True), source) is None
    assert "poses of frames" in lacking(TaskInfo(**facts, takes="views", needs_pose=True), source)


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("?pose_is=inverted", "pose_is must be one of camera-to-world, world-to-camera, opengl"),
        ("?pose_scale=none", "pose_scale must be a positive number"),
        ("?pose=*/*.txt", "pose must contain at most one"),
        ("?color=*.color.png&depth=*.depth.png&pose_scale=1000", "pose_scale has no effect"),
        ("?pose=*.camera.txt", r"none of the \d+ files matches pose=\*.camera.txt"),
        ("?pose_is=opengl", r"none of the \d+ files matches pose=\*.pose.txt"),
    ],
)
def test_bad_options_of_poses_are_source_errors(recorded, tmp_path, query, message):
    copy(recorded[0], tmp_path)
    with pytest.raises(SourceError, match=message):
        len(open_source(f"rgbd:{tmp_path}{query}").frames)


def test_a_matrix_may_have_brackets_commas_and_three_rows():
    assert np.array_equal(
        read_matrix(b"\xef\xbb\xbf[[1, 0, 0, 2],\n [0, 1, 0, 3], [0, 0, 1, -4.5e-1]]")[:3, 3], [2, 3, -0.45]
    )


def test_without_a_camera_only_positions_kilometres_apart_are_said_to_be_millimetres():
    poses = np.tile(np.eye(4), (12, 1, 1))
    poses[:, 0, 3] = np.linspace(0, 3000, 12)

    def view(position):
        return SourceImage("x", np.zeros((64, 64, 3), np.uint8), np.ones((64, 64), np.float32))

    assert (
        contradiction(poses, view, kind="camera-to-world", scale=1)
        == "poses look like millimetres: set pose_scale=0.001"
    )
    assert contradiction(poses, view, kind="camera-to-world", scale=0.001) is None


@pytest.mark.skipif(not KINECT.is_dir(), reason=f"the Kinect frames are not at {KINECT}")
def test_the_posed_kinect_frames_pass_and_their_inverted_and_millimetre_versions_do_not(tmp_path):
    loaded = open_source(f"rgbd:{KINECT}").frames.load(".", depth=True)
    assert len(loaded) == 40 and np.isfinite(loaded.poses).all()
    for path in [*KINECT.glob("*.jpg"), *KINECT.glob("*.png"), *KINECT.glob("camera*")]:
        os.symlink(path, tmp_path / path.name)
    names = sorted(path.name for path in KINECT.glob("*.pose.txt"))
    for change, wanted in ((inverse, "set pose_is=world-to-camera"), (millimetres, "set pose_scale=0.001")):
        for name in names:
            np.savetxt(tmp_path / name, change(np.loadtxt(KINECT / name)))
        source = open_source(f"rgbd:{tmp_path}?scale={0.001 if change is inverse else 1000}")
        with pytest.raises(SourceRejected, match=wanted):
            source.frames.load(".", depth=True)
