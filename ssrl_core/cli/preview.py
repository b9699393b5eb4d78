"""``ssrl preview``: samples as one self-contained HTML page, or as a quiz."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import SSRLError
from ..mix import Example, Mix, SplitName
from ..pages import page, question_of
from .terminal import counted, progress_bar
from .what import Seed, Size, Source, What, open_mix

_PAGE = Path(__file__).with_name("preview.html.jinja")


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
        "question": question_of(example.prompt, example.sample.images),
        "recipe": example.recipe.to_json(),
    }


def command(
    what: What,
    samples: Annotated[int | None, typer.Option("-n", min=1, help="Number of samples; 20 by default.")] = None,
    output: Annotated[
        Path | None,
        typer.Option("-o", help="The file to write; preview.html by default, and quiz-NAME.md of a quiz."),
    ] = None,
    source: Source = None,
    size: Size = None,
    seed: Seed = None,
    heldout: Annotated[bool, typer.Option("--heldout", help="Show the held-out split.")] = False,
    quiz: Annotated[
        int | None,
        typer.Option(min=1, help="Ask a person this number of questions in a browser, and write the share right."),
    ] = None,
    port: Annotated[int | None, typer.Option(min=0, max=65535, help="With --quiz: of its page; a free one.")] = None,
) -> None:
    if quiz is None and port is not None:
        raise typer.BadParameter("this is the port of a quiz: add --quiz N", param_hint="--port")
    if quiz is not None and samples is not None:
        raise typer.BadParameter("--quiz says the number of questions: leave out -n", param_hint="-n")
    split: SplitName = "heldout" if heldout else "train"
    count = quiz or samples or 20
    mix = open_mix(what, split=split, samples=None if quiz else count, source=source, size=size, seed=seed)
    if quiz:
        ask(mix, quiz, output or Path(f"quiz-{mix.path.stem}.md"), port=port or 0)
        return
    path, indices = output or Path("preview.html"), range(min(count, len(mix)))
    title = f"{mix.path.name}, {mix.split}"
    write_gallery(make(mix, indices), path, title=title, rejections=mix.rejections)
    typer.echo(f"{len(indices)} samples -> {path}")
    for task, reasons in mix.rejections.items():
        if reasons:
            typer.echo(f"  {task}: rejected {counted(dict(reasons.most_common()))}")


def make(mix: Mix, indices: Sequence[int]) -> Iterator[Example]:
    """The examples of a mix at the indices, with a progress bar."""
    with progress_bar() as on_progress:
        for done, index in enumerate(indices, start=1):
            yield mix[index]
            on_progress(done, len(indices))


def ask(mix: Mix, count: int, path: Path, *, port: int) -> None:
    """Ask a person so many samples of a mix, until all are answered or Ctrl-C is pressed; see ``quiz``.

    Raises:
        SSRLError: the file exists or cannot be written, SciPy is missing, or the port cannot be used.
        PluginError, SourceError: a sample cannot be made.
    """
    if path.exists():
        raise SSRLError(f"{path} exists, and answers of a person are not overwritten. Give another file with -o")
    if not path.absolute().parent.is_dir():
        raise SSRLError(f"{path}: there is no folder {path.parent}. Make it, or give another file with -o")
    if not find_spec("scipy"):
        raise SSRLError("the intervals of a quiz need SciPy, which is not installed: pip install 'ssrl-core[eval]'")
    from .quiz import Quiz, QuizServer, choose

    quiz = Quiz(mix, list(make(mix, choose(mix, count))), path.absolute())
    with QuizServer(quiz, port=port) as server:
        typer.echo(f"{len(quiz.examples)} questions: open {server.url} in a browser. Ctrl-C ends the quiz")
        with suppress(KeyboardInterrupt):
            server.serve_forever()
    if quiz.answers:
        typer.echo(f"{quiz.report()}\n{len(quiz.answers)} answers -> {path}")
    else:
        typer.echo("no question was answered; no file was written")
