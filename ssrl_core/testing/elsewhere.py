"""Function calls in a new Python process: for another hash seed, another processor, a time limit, or fresh imports."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ..resampling import X86


def ask(
    function: Callable[..., Any], arguments: list[Any], *, seconds: float, settings: Mapping[str, str] | None = None
) -> Any:
    """The result of a function that a new Python process calls. The process has the same import path.

    Args:
        function: a public function of an importable module; its result is plain JSON.
        arguments: plain JSON.
        seconds: time limit.
        settings: environment variables of the process. PYTHONHASHSEED is 0 by default.

    Raises:
        TimeoutError: the process exceeded the limit and was ended.
        RuntimeError: the process failed.
    """
    path = os.pathsep.join(folder for folder in sys.path if folder)
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-m", __name__, function.__module__, function.__name__],
            input=json.dumps(arguments),
            env=os.environ | {"PYTHONHASHSEED": "0", "PYTHONPATH": path, **(settings or {})},
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


def few_instructions() -> dict[str, str]:
    """Settings of a process in which NumPy, OpenCV and OpenBLAS use few of this processor's vector instructions."""
    numpy: Any = np.show_config(mode="dicts")
    return {
        "NPY_DISABLE_CPU_FEATURES": " ".join(numpy["SIMD Extensions"].get("found", [])),
        "OPENCV_CPU_DISABLE": "AVX512-SKX,AVX2,FMA3,NEON_DOTPROD,NEON_FP16",
        "OPENCV_IPP": "sse42",
        "OPENBLAS_CORETYPE": "Nehalem" if X86 else "ARMV8",
    }


if __name__ == "__main__":
    called = getattr(importlib.import_module(sys.argv[1]), sys.argv[2])
    print(json.dumps(called(*json.load(sys.stdin))))
