"""The content of an export depends on its mix only: not on workers, kills, damaged files or a full disk."""

import importlib.util
import json
import logging
import os
import runpy
import shutil
import signal
import subprocess
import sys
from collections import Counter
from contextlib import nullcontext
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image

pytest.importorskip("pyarrow", reason="pyarrow is not installed: pip install 'ssrl-core[export]'")

import pyarrow.parquet as pq
from typer.testing import CliRunner

from ssrl_core import sample as attempt
from ssrl_core.cli import app
from ssrl_core.cli.export import as_text
from ssrl_core.cli.terminal import progress_bar
from ssrl_core.errors import PluginFailed, SourceError
from ssrl_core.export import ExportError, export
from ssrl_core.export.local import SHARDS_A_WORKER
from ssrl_core.mix import load_mix
from ssrl_core.reward import Key, score
from ssrl_core.sample import render
from ssrl_core.sources import open_source
from ssrl_core.types import Recipe

FIVE = """
source: "synthetic:?width=192&height=144"
size: 112
seed: 5
tasks: {shuffled_patches: , flipped_patch: , cropped_patch: , depth_ordering: , relative_position: }
"""
# Exports in another process, which prints the number of finished samples.
ALONE = """
import sys
from pathlib import Path
from types import SimpleNamespace
from ssrl_core.errors import SSRLError
from ssrl_core.export import export
mix, folder, settings = sys.argv[1:]
try:
    export(Path(mix), Path(folder), on_progress=lambda done, total: print(done, flush=True), **eval(settings))
except SSRLError as err:
    sys.exit(f"{type(err).__name__}: {err}")
"""
# The toy shows its source image, so that images differ. Code of a test replaces "pass".
SHOWING = (
    (
        "from ssrl_core import",
        "import os\nfrom pathlib import Path\nfrom zlib import crc32\nfrom ssrl_core import",
    ),
    (
        "def ssrl_generate_sample(rng):",
        "def ssrl_generate_sample(rng, source):\n    truth = 'AB'[rng.integers(2)]\n    pass",
    ),
    ('Sample((Image.new("RGB", (32, 32)),), "AB"[rng.integers(2)])', "Sample((Image.fromarray(source.rgb),), truth)"),
)


@pytest.fixture
def install_showing(install_toy):
    """A function that installs the task ``toy``, with code that runs after its truth was drawn."""

    def install(code="pass", **facts):
        install_toy(*SHOWING, ("\n    pass", f"\n    {code}"), **facts)

    return install


@pytest.fixture
def toy_mix(install_showing, pictures, write_mix):
    install_showing()
    return write_mix(mix_text(pictures))


def mix_text(pictures):
    return f"source: 'folder:{pictures}'\nsize: 64\nsamples: 1000\ntasks: {{toy: }}"


def alone(mix, folder, **settings):
    """Start an export in another process, which finds the same plugins as this one."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    arguments = [sys.executable, "-c", ALONE, str(mix), str(folder), repr(settings)]
    return subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def rows_of(folder):
    return [row for path in sorted(folder.glob("*.parquet")) for row in pq.read_table(path).to_pylist()]


def content(folder):
    """All files of an export except the lock and the name of the process that holds it."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def decoded(image):
    return Image.open(BytesIO(image["bytes"]) if isinstance(image, dict) else image)


@pytest.mark.parametrize("files", [False, True])
def test_a_row_is_the_sample_of_the_mix_to_the_last_pixel_and_its_recipe_rebuilds_it(write_mix, tmp_path, files):
    mix = load_mix(path := write_mix(FIVE))
    manifest = export(path, tmp_path / "out", samples=15, shard_size=10, files=files)
    rows = rows_of(tmp_path / "out")
    assert len(rows) == manifest["rows"] == 15
    assert set(manifest["counts"].values()) == {3}
    for index, row in enumerate(rows):
        example = mix[index]
        assert row["data_source"] == f"{example.recipe.task}@{example.recipe.level}"
        assert row["prompt"] == [{"role": "user", "content": example.prompt}]
        assert row["extra_info"]["index"] == index
        assert Key.from_json(row["reward_model"]["ground_truth"]).truth == example.sample.truth
        rebuilt = render(Recipe.from_json(row["extra_info"]["recipe"]))
        expected = [image.tobytes() for image in example.sample.images]
        assert [decoded(image).convert("RGB").tobytes() for image in row["images"]] == expected
        assert [image.tobytes() for image in rebuilt.images] == expected


