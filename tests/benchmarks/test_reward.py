"""Benchmarks of the reward of a completion, as verl calls it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from ssrl_core.answers import COMPLETION
from ssrl_core.mix import load_mix
from ssrl_core.reward import Key, score, score_all

TASKS = ("shuffled_patches", "flipped_patch", "cropped_patch", "depth_ordering", "relative_position")
CALLS = 2000


def _cases(folder: Path, frames: Path) -> list[tuple[str, str]]:
    """Keys of rows of all tasks with right completions."""
    (folder / "mix.yaml").write_text(
        yaml.safe_dump({"source": f"rgbd:{frames}", "samples": 10, "tasks": {key: {} for key in TASKS}})
    )
    examples = list(load_mix(folder / "mix.yaml"))
    return [
        (Key.of(example, format_weight=0.1).to_json(), COMPLETION.format(truth=example.sample.truth))
        for example in examples
    ]


def test_reward(in_turns: Any, table: Any, frames: Path, tmp_path: Path):
    cases = _cases(tmp_path, frames)
    assert all(score(Key.from_json(key), completion)["score"] == 1 for key, completion in cases)
    times: list[float] = []

    def call() -> None:
        for number in range(CALLS):
            key, completion = cases[number % len(cases)]
            score(Key.from_json(key), completion)

    cpu, _ = in_turns(call)
    table("reward: verifications in a process, one at a time", CALLS / cpu * 1000, "/s")
    for number in range(5 * CALLS):
        key, completion = cases[number % len(cases)]
        begin = time.process_time()
        score(Key.from_json(key), completion)
        times.append(time.process_time() - begin)
    table("reward: 99th percentile", float(np.percentile(times, 99)) * 1000, "ms", most=1)


def test_reward_of_many(in_turns: Any, table: Any, frames: Path, tmp_path: Path):
    cases = _cases(tmp_path, frames)

    def call_all() -> None:
        for begin in range(0, CALLS, 250):
            batch = [cases[number % len(cases)] for number in range(begin, begin + 250)]
            score_all([(Key.from_json(key), completion) for key, completion in batch])

    cpu, _ = in_turns(call_all)
    table("reward: verifications in a process, 250 at a time", CALLS / cpu * 1000, "/s", least=50_000)


def test_reward_of_a_hostile_completion(in_turns: Any, table: Any, frames: Path, tmp_path: Path):
    size = 2**20
    hostile = {
        "one letter": "a" * size,
        "opening tags": "<think>" * (size // 7),
        "boxes": "<think>x</think>" + "\\boxed{" * (size // 7),
        "closed boxes": "<think>x</think>" + "\\boxed{1}" * (size // 9),
        "a long answer": "<think>x</think>\\boxed{" + "1-" * (size // 2) + "}",
        "white space": "<think>x</think>" + " " * size + "\\boxed{1}",
    }
    cases = _cases(tmp_path, frames)

    def call() -> float:
        slowest = 0.0
        for completion in hostile.values():
            for key, _ in cases[: len(TASKS)]:
                begin = time.process_time()
                score(Key.from_json(key), completion)
                slowest = max(slowest, time.process_time() - begin)
        return slowest

    slowest = min(call() for _ in range(5))
    in_turns(call, rounds=1)
    table("reward: 1 MB, the slowest of six attacks", slowest * 1000, "ms", most=20)
