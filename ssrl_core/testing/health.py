"""Health: rejected images, repeated samples, costs in time and memory, imports, hard images."""

from __future__ import annotations

import gc
import importlib
import sys
import tracemalloc
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress

import cv2
import numpy as np

from ..errors import PluginFailed, SourceError, SourceRejected
from ..sources import Split, open_source
from ..sources.scenes import frames_of, takes_frames
from ..types import FrameSource
from . import elsewhere
from .criteria import Family, NotRun, Trial
from .images import hard_set
from .report import CASES, Case, Outcome
from .samples import make, make_on

family = Family("health")

MOST_REJECTED = 1 / 3
FEWEST_DISTINCT = 0.99
SLOWEST = 0.25  # seconds
LARGEST = 256  # MiB
LEAKED = 8  # MiB
IMPORT_SECONDS = 120.0
HELD_OUT = 0.25  # share of the scenes
COMPARED_SCENES = 16  # of each part
SAME_PICTURE = 3.0  # grey levels between thumbnails
HEAVY = ("torch", "transformers", "verl", "vllm", "ray", "matplotlib", "sklearn", "tensorflow", "jax")


@family("rejections", "at most a third of the images is declined at the first level, two thirds elsewhere")
def rejections(trial: Trial) -> Outcome:
    """Counts the rejections before each natural sample by reason."""
    reasons = Counter(reason for row in trial.natural for reason in row.rejections)
    offered = len(trial.natural) + reasons.total()
    share = reasons.total() / offered
    first = trial.plan.level == next(iter(trial.task.info.levels))
    most = MOST_REJECTED if first else 2 * MOST_REJECTED
    counted = ", ".join(f"{n} x {reason}" for reason, n in reasons.most_common())
    return Outcome(
        share <= most,
        f"{share:.3f} of {offered}" + (f" ({counted})" if counted else ""),
        f"{most:.3f}",
        figures={"share": share, **{f"rejected: {reason}": n for reason, n in reasons.items()}},
        remedy="relax the rule that gives the most frequent reason, or try other places of the same image first",
    )


@family("distinct", "at least 99% of the samples are distinct")
def distinct(trial: Trial) -> Outcome:
    """Counts different digests."""
    share = len({row.digest for row in trial.natural}) / len(trial.natural)
    return Outcome(
        share >= FEWEST_DISTINCT,
        f"{share:.4f} of {len(trial.natural)}",
        f"{FEWEST_DISTINCT}",
        figures={"share": share},
        remedy="draw places and kinds at random over the whole image",
    )


@family("speed", "a sample costs at most 250 ms of processor time")
def speed(trial: Trial) -> Outcome:
    """The median time of the plugin's own code at the kit's working size."""
    seconds = np.array([row.seconds for row in trial.natural])
    median, slowest = float(np.median(seconds)), float(np.quantile(seconds, 0.99))
    return Outcome(
        median <= SLOWEST,
        f"median {median * 1e3:.1f} ms, 99% within {slowest * 1e3:.1f} ms",
        f"median {SLOWEST * 1e3:.0f} ms",
        figures={"median": median, "q99": slowest},
    )


@family("memory", "a sample needs at most 256 MiB at its peak, and 100 samples keep less than 8 MiB")
def memory(trial: Trial) -> Outcome:
    """Measures the memory of Python's allocator, which includes numpy arrays."""
    make(trial.plan, 0)
    tracemalloc.start()
    try:
        make(trial.plan, 1)
        start, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        made = make(trial.plan, 2)
        _, peak = tracemalloc.get_traced_memory()
        del made
        if takes_frames(trial.task.info):
            _make_100(trial)  # the source keeps the frames that are read
        gc.collect()  # garbage does not count
        before, _ = tracemalloc.get_traced_memory()
        _make_100(trial)
        gc.collect()
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    needed, kept = (peak - start) / 2**20, (after - before) / 2**20
    return Outcome(
        needed <= LARGEST and kept <= LEAKED,
        f"{needed:.1f} MiB at the peak, {kept:.1f} MiB kept",
        f"{LARGEST} and {LEAKED} MiB",
        figures={"peak": needed, "kept": kept},
    )


