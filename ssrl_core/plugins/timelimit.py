"""Calls with a time limit, in threads.

Python cannot end a thread. A call that exceeds its limit stays in its daemon thread, which delays neither the caller
nor the end of the process. The call counts as stuck until it returns.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from typing import Any, NamedTuple

MOST_STUCK = 3
"""Number of stuck calls of one owner from which on the owner is not called any more."""


class TimeLimitExceeded(Exception):
    """A call did not return within its limit."""


class TooManyStuck(TimeLimitExceeded):
    """A call was not made, because too many earlier calls have not returned."""


class Outcome(NamedTuple):
    """What a call returned, or the error that it raised."""

    result: Any
    error: BaseException | None = None


class _Calls:
    """Calls that one thread makes one after the other. A Future for each call would double the overhead.

    Attributes:
        back: a lock that is held until all calls have returned.
        done: whether all calls have returned.
        left: whether the caller has stopped waiting, so that no further call is started.
        outcomes: of the calls that have returned.
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
for _threads in (_idle, _stuck):  # a forked process has no threads of its parent
    os.register_at_fork(after_in_child=_threads.clear)


def call_within(seconds: float, function: Callable[[], Any], *, owner: str) -> Any:
    """What the function returns or raises.

    Args:
        seconds: the limit. Of a time for which the whole process was stopped, a tenth of the limit counts at most.
        function: is called in another thread. C code that holds the interpreter, such as a regular expression that
            backtracks, cannot be interrupted.
        owner: name of the responsible plugin. While ``MOST_STUCK`` of its calls are stuck, further calls fail at once.

    Raises:
        TimeLimitExceeded, TooManyStuck: see there.
    """
    outcomes, _ = call_all_within(seconds, [function], owner=owner)
    if not outcomes:
        raise TooManyStuck(f"is not called any more: {MOST_STUCK} earlier calls have not returned")
    outcome = outcomes.pop()
    if outcome.error is None:
        return outcome.result
    try:
        raise outcome.error
    finally:
        del outcome  # else the traceback of the error would refer to the error, and keep the function's objects alive


def call_all_within(
    seconds: float, functions: Sequence[Callable[[], Any]], *, owner: str
) -> tuple[list[Outcome], bool]:
    """What each function returns or raises, and whether a call exceeded the limit; see ``call_within``.

    The outcomes end with the first call that has not returned. The flag is also true if this thread could not run for
    longer than the limit, because a call held the interpreter or the process was stopped; and if no call was made
    because too many are stuck. A batch shares the cost of changing threads, which exceeds that of a short call.
    """
    stuck = _stuck.setdefault(owner, set())
    if len(stuck) >= MOST_STUCK:
        return [], True
    calls = _Calls(functions, stuck)
    try:
        inbox = _idle.pop()
    except IndexError:
        inbox = _start()
    turns, seen, held, clock = 0, 0, False, time.monotonic()
    inbox.put(calls)
    # Ten turns: however long a process is stopped, that is one turn.
    while not calls.back.acquire(timeout=seconds / 10):
        before, clock = clock, time.monotonic()
        held = held or clock - before > seconds
        turns, seen = (turns + 1, seen) if len(calls.outcomes) == seen else (0, len(calls.outcomes))
        if turns == 10:
            calls.left = True
            calls.stuck.add(calls)
            outcomes = calls.outcomes[:]
            if calls.done:
                calls.stuck.discard(calls)
            elif len(outcomes) == seen:
                outcomes.append(Outcome(None, TimeLimitExceeded(f"did not return within {seconds:g} s")))
            return outcomes, True
    return calls.outcomes, held


def _start() -> SimpleQueue[_Calls]:
    inbox: SimpleQueue[_Calls] = SimpleQueue()
    threading.Thread(target=_serve, args=(inbox,), daemon=True, name="ssrl-time-limit").start()
    return inbox


def _serve(inbox: SimpleQueue[_Calls]) -> None:
    while True:
        _run(calls := inbox.get())
        calls.done = True  # before the discard, because the caller may add the calls after it
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
