"""``ssrl benchmark`` on miniature data: rows, prompts, scores, resume, report, comparison, bad input."""

import base64
import csv
import io
import json
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from ssrl_core.benchmarks.completions import final_text, letter_of, number_of
from ssrl_core.benchmarks.contract import BenchmarkError, Item, Result
from ssrl_core.benchmarks.data import check
from ssrl_core.benchmarks.installed import load, names
from ssrl_core.benchmarks.questions import Longest, Question
from ssrl_core.benchmarks.report import finish_benchmark, overall
from ssrl_core.benchmarks.run import evaluate_benchmark
from ssrl_core.benchmarks.statistics import bootstrap, compare_results, headline, interval, lines, sign_flips
from ssrl_core.benchmarks.video import bounded, frames, positions
from ssrl_core.cli import app
from ssrl_core.evaluate import EvaluationError, Sampling
from ssrl_core.evaluate.endpoint import _url
from ssrl_core.evaluate.folder import ANSWERS
from ssrl_core.evaluate.models import Failed, Written

BENCHMARKS = {name: load(name) for name in names()}
KEPT = Path(__file__).parents[1] / "examples" / "tiny_vlm" / "model"


class Says:
    """A model that answers what a function of the row says."""

    written = None

    def __init__(self, say, *, name="said"):
        self.say, self.facts, self.asked = say, {"engine": "none", "model": name}, []

    def answer(self, examples, sampling):
        for index, question in examples:
            self.asked.append(question)
            outcome = self.say(question.row)
            yield (index, question), outcome if isinstance(outcome, Failed) else Written(outcome, cut=False)


def run(name, data, out, say, **more):
    benchmark, plugin = BENCHMARKS[name]
    model = say if isinstance(say, Says) else Says(say)
    return evaluate_benchmark(name, benchmark, plugin, data, model, out, **more)


def the_truth(row):
    return f"\\boxed{{{row.truth}}}"


@pytest.mark.parametrize("name", sorted(BENCHMARKS))
def test_every_miniature_has_its_rows_and_the_right_answers_score_all(miniatures, tmp_path, name):
    module, folder = miniatures
    model = Says(lambda row: f"<think>Is it Z?</think>{the_truth(row)}")
    evaluated = run(name, folder / name, tmp_path / "out", model, thinking="required")
    assert evaluated.rows == len(evaluated.results) == module.COUNTS[name]
    benchmark = BENCHMARKS[name][0]
    head = lines(benchmark, evaluated.results, "standard")[0]
    unanswerable = sum(not result.truth for result in evaluated.results)
    assert head.score == pytest.approx(1 - unanswerable / len(evaluated.results))
    for question in model.asked:
        assert question.prompt.count("<image>") == len(question.images) > 0
        assert all(image.mode == "RGB" for image in question.images)
        assert question.row.question in question.prompt and "<think>" in question.prompt
    wrong = run(name, folder / name, tmp_path / "wrong", lambda row: "I cannot tell.")
    assert not any(result.value for result in wrong.results)
    assert name == "spatial457" or all(result.fault for result in wrong.results)  # there any text is an answer


def test_images_of_a_tsv_are_found_by_reference_and_in_lists(miniatures):
    _, folder = miniatures
    rows = list(BENCHMARKS["3dsrbench"][0].rows(folder / "3dsrbench", "standard"))
    first, reference, other = (np.array(rows[k].images()[0]) for k in (0, 3, 4))
    assert np.array_equal(first, reference) and not np.array_equal(first, other)
    assert rows[0].question == 'Which one is higher,\nthe "lamp" or table 0?'
    assert [len(row.options) for row in rows[::4]] == [2, 2, 2, 4]
    blink = BENCHMARKS["blink"][0].rows(folder / "blink", "standard")
    assert [len(row.images()) for row in blink] == [1, 2, 4]


