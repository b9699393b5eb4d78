"""Pictures of the samples that show why a task fails, for ``ssrl check --failures``."""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ..errors import SourceRejected, SSRLError
from ..plugins import load_task
from ..sources.scenes import Frames
from ..types import SourceFrames, SourceImage
from .images import hard_image
from .report import Case, Check, Report
from .samples import Made, Plan, make, make_on

SMALL = 96
"""Pixels: smaller pictures are enlarged to at least this side, by whole factors."""

_GAP, _TEXT = 12, 14
_FRAME = (220, 30, 30)


def write_failures(report: Report, folder: Path, *, options: Mapping[str, Any]) -> int:
    """Write the samples that the failed checks of a report name into a folder for each check. Returns their number.

    ``NN.png`` shows the pictures of a sample, those that were compared in a red frame, with note, truth and prompt;
    ``NN-source.png`` is the image that it was made of; ``NN.json`` says how to make it again. If the task fails on the
    image, only the image is written.

    Args:
        report: from ``check_task``.
        folder: is made if it does not exist; files of the same names are replaced.
        options: of the task, as for ``check_task``.
    """
    written = 0
    for check in report.failed:
        for number, case in enumerate(check.cases):
            name = re.sub(r"[^\w.@-]+", "-", f"{check.id}@{check.level}" if check.level else check.id)
            place = folder / name
            place.mkdir(parents=True, exist_ok=True)
            _write(place, f"{number:02d}", report, check, case, options)
            written += 1
    return written


def _write(place: Path, name: str, report: Report, check: Check, case: Case, options: Mapping[str, Any]) -> None:
    level = check.level or next(iter(load_task(report.task).info.levels))
    plan = Plan(report.task, level, dict(options), report.source, report.size, report.seed)
    if case.oriented:
        plan = plan.as_oriented()
    info = load_task(report.task).info
    image = hard_image(case.image, plan.size, info) if case.image else None
    facts: dict[str, Any] = {"criterion": check.id, "measured": check.measured, **asdict(case), "plan": asdict(plan)}
    call = "make_on(plan, hard_image(...), index)" if image else "make(plan, index)"
    facts["again"] = f"ssrl_core.testing.samples.{call}"
    try:
        made = make_on(plan, image, case.index) if image else make(plan, case.index)
    except (SSRLError, SourceRejected) as err:
        facts["error"] = str(err)
    else:
        facts |= {"truth": made.sample.truth, "params": dict(made.sample.params), "prompt": made.prompt}
        picture(made, f"{check.id}: {case.note}", case.pictures).save(place / f"{name}.png")
        image = made.source
    if image is not None:
        Image.fromarray(_source(image)).save(place / f"{name}-source.png")
    (place / f"{name}.json").write_text(json.dumps(facts, indent=1, default=str), encoding="utf-8")


def _source(image: SourceImage | SourceFrames) -> np.ndarray:
    """The pixels of an image, or side by side those of the frames that a task has read, else of the first ones."""
    if isinstance(image, SourceImage):
        return image.rgb
    known = sorted(image.read.known) if isinstance(image.read, Frames) else range(min(8, len(image)))
    return np.hstack([frame.rgb for frame in image.read(known)])


def picture(made: Made, note: str, marked: tuple[int, ...] = ()) -> Image.Image:
    """The pictures of a sample side by side over its truth and prompt, those of the numbers ``marked`` in a frame."""
    font = ImageFont.load_default(size=_TEXT)
    shown = [_enlarged(image) for image in made.sample.images]
    width = max(640, sum(image.width + _GAP for image in shown) + _GAP)
    texts = [note, f"truth: {made.sample.truth}", *made.prompt.splitlines()]
    lines = [line for text in texts for line in textwrap.wrap(text, width // (_TEXT // 2)) or [""]]
    top = _TEXT + 2 * _GAP
    height = top + max(image.height for image in shown) + _GAP
    page = Image.new("RGB", (width, height + len(lines) * (_TEXT + 4) + _GAP), "white")
    draw = ImageDraw.Draw(page)
    left = _GAP
    for number, (image, original) in enumerate(zip(shown, made.sample.images, strict=True)):
        label = f"picture {number + 1}"
        if image.size != original.size:
            label += f", x {image.width // original.width}"
        draw.text((left, _GAP), label, fill=_FRAME if number in marked else (0, 0, 0), font=font)
        page.paste(image, (left, top))
        if number in marked:
            draw.rectangle((left - 4, top - 4, left + image.width + 3, top + image.height + 3), outline=_FRAME, width=3)
        left += image.width + _GAP
    for row, line in enumerate(lines):
        draw.text((_GAP, height + row * (_TEXT + 4)), line, fill=(0, 0, 0), font=font)
    return page


def _enlarged(image: Image.Image) -> Image.Image:
    factor = -(-SMALL // min(image.size))
    return (
        image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST) if factor > 1 else image
    )
