"""Published figures, accuracy in %: Spatial-SSRL (arXiv 2510.27606), tables of spatial and general benchmarks.

The paper's figure 1 contradicts its table (QSpatial+, and two columns are swapped); these are from the table.
"""

from __future__ import annotations

import re

COLUMNS = ("457", "3DSR", "SpEval", "QSp+", "What'sUp", "View", "VSI")
_SPATIAL = {
    ("Qwen2.5-VL-3B", "none"): (33.70, 50.30, 54.65, 33.66, 85.85, 35.38, 27.84),
    ("Qwen2.5-VL-3B", "required"): (34.82, 49.47, 50.55, 30.66, 83.54, 34.23, 30.67),
    ("Spatial-SSRL-3B", "required"): (46.07, 51.72, 59.59, 39.60, 86.71, 36.62, 33.49),
    ("Qwen2.5-VL-7B", "none"): (44.67, 53.39, 62.37, 46.53, 86.95, 36.83, 38.08),
    ("Qwen2.5-VL-7B", "required"): (44.88, 54.55, 61.12, 46.53, 70.61, 36.66, 32.69),
    ("Spatial-SSRL-7B", "required"): (53.34, 56.53, 64.03, 54.46, 90.61, 37.81, 39.29),
    ("Qwen3-VL-4B", "none"): (53.43, 56.46, 63.04, 63.37, 98.78, 39.09, 46.82),
    ("Qwen3-VL-4B", "required"): (55.25, 55.83, 71.69, 61.39, 96.83, 41.79, 38.82),
    ("Spatial-SSRL-Qwen3VL-4B", "required"): (57.12, 59.48, 72.38, 59.41, 97.44, 42.07, 42.13),
}
_GENERAL = {
    ("Qwen2.5-VL-7B", "none"): {"BLINK": 55.87, "RealWorldQA": 68.63},
    ("Spatial-SSRL-7B", "none"): {"BLINK": 56.23, "RealWorldQA": 69.28},
    ("Qwen2.5-VL-3B", "none"): {"BLINK": 48.97, "RealWorldQA": 65.23},
    ("Spatial-SSRL-3B", "none"): {"BLINK": 50.92, "RealWorldQA": 66.67},
}
MODELS = tuple(dict.fromkeys(model for model, _ in _SPATIAL))


def model_of(name: str) -> str | None:
    """The published model whose name a path or name contains; the longest one; None if there is none."""
    plain = re.sub(r"[^a-z0-9]", "", name.casefold())
    found = [model for model in MODELS if re.sub(r"[^a-z0-9]", "", model.casefold()) in plain]
    return max(found, key=len, default=None)


def figure(model: str, thinking: str, column: str | None) -> float | None:
    """The published accuracy in [0, 1] of a model in a mode of thinking; None if there is none."""
    mode = "none" if thinking == "none" else "required"
    if column in COLUMNS and (model, mode) in _SPATIAL:
        return _SPATIAL[model, mode][COLUMNS.index(column)] / 100
    value = _GENERAL.get((model, mode), {}).get(column or "")
    return None if value is None else value / 100