def test_a_server_gets_the_file_of_an_image_or_the_pixels_of_a_smaller_one(miniatures):
    _, folder = miniatures
    image = next(iter(BENCHMARKS["spatialeval"][0].rows(folder / "spatialeval", "standard"))).images()[0]
    small = bounded(image, 1000)
    assert _url(image).startswith("data:image/jpeg") and _url(small).startswith("data:image/png")
    for sent in (image, small):
        got = Image.open(io.BytesIO(base64.b64decode(_url(sent).partition("base64,")[2])))
        assert np.array_equal(np.array(got), np.array(sent))


def test_always_a_scores_all_of_whatsup_as_published_and_a_quarter_in_standard(miniatures, tmp_path):
    _, folder = miniatures
    shares = {}
    for recipe in ("paper", "standard"):
        evaluated = run("whatsup", folder / "whatsup", tmp_path / recipe, lambda row: "A", recipe=recipe)
        head = lines(BENCHMARKS["whatsup"][0], evaluated.results, recipe)[0]
        shares[recipe] = head.score, head.blind
    assert shares["paper"] == (1.0, 1.0)
    assert shares["standard"][0] == 0.25 and shares["standard"][1] <= 0.5
    told = run("whatsup", folder / "whatsup", tmp_path / "text", lambda row: "No idea. Ask Anna.", recipe="paper")
    assert all(result.value for result in told.results)  # any capital A


def test_the_letters_of_whatsup_say_nothing_about_the_preposition(miniatures):
    _, folder = miniatures
    rows = list(BENCHMARKS["whatsup"][0].rows(folder / "whatsup", "standard"))
    assert set(Counter((row.kind, row.truth) for row in rows).values()) == {2}
    of_relation = Counter((row.id.split("_")[1], row.truth) for row in rows)
    assert len(of_relation) > 12 and max(of_relation.values()) <= 2


def test_the_published_faults_of_vsibench_spatial457_and_qspatial_are_repeated_only_in_paper(miniatures):
    def both(name, row, text, thinking="none"):
        score = BENCHMARKS[name][0].score
        return score(row, text, "paper", thinking).value, score(row, text, "standard", thinking).value

    _, folder = miniatures
    vsi = {row.kind: row for row in BENCHMARKS["vsibench"][0].rows(folder / "vsibench", "paper")}
    letter, number = vsi["route_planning"], vsi["object_counting"]
    assert both("vsibench", letter, f"{letter.truth}.") == (0, 1)
    assert both("vsibench", number, "4 tables") == (0, 1)
    assert both("vsibench", number, "2") == (0, 0.1)  # the error is exactly the largest threshold
    prompts = [BENCHMARKS["vsibench"][0].prompt(letter, recipe, "none") for recipe in ("paper", "standard")]
    assert ["A. A. " in prompt for prompt in prompts] == [True, False]
    rows = {row.truth: row for row in BENCHMARKS["spatial457"][0].rows(folder / "spatial457", "paper")}
    assert both("spatial457", rows["Yes"], "<think>A bus.</think>\\boxed{Yes}", "required") == (0, 1)
    far = next(iter(BENCHMARKS["qspatial"][0].rows(folder / "qspatial", "paper")))  # 1.2 m
    assert both("qspatial", far, "\\scalar{1,200} \\distance_unit{mm}") == (0, 1)
    assert both("qspatial", far, "\\scalar{100} \\distance_unit{centimetre}") == (0, 1)


