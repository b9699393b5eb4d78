"""Call a function that may never come back.

Python cannot end a thread. A call that exceeds its limit is therefore left behind in its daemon thread, which holds up
neither the caller nor the end of the process, and counts as stuck until it comes back after all.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from typing import Any, NamedTuple

MOST_STUCK = 3
"""Calls of one owner that may be stuck at a time before the owner is not called any more."""


class TimeLimitExceeded(Exception):
    """A call did not come back within its limit."""


class TooManyStuck(TimeLimitExceeded):
    """A call was not made, since too many earlier ones have not come back."""


class Outcome(NamedTuple):
    """What a call returned, or the error that it raised."""

    result: Any
    error: BaseException | None = None


class _Calls:
    """Calls one after the other, handed from thread to thread; lighter than Futures, which would double what they cost.

    Attributes:
        outcomes: of those that have come back.
        left: the caller waits no more; what has not begun is not begun.
    """

    __slots__ = ("back", "done", "functions", "left", "outcomes", "stuck")

    def __init__(self, functions: Sequence[Callable[[], Any]], stuck: set[_Calls]) -> None:
        self.functions, self.stuck = functions, stuck
        self.back = threading.Lock()
        self.back.acquire()
        self.done = self.left = False
        self.outcomes: list[Outcome] = []


_idle: list[SimpleQueue[_Calls]] = []
_stuck: dict[str, set[_Calls]] = {}
for _threads in (_idle, _stuck):  # a child process has none of its parent's threads
    os.register_at_fork(after_in_child=_threads.clear)


def call_within(seconds: float, function: Callable[[], Any], *, owner: str) -> Any:
    """What the function returns or raises. Raises TimeLimitExceeded or TooManyStuck.

    Args:
        seconds: the limit, of which a time for which the whole process was stopped counts as a tenth at most. It cannot
            interrupt C code that holds the interpreter, such as a regular expression that backtracks without end.
        function: is called in another thread.
        owner: whom to hold responsible: while ``MOST_STUCK`` of its calls are stuck, every other one fails at once.
    """
    (outcome,) = call_all_within(seconds, [function], owner=owner)
    if outcome.error is None:
        return outcome.result
    try:
        raise outcome.error
    finally:
        del outcome  # else the error, through its traceback, would hold itself and what the function had in its hands


def call_all_within(seconds: float, functions: Sequence[Callable[[], Any]], *, owner: str) -> list[Outcome]:
    """What each function returns or raises, in their order; see ``call_within``, whose limit is that of each.

    Many calls at once share the cost of going to another thread and back, which is more than that of a short call.
    """
    stuck = _stuck.setdefault(owner, set())
    outcomes: list[Outcome] = []
    while len(outcomes) < len(functions):
        if len(stuck) >= MOST_STUCK:
            refusal = TooManyStuck(f"is not called any more: {len(stuck)} earlier calls have not come back")
            return outcomes + [Outcome(None, refusal)] * (len(functions) - len(outcomes))
        calls = _Calls(functions[len(outcomes) :], stuck)
        try:
            inbox = _idle.pop()
        except IndexError:
            inbox = _start()
        inbox.put(calls)
        outcomes += _come_back(calls, seconds)
    return outcomes


def _come_back(calls: _Calls, seconds: float) -> list[Outcome]:
    """The outcomes of all, or up to the first that exceeds its limit: it is left to its thread, and the rest undone."""
    turns, seen = 0, 0
    # In turns: a process that was stopped in the terminal for an hour has waited for one of them only.
    while not calls.back.acquire(timeout=seconds / 10):
        turns, seen = (turns + 1, seen) if len(calls.outcomes) == seen else (0, len(calls.outcomes))
        if turns == 10:
            calls.left = True
            calls.stuck.add(calls)
            back = calls.outcomes[:]
            if calls.done:
                calls.stuck.discard(calls)
            elif len(back) == seen:
                back.append(Outcome(None, TimeLimitExceeded(f"has not come back within {seconds:g} s")))
            return back
    return calls.outcomes


def _start() -> SimpleQueue[_Calls]:
    inbox: SimpleQueue[_Calls] = SimpleQueue()
    threading.Thread(target=_serve, args=(inbox,), daemon=True, name="ssrl-time-limit").start()
    return inbox


def _serve(inbox: SimpleQueue[_Calls]) -> None:
    while True:
        _run(calls := inbox.get())
        calls.done = True  # before the discard, after which the caller may still add it
        calls.stuck.discard(calls)
        _idle.append(inbox)
        calls.back.release()
        del calls


def _run(calls: _Calls) -> None:
    for function in calls.functions:
        if calls.left:
            return
        try:
            calls.outcomes.append(Outcome(function()))
        except BaseException as err:
            calls.outcomes.append(Outcome(None, err))
