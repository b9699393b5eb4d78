"""What the demonstration says: "did it learn?", in a screen of a terminal and in the first picture of its page."""

from __future__ import annotations

import json
import random
import re
import sys
from dataclasses import asdict, replace
from itertools import count
from pathlib import Path

import pytest

from ssrl_core.evaluate import Answer
from ssrl_core.mix import load_mix

DEMO = Path(__file__).parents[1] / "examples" / "demo"
pytest.importorskip("matplotlib", reason="the 'train' extra is not installed")
TASKS = {"flipped_patch": (200, 0.125), "cropped_patch": (16, 0.25), "shuffled_patches": (16, 0.04)}


@pytest.fixture
def report(monkeypatch):
    """The module ``examples/demo/report.py``."""
    monkeypatch.syspath_prepend(str(DEMO))
    import report

    yield report
    del sys.modules["report"]


@pytest.fixture
def write_run(write_mix, tmp_path):
    """A function that writes the folder of a run, in which the first task has these accuracies in the three stages."""
    names = ", ".join(f"{task}: " for task in TASKS)
    mix = load_mix(write_mix(f'source: "synthetic:?width=192&height=144"\nsize: 112\ntasks: {{{names}}}'))
    first = {example.recipe.task: example.recipe for example in map(mix.__getitem__, range(len(TASKS)))}

    def recipe(task: str, index: int) -> str:
        """A recipe that can be rendered if it is the first one."""
        return replace(first[task], index=first[task].index + index).to_json()

    def write(*accuracies: float) -> Path:
        for stage, accuracy in zip(("before", "cold start", "GRPO"), accuracies, strict=True):
            (tmp_path / "run" / "eval" / stage).mkdir(parents=True)
            with open(tmp_path / "run" / "eval" / stage / "answers.jsonl", "w") as file:
                total = count()
                for task, (n, chance) in TASKS.items():
                    share = accuracy if n == 200 else chance
                    right = [k < round(n * share) for k in range(n)]
                    random.Random(stage).shuffle(right)
                    for index, acc in enumerate(right):
                        answer = Answer(
                            index=next(total), task=task, level="1", truth="A", params={}, wrappers=(),
                            format_weight=0.1, thinking="required", opened=False, chance=chance,
                            recipe=recipe(task, index), prompt="<image>?", completion="<think>", cut=False,
                            score=float(acc), acc=float(acc), format=1.0, error=0.0, pred="",
                        )  # fmt: skip
                        file.write(json.dumps(asdict(answer)) + "\n")
        for part in ("sft", "grpo/rollouts"):
            (tmp_path / "run" / part).mkdir(parents=True)
        (tmp_path / "run/sft/metrics.jsonl").write_text('{"step": 1, "data": {"train/loss": 2.5}}\n')
        for step in (1, 2):
            (tmp_path / f"run/grpo/rollouts/{step}.jsonl").write_text('{"score": 1.0}\n{"score": 0.1}\n')
        return tmp_path / "run"

    return write


@pytest.mark.parametrize(
    ("accuracies", "answer", "alone"),
    [
        ((0.0, 0.2, 0.4), "Yes: after training the model is right in 0.40 of", "a significant gain (p = 3.7e-05"),
        ((0.0, 0.3, 0.3), "Yes: after training the model is right in 0.30 of", "by itself (p = 1, and 1 corrected"),
        ((0.0, 0.125, 0.125), "Not shown: after training the model is right in 0.12 of", "not significant by itself"),
        ((0.0, 0.5, 0.125), "Not shown: after training the model is right in 0.12 of", "a significant loss (p = "),
    ],
)
def test_the_answer_depends_on_chance_and_grpo_alone_on_the_cold_start(report, write_run, accuracies, answer, alone):
    found = report.Found.read(write_run(*accuracies), minutes=1, cpu=1)
    first, second, third = report.learned(found)
    assert first.startswith(answer) and "chance is 0.12" in first
    assert f"was 0.00, after it {accuracies[1]:.2f}. GRPO alone: {accuracies[2] - accuracies[1]:+.3f} [" in second
    assert alone in second
    assert third == "The other tasks have 16 to 16 samples each: none is above chance beyond doubt."


def test_the_table_fits_a_terminal_and_has_the_task_with_most_samples_first(report, write_run):
    header, *rows = report.lines(report.Found.read(write_run(0.0, 0.2, 0.4), minutes=1, cpu=1)).splitlines()
    assert [row.split()[0] for row in rows] == ["flipped_patch", "cropped_patch", "shuffled_patches"]
    assert rows[0].split() == ["flipped_patch", "200", "0.12", "0.00", "0.20", "0.40", "[0.33,", "0.47]", "above"]
    assert max(map(len, (header, *rows))) <= 80


def test_the_first_picture_of_the_page_shows_accuracies_intervals_and_chance_of_each_task(report, write_run):
    folder = write_run(0.0, 0.2, 0.4)
    found = report.finish(folder, minutes=3.0, cpu=2.0, seed=1)
    page = (folder / "report.html").read_text()
    assert page.index("<h1>Did it learn?</h1>") < page.index("Yes: after training") < page.index("<svg")
    first = page[page.index("<figure") : page.index("</figure>")]
    assert 'class="main"' in first and page.count("<figure") == len(TASKS)
    bars = [float(width) for width in re.findall(r'<rect x="76" y="\d+" width="([\d.]+)"', first)]
    assert bars == [1.0, 40.0, 80.0]  # at least one pixel; 200 pixels are 1
    row = found.stages["GRPO"]["flipped_patch"]
    assert f"M{76 + 200 * row.low:.1f} 74H{76 + 200 * row.high:.1f}" in first  # the interval
    assert f"M{76 + 200 * 0.125:.1f} 2V92" in first and "chance 0.12" in first
    assert not re.search(r"""(src|href)=["'](?!data:|#)""", page)  # self-contained
    results = json.loads((folder / "results.json").read_text())
    assert results["learned"] == report.learned(found) and results["cpu_minutes"] == 2.0


def test_the_page_can_be_written_again_from_the_folder(report, write_run, monkeypatch, capsys):
    folder = write_run(0.0, 0.2, 0.4)
    report.finish(folder, minutes=3.0, cpu=2.0, seed=1)
    (folder / "report.html").unlink()
    monkeypatch.setattr(sys, "argv", ["report.py", str(folder)])
    report.main()
    assert "Yes: after training" in capsys.readouterr().out
    assert "2.0 minutes of CPU time" in (folder / "report.html").read_text()
