"""Questions that only another process can answer: other hash seeds, code that never returns, fresh imports."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any


def ask(question: str, facts: Any, *, seconds: float, hash_seed: str = "0") -> Any:
    """The answer of a new Python process, which finds the same plugins; see the functions below.

    Raises:
        TimeoutError: it took longer than that many seconds, and was ended.
        RuntimeError: it failed.
    """
    path = os.pathsep.join(folder for folder in sys.path if folder)
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-m", __name__, question],
            input=json.dumps(facts),
            env=os.environ | {"PYTHONHASHSEED": hash_seed, "PYTHONPATH": path},
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise TimeoutError(f"no answer within {seconds:.0f} s") from None
    if done.returncode:
        raise RuntimeError(f"a process for {question!r} failed: {done.stderr.strip()[-500:]}")
    return json.loads(done.stdout.splitlines()[-1])


def digests(facts: Any) -> list[str]:
    """The digests of samples; of a plan and indices."""
    from .samples import Plan, digest, make

    plan, indices = facts
    found = [make(Plan(**plan), index) for index in indices]
    return [digest(made.sample, made.prompt).hex() for made in found]


def verify(facts: Any) -> tuple[float, str]:
    """Seconds for the slowest answer; of a task, a truth and params."""
    from ..plugins import load_task
    from .verifier import slowest_answer

    name, truth, params = facts
    return slowest_answer(load_task(name), truth, params)


def imported(facts: Any) -> list[str]:
    """Which of some modules importing a module imports; of both."""
    import importlib

    module, names = facts
    importlib.import_module(module)
    return sorted(set(names) & set(sys.modules))


if __name__ == "__main__":
    print(json.dumps({"digests": digests, "verify": verify, "imported": imported}[sys.argv[1]](json.load(sys.stdin))))