def test_a_blind_baseline_finds_what_the_question_type_tells(miniatures, tmp_path):
    _, folder = miniatures
    base = run("viewspatial", folder / "viewspatial", tmp_path / "out", the_truth).results
    results = []
    for number in range(300):
        truth = "ABCD"[number % 4]  # letters tell nothing, but the text of the right option is always the same
        options = tuple("left" if letter == truth else f"other {letter}" for letter in "ABCD")
        one = replace(base[0], index=number, id=str(number), unit=f"scene{number}", truth=truth, options=options)
        results.append(one)
    head = lines(BENCHMARKS["viewspatial"][0], results, "standard")[0]
    assert head.blind == 1.0 and head.chance == 0.25
    own = [
        replace(r, options=tuple(f"{r.id}" if a == r.truth else f"{r.id} {a}" for a in "ABCD")) for r in results
    ]  # a text that no other scene has: only a guess from its own fold would find it
    assert lines(BENCHMARKS["viewspatial"][0], own, "standard")[0].blind < 0.35
    random = np.random.default_rng(0)
    for k, result in enumerate(results):
        options = tuple(random.permutation(["left", "right", "front", "back"]))
        results[k] = replace(result, options=options, truth="ABCD"[random.integers(4)])
    assert lines(BENCHMARKS["viewspatial"][0], results, "standard")[0].blind < 0.35


def test_an_interval_covers_the_truth_for_independent_and_for_shared_units():
    rng, covered = np.random.default_rng(0), Counter()
    for _ in range(300):
        single = [Item("", 1, str(k), float(rng.random() < 0.3)) for k in range(200)]
        shared = [Item("", 1, str(k), value) for k in range(60) for value in [float(rng.random() < 0.3)] * 5]
        for name, items in (("single", single), ("shared", shared)):
            low, high = interval(items)
            covered[name] += low <= 0.3 <= high
    assert all(covered[name] > 0.91 * 300 for name in ("single", "shared"))


def test_a_macro_mean_weighs_strata_and_its_bootstrap_draws_units():
    items = [Item("a", 1.0, "u", 1.0)] * 30 + [Item("b", 1.0, "v", 0.0)] * 10
    assert headline(items) == 0.5
    assert set(np.round(bootstrap(items), 6)) == {0.0, 0.5, 1.0}
    wrong = [item._replace(value=0.0) for item in items]
    assert interval(wrong)[0] == 0 and 0.05 < interval(wrong)[1] < 0.15  # 40 wrong answers are not certainty


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("<think>A</think>\\boxed{B}", "B"),
        ("<think>\\boxed{A}</think>the table", "the table"),
        ("<think>A", ""),
        ("\\boxed{A} or \\boxed{B}", "B"),
        ("\\boxed{\\text{B}}", "\\text{B}"),
        ("B", "B"),
        ("<think>a</think><think>b</think>C", "C"),
    ],
)
def test_the_final_text_is_the_last_box_or_what_follows_the_thinking(text, answer):
    assert final_text(text) == answer


@pytest.mark.parametrize("text", ["A or B", "not B", "", "a cat sat", "<think>B</think>", "E", "AB", "B and C"])
def test_a_hedge_is_no_letter(text):
    assert letter_of(text, ("the lamp", "the table", "a cat", "nothing")) == ""


def test_numbers_have_separators_and_words():
    said = {"1,200 cm": 1200, "about four": 4, "-3.5": -3.5, "none": None, "x2": None, ".5": 0.5, "one of 7": 1}
    assert {text: number_of(text) for text in said} == said


def test_an_evaluation_resumes_after_a_kill_and_refuses_another_plan(miniatures, tmp_path):
    _, folder = miniatures
    out, data = tmp_path / "out", folder / "spatialeval"
    model = Says(the_truth)
    run("spatialeval", data, out, model, questions=3)
    with open(out / ANSWERS, "ab") as file:
        file.write(b'{"index": 3, "id": "3", "comp')  # killed while it wrote
    again = Says(the_truth)
    assert len(run("spatialeval", data, out, again).results) == 8
    assert [question.row.id for question in again.asked] == ["3", "4", "5", "6", "7"]
    whole = run("spatialeval", data, tmp_path / "whole", the_truth)
    assert whole.results == run("spatialeval", data, out, Says(lambda row: 1 / 0)).results
    for changed in ({"recipe": "paper"}, {"thinking": "required"}, {"sampling": Sampling(1.0)}):
        with pytest.raises(EvaluationError, match="holds another evaluation"):
            run("spatialeval", data, out, the_truth, **changed)
    with open(data / "SpatialEval.tsv", encoding="utf-8") as file:
        cells = list(csv.reader(file, delimiter="\t"))
    cells[1][2] += "?"
    shutil.copytree(data, tmp_path / "other")
    with open(tmp_path / "other/SpatialEval.tsv", "w", encoding="utf-8") as file:
        csv.writer(file, delimiter="\t", lineterminator="\n").writerows(cells)
    with pytest.raises(EvaluationError, match="data"):
        run("spatialeval", tmp_path / "other", out, the_truth)


