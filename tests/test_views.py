"""The geometry of posed views, on rendered rooms and on arithmetic that can be checked by hand."""

import numpy as np
import pytest

from ssrl_core import Intrinsics
from ssrl_core.sources import open_source
from ssrl_core.views import (
    back_project,
    depth_at,
    overlap,
    project,
    relative_pose,
    rotation_vectors,
    view_points,
    visible,
)

CAMERA = Intrinsics(100, 100, 50, 40)


def pose(*, at=(0.0, 0.0, 0.0), yaw=0.0):
    c, s = np.cos(yaw), np.sin(yaw)
    return np.array([[c, 0, s, at[0]], [0, 1, 0, at[1]], [-s, 0, c, at[2]], [0, 0, 0, 1]])


def test_a_camera_that_stepped_to_its_own_right_has_a_relative_pose_to_the_right():
    # Turned by a quarter to the right in the world, its right is the world's backward.
    poses = np.stack([pose(yaw=np.pi / 2), pose(at=(0, 0, -0.5), yaw=np.pi / 2 + 0.2)])
    assert np.allclose(relative_pose(poses, 0, 1), pose(at=(0.5, 0, 0), yaw=0.2))
    assert np.allclose(relative_pose(poses, 0, 1) @ relative_pose(poses, 1, 0), np.eye(4))


def test_a_turn_to_the_right_is_positive_about_the_axis_down_and_one_up_about_the_axis_right():
    up = np.array([[1, 0, 0], [0, np.cos(0.3), -np.sin(0.3)], [0, np.sin(0.3), np.cos(0.3)]])
    assert up[1, 2] < 0  # the camera's forward, in its axes before, is up
    vectors = rotation_vectors(np.stack([pose(yaw=0.2)[:3, :3], up, np.eye(3), pose(yaw=-3.0)[:3, :3]]))
    assert np.allclose(vectors, np.degrees([[0, 0.2, 0], [0.3, 0, 0], [0, 0, 0], [0, -3, 0]]))


def test_points_are_projected_where_they_were_back_projected_from():
    x, y, z = np.array([3.0, 70.0]), np.array([10.0, 60.0]), np.array([1.0, 4.0])
    seen = project(back_project(x, y, z, CAMERA), np.eye(4), CAMERA)
    assert np.allclose((seen.x, seen.y, seen.z), (x, y, z))
    # A camera that moved right sees everything farther left: by f * t / z.
    moved = project(back_project(x, y, z, CAMERA), pose(at=(0.2, 0, 0)), CAMERA)
    assert np.allclose(x - moved.x, 100 * 0.2 / z) and np.allclose(moved.y, y)


def test_points_behind_a_camera_or_beside_its_picture_or_hidden_or_without_depth_are_not_visible():
    depth = np.full((80, 100), 2.0, np.float32)
    depth[:, 60:], depth[:, 80:] = 1.0, np.nan
    points = np.array([[0, 0, 2.0], [0, 0, -2.0], [9, 0, 2.0], [0.4, 0, 2.0], [0.7, 0, 2.0], [0, 0, 2.05], [0, 0, 2.2]])
    seen = visible(project(points, np.eye(4), CAMERA), depth)
    assert seen.tolist() == [True, False, False, False, False, True, False]
    assert np.isnan(depth_at(depth, np.array([-0.6, 99.6, np.nan]), np.zeros(3))).all()


def test_the_overlap_of_rendered_views_is_that_of_the_world_points_that_both_show():
    clip = open_source("synthetic:").frames.load("1", depth=True)
    first, second = clip.read([0, 4])
    share = overlap(
        first.depth, first.intrinsics, relative_pose(clip.poses, 0, 4), second.depth, second.intrinsics, tolerance=0.02
    )
    y, x = np.mgrid[: first.depth.shape[0], : first.depth.shape[1]]
    world = (
        back_project(x, y, first.depth.astype(float), first.intrinsics) @ clip.poses[0][:3, :3].T + clip.poses[0][:3, 3]
    )
    there = visible(project(world, clip.poses[4], second.intrinsics), second.depth, tolerance=0.02)
    assert 0.4 < share < 0.9 and share == pytest.approx(there.mean(), abs=0.02)
    # With the wrong convention, the views of the same clip hardly agree.
    inverted = np.linalg.inv(clip.poses)
    wrong = relative_pose(inverted, 0, 4)
    assert overlap(first.depth, first.intrinsics, wrong, second.depth, second.intrinsics, tolerance=0.02) < share / 2


def test_a_view_without_valid_depth_overlaps_with_nothing():
    depth = np.full((64, 64), np.nan, np.float32)
    assert len(view_points(depth, CAMERA)) == 0 and overlap(depth, CAMERA, np.eye(4), depth, CAMERA) == 0
    whole = np.ones((64, 64), np.float32)
    assert overlap(whole, CAMERA, np.full((4, 4), np.nan), whole, CAMERA) == 0
    assert overlap(whole, CAMERA, np.eye(4), whole, CAMERA) == 1
