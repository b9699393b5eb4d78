"""Geometry of posed views: where points of one view lie in another, and how much two views have in common.

A pose is a 4 x 4 matrix that takes points of a camera to the space in which the camera stands. A camera's axes point
right, down and forward; lengths are in metres. Points are arrays of ... x 3; pixels have
their centres at whole numbers.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .types import Intrinsics

SAME_DEPTH = 0.05
"""Share by which two measurements of the depth of one point may differ: errors of sensor and pose together."""

_LOOKED_AT = 48  # points across and down that stand for a view


class Projection(NamedTuple):
    """Points in the picture of a camera: ``x`` and ``y`` in pixels (NaN behind the camera), ``z``, the distance along
    the optical axis in metres."""

    x: np.ndarray
    y: np.ndarray
    z: np.ndarray


def relative_pose(poses: np.ndarray, i: int, j: int) -> np.ndarray:
    """The pose of camera ``j`` in the space of camera ``i``, 4 x 4; NaN if one of them is unknown.

    Its last column is where camera ``j`` stands: metres to the right, down and forward, as camera ``i`` sees it.

    Args:
        poses: float64, N x 4 x 4, all in the same space; rotations and translations only.
    """
    seen: np.ndarray = inverse(poses[i]) @ poses[j]
    return seen


def inverse(pose: np.ndarray) -> np.ndarray:
    """The inverse of a pose, 4 x 4."""
    turned: np.ndarray = np.eye(4)
    turned[:3, :3] = pose[:3, :3].T
    turned[:3, 3] = -pose[:3, :3].T @ pose[:3, 3]
    return turned


def rotation_vectors(rotations: np.ndarray) -> np.ndarray:
    """Axis times angle in degrees, ... x 3, of rotations by less than half a turn, ... x 3 x 3.

    For a camera, a positive number about the axes right, down and forward is a turn up, right and clockwise.
    """
    sine = (rotations - np.swapaxes(rotations, -1, -2))[..., [2, 0, 1], [1, 2, 0]] / 2
    length = np.linalg.norm(sine, axis=-1, keepdims=True)
    angle = np.degrees(np.arctan2(length, (np.trace(rotations, axis1=-2, axis2=-1)[..., None] - 1) / 2))
    vectors: np.ndarray = sine * (angle / np.maximum(length, 1e-12))
    return vectors


def back_project(x: np.ndarray, y: np.ndarray, z: np.ndarray, camera: Intrinsics) -> np.ndarray:
    """The points in a camera's space at pixels ``x``, ``y`` and at depth ``z``, ... x 3; all arrays of one shape."""
    return np.stack(((x - camera.cx) / camera.fx * z, (y - camera.cy) / camera.fy * z, z), axis=-1)


def project(points: np.ndarray, pose: np.ndarray, camera: Intrinsics) -> Projection:
    """Where points appear to a camera.

    Args:
        points: ... x 3, metres.
        pose: of the camera, in the space of the points.
        camera: its intrinsics.
    """
    x, y, z = np.moveaxis((points - pose[:3, 3]) @ pose[:3, :3], -1, 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        ahead = np.where(z > 0, z, np.nan)
        return Projection(camera.fx * x / ahead + camera.cx, camera.fy * y / ahead + camera.cy, z)


def depth_at(depth: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The depth at the pixels nearest to ``x``, ``y``; NaN outside the picture, and where ``x`` or ``y`` is NaN."""
    height, width = depth.shape
    inside = (x > -0.5) & (x < width - 0.5) & (y > -0.5) & (y < height - 0.5)
    row, column = (np.rint(np.where(inside, at, 0)).astype(int) for at in (y, x))
    found: np.ndarray = np.where(inside, depth[row, column], np.nan)
    return found


def visible(seen: Projection, depth: np.ndarray, *, tolerance: float = SAME_DEPTH) -> np.ndarray:
    """Whether a camera sees points: its depth there is their own, so that nothing hides them. Of the points' shape.

    Args:
        seen: the points, by ``project``.
        depth: of the camera's picture, H x W, metres, NaN where invalid; points there are not visible.
        tolerance: largest difference, as a share of the depth.
    """
    found = depth_at(depth, seen.x, seen.y)
    near: np.ndarray = np.abs(found - seen.z) <= tolerance * seen.z
    return near


def view_points(depth: np.ndarray, camera: Intrinsics) -> np.ndarray:
    """Points that stand for a view, evenly over its picture: N x 3, in the camera's space, those of valid depth."""
    height, width = depth.shape
    rows, columns = (((np.arange(n) + 0.5) * side / n).astype(int) for side in (height, width) for n in [_number(side)])
    y, x = (grid.ravel() for grid in np.meshgrid(rows, columns, indexing="ij"))
    z = depth[y, x].astype(float)
    valid = np.isfinite(z) & (z > 0)
    return back_project(x[valid], y[valid], z[valid], camera)


def overlap(
    depth: np.ndarray,
    camera: Intrinsics,
    pose: np.ndarray,
    other_depth: np.ndarray,
    other_camera: Intrinsics,
    *,
    tolerance: float = SAME_DEPTH,
) -> float:
    """The share of a view's pixels of valid depth that another view shows too, in [0, 1]; 0 without valid depth.

    Measured at 48 x 48 pixels. It is not the same the other way round: a detail is part of a whole.

    Args:
        depth, camera: of the view; depth in metres, H x W, NaN where invalid.
        pose: of the other camera in the space of this one, by ``relative_pose``.
        other_depth, other_camera: of the other view.
        tolerance: see ``visible``.
    """
    points = view_points(depth, camera)
    if not len(points):
        return 0.0
    return float(visible(project(points, pose, other_camera), other_depth, tolerance=tolerance).mean())


def _number(side: int) -> int:
    return min(side, _LOOKED_AT)
