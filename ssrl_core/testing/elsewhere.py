"""Function calls in a new Python process: for another hash seed, a time limit on any code, or fresh imports."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any


def ask(function: Callable[..., Any], arguments: list[Any], *, seconds: float, hash_seed: str = "0") -> Any:
    """The result of a function that a new Python process calls. The process has the same import path.

    Args:
        function: a public function of an importable module; its result is plain JSON.
        arguments: plain JSON.
        seconds: time limit.
        hash_seed: PYTHONHASHSEED of the process.

    Raises:
        TimeoutError: the process exceeded the limit and was ended.
        RuntimeError: the process failed.
    """
    path = os.pathsep.join(folder for folder in sys.path if folder)
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-m", __name__, function.__module__, function.__name__],
            input=json.dumps(arguments),
            env=os.environ | {"PYTHONHASHSEED": hash_seed, "PYTHONPATH": path},
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise TimeoutError(f"no answer within {seconds:.0f} s") from None
    if done.returncode:
        raise RuntimeError(f"a process for {function.__name__!r} failed: {done.stderr.strip()[-500:]}")
    return json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    called = getattr(importlib.import_module(sys.argv[1]), sys.argv[2])
    print(json.dumps(called(*json.load(sys.stdin))))
