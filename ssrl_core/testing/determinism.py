"""Determinism: a recipe gives the same sample in every thread, process and processor, without side effects."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from ..errors import PluginFailed, SSRLError
from . import elsewhere
from .criteria import Family, Trial
from .report import Outcome
from .samples import Made, Plan, digest, make, make_on

family = Family("determinism")

PROCESS_SECONDS = 120.0


@family("repeated", "made again, in reverse order, every sample is the same")
def repeated(trial: Trial) -> Outcome:
    """Compares pixels, prompt, truth and params."""
    changed = [i for i, known in reversed(trial.digests.items()) if _digest(make(trial.plan, i)) != known]
    return _outcome(changed, len(trial.few))


@family("threads", "made in four threads at once, every sample is the same")
def threads(trial: Trial) -> Outcome:
    """Also compares with samples made in this thread, since ``find_sample`` uses a thread of its own."""
    indices = list(trial.digests)
    here = [_digest(make_on(trial.plan, made.source, made.index)) for made in trial.few]
    with ThreadPoolExecutor(4) as pool:
        there = list(pool.map(lambda index: _digest(make(trial.plan, index)), indices))
    changed = [index for index, *found in zip(indices, here, there, strict=True) if {*found} != {trial.digests[index]}]
    return _outcome(changed, len(indices))


@family("processes", "made in other processes with other hash seeds, every sample is the same")
def processes(trial: Trial) -> Outcome:
    """Compares with two processes, one of which makes the samples in reverse order."""
    indices = list(trial.digests)
    changed = _changed_elsewhere(trial, "processes", [(indices, {}), (indices[::-1], {"PYTHONHASHSEED": "4242"})])
    return _outcome(changed, len(indices))


@family("processors", "made with the code of libraries for an older processor, every sample is the same")
def processors(trial: Trial) -> Outcome:
    """In a process in which NumPy, OpenCV and OpenBLAS leave out most vector instructions."""
    indices = list(trial.digests)
    changed = _changed_elsewhere(trial, "processors", [(indices, elsewhere.few_instructions())])
    return _outcome(
        changed,
        len(indices),
        remedy="functions that round in another way on another processor are cubic interpolation of OpenCV, cv2.remap "
        "with floating coordinates, filters whose results lie between two grey levels, sines and powers of float32",
    )


@family("inputs", "the source image is not written to, and global random state is left alone")
def inputs(trial: Trial) -> Outcome:
    """The arrays are read-only. This also finds a task that makes them writable."""
    changed = [f"the source image, by sample {made.index}" for made in trial.few if not made.untouched]
    states = random.getstate(), np.random.get_state()
    try:
        for made in trial.few[:8]:
            random.seed(made.index)
            np.random.seed(made.index + 1)  # reveals a task that always sets the same seed
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


def _changed_elsewhere(trial: Trial, name: str, processes: list[tuple[list[int], dict[str, str]]]) -> list[int]:
    """The samples that one of several processes makes otherwise; each has an order of samples, and settings.

    A process makes the samples of all levels: most of its time goes into its start and into the images, which the
    levels share.
    """
    if name not in trial.memo:
        plans = [asdict(replace(trial.plan, level=level)) for level in trial.levels]
        limit = PROCESS_SECONDS * len(plans)
        with ThreadPoolExecutor(len(processes)) as pool:
            asked = [
                pool.submit(elsewhere.ask, digests, [plans, order], seconds=limit, settings=settings)
                for order, settings in processes
            ]
        trial.memo[name] = [answer.result() for answer in asked]
    changed: set[int] = set()
    for (order, _), answers in zip(processes, trial.memo[name], strict=True):
        found = answers[trial.levels.index(trial.plan.level)]
        if isinstance(found, str):
            raise PluginFailed(found)
        changed |= {i for i, one in zip(order, found, strict=True) if one != trial.digests[i].hex()}
    return sorted(changed)


def _outcome(changed: list[int], count: int, *, remedy: str = "") -> Outcome:
    return Outcome(
        not changed,
        f"{len(changed)} of {count} samples differ" + (f", e.g. sample {changed[0]}" if changed else ""),
        "0",
        figures={"differ": len(changed), "samples": count},
        remedy=remedy or "every decision must come from rng; no clock, hash(), set order, environment or global state",
    )


def _digest(made: Made) -> bytes:
    return digest(made.sample, made.prompt)


def _random_state() -> tuple[object, ...]:
    return random.getstate(), repr(np.random.get_state(legacy=False))


def digests(plans: list[dict[str, Any]], indices: list[int]) -> list[list[str] | str]:
    """For each plan the digests of samples in hexadecimal, or the error message; called in another process."""
    found: list[list[str] | str] = []
    for plan in plans:
        try:
            found.append([_digest(make(Plan(**plan), index)).hex() for index in indices])
        except SSRLError as err:  # the other levels can still be compared
            found.append(str(err))
    return found