def _make_100(trial: Trial) -> None:
    """Samples of one image or clip, always the same."""
    options, source = trial.task.options_model(**trial.plan.options), trial.few[0].source
    for number in range(100):
        rng = np.random.default_rng(number)
        with suppress(SourceRejected):
            trial.task.generate_sample(source, rng=rng, level=trial.plan.level, options=options)


@family("held out", "no held-out scene or clip shows a picture of a training one", once=True)
def held_out(trial: Trial) -> Outcome:
    """Compares thumbnails of three frames of scenes of both parts; those without contrast do not count."""
    info = trial.task.info
    if not takes_frames(info):
        raise NotRun("the task takes single images")
    source = frames_of(open_source(trial.plan.source))
    seen: dict[str, dict[str, np.ndarray]] = {}
    for part in ("train", "heldout"):
        try:
            split = Split(source, part, fraction=HELD_OUT)
        except SourceError as err:
            raise NotRun(str(err)) from err
        rng = np.random.default_rng(trial.plan.seed)
        ids = dict.fromkeys(split.draw(rng) for _ in range(COMPARED_SCENES))
        seen[part] = dict(_thumbnails(source, ids))
    apart = [
        (float(np.abs(one - other).mean()), name, like)
        for name, one in seen["heldout"].items()
        for like, other in seen["train"].items()
    ]
    if not apart:
        raise NotRun("no frame of the scenes has contrast")
    least, name, like = min(apart)
    return Outcome(
        least >= SAME_PICTURE,
        f"{least:.1f} grey levels between the closest two ({name} held out, {like} for training)",
        f"at least {SAME_PICTURE}",
        figures={"least": least, "pairs": len(apart)},
        remedy="give the source a method scene(id), which says what clips belong together",
    )


def _thumbnails(source: FrameSource, ids: Iterable[str]) -> Iterator[tuple[str, np.ndarray]]:
    for image_id in ids:
        try:
            frames = source.load(image_id, depth=False)
            positions = sorted({0, len(frames) // 2, len(frames) - 1})
            images = frames.read(positions)
        except SourceRejected:
            continue
        for position, image in zip(positions, images, strict=True):
            small = cv2.resize(cv2.cvtColor(image.rgb, cv2.COLOR_RGB2GRAY), (16, 16), interpolation=cv2.INTER_AREA)
            if small.std() >= SAME_PICTURE:
                yield f"{image_id}#{position}", small.astype(np.float32)


@family("imports", "importing the plugin imports none of " + ", ".join(HEAVY[:6]), once=True)
def imports(trial: Trial) -> Outcome:
    """Imports the plugin in a new process."""
    module = trial.task.plugin.entry_point.module
    found = elsewhere.ask(imported, [module, HEAVY], seconds=IMPORT_SECONDS)
    return Outcome(not found, ", ".join(found) or "none of them", "none", remedy="import them inside functions")


def imported(module: str, names: list[str]) -> list[str]:
    """The names of those modules that ``module`` imports; called in another process."""
    importlib.import_module(module)
    return sorted(set(names) & set(sys.modules))


@family("hard images", "on hard images a task gives a sample that its oracle confirms, or declines; it never fails")
def hard(trial: Trial) -> Outcome:
    """Uses the hard images at the working size, and one of them at 64 and at 2,048 pixels."""
    wrong: list[Case] = []
    made_, declined = 0, 0
    for name, image in hard_set(trial.plan.size, trial.task.info):
        for number in range(4):
            try:
                made = make_on(trial.plan, image, number)
            except SourceRejected:
                declined += 1
                continue
            except PluginFailed as err:
                wrong.append(Case(number, image=name, note=str(err)))
                break
            made_ += 1
            if found := trial.contradiction(made):
                wrong.append(Case(number, image=name, note=found))
    judged = "" if trial.solve else "; no oracle judged them"
    return Outcome(
        not wrong,
        f"{len(wrong)} wrong, {made_} made, {declined} declined{judged}"
        + (f"; on {wrong[0].image}: {wrong[0].note}" if wrong else ""),
        "0 wrong",
        figures={"wrong": len(wrong), "made": made_, "declined": declined},
        remedy="raise SourceRejected with a short constant reason",
        cases=wrong[:CASES],
    )
