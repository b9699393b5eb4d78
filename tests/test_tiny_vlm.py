"""The small model of the examples: its lessons are true, its training resumes, and the shipped model has learned."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import pytest

from ssrl_core.evaluate import Answer
from ssrl_core.mix import load_mix
from ssrl_core.models.completions import complete, load_model
from ssrl_core.types import SourceImage

pytest.importorskip("verl", reason="the 'train' extra is not installed")
HERE = Path(__file__).parents[1] / "examples" / "tiny_vlm"


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch):
    """A function that imports a module of the example by its name."""
    monkeypatch.syspath_prepend(str(HERE))

    def load(name: str) -> ModuleType:
        return importlib.import_module(name)

    yield load
    for name in ("asking", "learn", "lessons", "probe", "show"):
        sys.modules.pop(name, None)


def scene(rgb: np.ndarray, depth: np.ndarray | None = None) -> SourceImage:
    height, width = rgb.shape[:2]
    depth = np.full((height, width), 2.0, np.float32) if depth is None else depth
    return SourceImage(id="0", rgb=rgb, depth=depth)


def painted(left: tuple[int, int, int], right: tuple[int, int, int]) -> np.ndarray:
    rgb = np.empty((80, 112, 3), np.uint8)
    rgb[:, :64], rgb[:, 64:] = left, right
    return rgb


def test_cells_have_the_classes_of_their_colour_brightness_and_depth(example) -> None:
    lessons = example("lessons")
    depth = np.repeat(np.geomspace(0.7, 6.5, 80, dtype=np.float32)[:, None], 112, axis=1)
    asked = dict(lessons.cells(scene(painted((220, 20, 20), (20, 20, 220)), depth), np.random.default_rng(0)).questions)
    names = [lessons.COLOURS[int(digit)] for digit in asked["Colours of the cells?"]]
    assert names == (["red"] * 4 + ["blue"] * 3) * 5
    rows = np.array([int(digit) for digit in asked["Depths of the cells?"]]).reshape(5, 7)
    assert (np.diff(rows, axis=0) > 0).all()
    assert (rows == rows[:, :1]).all()
    light = dict(lessons.cells(scene(painted((250,) * 3, (5,) * 3)), np.random.default_rng(1)).questions)
    assert light["Brightness of the cells?"] == ("9999" + "000") * 5


def test_answers_about_rings_state_their_places_and_depths(example) -> None:
    lessons = example("lessons")
    depth = np.full((80, 112), 1.0, np.float32)
    depth[:, 56:] = 4.0
    asked: dict[str, str] = {}
    for seed in range(40):
        lesson = lessons.rings(scene(painted((90,) * 3, (90,) * 3), depth), np.random.default_rng(seed))
        found = dict(lesson.questions)
        for question, answer in found.items():
            if question.startswith("Is ring") and "nearer" in question:
                near, far = question.split()[2], question.split()[-1].rstrip("?")
                beside = found.get(f"Is ring {near} left or right of ring {far}?")
                if beside:  # the right half is deeper
                    assert (answer, beside) in {("nearer", "left"), ("farther", "right")}
                    asked[answer] = beside
    assert asked == {"nearer": "left", "farther": "right"}


def test_the_maps_that_tokens_predict_show_each_ring_once(example) -> None:
    lessons = example("lessons")
    depth = np.full((80, 112), 1.0, np.float32)
    depth[:, 56:] = 4.0
    image, maps = lessons.dense(scene(painted((220, 20, 20), (20, 20, 220)), depth), np.random.default_rng(3))
    brightness, colour, deep, rings = maps(5, 7)
    assert image.size == (112, 80)
    assert all(layer.min() >= 0 and layer.max() < most for layer, most in zip(maps(5, 7), lessons.CLASSES, strict=True))
    assert [lessons.COLOURS[k] for k in colour[0]] == ["red"] * 4 + ["blue"] * 3
    assert (deep[:, 0] < deep[:, -1]).all()
    found = sorted(rings[rings > 0].tolist())
    assert found == list(range(1, len(found) + 1))
    assert found
    assert np.unique(brightness).size > 1


def test_two_halves_fit_together_unless_one_was_changed(example) -> None:
    lessons = example("lessons")
    ramp = np.repeat(np.linspace(0, 255, 112).astype(np.uint8)[None, :, None], 80, axis=0).repeat(3, axis=2)
    seen = set()
    for seed in range(60):
        lesson = lessons.seams(scene(ramp), np.random.default_rng(seed))
        answers = dict(lesson.questions)
        change = answers["What was done to a half?"]
        assert answers["Do the two halves join as they lie?"] == ("yes" if change == "none" else "no")
        assert answers["Which half was changed?"] in (
            ("1", "2") if change in ("mirrored", "upside down") else ("none",)
        )
        seen.add(change)
    assert seen == {"none", "upside down", "mirrored", "exchanged"}


def test_answers_about_edges_of_pieces_state_their_brightness(example) -> None:
    lessons = example("lessons")
    ramp = np.repeat(np.linspace(0, 255, 112).astype(np.uint8)[None, :, None], 80, axis=0).repeat(3, axis=2)
    checked = 0
    for seed in range(30):
        lesson = lessons.pieces(scene(ramp), np.random.default_rng(seed))
        for question, answer in lesson.questions:
            if "upper and lower edge" in question:
                left, right, upper, lower = map(int, answer)
                assert left < right
                assert upper == lower
                piece = np.asarray(lesson.images["ABCD".index(question.split("piece ")[1][0]) + 1])
                assert left == int(cv2.cvtColor(piece[:, :2], cv2.COLOR_RGB2GRAY).mean() / 25.6)
                checked += 1
    assert checked


def test_no_question_of_the_probe_is_in_a_lesson(example) -> None:
    lessons, probe = example("lessons"), example("probe")
    asked = probe.questions(20)
    assert {q.kind for q in asked} == set(probe.KINDS)
    assert all(q.truth in q.choices for q in asked)
    texts = {q.text for q in asked}
    source = probe.open_source(probe.WORLD.format(2000))
    for name, lesson in lessons.LESSONS.items():
        for k in range(10):
            rng = np.random.default_rng(k)
            taught = lesson(probe.to_working_size(source.load(str(k)), 112, rng=rng), rng)
            assert not texts & {question for question, _ in taught.questions}, name
    again = probe.questions(20)
    assert [(q.text, q.truth, q.image.tobytes()) for q in again] == [
        (q.text, q.truth, q.image.tobytes()) for q in asked
    ]


def test_the_choice_is_the_answer_that_the_image_makes_more_likely_than_other_images(example, monkeypatch) -> None:
    probe = example("probe")
    asked = [q for q in probe.questions(40) if q.kind == "in order"]
    truths = iter([q.truth for q in asked for _ in q.choices])

    def known(_: Path, wanted: list) -> list[float]:  # prefers "no" strongly, and the truth slightly
        answers = [answer.removeprefix("<").removesuffix(">") for *_, answer in wanted]
        return [-9.0 * (answer == "yes") + 0.5 * (answer == next(truths)) for answer in answers]

    monkeypatch.setattr(probe, "log_probs", known)
    assert probe.ask(HERE / "model", asked, form="<{truth}>") == [q.truth for q in asked]
    assert {q.truth for q in asked} == {"yes", "no"}


def test_the_probability_of_an_answer_is_that_of_generating_it(example) -> None:
    from transformers import AutoProcessor

    asking, show = example("asking"), example("show")
    lessons = [*show.lessons("rings", 3), *show.lessons("pieces", 2)]
    asked = [(lesson.images, *lesson.questions[0]) for lesson in lessons]
    assert len({len(images) for images, *_ in asked}) == 2
    model, processor = load_model(str(HERE / "model")), AutoProcessor.from_pretrained(HERE / "model")
    prompts = [list(processor(text=[asking.prompt(processor, images, question)], images=images)["input_ids"][0])
               for images, question, _ in asked]  # fmt: skip
    written = complete(model, processor, prompts, [images for images, *_ in asked], max_new_tokens=40)
    said = [processor.tokenizer.decode(one.token_ids, skip_special_tokens=True) for one in written]
    known = asking.log_probs(
        HERE / "model", [(images, question, text) for (images, question, _), text in zip(asked, said, strict=True)]
    )
    assert known == pytest.approx([sum(one.log_probs) for one in written], abs=1e-3)


def test_the_shipped_model_is_small_and_has_its_settings_and_curves() -> None:
    files = [path for path in (HERE / "model").rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 10e6
    made = json.loads((HERE / "model" / "curves.json").read_text())
    assert {"seed", "steps", "batch", "lr", "size", "scenes"} <= set(made["settings"])
    assert made["curves"][-1]["step"] == made["settings"]["steps"]


def test_the_shipped_model_knows_places_of_rings_and_which_is_nearer(example) -> None:
    show, asking = example("show"), example("asking")
    lessons = [lesson for name in ("places", "rings") for lesson in show.lessons(name, 16)]
    asked = [(lesson.images, *pair) for lesson in lessons for pair in lesson.questions]
    wanted = {"Column of ring": 1 / 7, "Row of ring": 1 / 5, "Which is nearer": 1 / 2}  # with chance
    for begin, chance in wanted.items():
        mine = [(images, question, truth) for images, question, truth in asked if question.startswith(begin)]
        written = asking.answers(HERE / "model", [(images, question) for images, question, _ in mine], longest=4)
        right = [answer == truth for answer, (*_, truth) in zip(written, mine, strict=True)]
        assert np.mean(right) > (1 + chance) / 2, begin


@pytest.mark.slow
def test_a_stopped_pretraining_resumes_from_its_checkpoint(tmp_path: Path) -> None:
    def pretrain(steps: int) -> None:
        subprocess.run(
            [sys.executable, HERE / "pretrain.py", "--out", tmp_path, "--scenes", "32", "--steps", str(steps),
             "--batch", "2", "--every", "2", "--workers", "0", "--device", "cpu"],
            check=True, capture_output=True, text=True,
        )  # fmt: skip

    pretrain(4)
    (tmp_path / "model" / "curves.json").unlink()
    pretrain(8)
    curves = json.loads((tmp_path / "model" / "curves.json").read_text())["curves"]
    assert [record["step"] for record in curves] == [2, 4, 6, 8]
    assert (tmp_path / "model" / "model.safetensors").exists()


def test_every_experiment_has_a_mix_for_training_and_one_for_evaluation(example, tmp_path: Path) -> None:
    learn = example("learn")
    for name, experiment in learn.EXPERIMENTS.items():
        mix = load_mix(learn.write(tmp_path, f"{name}-mix", experiment.mix(2, 480)))
        assert len(mix) == 480 and mix.tasks.keys() <= set(learn.TAUGHT), name
        heldout = load_mix(learn.write(tmp_path, f"{name}-heldout", experiment.heldout(2)), split="heldout")
        assert [example.recipe.level for example in map(heldout.__getitem__, range(5))] == [str(experiment.level)] * 5
        assert heldout.tasks.keys() == set(learn.TASKS)


def test_results_are_pooled_over_seeds_and_over_the_taught_tasks(example, tmp_path: Path) -> None:
    learn = example("learn")

    def answers(seed: int, right: dict[str, int]) -> list[Answer]:
        return [
            Answer(
                index=k, task=task, level="1", truth="A", params={}, wrappers=(),
                format_weight=0.1, thinking="required", opened=False, chance=0.25,
                recipe=f"{task} {seed} {k}", prompt="", completion="", cut=False,
                score=0.0, acc=float(k < right.get(task, 2)), format=1.0, error=0.0, pred="",
            )
            for task in learn.TASKS
            for k in range(10)
        ]  # fmt: skip

    better = dict.fromkeys(learn.TAUGHT, 5) | {"cropped_patch": 0}
    answered = [{"sampled": (answers(seed, {}), answers(seed, better))} for seed in (1, 2)]
    measured = learn.measured(*learn.pooled(answered, "sampled"))
    assert [row["before"]["task"] for row in measured] == [*sorted(learn.TASKS), "all"]
    assert (measured[-1]["after"]["n"], measured[-1]["after"]["acc"]) == (60, 0.5)
    assert measured[-1]["change"]["difference"] == pytest.approx(0.3)
    results = {"main/1": {"rewards": [0.1] * 5 + [0.4] * 10}, "main/together": dict.fromkeys(learn.SAMPLINGS, measured)}
    text = learn.table(results)
    assert "0.200" in text and "the taught ones      60" in text and "+0.300" in text
    learn.plot(results, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 10_000