def test_the_held_out_split_is_exported_from_its_own_images(toy_mix, tmp_path):
    export(toy_mix, tmp_path / "train", samples=200)
    export(toy_mix, tmp_path / "heldout", split="heldout")
    train, heldout = (
        {Recipe.from_json(row["extra_info"]["recipe"]).image_id for row in rows_of(tmp_path / split)}
        for split in ("train", "heldout")
    )
    assert train and heldout and not train & heldout
    assert len(rows_of(tmp_path / "heldout")) == len(load_mix(toy_mix, split="heldout"))


def test_jpeg_images_are_smaller_and_close(toy_mix, tmp_path):
    export(toy_mix, tmp_path / "png", samples=8)
    export(toy_mix, tmp_path / "jpeg", samples=8, jpeg=95)
    for exact, close in zip(rows_of(tmp_path / "png"), rows_of(tmp_path / "jpeg"), strict=True):
        assert decoded(close["images"][0]).format == "JPEG"
        assert len(close["images"][0]["bytes"]) < len(exact["images"][0]["bytes"])
        assert exact["reward_model"] == close["reward_model"]


def test_two_workers_write_the_bytes_that_one_writes(toy_mix, tmp_path):
    one = export(toy_mix, tmp_path / "one", samples=70, shard_size=10)
    two = export(toy_mix, tmp_path / "two", samples=70, shard_size=10, workers=2)
    assert one == two
    assert content(tmp_path / "one") == content(tmp_path / "two")


@pytest.mark.parametrize(("workers", "done", "files"), [(1, 0, False), (1, 25, True), (1, 59, False), (2, 35, True)])
def test_killed_at_any_point_and_started_again_it_ends_with_the_same_content(toy_mix, tmp_path, workers, done, files):
    folder = tmp_path / "out"
    settings = {"samples": 60, "shard_size": 10, "files": files}
    export(toy_mix, folder, **settings)
    whole = content(folder)
    shutil.rmtree(folder)
    process = alone(toy_mix, folder, workers=workers, **settings)
    while int(process.stdout.readline()) < done:
        pass
    process.kill()
    assert process.wait() == -signal.SIGKILL
    process.communicate(timeout=300)  # ends when the workers have ended, which hold the same pipe
    finished = {path: path.stat().st_mtime_ns for path in folder.glob("*.parquet")}
    assert len(finished) < 6 or not (folder / "manifest.json").exists()
    export(toy_mix, folder, **settings)
    assert content(folder) == whole
    assert finished == {path: path.stat().st_mtime_ns for path in finished}


def test_a_worker_that_is_killed_costs_nothing(install_showing, pictures, write_mix, tmp_path, caplog):
    flag = tmp_path / "was killed"
    install_showing(f"Path({str(flag)!r}).exists() or (Path({str(flag)!r}).touch(), os.kill(os.getpid(), 9))")
    mix = write_mix(mix_text(pictures))
    two = export(mix, tmp_path / "two", samples=30, shard_size=10, workers=2)
    assert flag.exists() and "a worker died" in caplog.text
    assert export(mix, tmp_path / "one", samples=30, shard_size=10) == two


def test_workers_that_always_die_end_the_export_with_an_explanation(install_showing, pictures, write_mix, tmp_path):
    install_showing("os.getpid() == int(os.environ['EXPORTER']) or os.kill(os.getpid(), 9)")
    mix = write_mix(mix_text(pictures))
    with pytest.MonkeyPatch.context() as patch, pytest.raises(ExportError, match="lack of memory"):
        patch.setenv("EXPORTER", str(os.getpid()))
        export(mix, tmp_path / "out", samples=20, shard_size=10, workers=2)
    assert not list((tmp_path / "out").glob("*.parquet"))


