"""Whether the completions of an evaluation have the form that the mix asks for; said at once if most have not."""

from __future__ import annotations

import logging
from collections import Counter

from ..form import OPENING, Thinking, form_fault, opens_thinking
from ..reward import right_completion
from .folder import EvaluationError

logger = logging.getLogger(__name__)

FIRST = 20
"""Number of completions after which a warning is logged if more than half of them lack the form."""

REMEDY = (
    "The model must follow the mix's instruction: --thinking (or 'thinking' in the mix) asks for another form, "
    "--max-tokens allows longer completions, and a cold start (ssrl sft) teaches the form"
)


class Forms:
    """Looks at the completions as they come.

    Args:
        thinking: the mode of the mix.
        known: whether it is known what the chat template writes of a completion.
        effect: what follows for completions that lack the form, for the warning.
        remedy: what to do if most lack it.
    """

    def __init__(
        self, thinking: Thinking, *, known: bool, effect: str = " and earn nothing", remedy: str = REMEDY
    ) -> None:
        self._thinking, self._known, self._effect, self._remedy = thinking, known, effect, remedy
        self._seen = self._opened = 0
        self._faults: Counter[str] = Counter()
        self._example = self._warning = ""

    def look_at(self, name: str, completion: str, fault: str, *, opened: bool, cut: bool) -> None:
        """Count a completion, and warn if it is the last of the first ones.

        Args:
            name: of the sample or question, for the message.
            completion: as the model wrote it.
            fault: what its form lacks; empty if nothing.
            opened: whether the prompt ended with ``<think>``.
            cut: whether it was cut at the maximum length.
        """
        self._opened += opened and OPENING not in completion
        if self._seen == FIRST:
            return
        self._seen += 1
        if fault:
            self._faults["it was cut at the maximum length" if cut else fault] += 1
            self._example = self._example or f"{name}: {_shortened(completion)!r}"
        if self._seen == FIRST:
            self.warn()

    def warn(self) -> None:
        """Log a warning, once, if more than half of the first completions lack the form."""
        lacking = self._faults.total()
        if self._warning or 2 * lacking <= self._seen:
            return
        reasons = ", ".join(f"{n} x {fault}" for fault, n in self._faults.most_common())
        self._warning = (
            f"{lacking} of the first {self._seen} completions lack the required form{self._effect} (thinking: "
            f"{self._thinking}): {reasons}. For example {self._example}"
        )
        logger.warning("%s\n%s", self._warning, self._remedy)

    def notes(self) -> tuple[str, ...]:
        """Sentences for the report."""
        self.warn()
        said = [self._warning] if self._warning else []
        if self._opened and not self._known:
            said.append(
                f"{self._opened} completions have </think> but no <think>: the server's chat template was taken to end "
                "the prompt with <think>, which counts as written."
            )
            logger.warning(said[-1])
        return tuple(said)


def check_template(thinking: Thinking, written: str) -> None:
    """Raise EvaluationError if a right completion would earn nothing after what the chat template writes."""
    right = right_completion("A", thinking=thinking, written=written)
    if fault := form_fault(OPENING * opens_thinking(written) + right, thinking=thinking):
        raise EvaluationError(
            f"the model's chat template ends the prompt with {written!r}, which counts as part of the completion, so "
            f"with thinking: {thinking} every completion would earn nothing ({fault}). Choose another mode with "
            "--thinking, or set the template's switch, if it has one: --template '{\"enable_thinking\": false}'"
        )


def _shortened(completion: str, *, each: int = 150) -> str:
    """The beginning and the end of a completion."""
    return completion if len(completion) <= 2 * each else f"{completion[:each]} [...] {completion[-each:]}"
