"""examples/gpu: the dry run of all stages on the CPU, and the dataset that compares two datasets."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("verl", reason="the 'train' extra is not installed")

from omegaconf import OmegaConf

from ssrl_core.mix import load_mix

SCRIPT = Path(__file__).parents[1] / "examples" / "gpu" / "run.sh"
MIX = """
source: "synthetic:?width=192&height=144"
size: 112
heldout: {samples: 3}
tasks: {flipped_patch: , cropped_patch: }
"""


def test_both_datasets_give_the_same_samples_in_turn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pyarrow")
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    from interleaved import Interleaved, is_ours

    from ssrl_core.export import export

    mix = tmp_path / "mix.yaml"
    mix.write_text(MIX)
    export(mix, tmp_path / "data", samples=8)
    config = OmegaConf.create({"train_batch_size": 2, "filter_overlong_prompts": False, "cache_dir": str(tmp_path)})
    shards = [str(path) for path in (tmp_path / "data").glob("*.parquet")]
    rows = Interleaved([str(mix), *shards], None, config, processor=object())
    assert len(rows) == 16
    assert [is_ours(step) for step in range(1, 9)] == [True, False, False, True] * 2
    seen: dict[bool, list[tuple[str, int]]] = {True: [], False: []}
    for index in range(16):
        row = rows[index]
        images, _, _ = asyncio.run(
            Interleaved.process_multi_modal_info(row["raw_prompt"], image_patch_size=14, config=config)
        )
        ours = any("recipe" in part for part in row["raw_prompt"][0]["content"])
        assert ours is is_ours(index // 2 + 1)
        seen[ours].append((row["reward_model"]["ground_truth"], len(images)))
    assert seen[True] == seen[False]
    assert len(Interleaved(f"{mix}#validation", None, config)) == 3


def test_the_first_stage_writes_images_and_mixes_for_all_five_tasks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    import stages

    (tmp_path / "photos").mkdir()
    facts = stages.photos(tmp_path, stages.DRY)
    assert facts["photos"] == stages.DRY.photos == len(list((tmp_path / "photos").glob("*.depth.png")))
    assert facts["parameters"] > 1e5
    for name in ("mix", "mix-512", "rooms"):
        assert load_mix(tmp_path / f"{name}.yaml").tasks.keys() == set(stages.FIVE)


def run(out: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [str(SCRIPT), "--dry-run", "--out", str(out), *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, env=os.environ | {"PYTHON": sys.executable}, check=False
    )


@pytest.mark.slow
@pytest.mark.training
def test_a_dry_run_runs_all_stages_and_resumes_where_it_was_cut(tmp_path: Path) -> None:
    cut = run(tmp_path, "--minutes", "0")
    assert cut.returncode == 1 and "no time left" in cut.stdout
    result = run(tmp_path, "--minutes", "60")
    logs = "".join(path.read_text(errors="replace")[-3000:] for path in tmp_path.glob("*/stage.log"))
    assert result.returncode == 0, result.stdout + result.stderr + logs
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["steps"]["phases_s"]["update_actor"] > 0
    assert 0 < results["steps"]["data_wait_share"] < 1
    assert results["steps"]["pairs"] == 1 and results["steps"]["ratio"] > 0
    assert results["resume"]["steps_with_the_right_samples"] == results["resume"]["steps"] == 6
    assert results["resume"]["trained_after"] == 2
    assert results["recipe"]["step_s"] > 0
    assert results["learning"]["before"].keys() == results["learning"]["after"].keys()
    assert (tmp_path / "plots.png").stat().st_size > 0
    again = run(tmp_path, "--minutes", "0")  # nothing is left to do
    assert again.returncode == 0
    scored = subprocess.run(
        [sys.executable, "-m", "ssrl_core", "score", "--json", *map(str, tmp_path.glob("steps/run/dumps/*.jsonl"))],
        capture_output=True,
        text=True,
        check=True,
    )
    tasks = json.loads(scored.stdout)["tasks"]
    assert sum(task["n"] for task in tasks.values()) == 6 * 5 * 2
    assert all(task["differ"] == 0 for task in tasks.values())
