"""Draw docs/figure.jpg, the picture of the README: python docs/figure.py. Procedural rooms, free of any licence."""

from __future__ import annotations

import textwrap
from itertools import islice
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from ssrl_core.mix import Example, single_task_mix
from ssrl_core.plugins import load_task

PUZZLES = {
    "shuffled_patches": (1, "Which patch belongs where?"),
    "ordered_frames": (2, "The first frame of a clip. In which order do the others follow?"),
    "camera_motion": (4, "The first picture, then the second: which way did the camera move?"),
    "flipped_patch": (2, "Which patch is flipped, and how?"),
    "same_place": (0, "Which of A to D shows the same part of the room from elsewhere?"),
    "cropped_patch": (3, "Which piece fills the hole?"),
    "rotated_view": (5, "By how many degrees was the disc turned clockwise?"),
    "depth_ordering": (4, "Order the regions, nearest first."),
    "relative_position": (5, "Stand at region 1 and face {facing}: where is region 2?"),
    "matched_point": (0, "Which letter marks the point 1 of the first view?"),
}
"""Task -> which of its samples at the first level is shown, and its question in short. From column to column."""

HEIGHTS = (3, 2, 3, 2)
"""How many tasks each column has."""

WIDTH, GAP = 300, 20
SMALL, LARGE = (ImageFont.load_default(size=size) for size in (17, 21))
LINE = 21


def answer_of(example: Example) -> str:
    """The truth; with its words, where it is a letter of choices in words."""
    truth = example.sample.truth
    words = [line for line in example.prompt.splitlines() if line.startswith(f"{truth}. ")]
    return f"{truth}, {words[0].partition('. ')[2]}" if words else str(truth)


def card(task: str, question: str, example: Example) -> Image.Image:
    """A puzzle: its question, its pictures and its answer."""
    first, *others = example.sample.images
    page = Image.new("RGB", (WIDTH, 1200), "white")
    draw = ImageDraw.Draw(page)
    draw.text((0, 0), task, fill=(20, 90, 160), font=LARGE)
    top = 28
    for line in textwrap.wrap(question.format(**example.sample.params), 36):
        draw.text((0, top), line, fill="black", font=SMALL)
        top += LINE

    def paste(image: Image.Image, left: int, width: int) -> int:
        height = round(image.height * width / image.width)
        page.paste(image.resize((width, height), Image.Resampling.LANCZOS), (left, top))
        return height

    top += 5
    if task == "camera_motion":  # both pictures beside each other
        others = [first, *others]
    else:
        top += paste(first, 0, WIDTH) + 6
    across = {1: 1, 3: 3, 4: 4 if task == "cropped_patch" else 2}.get(len(others), 2)
    names = "1234" if task == "ordered_frames" else "ABCD"
    width = (WIDTH - 6 * (across - 1)) // across
    for start in range(0, len(others), across):
        row = others[start : start + across]
        height = max(paste(image, column * (width + 6), width) for column, image in enumerate(row))
        top += height
        if len(others) > 2:
            for column in range(len(row)):
                middle = column * (width + 6) + width // 2
                draw.text((middle, top + 1), names[start + column], fill="black", font=SMALL, anchor="ma")
            top += LINE
        top += 4
    for line in textwrap.wrap(f"answer: {answer_of(example)}", 36):
        draw.text((0, top), line, fill=(0, 120, 60), font=SMALL)
        top += LINE
    return page.crop((0, 0, WIDTH, top))


def main() -> None:
    """Draw all tasks into one picture."""
    cards = []
    for task, (number, question) in PUZZLES.items():
        mix = single_task_mix(load_task(task), source="synthetic:", size=WIDTH, seed=3)
        level = next(iter(mix.tasks[task].info.levels))
        examples = (mix[index] for index in range(number * 8, len(mix)))
        cards.append(card(task, question, next(example for example in examples if example.recipe.level == level)))
    page = Image.new("RGB", (len(HEIGHTS) * (WIDTH + GAP) + GAP, 2000), "white")
    drawn, bottom = iter(cards), 0
    for column, count in enumerate(HEIGHTS):
        top = GAP
        for image in islice(drawn, count):
            page.paste(image, (GAP + column * (WIDTH + GAP), top))
            top += image.height + GAP
        bottom = max(bottom, top)
    page.crop((0, 0, page.width, bottom)).save(Path(__file__).with_name("figure.jpg"), quality=80)


if __name__ == "__main__":
    main()
