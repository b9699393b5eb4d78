"""Print what memory each recipe of this folder needs on a GPU, as a table. See ``ssrl_core.verl.memory``.

python examples/recipes/memory.py
"""

from __future__ import annotations

import sys
from pathlib import Path

from ssrl_core.verl.memory import model, model_of, need
from ssrl_core.verl.recipe import Stage, compose, read_recipe


def leaves(folder: Path) -> list[Path]:
    """The recipes of a folder that name a model."""
    return sorted(path for path in folder.glob("*.yaml") if path.name.startswith("qwen"))


def stage_of(path: Path) -> Stage:
    """``"sft"`` or ``"grpo"``."""
    return "sft" if "-sft" in path.stem else "grpo"


def table(folder: Path) -> str:
    """The table, in Markdown."""
    lines = [
        "| recipe | GPUs | weights | gradients | Adam | activations (estimated) | at rest | vLLM weights | its cache "
        "(tokens) | peak a GPU | host, a node |",
        "|---|" + "--:|" * 10,
    ]
    for path in leaves(folder):
        config = compose(stage_of(path), read_recipe(path), [], device="cuda")
        row = need(stage_of(path), config, model(model_of(path.stem) or ""))
        gpus = config["trainer"]["n_gpus_per_node"] * config["trainer"]["nnodes"]
        cells = [*row[:5], row.vllm_weights]
        kept = f"{row.vllm_cache:.0f} ({row.cache_tokens / 1e6:.2f} M)" if row.cache_tokens else "-"
        numbers = [f"{cell:.1f}" if cell else "-" for cell in cells]
        host = f"{row.host:.0f}" if row.host else "-"
        lines.append(f"| {' | '.join([path.stem, str(gpus), *numbers, kept, f'**{row.peak:.0f}**', host])} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent))
