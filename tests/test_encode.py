"""Encoded images of an export: every decoder returns the pixels of the sample."""

import io

import cv2
import numpy as np
import pytest
from PIL import Image

from ssrl_core.export.rows import encode

pytest.importorskip("fpng")
MODES = ("RGB", "RGBA", "L", "LA", "P", "1")
SIZES = ((1, 1), (1, 37), (37, 1), (5, 3), (641, 7), (64, 481))


def picture(mode, size, *, flat):
    rng = np.random.default_rng(0)
    pixels = np.full((size[1], size[0], 4), 255) if flat else rng.integers(0, 256, (size[1], size[0], 4))
    return Image.fromarray(pixels.astype(np.uint8), "RGBA").convert(mode)


@pytest.mark.parametrize("flat", [False, True], ids=["noise", "flat"])
@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
@pytest.mark.parametrize("mode", MODES)
def test_pillow_and_opencv_decode_a_png_to_the_pixels_of_the_sample(mode, size, flat):
    image = picture(mode, size, flat=flat)
    data = encode(image, jpeg=None)
    expected = np.asarray(image.convert("RGB"))
    with Image.open(io.BytesIO(data)) as found:
        assert (found.format, found.mode, found.size) == ("PNG", "RGB", size)
        np.testing.assert_array_equal(np.asarray(found), expected)
    np.testing.assert_array_equal(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB), expected)


def test_an_image_too_large_for_the_encoder_is_an_error_that_names_its_size():
    with pytest.raises(ValueError, match=r"\(65536, 1\)"):
        encode(Image.new("RGB", (65536, 1)), jpeg=None)


@pytest.mark.parametrize("size", [(64, 48), (2200, 2000)], ids=["in one block of memory", "in several"])
def test_a_jpeg_is_what_opencv_makes_of_the_pixels(size):
    image = picture("RGB", size, flat=False)
    expected = cv2.imencode(".jpg", np.asarray(image)[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes()
    assert encode(image, jpeg=90) == expected
