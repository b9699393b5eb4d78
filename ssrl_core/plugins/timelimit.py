"""Call a function that may never come back.

Python cannot end a thread. A call that exceeds its limit is therefore left behind in its daemon thread, which holds up
neither the caller nor the end of the process, and counts as stuck until it comes back after all.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence
from operator import sub
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
    """What the function returns or raises.

    Args:
        seconds: the limit. Of a time for which the whole process was stopped, a tenth of the limit counts at most.
        function: is called in another thread. C code that holds the interpreter, such as a regular expression that
            backtracks, cannot be interrupted.
        owner: whom to hold responsible: while ``MOST_STUCK`` of its calls are stuck, every other one fails at once.

    Raises:
        TimeLimitExceeded, TooManyStuck: see there.
    """
    outcomes, _ = call_all_within(seconds, [function], owner=owner)
    if not outcomes:
        raise TooManyStuck(f"is not called any more: {MOST_STUCK} earlier calls have not come back")
    outcome = outcomes.pop()
    if outcome.error is None:
        return outcome.result
    try:
        raise outcome.error
    finally:
        del outcome  # else the error, through its traceback, would hold itself and what the function had in its hands


def call_all_within(
    seconds: float, functions: Sequence[Callable[[], Any]], *, owner: str
) -> tuple[list[Outcome], bool]:
    """What each function returns or raises, and whether one of them exceeded the limit; see ``call_within``.

    The outcomes end with the first call that has not come back. The flag is also true if a call came back after it had
    held the interpreter for longer than the limit; and if none was made since too many earlier ones are stuck. Many
    calls at once share the cost of going to another thread and back, which is more than that of a short call.
    """
    stuck = _stuck.setdefault(owner, set())
    if len(stuck) >= MOST_STUCK:
        return [], True
    calls = _Calls(functions, stuck)
    try:
        inbox = _idle.pop()
    except IndexError:
        inbox = _start()
    clocks = time.monotonic(), time.process_time()
    inbox.put(calls)
    turns, seen, held = 0, 0, False
    # In turns: a process that was stopped in the terminal for an hour has waited for one of them only.
    while not calls.back.acquire(timeout=seconds / 10):
        # This thread could not run and the process was busy, so that it was not stopped: the interpreter was held.
        before, clocks = clocks, (time.monotonic(), time.process_time())
        held = held or min(map(sub, clocks, before)) > seconds
        turns, seen = (turns + 1, seen) if len(calls.outcomes) == seen else (0, len(calls.outcomes))
        if turns == 10:
            calls.left = True
            calls.stuck.add(calls)
            outcomes = calls.outcomes[:]
            if calls.done:
                calls.stuck.discard(calls)
            elif len(outcomes) == seen:
                outcomes.append(Outcome(None, TimeLimitExceeded(f"has not come back within {seconds:g} s")))
            return outcomes, True
    return calls.outcomes, held


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
