"""Shows the answers of a pretrained model on rooms that it was not trained on, and its training curves.

    python examples/tiny_vlm/show.py examples/tiny_vlm/model --out runs/tiny_vlm

Writes ``answers.png`` (its answers on brightness, colour and depth next to the truth, and its answers to other
questions) and ``curves.png``, and prints its accuracy for each kind of question.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import matplotlib
import numpy as np
from asking import answers
from lessons import COLUMNS, LESSONS, ROWS, Lesson

from ssrl_core.sources import open_source, to_working_size

matplotlib.use("Agg")
from matplotlib import pyplot as plt

WORLD = "synthetic:?width=192&height=144&seed=3000"
MAPS = {"Brightness": "gray", "Colours": "tab10", "Depths": "viridis"}


def main() -> None:
    """Ask, draw and count."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--out", type=Path, default=Path("runs/tiny_vlm"))
    parser.add_argument("--rooms", type=int, default=100, help="number of rooms")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    asked = {
        name: [(lesson, question) for lesson in lessons(name, arguments.rooms) for question in lesson.questions]
        for name in LESSONS
    }
    written = {
        name: answers(arguments.model, [(lesson.images, question) for lesson, (question, _) in pairs], longest=40)
        for name, pairs in asked.items()
    }
    counts: dict[str, list[tuple[float, float]]] = {}
    for name, pairs in asked.items():
        for (_, (question, truth)), answer in zip(pairs, written[name], strict=True):
            parts = float(np.mean([a == b for a, b in zip(truth, answer.ljust(len(truth)), strict=False)]))
            kind = f"{name}: " + "".join(c for c in question.split("\n")[0] if not c.isdigit()).replace("  ", " ")
            for letter in "ABCD":
                kind = kind.replace(f"piece {letter} ", "piece ")
            exact = answer == truth
            counts.setdefault(kind, []).append((float(exact), parts if truth.isdigit() else float(exact)))
    shares = {
        kind: {"n": len(v), "exact": float(np.mean([e for e, _ in v])), "parts": float(np.mean([p for _, p in v]))}
        for kind, v in sorted(counts.items())
    }
    (arguments.out / "skills.json").write_text(json.dumps(shares, indent=1))
    for kind, share in shares.items():
        print(f"{kind:75} n {share['n']:4}  exact {share['exact']:.2f}  digits {share['parts']:.2f}")
    draw(arguments.out / "answers.png", asked, written)
    if (arguments.model / "curves.json").exists():
        draw_curves(arguments.out / "curves.png", json.loads((arguments.model / "curves.json").read_text())["curves"])


def lessons(name: str, count: int) -> list[Lesson]:
    """``count`` lessons of a kind; the same at every call."""
    source = open_source(WORLD)
    result = []
    for k in range(count):
        rng = np.random.default_rng(k)
        result.append(LESSONS[name](to_working_size(source.load(str(k)), 112, rng=rng), rng))
    return result


def draw(
    path: Path,
    asked: dict[str, list[tuple[Lesson, tuple[str, str]]]],
    written: dict[str, list[str]],
    *,
    rooms: int = 5,
) -> None:
    """Draw one figure: five rooms with the answers about their cells, and seven questions of each other lesson."""
    others = [name for name in asked if name != "cells"]
    figure, axes = plt.subplots(rooms + len(others), 7, figsize=(18, 2.3 * (rooms + len(others))))
    for axis in axes.flat:
        axis.axis("off")
    cells = list(zip(asked["cells"], written["cells"], strict=True))
    seen: list[Lesson] = []
    for (lesson, (question, truth)), answer in cells:
        if not any(lesson is known for known in seen):
            seen.append(lesson)
        row = len(seen) - 1
        if row >= rooms:
            break
        axes[row, 0].imshow(lesson.images[0])
        at = list(MAPS).index(question.split()[0])
        for column, text, name in ((1 + 2 * at, truth, "truth"), (2 + 2 * at, answer, "answer")):
            digits = [int(c) if c.isdigit() else 0 for c in text.ljust(ROWS * COLUMNS, "0")[: ROWS * COLUMNS]]
            axis = axes[row, column]
            axis.imshow(np.array(digits).reshape(ROWS, COLUMNS), cmap=MAPS[question.split()[0]], vmin=0, vmax=9)
            axis.set_title(f"{question.split()[0].lower()}: {name}", fontsize=8)
    for row, name in enumerate(others, start=rooms):
        for column, ((lesson, (question, truth)), answer) in enumerate(zip(asked[name], written[name], strict=True)):
            if column >= 7:
                break
            axis = axes[row, column]
            axis.imshow(lesson.images[0])
            colour = "green" if answer == truth else "red"
            axis.set_title(f"{question[:60]}\n{answer} (truth {truth})", fontsize=6, color=colour, wrap=True)
    figure.tight_layout()
    figure.savefig(path, dpi=70)
    plt.close(figure)


def draw_curves(path: Path, curves: list[dict]) -> None:
    """Draw loss and accuracy of answer tokens by lesson."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(12, 4))
    for name in ("dense", *LESSONS):
        points = [(record["step"], record["loss"][name]) for record in curves if name in record["loss"]]
        left.plot(*np.array(points).reshape(-1, 2).T, label=name, color="black" if name == "dense" else None)
    for name in curves[-1]["skills"]:
        points = [(record["step"], record["skills"][name]) for record in curves if "skills" in record]
        dense = name.startswith("dense")
        right.plot(*np.array(points).T, marker=None if dense else "o", linestyle=":" if dense else "-", label=name)
    left.set(xlabel="step", ylabel="loss", yscale="log")
    left.legend()
    right.set(xlabel="step", ylabel="share right, held-out rooms", ylim=(0, 1))
    right.legend(fontsize=8, loc="lower right")
    figure.tight_layout()
    figure.savefig(path, dpi=80)
    plt.close(figure)


if __name__ == "__main__":
    main()
