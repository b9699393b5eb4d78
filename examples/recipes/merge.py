"""Merge the LoRA adapter of a cold start into its model, so that GRPO can start from it.

    python examples/recipes/merge.py runs/qwen2.5-vl-7b-sft/global_step_75 runs/qwen2.5-vl-7b-sft/merged

verl 0.9.1 writes the weights of model and adapter side by side under peft's names, which neither transformers nor verl
loads.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForImageTextToText


def main() -> None:
    """Write the merged model."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", type=Path, help="global_step_N of `ssrl sft` with model.lora_rank > 0")
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    merge(arguments.checkpoint, arguments.out)


def merge(checkpoint: Path, out: Path) -> None:
    """Write the model of a checkpoint of verl's SFT trainer with its adapter merged, and its processor."""
    saved = checkpoint / "huggingface"
    training = json.loads((checkpoint / "lora_train_meta.json").read_text())
    weights = {}
    for path in sorted(saved.glob("*.safetensors")):
        weights |= load_file(path)
    shutil.copytree(saved, out, ignore=shutil.ignore_patterns("*.safetensors", "*.index.json"), dirs_exist_ok=True)
    config = AutoConfig.from_pretrained(saved)
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(config)
    model.load_state_dict(merged(weights, scale=training["lora_alpha"] / training["r"]), assign=True)
    model.tie_weights()
    model.save_pretrained(out)


def merged(weights: dict[str, torch.Tensor], *, scale: float) -> dict[str, torch.Tensor]:
    """Weights under the model's own names; a layer with an adapter has W + scale * B A."""
    result = {}
    for name, weight in weights.items():
        if ".lora_" in name:
            continue
        below, up = (name.replace("base_layer", f"lora_{part}.default") for part in "AB")
        if name.endswith(".base_layer.weight"):
            update = weights[up].float() @ weights[below].float()
            weight = (weight.float() + scale * update).to(weight.dtype)
        result[name.removeprefix("base_model.model.").replace(".base_layer.", ".")] = weight
    return result


if __name__ == "__main__":
    main()
