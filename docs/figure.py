"""Draw docs/figure.jpg, the picture of the README: python docs/figure.py. Procedural rooms, free of any licence."""

from __future__ import annotations

import textwrap
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from ssrl_core.mix import Example, single_task_mix
from ssrl_core.plugins import load_task

PUZZLES = {
    "shuffled_patches": "Which patch belongs where?",
    "flipped_patch": "Which patch is flipped, and how?",
    "cropped_patch": "Which piece fills the hole?",
    "depth_ordering": "Order the regions, nearest first.",
    "relative_position": "Where is region 2, seen from region 1?",
}
NUMBERS = {"shuffled_patches": 1, "flipped_patch": 2, "cropped_patch": 3, "depth_ordering": 4, "relative_position": 5}
"""The sample that is shown of each task."""

WIDTH, GAP, SIZE = 300, 16, 640
SMALL, LARGE = (ImageFont.load_default(size=size) for size in (15, 19))


def card(task: str, example: Example) -> Image.Image:
    """A puzzle: its question, its pictures and its answer."""
    first, *others = example.sample.images
    shown = [first.resize((WIDTH, round(first.height * WIDTH / first.width)), Image.Resampling.LANCZOS)]
    side = (WIDTH - GAP * (len(others) - 1) // 2) // max(1, len(others)) if others else 0
    small = [image.resize((side, side), Image.Resampling.LANCZOS) for image in others]
    answer = f"{example.sample.truth}"
    if task == "relative_position":
        letter = example.sample.truth
        (line,) = [line for line in example.prompt.splitlines() if line.startswith(f"{letter}. ")]
        facing = example.sample.params["facing"]
        answer = f"{line.partition('. ')[2]} (facing {facing})"
    page = Image.new("RGB", (WIDTH, 420), "white")
    draw = ImageDraw.Draw(page)
    draw.text((0, 0), task, fill=(20, 90, 160), font=LARGE)
    draw.text((0, 26), PUZZLES[task], fill="black", font=SMALL)
    page.paste(shown[0], (0, 54))
    top = 54 + shown[0].height + GAP // 2
    for number, image in enumerate(small):
        left = number * (side + GAP // 2)
        page.paste(image, (left, top))
        draw.text((left + side // 2 - 4, top + side + 1), "ABCD"[number], fill="black", font=SMALL)
    if small:
        top += side + 22
    for line in textwrap.wrap(f"answer: {answer}", 40):
        draw.text((0, top), line, fill=(0, 120, 60), font=SMALL)
        top += 18
    return page.crop((0, 0, WIDTH, top + 4))


def main() -> None:
    """Draw all five tasks into one picture."""
    cards = []
    for task, number in NUMBERS.items():
        mix = single_task_mix(load_task(task), source="synthetic:", size=SIZE, seed=3)
        level = next(iter(mix.tasks[task].info.levels))
        examples = (mix[index] for index in range(number * 8, len(mix)))
        cards.append(card(task, next(example for example in examples if example.recipe.level == level)))
    page = Image.new("RGB", (len(cards) * (WIDTH + GAP) + GAP, max(c.height for c in cards) + 2 * GAP), "white")
    for column, drawn in enumerate(cards):
        page.paste(drawn, (GAP + column * (WIDTH + GAP), GAP))
    page.save(Path(__file__).with_name("figure.jpg"), quality=85)


if __name__ == "__main__":
    main()
