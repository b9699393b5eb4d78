"""Call a function that may never come back.

Python cannot end a thread. A call that exceeds its limit is therefore left behind in its daemon thread, which holds up
neither the caller nor the end of the process, and counts as stuck until it comes back after all.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

MOST_STUCK = 3
"""Calls of one owner that may be stuck at a time before the owner is not called any more."""


class TimeLimitExceeded(Exception):
    """A call did not come back within its limit."""


class TooManyStuck(TimeLimitExceeded):
    """A call was not made, since too many earlier ones have not come back."""


class _Call:
    """One call, handed from thread to thread; lighter than a Future, which would double what a call costs."""

    __slots__ = ("back", "done", "error", "function", "result", "stuck")

    def __init__(self, function: Callable[[], Any], stuck: set[_Call]) -> None:
        self.function, self.stuck = function, stuck
        self.back = threading.Lock()
        self.back.acquire()
        self.done = False
        self.result: Any = None
        self.error: BaseException | None = None


_idle: list[SimpleQueue[_Call]] = []
_stuck: dict[str, set[_Call]] = {}
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
    stuck = _stuck.setdefault(owner, set())
    if len(stuck) >= MOST_STUCK:
        raise TooManyStuck(f"is not called any more: {len(stuck)} earlier calls have not come back")
    call = _Call(function, stuck)
    try:
        inbox = _idle.pop()
    except IndexError:
        inbox = _start()
    inbox.put(call)
    # In turns: a process that was stopped in the terminal for an hour has waited for one of them only.
    if not any(call.back.acquire(timeout=seconds / 10) for _ in range(10)):
        stuck.add(call)
        if not call.done:
            raise TimeLimitExceeded(f"has not come back within {seconds:g} s")
        stuck.discard(call)
    if call.error is None:
        return call.result
    try:
        raise call.error
    finally:
        del call  # else the error, through its traceback, would hold itself and what the function had in its hands


def _start() -> SimpleQueue[_Call]:
    inbox: SimpleQueue[_Call] = SimpleQueue()
    threading.Thread(target=_serve, args=(inbox,), daemon=True, name="ssrl-time-limit").start()
    return inbox


def _serve(inbox: SimpleQueue[_Call]) -> None:
    while True:
        call = inbox.get()
        try:
            call.result = call.function()
        except BaseException as err:
            call.error = err
        call.done = True  # before the discard, after which the caller may still add it
        call.stuck.discard(call)
        _idle.append(inbox)
        call.back.release()
        del call
