"""Benchmarks of training: the size of rows, the memory of the dataset, and renderings shared by rollouts."""

from __future__ import annotations

import asyncio
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

TASKS = ("shuffled_patches", "flipped_patch", "cropped_patch", "depth_ordering", "relative_position")
ROLLOUTS = 8
RESIDENT = """
import os, sys
from ssrl_core.verl.dataset import MixDataset

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGESIZE") / 2**20

warm = MixDataset(sys.argv[1], None, {})
for place in range(20):
    warm[place]
for path in sys.argv[1:]:
    before = resident()
    dataset = MixDataset(path, None, {})
    for place in range(0, len(dataset), len(dataset) // 20):
        dataset[place]
    print(resident() - before)
"""


@pytest.fixture
def mixes(frames: Path, tmp_path: Path) -> list[str]:
    """Paths of the same mix with 1 thousand and with 10 million samples."""
    paths = []
    for samples in (1_000, 10_000_000):
        mix = {"source": f"rgbd:{frames}", "size": 224, "samples": samples, "tasks": {key: {} for key in TASKS}}
        path = tmp_path / f"{samples}.yaml"
        path.write_text(yaml.safe_dump(mix))
        paths.append(str(path))
    return paths


def test_rows(benchmark: Any, table: Any, mixes: list[str], monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("verl", reason="needs ssrl-core[train]")
    from ssrl_core.verl import dataset as module

    dataset = module.MixDataset(mixes[1], None, {})
    rows = [dataset[place] for place in range(10)]
    sizes = [len(pickle.dumps({k: v for k, v in row.items() if k != "dummy_tensor"})) for row in rows]
    table("training: the largest of 10 rows, pickled", max(sizes), "bytes", most=2048)

    rendered: list[Any] = []

    def counted(recipe: Any) -> Any:
        rendered.append(recipe)
        return render(recipe)

    render = module.render
    monkeypatch.setattr(module, "render", counted)

    async def rollouts() -> None:
        for row in rows:
            asked = (module.MixDataset.process_multi_modal_info(row["raw_prompt"], 14, None) for _ in range(ROLLOUTS))
            await asyncio.gather(*asked)

    benchmark.pedantic(lambda: asyncio.run(rollouts()), rounds=1)
    table(f"training: renderings for {ROLLOUTS} rollouts of a prompt", len(rendered) / len(rows), "", most=1)


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is read from /proc")
def test_memory_of_the_dataset(benchmark: Any, table: Any, mixes: list[str]):
    pytest.importorskip("verl", reason="needs ssrl-core[train]")
    run = [sys.executable, "-c", RESIDENT, *mixes]
    done = benchmark.pedantic(lambda: subprocess.run(run, capture_output=True, text=True, check=True), rounds=1)
    small, large = map(float, done.stdout.split()[-2:])
    table("training: memory that 1 thousand samples add", small, "MB")
    table("training: memory that 10 million samples add", large, "MB", most=max(small, 0) + 8)


def test_step_time(benchmark: Any, table: Any):
    """Reads the ``ratio`` in the JSON file SSRL_STEP_TIME, which ``examples/gpu/interleaved.py`` writes."""
    path = os.environ.get("SSRL_STEP_TIME")
    if not path:
        pytest.skip("SSRL_STEP_TIME names no result")
    facts = benchmark.pedantic(lambda: json.loads(Path(path).read_text()), rounds=1)
    table("training: time of a GRPO step, ours to verl's stock dataset", facts["ratio"], "", most=1.01)