@pytest.mark.parametrize("damage", ["truncated", "flipped", "another shard", "of another export"])
def test_a_shard_that_was_damaged_is_made_again_and_the_others_are_kept(toy_mix, pictures, write_mix, tmp_path, damage):
    folder = tmp_path / "out"
    export(toy_mix, folder, samples=30, shard_size=10)
    before = content(folder)
    first, second, third = sorted(folder.glob("*.parquet"))
    data = bytearray(second.read_bytes())
    if damage == "truncated":
        second.write_bytes(data[:-100])
    elif damage == "flipped":
        data[len(data) // 3] ^= 1  # in the middle of an image, where no footer knows of it
        second.write_bytes(data)
    elif damage == "another shard":
        shutil.copy(first, second)
    else:
        export(write_mix(mix_text(pictures) + "\nseed: 3"), tmp_path / "other", samples=30, shard_size=10)
        shutil.copy(tmp_path / "other" / second.name, second)
        toy_mix = write_mix(mix_text(pictures))
    kept = first.stat().st_mtime_ns, third.stat().st_mtime_ns
    export(toy_mix, folder, samples=30, shard_size=10)
    assert content(folder) == before
    assert kept == (first.stat().st_mtime_ns, third.stat().st_mtime_ns)


@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_bytes(path.read_bytes()[:-9])])
def test_an_image_file_that_is_missing_or_cut_short_is_written_again(toy_mix, tmp_path, damage):
    folder = tmp_path / "out"
    export(toy_mix, folder, samples=20, shard_size=10, files=True)
    before = content(folder)
    damage(sorted((folder / "images").rglob("*.png"))[13])
    export(toy_mix, folder, samples=20, shard_size=10, files=True)
    assert content(folder) == before


def test_another_export_into_the_same_folder_is_refused_with_the_difference(
    toy_mix, install_showing, pictures, write_mix, tmp_path
):
    folder = tmp_path / "out"
    settings = {"samples": 20, "shard_size": 10}
    export(toy_mix, folder, **settings)
    before = content(folder)

    def refused(mix, difference, **changes):
        with pytest.raises(ExportError, match=difference):
            export(mix, folder, **settings | changes)
        assert content(folder) == before

    refused(toy_mix, "samples: 20 -> 30", samples=30)
    refused(toy_mix, "shard_size: 10 -> 5", shard_size=5)
    refused(toy_mix, "split: 'train' -> 'heldout'", split="heldout")
    refused(toy_mix, "images: 'png' -> 'jpeg 90'", jpeg=90)
    refused(toy_mix, "images: 'png' -> 'png in ", files=True)
    refused(write_mix(mix_text(pictures) + "\nseed: 3", name="other.yaml"), "mix.seed: 0 -> 3")
    install_showing(version="0.2")
    refused(toy_mix, "versions.ssrl-plugin-toy: '0.1' -> '0.2'")
    shutil.copy(pictures / "00 é.png", pictures / "one more.png")
    open_source.cache_clear()  # as in a new process
    refused(toy_mix, "images: 12 -> 13")


def test_a_changed_image_refuses_a_resumption(toy_mix, pictures, tmp_path):
    export(toy_mix, tmp_path / "out", samples=20)
    before = content(tmp_path / "out")
    shutil.copy(pictures / "00 é.png", pictures / "07 é.png")
    open_source.cache_clear()  # as in a new process
    with pytest.raises(ExportError, match=r"sources\.folder:.*\.digest: '\w+' -> '\w+'"):
        export(toy_mix, tmp_path / "out", samples=20)
    assert content(tmp_path / "out") == before


def test_a_mix_of_the_same_meaning_resumes_from_another_file_whatever_the_times_of_the_images(
    toy_mix, pictures, write_mix, tmp_path
):
    export(toy_mix, tmp_path / "out", samples=20)
    for path in pictures.iterdir():
        os.utime(path, (0, 0))
    open_source.cache_clear()
    base = write_mix(mix_text(pictures.relative_to(tmp_path)), name="base.yaml")
    again = write_mix(f"# a comment\ninclude: {base.name}\nseed: 0", name="again.yaml")
    assert export(again, tmp_path / "out", samples=20)["rows"] == 20


def test_the_manifest_holds_the_mix_as_one_file_that_makes_the_same_samples(toy_mix, write_mix, tmp_path):
    including = write_mix(f"include: {toy_mix.name}\nseed: 8", name="including.yaml")
    manifest = export(including, tmp_path / "out", samples=10)
    elsewhere = tmp_path / "elsewhere" / "mix.yaml"
    elsewhere.parent.mkdir()
    elsewhere.write_text(manifest["mix"], encoding="utf-8")
    assert export(elsewhere, tmp_path / "again", samples=10)["shards"] == manifest["shards"]
    assert {"ssrl-core", "ssrl-plugin-toy", "numpy", "opencv", "pillow", "pyarrow"} <= manifest["versions"].keys()