def test_a_damaged_picture_is_named_and_is_not_a_wrong_answer(miniatures, tmp_path):
    _, folder = miniatures
    data = shutil.copytree(folder / "whatsup", tmp_path / "whatsup")
    picture = data / "controlled_images/mug_on_table.jpeg"
    picture.write_bytes(picture.read_bytes()[:200])
    evaluated = run("whatsup", data, tmp_path / "out", the_truth)
    assert len(evaluated.results) == 15 and all(result.value for result in evaluated.results)
    (reason,) = evaluated.failed
    assert "mug_on_table.jpeg" in reason and "not readable as an image" in reason


def test_the_first_refused_request_ends_the_evaluation_with_the_words_of_the_server(miniatures, tmp_path):
    _, folder = miniatures
    refuse = Says(lambda row: Failed("BadRequestError 400: At most 1 image(s) may be provided in one prompt."))
    with pytest.raises(EvaluationError, match=r"first request failed: BadRequest.*At most 1 image.*\nIt had 32 images"):
        run("vsibench", folder / "vsibench", tmp_path / "out", refuse)
    refuse.facts["video"] = True
    with pytest.raises(EvaluationError, match=r"a video of 32 frames: .*must take videos; --video images"):
        run("vsibench", folder / "vsibench", tmp_path / "part", refuse)


def test_a_model_that_does_not_think_is_noticed_early_with_an_example(miniatures, tmp_path, caplog):
    _, folder = miniatures
    evaluated = run("vsibench", folder / "vsibench", tmp_path / "out", the_truth, thinking="required")
    assert any("it has no <think>" in note and "For example question" in note for note in evaluated.notes)
    assert "20 of the first 20" in caplog.text


@pytest.mark.parametrize(
    ("name", "spoil", "said"),
    [
        (
            "spatialeval",
            lambda f: (f / "SpatialEval.tsv").rename(f / "x.tsv"),
            "there is no SpatialEval.tsv. It has x.tsv",
        ),
        (
            "spatialeval",
            lambda f: (f / "SpatialEval.tsv").write_text("a\tb\n1\t2\n"),
            "no column 'index'",
        ),
        ("spatialeval", lambda f: cut(f / "SpatialEval.tsv"), "download it again"),
        ("spatialeval", lambda f: head(f / "SpatialEval.tsv"), "there are no questions of SpatialEval"),
        ("realworldqa", lambda f: edit(f / "RealWorldQA.tsv", "image", "picture"), "no column 'image'; it has"),
        (
            "realworldqa",
            lambda f: edit(f / "RealWorldQA.tsv", "answer", "solution"),
            "it has no 'answer'; it has index",
        ),
        (
            "mmbench",
            lambda f: edit(f / "MMBench_DEV_EN.tsv", "1000001", "b1"),
            "not readable as MMBench .*invalid literal",
        ),
        ("3dsrbench", lambda f: edit(f / "3DSRBench.tsv", "VIN6MS02-1", "VIN6MS02-flip"), "'VIN6MS02-flip' .* twice"),
        ("vsibench", lambda f: edit(f / "test.jsonl", '"62"', '"many"'), "'many' is no number"),
        ("vsibench", lambda f: edit(f / "test.jsonl", '"B"', '"Z"'), "'Z' of question '1'.* none of its options A, B"),
        ("viewspatial", lambda f: (f / "ViewSpatial-Bench.json").write_text("{}"), "holds no list of records"),
        ("viewspatial", lambda f: (f / "ViewSpatial-Bench.json").write_text('[{"a": 1}]'), "it has no 'question_type'"),
        ("vsibench", lambda f: (f / "test.jsonl").write_text('{"id": 1'), "not readable"),
        ("qspatial", lambda f: shutil.rmtree(f / "data"), r"no \*\*/QSpatial_plus\*\.parquet. It has no files"),
        ("spatial457", lambda f: (f / "questions/L4_occ.json").unlink(), "L4_occ.json"),
    ],
)
def test_a_folder_that_is_not_the_benchmark_is_refused_with_what_is_missing(miniatures, tmp_path, name, spoil, said):
    _, folder = miniatures
    data = shutil.copytree(folder / name, tmp_path / name)
    spoil(data)
    with pytest.raises(BenchmarkError, match=said):
        check(BENCHMARKS[name][0], data)


