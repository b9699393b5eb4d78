"""The form of completions under a model's own chat template: a run that could only earn zero does not start."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from ..errors import RecipeError
from ..form import opens_thinking
from ..mix import Example, MixConfig
from ..models.loading import ModelError, written
from ..models.tokens import user_message
from ..reward import Key, fault_of, right_completion, score


class Turn(NamedTuple):
    """What a chat template writes around a completion.

    Attributes:
        start: from the end of the user's message to the completion.
        written: the part of ``start`` that belongs to the completion; see ``models.loading.written``.
        end: what follows the completion, e.g. ``<|im_end|>``.
    """

    start: str
    written: str
    end: str


def turn_of(template: Any, settings: Mapping[str, Any] | None = None) -> Turn:
    """The turn of the model.

    Args:
        template: a processor or tokenizer with a chat template.
        settings: arguments of the template (``data.apply_chat_template_kwargs``).

    Raises:
        ModelError: the template fails, or leaves out what the model says.
    """
    begun, mark = written(template, settings=settings), "ANSWER"
    user = user_message("Hello.", lambda number: {"type": "image"})
    said = {"role": "assistant", "content": [{"type": "text", "text": mark}]}

    def rendered(messages: list[dict[str, Any]], *, generation: bool) -> str:
        text = template.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=generation, **dict(settings or {})
        )
        return str(text)

    _, found, end = rendered([user, said], generation=False).rpartition(mark)
    asked, whole = rendered([user], generation=False), rendered([user], generation=True)
    if not found or not whole.startswith(asked):
        raise ModelError(
            "a cold start cannot use the model's chat template: it leaves out what the assistant says, or shows the "
            "user's message in another way when a completion follows. Set another one in model.custom_chat_template"
        )
    return Turn(whole.removeprefix(asked), begun, end)


def check_form(
    example: Example, config: MixConfig, template: Any, begun: str, *, completion: str | None = None
) -> None:
    """Raise RecipeError if a right completion would not earn the whole reward.

    The completion takes the way of a rollout: into tokens, and back into text as verl decodes it.

    Args:
        example: of the mix.
        config: content of the mix.
        template: a processor or tokenizer.
        begun: what the chat template has written of the completion; see ``models.loading.written``.
        completion: see ``template`` of ``right_completion``.
    """
    tokenizer = getattr(template, "tokenizer", template)
    right = right_completion(example.sample.truth, thinking=config.thinking, written=begun, template=completion)
    decoded = tokenizer.decode(tokenizer(right, add_special_tokens=False)["input_ids"], skip_special_tokens=True)
    key = Key.of(example, format_weight=config.format_weight, thinking=config.thinking, opened=opens_thinking(begun))
    reward = score(key, decoded)["score"]
    if reward == 1.0:
        return
    if begun:
        remedy = (
            f"The model's chat template ends the prompt with {begun!r}, which counts as part of the completion. Set "
            "'thinking' in the mix; or data.apply_chat_template_kwargs.enable_thinking, if the template has this "
            "switch; or another template in model.custom_chat_template"
        )
    else:
        remedy = "Set 'thinking: none' in the mix, or use a tokenizer that keeps <think> and </think>"
    lost = "" if decoded == right else f" verl decodes it as {decoded!r}, without special tokens."
    raise RecipeError(
        f"a right completion would earn {reward:g} instead of 1 with this model and mix, so training could not work. "
        f"{right!r}: {fault_of(key, decoded) or 'not the right answer'} (thinking: {config.thinking}).{lost} {remedy}"
    )
