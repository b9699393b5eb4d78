"""The fast ways between arrays and pictures give what the plain ways give."""

import numpy as np
import pytest
from PIL import Image

from ssrl_core.drawing import compose_grid, split_grid, thumbnail, to_image
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