def test_two_exports_into_one_folder_at_a_time_are_refused_until_the_first_is_dead(toy_mix, tmp_path):
    folder = tmp_path / "out"
    process = alone(toy_mix, folder, samples=300, shard_size=10)
    process.stdout.readline()
    process.send_signal(signal.SIGSTOP)
    with pytest.raises(ExportError, match=rf"process {process.pid} on .* is working on the export in .*/out"):
        export(toy_mix, folder, samples=300, shard_size=10)
    process.kill()
    process.communicate()
    assert export(toy_mix, folder, samples=300, shard_size=10)["rows"] == 300


def test_a_folder_of_something_else_is_left_alone(toy_mix, tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter 1.txt").write_text("words")
    with pytest.raises(ExportError, match=r"not empty .*chapter 1"):
        export(toy_mix, tmp_path / "thesis", samples=1)
    assert (tmp_path / "thesis" / "chapter 1.txt").read_text() == "words"


def test_a_place_that_cannot_be_written_is_an_explanation(toy_mix, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ExportError, match=r"cannot write into .*file.*: Not a directory"):
        export(toy_mix, tmp_path / "file" / "out", samples=1)


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write into read-only folders")
def test_a_read_only_folder_is_an_explanation(toy_mix, tmp_path):
    (tmp_path / "out").mkdir(mode=0o500)
    with pytest.raises(ExportError, match=r"cannot write into .*: Permission denied"):
        export(toy_mix, tmp_path / "out", samples=1)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_disk_that_is_full_leaves_no_half_shard_and_with_room_again_the_export_goes_on(toy_mix, tmp_path, workers):
    whole, folder = tmp_path / "whole", tmp_path / "out"
    settings = {"samples": 60, "shard_size": 20}
    export(toy_mix, whole, **settings)
    largest = max(path.stat().st_size for path in whole.glob("*.parquet"))
    limited = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({largest - 2000},) * 2)\n" + ALONE
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    arguments = [sys.executable, "-c", limited, str(toy_mix), str(folder), repr(settings | {"workers": workers})]
    process = subprocess.run(arguments, capture_output=True, text=True, env=environment)
    assert process.returncode == 1
    assert f"ExportError: cannot write into {folder}: File too large" in process.stderr
    left = {path.name for path in folder.iterdir()}
    assert not (folder / "manifest.json").exists() and not {name for name in left if name.endswith(".tmp")}
    complete = content(whole)
    for path in folder.glob("*.parquet"):
        assert path.read_bytes() == complete[path.name]
    export(toy_mix, folder, **settings)
    assert content(folder) == complete


