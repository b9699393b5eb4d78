"""What a server of chat completions has answered: a completion, or the reason why there is none.

Servers differ in where they put the thinking, in how they say that a generation failed, and in the form of their
errors. No form of a response may count as a wrong answer of the model if the model did not answer.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from ..form import CLOSING, OPENING
from .models import Failed, Written

LONGEST_REASON = 300
"""Characters of a reason."""

_NONE = "an answer that is no chat completion"

_CUT = {"length", "max_tokens", "model_length", "max_length", "max_output_tokens", "max_completion_tokens"}
_FAILED = {
    "error",
    "abort",
    "aborted",
    "cancelled",
    "canceled",
    "network_error",
    "timeout",
    "insufficient_system_resource",
}
_WITHHELD = {
    "content_filter",
    "refusal",
    "safety",
    "recitation",
    "blocklist",
    "prohibited_content",
    "spii",
    "sensitive",
}
_THINKING = ("reasoning_content", "reasoning", "thinking", "reasoning_details")
_WORDS = ("message", "error", "errors", "detail", "msg", "description", "reason", "title", "text", "code", "type")


def read_response(text: str, *, opened: bool | None = None) -> Written | Failed:
    """The completion in the body of a response with status 200, or the reason why there is none.

    Args:
        text: the body.
        opened: whether the model's chat template ends the prompt with ``<think>``; None if that is not known.
    """
    try:
        body = json.loads(text)
    except ValueError:
        what = "a stream of events" if text.lstrip().startswith(("data:", "event:")) else "not JSON"
        return Failed(f"{_NONE}: {what}: {words_of(text)}" if text.strip() else f"{_NONE}: an empty body")
    if not isinstance(body, dict):
        return Failed(f"{_NONE}: {words_of(text)}")
    choices = body.get("choices")
    if body.get("error") or body.get("object") == "error" or ("choices" not in body and words_of(body)):
        return _error(body.get("error") or body)
    choice = choices[0] if isinstance(choices, list) and choices else None
    message = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(choice, dict) or not isinstance(message, dict):
        return Failed(f"{_NONE}: it has no message in choices[0]")
    if choice.get("error") or message.get("error"):
        return _error(choice.get("error") or message.get("error"))
    ending = str(choice.get("finish_reason") or "").lower()
    if ending in _FAILED:
        return Failed(f"the generation failed: finish_reason {ending!r}", again=True)
    if ending in _WITHHELD:
        return Failed(f"the server withheld the answer: finish_reason {ending!r}")
    if message.get("refusal"):
        return Failed(f"the model refused: {words_of(message['refusal'])}")
    try:
        completion = _completion(message)
    except ValueError as err:
        return Failed(f"an answer that is no text: {err}")
    cut = ending in _CUT
    if not completion and not cut and (message.get("content") is None or message.get("tool_calls")):
        called = "a tool call" if message.get("tool_calls") or message.get("function_call") else "no content"
        return Failed(f"an answer that is no text: {called} (finish_reason {ending!r})")
    return Written(completion, cut, opened=opened)


def _error(error: Any) -> Failed:
    """An error inside a response with status 200. Asked again unless its code says that this is useless."""
    code = error.get("code", error.get("status")) if isinstance(error, dict) else None
    status = int(str(code)) if re.fullmatch(r"[1-9]\d\d", str(code), re.ASCII) else 0
    useless = 400 <= status < 500 and status not in (408, 409, 429)
    named = f" {status}" if status else ""
    return Failed(f"an error{named} in a response with status 200: {words_of(error)}", again=not useless)


def _completion(message: Mapping[str, Any]) -> str:
    """The text of a message with its thinking in one pair of tags. Raises ValueError for content of another kind."""
    content, thoughts = _parts(message.get("content"))
    thought = "".join(thoughts) or next((text for key in _THINKING if (text := _thought(message.get(key)))), "")
    before, closing, after = content.partition(CLOSING)
    if (closing and before.replace(OPENING, "").strip()) or (OPENING in before and not closing):
        return content  # the thinking is in the text, and again beside it
    if CLOSING in thought.rstrip().removesuffix(CLOSING) and not content.strip():
        return thought  # all of the completion is in the thinking
    thought = thought.replace(OPENING, "").replace(CLOSING, "")
    if not thought.strip():
        return content
    rest = after if closing else content
    return f"{OPENING}{thought}{CLOSING}{rest}" if rest.strip() else f"{OPENING}{thought}"


def _parts(content: Any) -> tuple[str, list[str]]:
    """The text and the thoughts of a message's content."""
    if content is None or isinstance(content, str):
        return content or "", []
    if not isinstance(content, list):
        raise ValueError(f"its content is {type(content).__name__}")
    texts, thoughts = [], []
    for part in content:
        kind = part.get("type", "text") if isinstance(part, dict) else "text"
        if isinstance(part, str):
            texts.append(part)
        elif isinstance(part, dict) and kind in ("text", "output_text") and isinstance(part.get("text"), str):
            texts.append(part["text"])
        elif isinstance(part, dict) and kind in ("thinking", "reasoning", "reasoning_text", "reasoning.text"):
            thoughts.append(_thought(part.get("thinking", part.get("reasoning", part.get("text")))))
        else:
            raise ValueError(f"its content has a part of type {kind!r:.60}")
    return "".join(texts), thoughts


def _thought(value: Any) -> str:
    """The text of thinking: a text, a part with a text, or a list of them."""
    if isinstance(value, list):
        return "".join(map(_thought, value))
    if isinstance(value, dict):
        return next(
            (text for key in ("text", "content", "thinking", "summary") if (text := _thought(value.get(key)))), ""
        )
    return value if isinstance(value, str) else ""


def words_of(body: Any) -> str:
    """What a body of any form says about an error, in one line of limited length."""
    return " ".join(_words(body).split())[:LONGEST_REASON]


def _words(body: Any) -> str:
    if isinstance(body, str):
        title = re.search(r"<title[^>]*>(.*?)</title>", body, re.DOTALL | re.IGNORECASE)
        return title[1] if title else re.sub(r"<[^<>]{1,200}>", " ", body[:2000]) if body.lstrip()[:1] == "<" else body
    if isinstance(body, list):
        return "; ".join(filter(None, map(_words, body[:3])))
    if isinstance(body, dict):
        said = next((text for key in _WORDS if (text := _words(body.get(key)))), "")
        place = ".".join(map(str, body["loc"])) if isinstance(body.get("loc"), list) else ""
        further = body.get("metadata")
        raw = _words(further.get("raw")) if isinstance(further, dict) else ""
        return ": ".join(filter(None, (place, said, raw)))
    return "" if body is None or isinstance(body, bool) else str(body)
