"""Read camera poses from text files, and find out whether they can be right.

The matrix of a frame has 4 x 4 or 3 x 4 numbers, row by row. A trajectory has a line for each moment: time in seconds,
three coordinates of the camera, and a quaternion x, y, z, w. Frames of which the pose is unknown have NaN.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import product

import numpy as np

from ..errors import SourceRejected
from ..types import SourceImage
from ..views import inverse, overlap, relative_pose
from .patterns import SAME_TIME

KINDS = ("camera-to-world", "world-to-camera", "opengl")
"""What a matrix may be. That of OpenGL is camera to world too, but of a camera whose axes point right, up and back."""

MISSING = "fewer poses than pictures"
UNREADABLE = "unreadable poses"
NO_ROTATION = "poses are no rotations"
UNKNOWN = "fewer than two known poses"
MILLIMETRES = "poses look like millimetres: set pose_scale=0.001"

_MOST_FAULTY = 0.1  # share of a recording's frames
_ROTATION_ERROR = 0.01  # of the products of a rotation's columns; text files of 3 decimals have 0.002
_FARTHEST = 1000.0  # metres between cameras of one recording
_SURELY = 0.4  # overlap of neighbouring views by the right poses, at least
_TIMES, _MORE = 1.5, 0.25  # and at least so many times the overlap by wrong ones, and so much more
_TURN = (5.0, 15.0)  # degrees between the views of a pair: other conventions have the same angle
_PAIRS, _REACH = 4, 300  # pairs that are looked at, and the most frames between the two


def read_matrix(content: bytes) -> np.ndarray:
    """The pose in a text file, 4 x 4, not checked. Raises SourceRejected if it does not hold 12 or 16 numbers."""
    try:
        text = content.decode("utf-8-sig").translate(str.maketrans("[](),;", "      "))
        numbers = np.array(text.split(), dtype=float)
    except ValueError as err:
        raise SourceRejected(UNREADABLE) from err
    if len(numbers) == 12:
        numbers = np.append(numbers, (0, 0, 0, 1))
    if len(numbers) != 16:
        raise SourceRejected(UNREADABLE)
    return numbers.reshape(4, 4)


def read_trajectory(content: bytes, times: np.ndarray) -> np.ndarray:
    """The poses nearest to times, N x 4 x 4, not checked; NaN where none is near enough.

    Raises:
        SourceRejected: a line is none of a trajectory.
    """
    try:
        lines = [line.split() for line in content.decode("utf-8-sig").splitlines() if line.strip()[:1] not in ("", "#")]
        rows = np.array(lines, dtype=float).reshape(-1, 8)
    except ValueError as err:
        raise SourceRejected(UNREADABLE) from err
    rows = rows[np.argsort(rows[:, 0], kind="stable")]
    poses = np.full((len(times), 4, 4), np.nan)
    if not len(rows):
        return poses
    after = np.clip(np.searchsorted(rows[:, 0], times), 1, max(1, len(rows) - 1))
    around = np.stack((after - 1, np.minimum(after, len(rows) - 1)))
    off = np.abs(rows[around, 0] - times)
    nearest = around[off.argmin(axis=0), np.arange(len(times))]
    near = off.min(axis=0) <= SAME_TIME
    found = rows[nearest[near], 1:]
    at, turns = found[:, :3], found[:, 3:]
    length = np.linalg.norm(turns, axis=1, keepdims=True)
    x, y, z, w = (turns / np.where(np.abs(length - 1) < _ROTATION_ERROR, length, 1)).T  # others are no rotations
    rotations = np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )
    poses[near] = np.eye(4)
    poses[near, :3, :3] = rotations.transpose(2, 0, 1)
    poses[near, :3, 3] = at
    return poses


def stack_poses(found: Sequence[np.ndarray | str]) -> np.ndarray:
    """The poses of a recording, N x 4 x 4, NaN where unknown.

    Args:
        found: the matrix of each frame, not checked, or the reason why there is none.

    Raises:
        SourceRejected: over a tenth of the frames has a faulty pose, or fewer than two have a known one. A matrix with
            infinite numbers or NaN is not faulty: so do data sets mark that they lost track of the camera.
    """
    faults = Counter(pose for pose in found if isinstance(pose, str))
    poses = np.stack([np.full((4, 4), np.nan) if isinstance(pose, str) else pose for pose in found])
    poses[~np.isfinite(poses).all(axis=(1, 2))] = np.nan
    known = np.flatnonzero(np.isfinite(poses[:, 0, 0]))
    turn = poses[known, :3, :3]
    error = np.abs(turn.transpose(0, 2, 1) @ turn - np.eye(3)).max(axis=(1, 2))
    error = np.maximum(error, np.abs(poses[known, 3] - (0, 0, 0, 1)).max(axis=1))
    wrong = known[(error > _ROTATION_ERROR) | (np.linalg.det(turn) < 0)]
    poses[wrong] = np.nan
    faults[NO_ROTATION] += len(wrong)
    if faults.total() > _MOST_FAULTY * len(found):
        raise SourceRejected(faults.most_common(1)[0][0])
    if np.isfinite(poses[:, 0, 0]).sum() < 2:
        raise SourceRejected(UNKNOWN)
    return poses


def as_poses(matrices: np.ndarray, *, kind: str, scale: float) -> np.ndarray:
    """Poses as the contract has them, of matrices of a kind whose lengths are in ``scale`` metres; N x 4 x 4."""
    poses = matrices.copy()
    poses[:, :3, 3] *= scale
    if kind == "world-to-camera":
        return np.stack([inverse(pose) for pose in poses])
    if kind == "opengl":
        poses[:, :, 1:3] *= -1
    return poses


def contradiction(matrices: np.ndarray, view: Callable[[int], SourceImage], *, kind: str, scale: float) -> str | None:
    """The reason why the poses of a recording are surely of another kind or unit; None if none is sure.

    Depth decides: a few pairs of neighbouring views are laid over each other by the poses, as they are and as others.

    Args:
        matrices: N x 4 x 4, checked, NaN where unknown.
        view: the frame at a position, with depth and camera.
        kind, scale: see ``as_poses``.
    """
    guesses = [(kind, scale), *((k, s) for k, s in product(KINDS, (scale, scale / 1000)) if (k, s) != (kind, scale))]
    shares = []
    for i, j in _pairs(matrices):
        try:
            first, second = view(i), view(j)
        except SourceRejected:
            continue
        if first.depth is None or second.depth is None or not first.intrinsics or not second.intrinsics:
            continue
        poses = (as_poses(matrices[[i, j]], kind=kind, scale=scale) for kind, scale in guesses)
        shares.append(
            [
                overlap(first.depth, first.intrinsics, relative_pose(pair, 0, 1), second.depth, second.intrinsics)
                for pair in poses
            ]
        )
    if not shares:
        at = matrices[np.isfinite(matrices[:, 0, 0]), :3, 3] * scale
        return MILLIMETRES if np.ptp(at, axis=0).max() > _FARTHEST else None
    share = np.mean(shares, axis=0)
    best = int(share.argmax())
    if share[best] < max(_SURELY, _TIMES * share[0], share[0] + _MORE):
        return None
    other, unit = guesses[best]
    return MILLIMETRES if unit != scale else f"poses look like {other}: set pose_is={other}"


def _pairs(matrices: np.ndarray) -> Iterator[tuple[int, int]]:
    """Positions of two views that see nearly the same, but not from the same place, by any reading of the poses."""
    known = np.flatnonzero(np.isfinite(matrices[:, 0, 0]))
    turns = matrices[:, :3, :3]
    for start in np.unique(np.linspace(0, len(known) - 1, _PAIRS + 1).astype(int)[:-1]):
        later = known[start + 1 : start + 1 + _REACH]
        cosine = (np.einsum("nij,ij->n", turns[later], turns[known[start]]) - 1) / 2
        angle = np.degrees(np.arccos(np.clip(cosine, -1, 1)))
        fits = (angle >= _TURN[0]) & (angle <= _TURN[1])
        yield int(known[start]), int(later[fits.argmax() if fits.any() else angle[:10].argmax()])
