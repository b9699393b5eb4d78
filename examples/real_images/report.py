"""Checks all tasks on real images: ``python report.py [-o FOLDER] [--frames URI] [-n SAMPLES]``.

Writes into FOLDER (``runs/real_images`` by default): the images (see ``images.py``); ``gallery.html`` with samples of
every task at every level; ``conformance.md`` and ``conformance.json`` with all results of the conformance kit. Colour
tasks use photographs. Depth tasks use the frames at URI (any ``rgbd:`` folder), or one stereo pair by default.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from images import write_photographs, write_stereo

from ssrl_core.cli.preview import write_gallery
from ssrl_core.mix import load_mix
from ssrl_core.plugins import load_task
from ssrl_core.testing import Report, check_task

TASKS = ("shuffled_patches", "flipped_patch", "cropped_patch", "rotated_view", "depth_ordering", "relative_position")


def sources(folder: Path, frames: str | None) -> dict[str, str]:
    """Task -> URI of its images."""
    write_photographs(folder / "photographs")
    write_stereo(folder / "stereo")
    depth, colour = frames or f"rgbd:{folder}/stereo", f"folder:{folder}/photographs"
    return {task: depth if load_task(task).info.needs_depth else colour for task in TASKS}


def write_mix(folder: Path, uris: dict[str, str], *, samples: int) -> Path:
    """Write a mix of all tasks at all levels in equal shares."""
    lines = [f"samples: {samples}", "heldout: {samples: 10, fraction: 0.01}", "tasks:"]
    for task, uri in uris.items():
        levels = ", ".join(f"{level}: 1" for level in load_task(task).info.levels)
        lines.append(f"  {task}: {{source: {json.dumps(uri)}, level: {{{levels}}}}}")
    path = folder / "mix.yaml"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def markdown(reports: list[Report]) -> str:
    """A table for each task: criterion, level, status, measured, bound."""
    lines = ["# Conformance on real images", ""]
    for report in reports:
        lines += [f"## {report.task} (version of the distribution: {report.version})", "", report.summary, ""]
        lines += ["| criterion | level | | measured | bound |", "|---|---|---|---|---|"]
        for check in report.checks:
            measured = check.measured or check.reason
            lines.append(f"| {check.id} | {check.level or 'all'} | {check.status} | {measured} | {check.bound} |")
        lines.append("")
    return "\n".join(lines)


def main() -> None:
    """Write everything."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--output", type=Path, default=Path("runs/real_images"))
    parser.add_argument("--frames", help="URI of RGB-D frames, e.g. rgbd:/data/kinect")
    parser.add_argument("-n", "--samples", type=int, default=1000, help="per level; the kit draws twice as many")
    parser.add_argument("--gallery", type=int, default=210, help="samples in the gallery")
    arguments = parser.parse_args()
    folder = arguments.output.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    uris = sources(folder, arguments.frames)

    mix = load_mix(write_mix(folder, uris, samples=arguments.gallery))
    examples = (mix[index] for index in range(len(mix)))
    write_gallery(examples, folder / "gallery.html", title="every task and level", rejections=mix.rejections)
    print(folder / "gallery.html", flush=True)

    reports = []
    for task, uri in uris.items():
        reports.append(check_task(task, source=uri, samples=arguments.samples))
        print(reports[-1].summary, flush=True)
        for check in reports[-1].failed:
            print(f"  {check}", flush=True)
        (folder / "conformance.md").write_text(markdown(reports), encoding="utf-8")
        (folder / "conformance.json").write_text(json.dumps([r.to_json() for r in reports], indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
