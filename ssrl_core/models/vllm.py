"""What a vLLM server must know of a mix, whether vLLM can run here, and why it did not start. Does not import vLLM."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from ..errors import SSRLError
from .tokens import Prompted

VERSION = "0.24"
"""The minor version of vLLM that was tested. verl's extra ``vllm`` has the same."""

_INSTALL = "pip install 'ssrl-core[vllm]'"
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
# A line of a log with an exception, behind the names that vLLM and Ray write before it.
_EXCEPTION = re.compile(r"^(?:\([^)]*\)\s*)*(?:ERROR [^\]]*\]\s*)?([\w.]*(?:Error|Exception): .+)$", re.M)
_NOT_THE_CAUSE = ("See root cause above", "ActorDiedError", "RayTaskError", "Worker failed with error")
_MEMORY = re.compile(r"memory|KV cache|max_model_len|max seq len", re.I)


def check_vllm(*, gpu: bool, error: type[SSRLError]) -> None:
    """Raise ``error`` if vLLM is missing, has an untested version, or is built for GPUs and there is none."""
    try:
        found = version("vllm")
    except PackageNotFoundError:
        raise error(f"vLLM is not installed: {_INSTALL}") from None
    if not found.startswith(f"{VERSION}."):
        raise error(f"vLLM {found} is installed, and {VERSION} is needed: {_INSTALL}")
    if not gpu and "cpu" not in found:
        raise error(
            f"vLLM {found} needs a GPU, and torch finds none on this machine. Use a machine with one, or transformers: "
            "'--engine transformers' for an evaluation, 'actor_rollout_ref.rollout.name=transformers' for training"
        )


def media_limits(examples: Sequence[Prompted]) -> dict[str, Any]:
    """vLLM's ``limit_mm_per_prompt`` for a mix, from some of its examples.

    vLLM reserves memory for the largest image that its processor accepts, and for videos, unless it is told what to
    expect. The size of the images is only used for that; larger ones are still accepted. The number of images is a
    limit, so it is twice the largest number in the examples.
    """
    images = [image for example in examples for image in example.images]
    return {
        "image": {
            "count": 2 * max(len(example.images) for example in examples),
            "width": max(image.width for image in images),
            "height": max(image.height for image in images),
        },
        "video": int(any(getattr(example, "video", False) for example in examples)),
    }


def check_processor(folder: Path, *, where: str, error: type[SSRLError]) -> None:
    """Raise ``error`` if settings of a model's processor do not fit the model. What cannot be compared is accepted.

    vLLM runs a dummy image and a dummy video through every model before it serves it, and fails if the processor and
    the vision tower cut them into different patches.

    Args:
        folder: of a model of transformers.
        where: the setting that names the model, for the message.
        error: the type of the error.
    """
    vision = _read(folder / "config.json").get("vision_config") or {}
    whole = _read(folder / "processor_config.json")
    parts = {("processor_config.json", key): whole.get(key) or {} for key in ("image_processor", "video_processor")} | {
        (name, ""): _read(folder / name) for name in ("preprocessor_config.json", "video_preprocessor_config.json")
    }
    pairs = (
        ("patch_size", "patch_size"),
        ("merge_size", "spatial_merge_size"),
        ("temporal_patch_size", "temporal_patch_size"),
    )
    faults = [
        f"{file}: {section + '.' * bool(section)}{ours} is {part[ours]}, but vision_config.{theirs} in config.json is "
        f"{vision[theirs]}"
        for (file, section), part in parts.items()
        for ours, theirs in pairs
        if isinstance(part.get(ours), int) and isinstance(vision.get(theirs), int) and part[ours] != vision[theirs]
    ]
    if faults:
        raise error(
            f"{where}: the processor does not fit the model, and vLLM would refuse it. Make these numbers equal:\n  "
            + "\n  ".join(faults)
        )


def reason(log: str) -> str | None:
    """Why vLLM or verl ended, from its log: the first exception that is not only the consequence of another one.

    If memory or lengths are the cause, the settings that change them are added.
    """
    causes = [
        found for found in _EXCEPTION.findall(_COLOUR.sub("", log)) if not any(word in found for word in _NOT_THE_CAUSE)
    ]
    if not causes:
        return None
    cause: str = causes[0].strip()
    if _MEMORY.search(cause):
        cause += (
            "\nLess memory: a smaller size of images in the mix, fewer tokens (--max-tokens; data.max_response_length "
            "and rollout.max_model_len of a recipe), rollout.max_num_seqs, more GPUs for a model "
            "(rollout.tensor_model_parallel_size). rollout.gpu_memory_utilization is the share of the GPU that vLLM "
            "takes"
        )
    return cause


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
