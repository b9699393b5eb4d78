"""Solvability: somebody who sees what the model sees can answer."""

from __future__ import annotations

from ..answers import normalize
from .criteria import Family, NotRun, Trial
from .relations import best_outcomes
from .report import CASES, Case, Outcome

family = Family("solvable")

SOLVED = 0.9
"""The share of samples that ``solve_seen`` must answer right."""


@family("seen", f"a solver that sees what the model sees answers at least {SOLVED:.0%} of the samples")
def seen(trial: Trial) -> Outcome:
    """Compares the truth with the answer of the author's ``solve_seen``."""
    if trial.solve_seen is None:
        raise NotRun("no solver: override solve_seen(sample) in a subclass of PretextTaskTests, or try --quiz")
    wrong = []
    for made in trial.few:
        said = trial.solve_seen(made.sample)
        if normalize(said) != normalize(made.sample.truth):
            wrong.append(Case(made.index, note=f"the solver says {said!r} instead of {made.sample.truth!r}"))
    share = 1 - len(wrong) / len(trial.few)
    return Outcome(
        share >= SOLVED,
        f"{share:.3f} of {len(trial.few)} samples"
        + (f", e.g. sample {wrong[0].index}: {wrong[0].note}" if wrong else ""),
        f"at least {SOLVED}",
        figures={"share": share, "samples": len(trial.few)},
        remedy="reject images that do not show the answer, or improve the solver",
        cases=wrong[:CASES],
    )


@family("rule of thumb", "for information: what the best of the cheap rules reaches")
def rule_of_thumb(trial: Trial) -> Outcome:
    """The best outcome of all ``relations``. At chance, nobody knows yet whether the pictures show the answer."""
    outcomes = best_outcomes(trial)
    if not outcomes:
        raise NotRun("no relation could be measured")
    best = max(outcomes, key=lambda outcome: outcome.figures["accuracy"] - outcome.figures["chance"])
    return Outcome(True, best.measured, f"none; chance {best.figures['chance']:.3f}", figures=best.figures)
