"""``ssrl preview``: samples as one self-contained HTML page."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import SSRLError
from ..mix import Example, Mix, SplitName, load_mix, single_task_mix
from ..pages import data_url, page
from .terminal import counted, progress_bar

_PAGE = Path(__file__).with_name("preview.html.jinja")


def open_mix(what: str, *, source: str | None, split: SplitName, samples: int) -> Mix:
    """The mix of a file; for the name of a task, a mix of all its levels in equal shares."""
    if not Path(what).suffix and not Path(what).is_file():
        return single_task_mix(what, source=source or "synthetic:", split=split, samples=samples)
    if source:
        raise SSRLError(f"--source {source}: no effect on a mix file. Write the source into {what}")
    return load_mix(what, split=split)


def write_gallery(
    examples: Iterable[Example], path: str | Path, *, title: str, rejections: Mapping[str, Mapping[str, int]]
) -> int:
    """Write the page. Returns the number of samples on it.

    Args:
        examples: in the order of the page; consumed one at a time.
        path: of the HTML file.
        title: of the page.
        rejections: task -> reason -> number of images; read after the last example.
    """
    cards = [_card(example) for example in examples]
    text = page(
        _PAGE,
        title=title,
        cards=cards,
        tasks=sorted({card["task"] for card in cards}),
        levels=sorted({card["level"] for card in cards}),
        rejections={task: reasons for task, reasons in rejections.items() if reasons},
    )
    Path(path).write_text(text, encoding="utf-8")
    return len(cards)


def _card(example: Example) -> dict[str, Any]:
    return {
        "task": example.recipe.task,
        "level": example.recipe.level,
        "index": example.recipe.index,
        "truth": example.sample.truth,
        "prompt": example.prompt,
        "recipe": example.recipe.to_json(),
        "images": [{"url": data_url(image), "size": image.size} for image in example.sample.images],
    }


def command(
    what: Annotated[str, typer.Argument(help="A mix file, or the name of a task: all its levels.")],
    samples: Annotated[int, typer.Option("-n", min=1, help="Number of samples.")] = 20,
    output: Annotated[Path, typer.Option("-o", help="The HTML file to write.")] = Path("preview.html"),
    source: Annotated[str | None, typer.Option(help="For a task: URI of the images; synthetic: by default.")] = None,
    heldout: Annotated[bool, typer.Option("--heldout", help="Show the held-out split.")] = False,
) -> None:
    mix = open_mix(what, source=source, split="heldout" if heldout else "train", samples=samples)
    total = min(samples, len(mix))
    with progress_bar() as on_progress:

        def examples() -> Iterator[Example]:
            for index in range(total):
                yield mix[index]
                on_progress(index + 1, total)

        write_gallery(examples(), output, title=f"{mix.path.name}, {mix.split}", rejections=mix.rejections)
    typer.echo(f"{total} samples -> {output}")
    for task, reasons in mix.rejections.items():
        if reasons:
            typer.echo(f"  {task}: rejected {counted(dict(reasons.most_common()))}")
