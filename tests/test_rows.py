"""Ready-made rows as a task of a mix: formats, columns, held-out images, scorers, and rows that cannot be used."""

import base64
import json
import re
from collections import Counter
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("pyarrow", reason="pyarrow is not installed: pip install 'ssrl-core[sources]'")

import pyarrow as pa
import pyarrow.parquet as pq
from typer.testing import CliRunner

from ssrl_core.answers import match_number, match_strict
from ssrl_core.cli import app
from ssrl_core.errors import MixError, SourceError, UnknownPlugin
from ssrl_core.evaluate.folder import Answer
from ssrl_core.export import export
from ssrl_core.mix import load_mix
from ssrl_core.plugins import load_task
from ssrl_core.resume import differences, plan_of_mix
from ssrl_core.reward import Key, score
from ssrl_core.sample import render
from ssrl_core.sources import open_source
from ssrl_core.types import Recipe

TAIL = "\nheldout: {samples: 4, fraction: 0.2}\nsize: 112\n"


def picture(number, size=(90, 70)):
    rgb = np.random.default_rng(number).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
    return Image.fromarray(rgb)


def png(number, size=(90, 70)):
    file = BytesIO()
    picture(number, size).save(file, "PNG")
    return file.getvalue()


def write(path, rows, **settings):
    """Rows as a Parquet file or as JSON lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path, **settings)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture
def published(tmp_path):
    """The layout of the published set: a table in one folder, its images in another, paths from the folder above."""
    rows = []
    for number in range(24):
        name = f"images/shuffle/{number // 2}.png"  # two questions about each image
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        picture(number // 2).save(tmp_path / name)
        rows.append({"images": [name], "problem": f"<image>Question {number}?", "answer": "ABCD"[number % 4]})
    write(tmp_path / "parquets" / "train.parquet", rows, row_group_size=5)
    return "parquets/train.parquet?root=.."


def drawn(mix, count=None):
    return [mix[k].recipe.image_id for k in range(count or len(mix))]


def test_the_published_layout_is_read_as_it_is_and_a_recipe_rebuilds_its_row(published, write_mix, tmp_path):
    path = write_mix(f"tasks: {{general: {{rows: '{published}', scorer: published}}}}\ninstruction: Box it.{TAIL}")
    for split in ("train", "validation", "heldout"):
        example = load_mix(path, split=split)[1]
        recipe = Recipe.from_json(example.recipe.to_json())
        number = int(recipe.image_id.rpartition("#")[2])
        assert recipe.image_id.startswith("parquets/train.parquet#")
        assert (recipe.task, recipe.plugin, recipe.level) == ("general", "rows", "1")
        assert example.prompt == f"<image>Question {number}?\nBox it."
        assert example.sample.truth == "ABCD"[number % 4]
        assert example.sample.images[0].tobytes() == picture(number // 2).tobytes()  # not cropped, not enlarged
        assert render(recipe).images[0].tobytes() == example.sample.images[0].tobytes()


FORMATS = {
    "bytes and path": ("a.parquet", lambda k: {"question": f"{k}?", "image": {"bytes": png(k), "path": f"{k}.png"}}),
    "bytes": ("a.parquet", lambda k: {"question": f"{k}?", "image": png(k)}),
    "verl": (
        "a.parquet",
        lambda k: {
            "data_source": "x",
            "prompt": [{"role": "user", "content": f"<image>\n{k}?"}],
            "images": [{"bytes": png(k)}],
            "answer": "wrong",
            "reward_model": {"style": "rule", "ground_truth": "A"},
        },
    ),
    "parts of a message": (
        "a.jsonl",
        lambda k: {
            "prompt": [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": f"\n{k}?"}]}],
            "image": base64.b64encode(png(k)).decode(),
        },
    ),
    "paths": ("a.jsonl", lambda k: {"query": f"{k}?", "images": [f"pictures/{k}.png"]}),
}


@pytest.mark.parametrize("kind", FORMATS)
def test_columns_and_images_of_other_formats_are_found(kind, write_mix, tmp_path):
    name, make = FORMATS[kind]
    (tmp_path / "pictures").mkdir()
    for k in range(8):
        picture(k).save(tmp_path / "pictures" / f"{k}.png")
    rows = [{"answer": "A"} | make(k) for k in range(8)]
    if kind != "verl":
        rows = [row | {"answer": "A"} for row in rows]
    write(tmp_path / name, rows)
    mix = load_mix(write_mix(f"tasks: {{general: {{rows: {name}}}}}{TAIL}"))
    for k in range(3):
        example = mix[k]
        number = int(re.search(r"(\d+)\?", example.prompt)[1])
        assert example.prompt.startswith(f"<image>\n{number}?\n")  # images come first if the question has no place
        assert example.sample.truth == "A"
        assert example.sample.images[0].tobytes() == picture(number).tobytes()


def test_a_folder_is_read_and_columns_can_be_named(write_mix, tmp_path):
    row = {
        "q": "<image> and <image>?",
        "facts": {"solution": 7, "kind": "number"},
        "shown": [png(1), png(2, (300, 100))],
    }
    write(tmp_path / "data" / "one.parquet", [row] * 3)
    write(tmp_path / "data" / "two.parquet", [row] * 3)
    columns = "question=q&images=shown&answer=facts.solution&scorer=facts.kind"
    mix = load_mix(write_mix(f"tasks: {{general: {{rows: 'data?{columns}'}}}}\nsamples: 4{TAIL}"))
    assert {example.rpartition("#")[0] for example in drawn(mix)} == {"one.parquet", "two.parquet"}
    example = mix[0]
    assert [image.size for image in example.images] == [(90, 70), (112, 37)]  # reduced to the size of the mix
    key = Key.of(example, format_weight=0.1)
    assert score(key, "<think>.</think>\\boxed{7.0}")["score"] == 1.0


def test_every_row_comes_once_before_any_comes_again(published, write_mix):
    path = write_mix(f"tasks: {{general: {{rows: '{published}'}}}}\nsamples: 60{TAIL}")
    mix = load_mix(path)
    count = mix.images["general"]
    first, second = drawn(mix)[:count], drawn(mix)[count : 2 * count]
    assert len(set(first)) == count and set(first) == set(second) and first != second


def test_rows_about_one_image_are_held_out_together_and_evaluation_has_other_rows_than_validation(published, write_mix):
    path = write_mix(
        f"tasks: {{general: {{rows: '{published}'}}}}\nsamples: 60\nheldout: {{samples: 30, fraction: 0.2}}"
    )
    rows = {split: {int(i.rpartition("#")[2]) for i in drawn(load_mix(path, split=split))} for split in
            ("train", "validation", "heldout")}  # fmt: skip
    images = {split: {number // 2 for number in numbers} for split, numbers in rows.items()}
    assert not images["train"] & (images["validation"] | images["heldout"])
    assert not rows["validation"] & rows["heldout"]
    assert rows["train"] | rows["validation"] | rows["heldout"] == set(range(24))


@pytest.mark.parametrize("grouped", [False, True], ids=["by shared images", "by a column"])
def test_rows_that_share_any_image_or_a_value_are_held_out_together(grouped, write_mix, tmp_path):
    rows = []
    for number in range(40):  # a chain of four rows, each of which shares an image with the next one
        names = [f"{number}.png", f"{number + 1 if number % 4 < 3 else number}.png"]
        images = [{"bytes": png(0), "path": None if grouped else name} for name in names]
        rows.append({"question": "?", "answer": "A", "images": images, "place": number // 4})
    write(tmp_path / "a.parquet", rows)
    options = "?group=place" if grouped else ""
    path = write_mix(f"tasks: {{general: {{rows: 'a.parquet{options}'}}}}\nsamples: 100{TAIL}")
    train = {int(i.rpartition("#")[2]) // 4 for i in drawn(load_mix(path))}
    held = {int(i.rpartition("#")[2]) // 4 for i in drawn(load_mix(path, split="heldout"), 4)}
    assert train and held and not train & held


BAD = {
    "file missing": {"images": ["nowhere.png"]},
    "number of <image> is not that of the images": {"problem": "<image> <image>?"},
    "row without an answer": {"answer": " "},
    "row without a question": {"problem": "<image>"},
    "row without an image": {"images": []},
    "unreadable image": {"images": ["broken.png"]},
    "path not below the folder": {"images": ["../outside.png"]},
    "answer that the scorer 'choice' would not accept": {"answer": "left"},
    "image too small": {"images": ["small.png"]},
}


def test_bad_rows_are_counted_by_reason_and_other_rows_take_their_place(write_mix, tmp_path):
    picture(0).save(tmp_path / "good.png")
    picture(0, (20, 90)).save(tmp_path / "small.png")
    (tmp_path / "broken.png").write_bytes(png(0)[:99])
    good = {"problem": "<image>?", "answer": "B", "images": ["good.png"]}
    rows = [good] * 20 + [good | bad for bad in BAD.values()]
    path = write(tmp_path / "a.jsonl", [row | {"number": number} for number, row in enumerate(rows)])
    with path.open("a") as file:
        file.write("[1, 2]\n{\n")
    mix = "tasks: {general: {rows: 'a.jsonl?group=number', scorer: choice}}\nsamples: 60\n"
    write_mix(f"{mix}heldout: {{samples: 20, fraction: 0.2}}")
    found, used = Counter(), {}
    for split in ("train", "validation", "heldout"):  # which have every row once, at least
        mix = load_mix(tmp_path / "mix.yaml", split=split)
        assert {mix[k].sample.truth for k in range(len(mix))} == {"B"}
        found += mix.rejections["general"]
        used[split] = set(drawn(mix))
    assert not used["train"] & (used["validation"] | used["heldout"]) and not used["validation"] & used["heldout"]
    assert set(found) == {*BAD, "line not readable"}


@pytest.mark.parametrize(
    ("task", "error", "message"),
    [
        ("{rows: a.jsonl, source: 'blank:'}", MixError, "tasks.general: .*rows and source exclude each other"),
        ("{scorer: choice}", MixError, "tasks.general: .*scorer is a key of rows"),
        ("{rows: a.jsonl, scorer: choise}", UnknownPlugin, "tasks.general.scorer: no installed .*'choise'.*'choice'"),
        ("{rows: b.jsonl}", SourceError, "tasks.general: .*there is no file .*b.jsonl"),
        ("{rows: 'a.jsonl?answer=anser'}", SourceError, "tasks.general: .*no column 'anser'.*'answer'"),
        ("{rows: 'a.jsonl?root=other'}", SourceError, "tasks.general: .*root: .*is not .* or a folder above it"),
        ("{rows: 'a.jsonl?column=x'}", SourceError, "tasks.general: .*no option 'column'"),
        ("{rows: a.jsonl, level: 2}", MixError, "tasks.general.level: '2' is not a level of 'general'"),
    ],
)
def test_a_mistake_in_the_mix_is_named(task, error, message, write_mix, tmp_path):
    write(tmp_path / "a.jsonl", [{"question": "?", "answer": "A", "image": "a.png"}])
    with pytest.raises(error, match=f"(?s){message}"):
        load_mix(write_mix(f"tasks: {{general: {task}}}{TAIL}"))


def test_a_puzzle_is_not_made_of_rows_and_rows_are_not_installed_as_a_task(published, write_mix):
    with pytest.raises(MixError, match="single images"):
        load_mix(write_mix(f"source: 'rows:{published}'\ntasks: {{flipped_patch: }}"))
    with pytest.raises(UnknownPlugin):
        load_task("rows")


def test_rows_of_an_included_mix_start_at_its_file_and_keep_their_keys(published, write_mix, tmp_path):
    write_mix(f"tasks: {{general: {{rows: '{published}', scorer: choice}}}}{TAIL}")
    (tmp_path / "below").mkdir()
    outer = write_mix("include: ../mix.yaml\ntasks: {general: {weight: 2}}", "below/outer.yaml")
    assert load_mix(outer)[0].recipe == load_mix(tmp_path / "mix.yaml")[0].recipe


def test_opening_reads_names_only_and_a_sample_reads_one_row_group(write_mix, tmp_path, monkeypatch):
    rows = [{"question": "?", "answer": "A", "image": {"bytes": png(k), "path": f"{k}.png"}} for k in range(30)]
    write(tmp_path / "a.parquet", rows, row_group_size=3)
    read, real = [], pq.ParquetFile.read_row_group

    def spy(self, number, columns=None, **settings):
        read.append((number, tuple(columns)))
        return real(self, number, columns=columns, **settings)

    monkeypatch.setattr(pq.ParquetFile, "read_row_group", spy)
    mix = load_mix(write_mix(f"tasks: {{general: {{rows: a.parquet}}}}{TAIL}"))
    assert read == [(number, ("image.path",)) for number in range(10)]
    read.clear()
    mix[0]
    assert [columns for _, columns in read] == [("question", "answer", "image")]


def test_a_row_group_that_cannot_be_read_costs_its_rows(write_mix, tmp_path, monkeypatch):
    rows = [{"question": "?", "answer": "A", "image": {"bytes": png(k), "path": f"{k}.png"}} for k in range(30)]
    write(tmp_path / "a.parquet", rows, row_group_size=10)
    real = pq.ParquetFile.read_row_group

    def damaged(self, number, **settings):
        if number == 1:
            raise OSError("Corrupt snappy compressed data.")
        return real(self, number, **settings)

    monkeypatch.setattr(pq.ParquetFile, "read_row_group", damaged)
    mix = load_mix(write_mix(f"tasks: {{general: {{rows: a.parquet}}}}\nsamples: 40{TAIL}"))
    assert not {int(i.rpartition("#")[2]) for i in drawn(mix)} & set(range(10, 20))
    assert set(mix.rejections["general"]) == {"unreadable table"}


def test_an_export_an_evaluation_and_a_resumed_run_take_rows(published, write_mix, tmp_path):
    path = write_mix(f"tasks: {{general: {{rows: '{published}', scorer: published}}}}{TAIL}")
    export(path, tmp_path / "out", samples=3)
    (row, *_) = pq.read_table(tmp_path / "out" / "train-00000-of-00001.parquet").to_pylist()
    assert row["data_source"] == "general@1"
    key = Key.from_json(row["reward_model"]["ground_truth"])
    assert (key.plugin, key.truth) == ("rows", row["extra_info"]["truth"])
    assert render(Recipe.from_json(row["extra_info"]["recipe"])).truth == key.truth
    lines = [{**json.loads(key.to_json()), "completion": f"\\boxed{{{key.truth}}}", "score": 0.9}]
    write(tmp_path / "said.jsonl", lines)
    said = CliRunner().invoke(app(), ["score", str(tmp_path / "said.jsonl"), "--json"], catch_exceptions=False)
    assert json.loads(said.stdout)["tasks"]["general@1"] | {"n": 1} == {
        "n": 1, "score": 0.9, "acc": 1.0, "format": 0.0, "error": 0, "saved": 1, "differ": 0,
    }  # fmt: skip
    assert "plugin" in Answer.__slots__
    before = plan_of_mix(load_mix(path))
    picture(99).save(tmp_path / "images" / "shuffle" / "0.png")
    open_source.cache_clear()
    (changed,) = differences(before, plan_of_mix(load_mix(path)))
    assert ".digest: " in changed


def test_an_export_of_puzzles_is_read_as_rows_again(write_mix, tmp_path):
    export(write_mix("tasks: {flipped_patch: }\nsize: 112"), tmp_path / "out", samples=12)
    rows = "out?files=*.parquet&answer=extra_info.truth"
    mix = load_mix(write_mix(f"tasks: {{old: {{rows: '{rows}'}}}}\ninstruction: ''", "rows.yaml"))
    example = mix[0]
    stored = pq.read_table(tmp_path / "out" / "train-00000-of-00001.parquet").to_pylist()
    row = stored[int(example.recipe.image_id.rpartition("#")[2])]
    assert example.prompt == row["prompt"][0]["content"].strip()
    assert example.images[0].tobytes() == Image.open(BytesIO(row["images"][0]["bytes"])).tobytes()
    assert score(Key.of(example, format_weight=0.1), f"<think>.</think>\\boxed{{{example.sample.truth}}}")["acc"] == 1.0


def test_a_plugin_adds_a_scorer(install, write_mix, tmp_path):
    code = "def near(answer, truth):\n    return max(0.0, 1 - abs(float(answer) - float(truth)))\n"
    install("ssrl-plugin-near", entry_points={"ssrl.scorers": {"near": "ssrl_plugin_near:near"}}, code=code)
    write(tmp_path / "a.parquet", [{"question": "?", "answer": 3, "image": png(0)}] * 4)
    text = f"tasks: {{general: {{rows: a.parquet, scorer: near}}}}{TAIL}"
    mix = load_mix(write_mix(text))
    key = Key.of(mix[0], format_weight=0.1)
    assert score(key, "<think>.</think>\\boxed{3.5}")["score"] == pytest.approx(0.55)
    assert score(key, "<think>.</think>\\boxed{three}")["error"] == 1.0  # costs one completion, not the run
    assert plan_of_mix(mix)["versions"]["ssrl-plugin-near"] == "0.1"
    with pytest.raises(Exception, match="may not be loaded"):
        load_mix(write_mix(f"allowed_distributions: [ssrl-core]\n{text}"))


def reward(completion, truth="A"):
    key = Key("general", truth, "1", {"question": "?", "scorer": "published", "form": "published"}, plugin="rows")
    return score(key, completion)["score"]


@pytest.mark.parametrize(
    ("completion", "expected"),
    [
        ("<think>x</think>\\boxed{A}", 1.0),
        ("<think></think>\\boxed{A}", 1.0),  # no thought
        ("<think>\\boxed{A}</think>", 0.9),  # a box inside the thinking counts, the form does not
        ("\\boxed{A}", 0.9),
        ("A", 0.0),
        ("<think></think>\\boxed{}", 0.1),
        ("<think>x</think>\\boxed{B}\\boxed{A} trailing", 1.0),  # the last box wins
        ("<think>x</think>\\boxed{A}\\boxed{B}", 0.1),
        ("<think>x</think>\\boxed{a}", 0.1),
        ("<think>x</think>\\boxed{(A)}", 0.1),
        ("<think>x</think>\\boxed{ A }", 1.0),
        ("<think>x</think>\\boxed{\\text{A}}", 0.1),
        ("< think >x< / think >\\boxed{A}", 1.0),  # white space around < > / is removed
        (" <think>x</think>\\boxed{A}", 1.0),
        ("so: <think>x</think>\\boxed{A}", 0.9),
        ("<think>x</think>\\boxed{A", 0.0),
    ],
)
def test_the_published_reward_is_repeated_with_its_holes(completion, expected):
    assert reward(completion) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("truth", "right", "wrong"),
    [
        ("B", ["b", "(B)", "Option B"], ["A", "A or B", "AB"]),
        ("2-1-3", ["2, 1, 3", "2 1 3"], ["1-2-3", "2-1"]),
        ("3-vertical", ["3, Vertical", "(3) → vertical"], ["3", "3-horizontal"]),
        ("1200", ["1,200", "1200.0", "2400/2"], ["12", "1200%", "-1200", "1200 or 12"]),
        ("left of the bed", ["Left of the bed."], ["left", "left of the bed or right"]),
    ],
)
def test_a_strict_scorer_goes_by_the_kind_of_the_truth(truth, right, wrong):
    for answer in [truth, *right]:
        assert match_strict(answer, truth) == 1.0, answer
    for answer in wrong:
        assert match_strict(answer, truth) == 0.0, answer


def test_numbers_are_compared_as_numbers():
    same = [("0.5", "1/2"), (".5", "0.50"), ("-3", "-3.0"), ("45%", "45 %"), ("$5", "5")]
    assert [match_number(*pair) for pair in same] == [1.0] * len(same)
    other = [("1/0", "1"), ("1e5", "100000"), ("45", "45%"), ("", "0"), ("1,20", "120"), ("9" * 300, "1")]
    assert [match_number(*pair) for pair in other] == [0.0] * len(other)
