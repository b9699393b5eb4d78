"""What is said about vLLM before and after it is started; vLLM itself is not needed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ssrl_core.errors import RecipeError, SSRLError
from ssrl_core.mix import load_mix
from ssrl_core.models import vllm
from ssrl_core.verl.checks import tell_vllm

MIX = """
source: "synthetic:?width=192&height=144"
size: 112
tasks: {flipped_patch: {level: 1}, cropped_patch: {level: 1}}
"""
LOG = """INFO 11-26 [core.py:1] starting
\x1b[36m(vLLMHttpServer pid=1)\x1b[0m (EngineCore pid=2) ERROR 11-26 19:13 [executor.py:10] ValueError: CAUSE
(EngineCore pid=2) RuntimeError: Worker failed with error 'CAUSE', please check the stack trace above
(APIServer pid=3) RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}
"""


class Complaint(SSRLError):
    pass


@pytest.mark.parametrize(
    ("found", "gpu", "complaint"),
    [
        (None, True, "not installed: pip install"),
        ("0.23.1", True, r"0.23.1 is installed, and 0.24 is needed: pip install"),
        ("0.24.0", False, "needs a GPU"),
        ("0.24.0", True, None),
        ("0.24.0+cpu", False, None),
    ],
)
def test_a_vllm_that_cannot_run_here_is_named_before_a_start(
    monkeypatch: pytest.MonkeyPatch, found: str | None, gpu: bool, complaint: str | None
) -> None:
    def version(name: str) -> str:
        if found is None:
            raise vllm.PackageNotFoundError(name)
        return found

    monkeypatch.setattr(vllm, "version", version)
    if complaint is None:
        vllm.check_vllm(gpu=gpu, error=Complaint)
    else:
        with pytest.raises(Complaint, match=complaint):
            vllm.check_vllm(gpu=gpu, error=Complaint)


def test_the_limits_of_a_mix_cover_its_images_and_exclude_videos(write_mix: Callable[[str], Path]) -> None:
    examples = list(load_mix(write_mix(MIX)).some_of_each())
    limits = vllm.media_limits(examples)
    images = [image for example in examples for image in example.sample.images]
    assert limits["image"]["count"] >= max(len(example.sample.images) for example in examples) > 1
    assert limits["image"]["width"] == max(image.width for image in images)
    assert limits["image"]["height"] == max(image.height for image in images)
    assert limits["video"] == 0


@pytest.mark.parametrize("section", ["image_processor", "video_processor"])
@pytest.mark.parametrize("key", ["patch_size", "merge_size", "temporal_patch_size"])
def test_a_processor_that_cuts_other_patches_than_the_model_is_refused(
    tiny_model: Callable[[str], tuple[Any, Any, Any, Path]], tmp_path: Path, section: str, key: str
) -> None:
    model = tiny_model(MIX)[3]
    vllm.check_processor(model, where="model", error=Complaint)  # what we write ourselves agrees
    shutil.copy(model / "config.json", tmp_path)
    processor = json.loads((model / "processor_config.json").read_text())
    processor[section][key] += 1
    (tmp_path / "processor_config.json").write_text(json.dumps(processor))
    with pytest.raises(Complaint, match=rf"model: .*\n.*{section}\.{key} is {processor[section][key]}, but"):
        vllm.check_processor(tmp_path, where="model", error=Complaint)


def test_the_kept_model_fits_its_processor() -> None:
    kept = Path(__file__).parents[1] / "examples" / "tiny_vlm" / "model"
    vllm.check_processor(kept, where="model", error=Complaint)


def test_a_model_that_cannot_be_compared_is_accepted(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{")
    vllm.check_processor(tmp_path, where="model", error=Complaint)


@pytest.mark.parametrize(
    ("cause", "advice"),
    [
        ("shape '[5120, -1, 2, 8, 8]' is invalid for input of size 6021120", None),
        (
            "To serve one request with the model's max seq len (128000), 7.0 GiB KV cache is needed",
            "Less memory",
        ),
        ("Free memory on device cuda:0 (10.1/79.2 GiB) on startup is less than desired", "gpu_memory_utilization"),
    ],
)
def test_the_reason_is_the_cause_and_not_its_consequences(cause: str, advice: str | None) -> None:
    why = vllm.reason(LOG.replace("CAUSE", cause))
    assert why is not None
    first, _, rest = why.partition("\n")
    assert first == f"ValueError: {cause}"
    assert (advice in rest) if advice else not rest


def test_a_log_without_an_exception_has_no_reason() -> None:
    assert vllm.reason("INFO 11-26 [core.py:1] starting\n") is None


@pytest.mark.parametrize(("given", "found"), [(None, 150), (150, 150), (200, 200)])
def test_vllm_gets_the_longest_sequence_unless_the_recipe_has_it(given: int | None, found: int) -> None:
    config = grpo_config(max_model_len=given)
    tell_vllm(config, [])
    assert config["actor_rollout_ref"]["rollout"]["max_model_len"] == found


def test_a_longest_sequence_that_cuts_completions_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"max_model_len = 149 cuts completions short: .* = 150"):
        tell_vllm(grpo_config(max_model_len=149), [])


def grpo_config(*, max_model_len: int | None) -> dict[str, Any]:
    rollout = {"name": "vllm", "limit_images": 5, "engine_kwargs": {"vllm": {}}, "max_model_len": max_model_len}
    return {"data": {"max_prompt_length": 100, "max_response_length": 50}, "actor_rollout_ref": {"rollout": rollout}}
