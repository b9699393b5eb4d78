"""The report of the demonstration: one self-contained HTML page with plots, a table and completions."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

from jinja2 import Environment

from ssrl_core.evaluate import Answer, Row
from ssrl_core.pages import data_url
from ssrl_core.sample import render
from ssrl_core.types import Recipe


@dataclass(frozen=True)
class RolloutRates:
    """Means over the rollouts of one step: reward, accuracy, and share of completions with the required format."""

    step: int
    reward: float
    acc: float
    format: float

    @classmethod
    def read(cls, dump: Path, step: int) -> RolloutRates:
        """Reads verl's dump of the rollouts of a step. All scores must be 0, the format weight, or 1."""
        scores = [json.loads(line)["score"] for line in dump.read_text().splitlines()]
        return cls(step, mean(scores), mean(score > 0.999 for score in scores), mean(score > 0 for score in scores))


def write_report(
    path: Path,
    summaries: dict[str, dict[str, Row]],
    rates: Sequence[RolloutRates],
    losses: Sequence[float],
    answered: Sequence[Answer],
    *,
    minutes: float,
) -> None:
    """Write the page.

    Args:
        path: of the page.
        summaries: stage (``before``, ``cold start``, ``GRPO``) -> task -> its accuracy.
        rates: of each step of GRPO.
        losses: of each step of the cold start.
        answered: the answers after GRPO; the page shows a right and a wrong one of each task.
        minutes: duration of the demonstration.
    """
    samples = []
    for task in summaries["GRPO"]:
        of_task = [answer for answer in answered if answer.task == task]
        right = [answer for answer in of_task if answer.acc]
        wrong = [answer for answer in of_task if not answer.acc]
        samples += [_sample(answer) for answer in (*right[:1], *wrong[:1])]
    template = Path(__file__).with_name("report.html.jinja").read_text(encoding="utf-8")
    page = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(template)
    path.write_text(
        page.render(summaries=summaries, curves=_curves(rates, losses), samples=samples, minutes=minutes),
        encoding="utf-8",
    )


def _sample(answer: Answer) -> dict[str, object]:
    return {
        "task": answer.task,
        "prompt": answer.prompt,
        "images": [data_url(image) for image in render(Recipe.from_json(answer.recipe)).images],
        "completion": answer.completion,
        "truth": answer.truth,
        "right": bool(answer.acc),
        "score": answer.score,
    }


def _curves(rates: Sequence[RolloutRates], losses: Sequence[float]) -> str:
    """Two plots side by side, as SVG: losses of the cold start, and rates of GRPO."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot(range(1, len(losses) + 1), losses, color="#777777")
    left.set(title="Cold start", xlabel="step", ylabel="loss", ylim=(0, None))
    steps = [rate.step for rate in rates]
    right.plot(steps, [rate.format for rate in rates], label="required format", color="#4477aa")
    right.plot(steps, [rate.acc for rate in rates], label="right answer", color="#228833")
    right.plot(steps, [rate.reward for rate in rates], label="reward", color="#cc3311", linewidth=2.2)
    right.set(title="GRPO: mean over the rollouts of a step", xlabel="step", ylim=(0, 1.02))
    right.legend(frameon=False)
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg")
    return buffer.getvalue()[buffer.getvalue().index("<svg") :]
