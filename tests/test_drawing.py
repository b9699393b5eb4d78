"""What tasks draw on pictures and cut out of them."""

import cv2
import numpy as np
import pytest
from PIL import Image

from ssrl_core import SourceRejected
from ssrl_core.drawing import (
    View,
    compose_grid,
    cut_views,
    draw_marker,
    look_alike,
    marker_room,
    seam_steps,
    split_grid,
    thumbnail,
    to_image,
)
from ssrl_core.sources.images import pixels


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(height).integers(0, 256, (height, width, 3), np.uint8)


@pytest.mark.parametrize("shape", [(1, 1), (37, 53), (240, 320)])
def test_an_array_becomes_the_picture_that_pillow_makes_of_it_and_comes_back(shape: tuple[int, int]) -> None:
    rgb = noise(*shape)
    assert to_image(rgb).tobytes() == Image.fromarray(rgb).tobytes()
    assert to_image(rgb[:, ::-1]).tobytes() == Image.fromarray(np.ascontiguousarray(rgb[:, ::-1])).tobytes()
    assert np.array_equal(pixels(to_image(rgb)), rgb)
    grey = Image.fromarray(rgb[..., 0])
    assert np.array_equal(pixels(grey), np.asarray(grey.convert("RGB")))


def test_a_thumbnail_has_the_mean_colours_of_cells() -> None:
    rgb = noise(48, 32)
    assert np.allclose(thumbnail(rgb, 8), rgb.reshape(8, 6, 8, 4, 3).mean(axis=(1, 3)))
    whole = noise(37, 53)
    assert np.allclose(thumbnail(whole, 1)[0, 0], whole.mean(axis=(0, 1)))
    uneven = thumbnail(np.full((37, 53, 3), 7, np.uint8), 16)
    assert uneven.shape == (16, 16, 3)
    assert (uneven == 7).all()


def test_a_grid_shows_every_pixel_of_its_patches_under_their_labels() -> None:
    patches = split_grid(noise(64, 96), 2, 2)
    board = np.asarray(compose_grid(patches, 2, labels=["1", "2", "3", "4"]))
    windows = np.lib.stride_tricks.sliding_window_view(board, (32, 48, 3))[:, :, 0]
    places = [np.argwhere((windows == patch).all(axis=(2, 3, 4))).tolist() for patch in patches]
    assert all(len(found) == 1 for found in places)
    tops, lefts = zip(*(found[0] for found in places), strict=True)
    assert tops[0] == tops[1] < tops[2] == tops[3]
    assert lefts[0] == lefts[2] < lefts[1] == lefts[3]
    for top, left in zip(tops, lefts, strict=True):
        above = board[top - 12 : top - 1, left : left + 48]
        assert above.min() < 128  # the ink of a label
        assert (board[top - 1, left : left + 48] == 128).all()  # the frame


def test_pictures_look_alike_below_the_limit_whatever_their_fine_texture() -> None:
    flat = np.full((64, 64, 3), 100, np.uint8)
    texture = np.clip(flat + np.random.default_rng(0).normal(0, 30, flat.shape), 0, 255).astype(np.uint8)
    other = noise(64, 64)
    assert look_alike([other, flat, texture], side=8, limit=8)
    assert not look_alike([other, flat, flat + 9], side=8, limit=8)
    assert look_alike([other, flat, flat + 7], side=8, limit=8)


def test_a_seam_step_is_the_mean_difference_between_two_lines() -> None:
    a, b, c = (np.full((5, 3), grey, np.uint8) for grey in (10, 200, 50))
    c[0] += 5
    assert np.array_equal(seam_steps([a, b], [b, c]), np.array([[190, 41], [0, 149]], np.float32))


def test_views_are_cut_where_they_say_and_never_clipped() -> None:
    rgb = cv2.resize(noise(24, 32), (320, 240), interpolation=cv2.INTER_CUBIC)
    soft = cv2.GaussianBlur(rgb, (0, 0), 1.0).astype(float)
    views = [View(), View(x=0.5), View(y=-0.5), View(place=1), View(turns=1), View(mirrored=1), View(growth=1.0)]
    for seed in range(20):
        pieces, (x, y) = cut_views(rgb, views, np.random.default_rng(seed), side=40)
        assert all(piece.shape == (40, 40, 3) and piece.dtype == np.uint8 for piece in pieces)
        for piece, (left, top) in zip(pieces, [(x, y), (x + 20, y), (x, y - 20)], strict=False):
            assert np.abs(soft[top : top + 40, left : left + 40] - piece).mean() < 2
        true, _, _, elsewhere, turned, mirrored, wide = pieces
        assert np.array_equal(turned, np.rot90(true))
        assert np.array_equal(mirrored, true[:, ::-1])
        assert np.abs(elsewhere.astype(float) - true).mean() > 10
        middle = cv2.resize(true, (20, 20), interpolation=cv2.INTER_AREA).astype(float)
        assert np.abs(wide[10:30, 10:30] - middle).mean() < 10
        assert x >= 20 and y >= 20 and x + 60 <= 320 and y + 60 <= 240  # the wide view lies inside the picture
    with pytest.raises(SourceRejected, match="no room for the pieces"):
        cut_views(rgb, [View(), View(x=6)], np.random.default_rng(0), side=60)


def test_squares_of_different_places_do_not_overlap_and_no_place_is_special() -> None:
    x = np.arange(160, dtype=np.uint8)
    rgb = np.stack(np.broadcast_arrays(x[None, :], x[:120, None], np.uint8(0)), axis=2)  # a pixel shows where it is
    corners = []
    for seed in range(60):
        pieces, _ = cut_views(rgb, [View(), View(place=1)], np.random.default_rng(seed), side=40)
        corners.append([piece[20, 20, :2].astype(int) for piece in pieces])
    apart = np.abs(np.subtract(*np.swapaxes(corners, 0, 1))).max(axis=1)
    assert apart.min() >= 39
    assert np.abs(np.mean(corners, axis=0) - (80, 60)).max() < 12


def test_a_ring_leaves_its_region_and_its_neighbours_alone() -> None:
    for width, height in ((112, 84), (448, 336), (1024, 768)):
        ground = np.full((height, width, 3), 90, np.uint8)
        v, u = np.mgrid[:height, :width]
        for radius in (3, 9, 20):
            space = marker_room(width, height, radius=radius)
            x, y = space.side, space.top
            drawn = []
            for label, centre in (("1", (x, y)), ("2", (x + space.beside, y)), ("3", (x, y + space.above))):
                picture = Image.fromarray(ground)
                draw_marker(picture, label, centre=centre, radius=radius)
                drawn.append((np.asarray(picture) != 90).any(axis=2))
            first = drawn[0]
            assert not first[np.hypot(u - x, v - y) <= radius].any()
            assert first.any() and not (first & drawn[1]).any() and not (first & drawn[2]).any()
            assert not first[0].any() and not first[:, 0].any(), "the marker is cut by the border"