def edit(path, old, new):
    text = path.read_text()
    path.write_text(text.replace(old, new))
    assert path.read_text() != text


def head(path):
    path.write_text(path.read_text().partition("\n")[0])


def cut(path):
    text = path.read_bytes()
    path.write_bytes(text[: text.rindex(b"\t")])


# Pixels of the images of a miniature (96 x 64) in ``paper``, and the maximum length of a completion there.
PUBLISHED = {
    "whatsup": (96 * 64, 4096),
    "viewspatial": (420 * 280, 4096),
    "vsibench": (96 * 64, 4096),
} | dict.fromkeys(
    ("3dsrbench", "spatialeval", "spatial457", "qspatial", "blink", "realworldqa", "mmbench"), (1280 * 28 * 28, 2048)
)


@pytest.mark.parametrize("name", sorted(BENCHMARKS))
def test_images_and_lengths_of_paper_are_the_published_ones(miniatures, tmp_path, name):
    _, folder = miniatures
    least, tokens = PUBLISHED[name]
    for recipe, pixels, length in (("standard", 96 * 64, 4096), ("paper", least, tokens)):
        model = Says(lambda row: "A")
        run(name, folder / name, tmp_path / recipe, model, recipe=recipe, questions=3)
        sizes = {image.width * image.height for question in model.asked for image in question.images}
        assert all(pixels <= size < 1.02 * pixels for size in sizes), (recipe, sizes)
        assert json.loads((tmp_path / recipe / "plan.json").read_text())["sampling"]["max_tokens"] == length
    if name == "vsibench":  # 128 frames, or all that the video has
        assert len(model.asked[0].images) == 40


@pytest.mark.parametrize("recipe", ["standard", "paper"])
@pytest.mark.parametrize("name", sorted(BENCHMARKS))
def test_the_limits_of_a_server_hold_for_every_question(miniatures, name, recipe):
    _, folder = miniatures
    benchmark = BENCHMARKS[name][0]
    rows = list(benchmark.rows(folder / name, recipe))
    longest = Longest.of(benchmark, rows, recipe, "required")
    assert longest.prompt.count("<image>") == len(longest.images) and longest.video == benchmark.video
    area = longest.images[0].width * longest.images[0].height
    for row in rows:
        question = Question(row, benchmark, recipe, "required")
        assert len(question.prompt) <= len(longest.prompt) and len(question.images) <= len(longest.images)
        assert all(image.width * image.height <= 1.01 * area for image in question.images)


def test_a_question_with_more_images_than_its_benchmark_states_is_named(miniatures, tmp_path):
    _, folder = miniatures
    benchmark, plugin = BENCHMARKS["viewspatial"]
    fewer = replace(benchmark, most_images=10)
    out = tmp_path / "out"
    evaluated = evaluate_benchmark("viewspatial", fewer, plugin, folder / "viewspatial", Says(the_truth), out)
    assert list(evaluated.failed) == [
        "no question: question 1 has 11 images, and its benchmark states at most 10 (Benchmark.most_images)"
    ]


