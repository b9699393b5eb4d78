"""Determinism: a recipe gives the same sample wherever and whenever it is made, and making it changes nothing else."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from typing import Any

import numpy as np

from . import elsewhere
from .criteria import Family, Trial
from .report import Outcome
from .samples import Plan, digest, make

family = Family("determinism")

PROCESS_SECONDS = 120.0


@family("repeated", "made again, in reverse order, every sample is the same")
def repeated(trial: Trial) -> Outcome:
    """Pixels, prompt, truth and params."""
    changed = [i for i, known in reversed(trial.digests.items()) if _digest(trial.plan, i) != known]
    return _outcome(changed, len(trial.few))


@family("threads", "made in four threads at once, every sample is the same")
def threads(trial: Trial) -> Outcome:
    """As the agent loop's workers make them."""
    indices = [made.index for made in trial.few]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda index: _digest(trial.plan, index), indices))
    changed = [index for index, one in zip(indices, found, strict=True) if one != trial.digests[index]]
    return _outcome(changed, len(indices))


@family("processes", "made in other processes with other hash seeds, every sample is the same")
def processes(trial: Trial) -> Outcome:
    """Two processes, one of them in reverse order."""
    indices = [made.index for made in trial.few]
    changed: set[int] = set()
    for hash_seed, order in (("0", indices), ("4242", indices[::-1])):
        for index, one in zip(order, _elsewhere(trial.plan, order, hash_seed), strict=True):
            if bytes.fromhex(one) != trial.digests[index]:
                changed.add(index)
    return _outcome(sorted(changed), len(indices))


@family("inputs", "the source image is not written to, and global random state is left alone")
def inputs(trial: Trial) -> Outcome:
    """Arrays are handed over read-only; here, a task that made them writable is found too."""
    changed = [f"the source image, by sample {made.index}" for made in trial.few if not made.untouched]
    states = random.getstate(), np.random.get_state()
    try:
        for made in trial.few[:8]:
            random.seed(made.index)
            np.random.seed(made.index + 1)  # a task that seeds it with a constant would leave what it left before
            before = _random_state()
            make(trial.plan, made.index)
            if before != _random_state():
                changed.append(f"global random state, by sample {made.index}")
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
    return Outcome(
        not changed,
        "; ".join(changed[:2]) or "nothing changed",
        "nothing changed",
        remedy="draw only from rng, and copy source.rgb before writing to it",
    )


def _outcome(changed: list[int], count: int) -> Outcome:
    return Outcome(
        not changed,
        f"{len(changed)} of {count} samples differ" + (f", e.g. sample {changed[0]}" if changed else ""),
        "0",
        figures={"differ": len(changed), "samples": count},
        remedy="every decision must come from rng; no clock, hash(), set order, environment or global state",
    )


def _digest(plan: Plan, index: int) -> bytes:
    made = make(plan, index)
    return digest(made.sample, made.prompt)


def _random_state() -> tuple[object, ...]:
    state = np.random.get_state(legacy=False)
    return random.getstate(), repr(state)


def _elsewhere(plan: Plan, indices: list[int], hash_seed: str) -> list[str]:
    """The digests of samples that another process makes."""
    arguments = [asdict(plan), indices]
    return list(elsewhere.ask(digests, arguments, seconds=PROCESS_SECONDS, hash_seed=hash_seed))


def digests(plan: dict[str, Any], indices: list[int]) -> list[str]:
    """The digests of samples in hexadecimal; called in another process."""
    return [_digest(Plan(**plan), index).hex() for index in indices]