def test_a_damaged_image_is_replaced_by_another_and_counted(toy_mix, pictures, tmp_path):
    data = (pictures / "03 é.png").read_bytes()
    (pictures / "03 é.png").write_bytes(data[: len(data) // 2])
    (pictures / "04 é.png").write_bytes(b"")
    manifest = export(toy_mix, tmp_path / "out", samples=60, shard_size=10, workers=2)
    assert manifest["rows"] == 60
    assert manifest["rejected"]["toy"]["unreadable image"] >= 2
    assert "rejected images" in as_text(manifest, tmp_path)


def test_a_plugin_that_raises_on_one_image_in_a_hundred_costs_that_image_and_no_row(
    install_showing, pictures, write_mix, tmp_path, caplog
):
    install_showing("if crc32(source.rgb) % 100 == 0: raise ZeroDivisionError('of a hundred')")
    (pictures / "03 é.png").write_bytes(b"no image")
    mix = write_mix(mix_text(pictures))
    one = export(mix, tmp_path / "one", samples=400, shard_size=50)
    assert one == export(mix, tmp_path / "two", samples=400, shard_size=50, workers=2)
    assert one["rows"] == 400
    assert one["rejected"]["toy"]["unreadable image"] > 8  # in each of the eight shards, and counted once
    assert 0 < one["rejected"]["toy"]["plugin failed: ZeroDivisionError"] < 20
    assert "of a hundred" in caplog.text and "plugin failed: ZeroDivisionError" in as_text(one, tmp_path)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_plugin_that_fails_on_a_truth_ends_the_export_with_what_it_says(
    install_showing, pictures, write_mix, tmp_path, workers
):
    install_showing("if truth == 'B': raise ZeroDivisionError('never B')")
    with pytest.raises(PluginFailed, match=r"(?s)ssrl-plugin-toy 0.1.*never B.*The plugin failed on 8 images"):
        export(write_mix(mix_text(pictures)), tmp_path / "out", samples=200, shard_size=50, workers=workers)


def test_images_of_which_none_can_be_used_end_the_export(toy_mix, pictures, tmp_path):
    for path in pictures.iterdir():
        path.write_bytes(b"no image")
    with pytest.raises(SourceError, match=r"64 images in a row .*\(unreadable image: 64\)"):
        export(toy_mix, tmp_path / "out", samples=200)


def test_a_plugin_that_hangs_costs_the_image(install_showing, pictures, write_mix, tmp_path, monkeypatch):
    flag = tmp_path / "hung"
    hang = f"Path({str(flag)!r}).exists() or (Path({str(flag)!r}).touch(), __import__('threading').Event().wait())"
    install_showing(hang)
    monkeypatch.setattr(attempt, "SAMPLE_LIMIT", 1.0)
    manifest = export(write_mix(mix_text(pictures)), tmp_path / "out", samples=20)
    assert manifest["rows"] == 20
    assert manifest["rejected"]["toy"] == {"not made within 1 s": 1}


def test_a_plugin_that_always_hangs_ends_the_export(install_showing, pictures, write_mix, tmp_path, monkeypatch):
    install_showing("__import__('threading').Event().wait()", name="hanging")
    monkeypatch.setattr(attempt, "SAMPLE_LIMIT", 0.1)
    with pytest.raises(PluginFailed, match=r"ssrl-plugin-hanging 0.1.*is not called any more: 3 earlier calls"):
        export(write_mix(mix_text(pictures).replace("toy", "hanging")), tmp_path / "out", samples=20)


def test_workers_are_replaced_before_what_a_plugin_leaks_adds_up(install_showing, pictures, write_mix, tmp_path):
    calls = tmp_path / "calls"
    install_showing(f"with open({str(calls)!r}, 'a') as file: print(os.getpid(), file=file)")
    export(write_mix(mix_text(pictures)), tmp_path / "out", samples=6 * SHARDS_A_WORKER, shard_size=2, workers=2)
    made = Counter(calls.read_text().split())
    assert len(made) >= 3 and max(made.values()) <= 2 * SHARDS_A_WORKER


def test_more_samples_than_the_mix_has_are_refused(toy_mix, tmp_path):
    with pytest.raises(ExportError, match="it has 1000"):
        export(toy_mix, tmp_path / "out", samples=1001)


def test_progress_is_told_in_lines_where_there_is_no_terminal(toy_mix, tmp_path, capsys):
    with progress_bar() as show:
        export(toy_mix, tmp_path / "out", samples=40, shard_size=10, on_progress=show)
    lines = capsys.readouterr().err.splitlines()
    assert 2 <= len(lines) <= 21
    assert lines[-1].startswith("40 of 40 samples") and lines[-1].endswith("0 s left")
    assert all("samples/s" in line for line in lines)


def test_datasets_opens_the_shards(toy_mix, tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets", reason="datasets is not installed")
    export(toy_mix, tmp_path / "out", samples=25, shard_size=10)
    opened = datasets.load_dataset(
        "parquet", data_files=str(tmp_path / "out" / "*.parquet"), cache_dir=str(tmp_path / "cache")
    )["train"]
    assert [row["extra_info"]["index"] for row in opened] == list(range(25))
    images = opened.cast_column("images", datasets.List(datasets.Image()))[3]["images"]
    assert images[0].tobytes() == load_mix(toy_mix)[3].sample.images[0].tobytes()


@pytest.mark.parametrize("files", [False, True])
def test_the_stock_dataset_of_verl_reads_the_shards_as_they_are(
    tiny_model, write_mix, tmp_path, monkeypatch, capsys, files
):
    datasets = pytest.importorskip("datasets", reason="datasets is not installed")
    pytest.importorskip("verl", reason="the 'train' extra is not installed")
    from omegaconf import OmegaConf
    from verl.utils.dataset.rl_dataset import RLHFDataset, collate_fn

    from ssrl_core.reward import compute_score
    from ssrl_core.verl.dataset import MixDataset

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    path = write_mix(FIVE)
    _, processor, mix, _ = tiny_model(FIVE)
    out = tmp_path / "öut put"
    export(path, out, samples=10, shard_size=5, files=files)
    shards = [str(shard) for shard in sorted(out.glob("*.parquet"))]
    # In this process: it has threads, whose locks its forked children could wait for.
    config = OmegaConf.create({"max_prompt_length": 2048, "filter_overlong_prompts_workers": None})
    rows = RLHFDataset(shards, processor.tokenizer, config, processor)
    assert len(rows) == 10 and "Error processing" not in capsys.readouterr().out
    assert collate_fn([rows[0], rows[1]])["index"].tolist() == [0, 1]
    streamed = MixDataset(str(path), tokenizer=None, config=None)
    for index in range(10):
        row, sample = rows[index], mix[index].sample
        parts = row["raw_prompt"][0]["content"]
        assert "".join(part.get("text", "<image>") for part in parts) == mix[index].prompt
        images = [part["image"] for part in parts if part["type"] == "image"]
        images = [Image.open(image) if isinstance(image, str) else image for image in images]
        assert [image.convert("RGB").tobytes() for image in images] == [image.tobytes() for image in sample.images]
        for answer in (sample.truth, "1", "nothing of the kind"):
            completion = f"<think>I look.</think>\\boxed{{{answer}}}"
            earned = [
                compute_score(
                    line["data_source"], completion, line["reward_model"]["ground_truth"], extra_info=line["extra_info"]
                )
                for line in (row, streamed[index])
            ]
            assert earned[0] == earned[1] == score(Key.from_json(row["reward_model"]["ground_truth"]), completion)
        assert earned[0]["format"] == 1.0


def test_the_command_exports_and_ends_with_a_message_if_it_cannot(toy_mix, tmp_path):
    def ssrl(*words):
        return CliRunner().invoke(app(["export"]), ["export", str(toy_mix), "-o", str(tmp_path / "out"), *words])

    first = ssrl("-n", "30", "--shard-size", "10", "--workers", "2")
    assert first.exit_code == 0 and first.stdout.startswith("30 samples in 3 shards")
    assert "30 of 30 samples" in first.stderr
    assert json.loads((tmp_path / "out" / "manifest.json").read_text())["rows"] == 30
    other = ssrl("-n", "31", "--shard-size", "10")
    assert isinstance(other.exception, ExportError) and "samples: 30 -> 31" in str(other.exception)


def load_as_easyr1(folder):
    """The rows as EasyR1's dataset takes them: a text with <image>, and images as records with bytes, or as paths."""
    from datasets import load_dataset

    for row in load_dataset("parquet", data_files=f"{folder}/train-*.parquet", split="train"):
        images = [Image.open(image if isinstance(image, str) else BytesIO(image["bytes"])) for image in row["images"]]
        assert isinstance(row["problem"], str) and row["problem"].count("<image>") == len(images) > 0
        yield row["problem"], [image.convert("RGB") for image in images], row["answer"], row


def load_as_swift(folder):
    """The rows as the preprocessor of ms-swift takes them: messages of role and content, images as records or paths."""
    from datasets import load_dataset

    for row in load_dataset("parquet", data_files=f"{folder}/train-*.parquet", split="train"):
        (message,) = row["messages"]
        assert message.keys() == {"role", "content"} and message["role"] == "user"
        images = [image if isinstance(image, dict) else {"bytes": None, "path": image} for image in row["images"]]
        assert all(image.keys() == {"bytes", "path"} for image in images)
        assert message["content"].count("<image>") == len(images) > 0
        opened = [Image.open(BytesIO(image["bytes"]) if image["bytes"] else image["path"]) for image in images]
        yield message["content"], [image.convert("RGB") for image in opened], row["solution"], row


@pytest.mark.parametrize("files", [False, True], ids=["bytes", "files"])
@pytest.mark.parametrize(("layout", "load"), [("easyr1", load_as_easyr1), ("swift", load_as_swift)])
def test_an_export_for_another_trainer_has_its_columns_our_samples_and_our_rewards(
    layout, load, files, install_toy, write_mix, tmp_path
):
    pytest.importorskip("datasets", reason="the 'train' extra is not installed")
    install_toy()
    path = write_mix("tasks: {toy: }\nsource: 'synthetic:?width=96&height=72'\nsize: 64")
    said = ["export", str(path), "-o", str(tmp_path / "out"), "-n", "4", "--for", layout, *["--files"] * files]
    result = CliRunner().invoke(app(), said, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    mix = load_mix(path)
    rows = list(load(tmp_path / "out"))
    assert len(rows) == 4
    for index, (prompt, images, key, row) in enumerate(rows):
        example = mix[index]
        assert prompt == example.prompt
        assert [image.tobytes() for image in images] == [image.tobytes() for image in example.images]
        assert row["truth"] == example.sample.truth and row["data_source"] == "toy@1"
        assert render(Recipe.from_json(row["recipe"])).truth == row["truth"]
        for completion in (f"<think>.</think>\\boxed{{{row['truth']}}}", "<think>.</think>\\boxed{Z}", "?"):
            assert (
                rewards_of(tmp_path / "out", layout, completion, key) == score(Key.from_json(key), completion)["score"]
            )
    assert export(path, tmp_path / "out", samples=4, layout=layout, files=files)["rows"] == 4  # resumes
    with pytest.raises(ExportError, match="layout"):
        export(path, tmp_path / "out", samples=4, files=files)


def rewards_of(folder, layout, completion, key):
    """The reward of the function in ``reward.py`` of an export, called as the trainer calls it."""
    fake = SimpleNamespace(ORM=object, orms={})
    modules = {"swift": SimpleNamespace(), "swift.rewards": fake}
    with pytest.MonkeyPatch.context() as patch:
        for name, module in modules.items():
            patch.setitem(sys.modules, name, module)
        found = runpy.run_path(str(folder / "reward.py"))
    if layout == "swift":
        (reward,) = fake.orms["ssrl"]()([completion], solution=[key], truth=["?"])
        return reward
    (reward,) = found["compute_score"]([{"response": completion, "response_length": 3, "ground_truth": key}])
    assert reward.keys() == {"overall", "accuracy", "format"}
    return reward["overall"]


@pytest.fixture
def preprocessor_of_swift(monkeypatch):
    """The class of ms-swift that brings any data set into its own form, from its file in a wheel. Skips without it."""
    file = Path(__file__).parents[1] / ".oracles" / "swift" / "dataset" / "preprocessor" / "core.py"
    if not file.is_file():
        pytest.skip("no oracles: pip install --no-deps --target .oracles -r tests/oracles.txt")
    unused = {  # by a data set with messages
        "modelscope.hub.utils.utils": {"get_cache_dir": lambda: str(file)},
        "swift.dataset.utils": {"sample_dataset": None},
        "swift.template": {"history_to_messages": None, "MaxLengthError": ValueError},
        "swift.template.template_inputs": {"normalize_openai_tool_calls": lambda messages: messages},
        "swift.utils": {
            "TOOL_KEYS": (), "get_logger": logging.getLogger, "is_dist": lambda: False, "is_master": lambda: True,
            "remove_arrow_padding": None, "safe_ddp_context": lambda *_: nullcontext(),
        },
    }  # fmt: skip
    for name, content in unused.items():
        monkeypatch.setitem(sys.modules, name, SimpleNamespace(**content))
    spec = importlib.util.spec_from_file_location("swift.dataset.preprocessor.core", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.AutoPreprocessor


@pytest.mark.parametrize("files", [False, True], ids=["bytes", "files"])
def test_ms_swift_itself_takes_the_rows_of_an_export(files, preprocessor_of_swift, install_toy, write_mix, tmp_path):
    datasets = pytest.importorskip("datasets", reason="the 'train' extra is not installed")
    install_toy()
    path = write_mix("tasks: {toy: }\nsource: 'synthetic:?width=96&height=72'\nsize: 64")
    export(path, tmp_path / "out", samples=4, layout="swift", files=files)
    rows = datasets.load_dataset("parquet", data_files=f"{tmp_path}/out/train-*.parquet", split="train")
    taken = preprocessor_of_swift()(rows, load_from_cache_file=False)
    mix = load_mix(path)
    assert len(taken) == 4
    for index, row in enumerate(taken):
        assert row["messages"] == [{"role": "user", "content": mix[index].prompt}]
        (image,) = row["images"]
        opened = Image.open(BytesIO(image["bytes"]) if image["bytes"] else image["path"])
        assert opened.tobytes() == mix[index].images[0].tobytes()
        assert json.loads(row["solution"])["truth"] == row["truth"] == mix[index].sample.truth