def test_frames_are_evenly_spaced_from_the_first_to_the_last(miniatures, tmp_path):
    _, folder = miniatures
    film = folder / "vsibench/scannet/scene0001_00.mp4"
    chosen = frames(film, 32, 10**6)
    assert frames(film, 32, 10**6) is chosen  # decoded once
    told = [round(float(np.array(image)[4:28, 4:28].mean())) - 20 for image in chosen]
    assert len(chosen) == 32 and np.abs(np.array(told) - positions(200, 32)).max() <= 4
    assert len(frames(film.with_name("scene0000_00.mp4"), 128, 10**6)) == 40  # all that it has
    assert frames(film, 32, 1000)[0].size == (38, 25)
    half = tmp_path / "half.mp4"
    half.write_bytes(film.read_bytes()[: film.stat().st_size // 2])
    with pytest.raises(BenchmarkError, match=r"half\.mp4"):
        frames(half, 8, 1000)


def test_the_report_compares_with_the_published_figure_and_shows_wrong_answers(miniatures, tmp_path):
    _, folder = miniatures
    benchmark = BENCHMARKS["spatialeval"][0]
    model = Says(lambda row: "A", name="runs/Spatial-SSRL-7B")
    evaluated = run("spatialeval", folder / "spatialeval", tmp_path, model, thinking="required")
    summary = finish_benchmark("spatialeval", benchmark, tmp_path, evaluated, total=8, against=None)
    assert summary["published"]["model"] == "Spatial-SSRL-7B" and summary["published"]["score"] == 0.6403
    assert not summary["whole"]  # a miniature
    page = (tmp_path / "report.html").read_text()
    wrong = sum(result.value == 0 for result in evaluated.results)
    assert page.count("data:image/jpeg") == wrong > 3 and "Where is object" in page
    assert overall([summary])["why"] == "not whole: SpatialEval"
    assert overall([summary | {"whole": True}] * 7)["mean"] == pytest.approx(summary["lines"][0]["score"])


def test_differences_without_an_effect_are_rarely_significant_and_with_one_often():
    rng = np.random.default_rng(0)
    steps = [[Item("ab"[k % 2], 1, str(k // 3), rng.normal(mean, 0.3)) for k in range(60)] for mean in [0, 0.3] * 60]
    p = [sign_flips(items, seed=k) for k, items in enumerate(steps)]
    assert np.mean(np.array(p[::2]) < 0.05) < 0.13 and np.mean(np.array(p[1::2]) < 0.05) > 0.9


def test_two_models_are_compared_by_mcnemar_or_signs_and_corrected(miniatures, tmp_path):
    _, folder = miniatures
    pairs = {}
    for name in ("3dsrbench", "vsibench", "whatsup"):
        sides = [
            run(name, folder / name, tmp_path / f"{name}{k}", Says(say, name=str(k)))
            for k, say in enumerate((lambda row: "nothing", the_truth))
        ]
        pairs[name] = (BENCHMARKS[name][0], "standard", *(side.results for side in sides))
    changes = {change.name: change for change in compare_results(pairs)}
    assert [changes[name].test for name in pairs] == ["McNemar", "sign flips", "McNemar"]
    assert (changes["whatsup"].won, changes["whatsup"].lost, changes["3dsrbench"].n) == (16, 0, 4)
    assert changes["whatsup"].p == pytest.approx(2**-15) and changes["whatsup"].adjusted == pytest.approx(3 * 2**-15)
    assert changes["3dsrbench"].verdict == ""  # 4 questions
    assert changes["vsibench"].difference == 1.0 and changes["vsibench"].p >= 0.45  # 2 scenes


def test_the_command_checks_lists_and_explains(miniatures, tmp_path):
    _, folder = miniatures

    def said(*words):
        return CliRunner().invoke(app(["benchmark", "compare"]), list(words))

    listed = json.loads(said("benchmark", "--list", "--json").stdout)
    assert {facts["name"] for facts in listed} == set(BENCHMARKS) and all(facts["source"] for facts in listed)
    whole = said("benchmark", "spatial457", "--data", str(folder), "--check")
    assert whole.exit_code == 0 and "28 questions; no file is missing; how many there should be" in whole.stdout
    part = said("benchmark", "spatialeval", "--data", str(folder), "--check")
    assert part.exit_code == 1 and "8 questions of SpatialEval instead of 4,635" in part.output and "MD5" in part.output
    data = shutil.copytree(folder / "whatsup", tmp_path / "whatsup")
    (data / "controlled_images/mug_on_table.jpeg").unlink()
    lost = said("benchmark", "whatsup", "vsibench", "--data", str(tmp_path), "--check")
    assert lost.exit_code == 1 and "(1), the first is" in lost.output and "mug_on_table.jpeg" in lost.output
    assert "is not VSI-Bench: there is no test.jsonl" in lost.output  # the others are checked too
    refused = said("benchmark", "whatsup", "--data", str(tmp_path), "--model", "m")
    assert refused.exit_code != 0 and "mug_on_table.jpeg" in str(refused.exception)
    unknown = said("benchmark", "whatsop", "--data", str(folder), "--check")
    assert "Did you mean 'whatsup'?" in str(unknown.exception)
    out = tmp_path / "results"
    for model in ("one", "two"):
        run("whatsup", folder / "whatsup", out / model / "whatsup", Says(lambda row: "A", name=model))
    compared = said("compare", str(out / "one"), str(out / "two"))
    assert compared.exit_code == 0 and "McNemar" in compared.stdout and "one" in compared.stdout


def test_two_checkpoints_of_the_small_model_are_evaluated_and_compared(miniatures, tmp_path, one_thread):
    pytest.importorskip("transformers", reason="the 'train' extra is not installed")
    from safetensors.torch import load_file, save_file

    _, folder = miniatures
    other = shutil.copytree(KEPT, tmp_path / "other")
    weights = load_file(other / "model.safetensors")
    weights["lm_head.weight"] = weights["lm_head.weight"].flip(0).contiguous()  # it writes other words
    save_file(weights, other / "model.safetensors", {"format": "pt"})
    for model in (KEPT, other):
        words = ["benchmark", "spatialeval", "viewspatial", "--data", str(folder), "--model", str(model)]
        words += ["--max-tokens", "6", "-o", str(tmp_path / "out" / model.name)]
        asked = CliRunner().invoke(app(["benchmark"]), words, catch_exceptions=False)
        assert asked.exit_code == 0 and "no mean of the 7: not whole: SpatialEval, ViewSpatial" in asked.stdout
    texts = [path.read_text() for path in sorted((tmp_path / "out").glob("*/*/answers.jsonl"))]
    assert [len(text.splitlines()) for text in texts] == [8, 6, 8, 6] and len(set(texts)) == 4
    compared = CliRunner().invoke(
        app(["compare"]), ["compare", *(str(tmp_path / "out" / m) for m in ("model", "other"))]
    )
    assert "spatialeval" in compared.stdout and "McNemar" in compared.stdout and "model.version: " in compared.stdout


def test_a_result_survives_its_line_of_json(miniatures, tmp_path):
    _, folder = miniatures
    run("qspatial", folder / "qspatial", tmp_path, lambda row: "1 m\u2028")
    facts = [json.loads(line) for line in (tmp_path / ANSWERS).read_bytes().splitlines()]
    result = Result.read(facts[0])
    assert json.loads(result.to_json()) == facts[0] and result.completion == "1 m\u2028"
