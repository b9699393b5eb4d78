"""Pages: prompts with their pictures in place, names of pictures, enlargement."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

from ssrl_core import pages


def pictures(*sizes):
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 256, (height, width, 3), np.uint8)) for width, height in sizes]


def written(asked):
    """The text of a question, with the name and size of each picture in brackets."""
    parts = [f"{p['before']}[{p['label']} {p['size'][0]}x{p['size'][1]}]" for p in asked["pictures"]]
    return "".join(parts) + asked["end"]


@pytest.mark.parametrize(
    ("prompt", "names"),
    [
        ("Picture: <image>\nA: <image>\nB: <image>", ["Picture", "A", "B"]),
        ("Four pieces of it: A <image> B <image> or C <image>?", ["A", "B", "C"]),
        ("<image>\nWhat is it?", ["image 1"]),
        ("<image> <image>", ["image 1", "image 2"]),
        ("A picture with a grid and a red dot: <image> (B) <image>", ["image 1", "(B)"]),
        ("First:\n<image>\n... <image>", ["First", "image 2"]),
    ],
)
def test_a_picture_has_the_name_that_the_prompt_gives_it(prompt, names):
    assert pages.image_names(prompt) == names


@pytest.mark.parametrize(
    ("prompt", "sizes", "expected"),
    [
        (
            "Picture: <image>\nA: <image>\nB: <image>\nWhich?",
            [(60, 40), (20, 20), (20, 20)],
            "[Picture: 60x40]\n[A: 20x20] [B: 20x20]\nWhich?",
        ),
        ("A: <image>\nB: <image>", [(20, 20), (20, 30)], "[A: 20x20]\n[B: 20x30]"),
        ("<image> <image>\nWhich?", [(20, 20)] * 2, "[ 20x20] [ 20x20]\nWhich?"),
        ("A picture with a grid and a dot: <image>", [(20, 20)], "A picture with a grid and a dot: \n[ 20x20]"),
        ("Two of them: A <image> or B <image>?", [(20, 20)] * 2, "Two of them: [A 20x20] or [B 20x20]?"),
    ],
)
def test_pictures_stand_where_the_prompt_has_them_and_equal_ones_side_by_side(prompt, sizes, expected):
    assert written(pages.question_of(prompt, pictures(*sizes))) == expected


@pytest.mark.parametrize(
    ("sizes", "wide", "narrow"), [([(64, 48)], 10, 5), ([(448, 336), (90, 67)], 1, 1), ([(20, 112)], 5, 2)]
)
def test_the_pictures_of_a_question_are_enlarged_by_one_whole_factor_and_then_without_loss(sizes, wide, narrow):
    images = pictures(*sizes)
    asked = pages.question_of("<image>" * len(sizes), images)
    assert (asked["wide"], asked["narrow"]) == (wide, narrow)
    for image, picture in zip(images, asked["pictures"], strict=True):
        kind, _, data = picture["url"].partition(";base64,")
        with Image.open(io.BytesIO(base64.b64decode(data))) as found:
            assert kind == ("data:image/png" if wide > 1 else "data:image/jpeg")
            assert found.size == image.size
            assert wide == 1 or found.tobytes() == image.tobytes()


def test_text_of_a_prompt_is_escaped_on_the_page(tmp_path):
    template = tmp_path / "page.html.jinja"
    template.write_text('{% from "question.html.jinja" import question %}{{ question(asked) }}')
    asked = pages.question_of("</div><b>: <image> & <script>", pictures((20, 20)))
    html = pages.page(template, asked=asked)
    assert "&lt;/div&gt;&lt;b&gt;" in html and "&amp; &lt;script&gt;" in html and "<script" not in html
