"""What must be the same to resume an export, an evaluation or a training run."""

import os
import subprocess
import sys

import pytest
from PIL import Image

from ssrl_core.errors import MixError, SSRLError
from ssrl_core.mix import load_mix
from ssrl_core.resume import LOCK, PLAN, ResumableFolder, differences, plan_of_mix
from ssrl_core.sources import open_source

# ---- the plan ----

TOY = "toy: {level: 1, options: {a: 1, b: 2}}, "
MIX = f"size: 64\nsamples: 20\ntasks: {{{TOY}other: }}\n"
OPTIONS = "from ssrl_core import Options\nclass Own(Options):\n    a: int = 0\n    b: int = 0\n"


def export_plan(path):
    pytest.importorskip("pyarrow", reason="pyarrow is not installed: pip install 'ssrl-core[export]'")
    from ssrl_core.export.plan import folder_of, plan_of

    return folder_of, plan_of(load_mix(path), samples=9, shard_size=3, images="png")


def evaluation_plan(path):
    from ssrl_core.evaluate.folder import folder_of, plan_of

    return folder_of, plan_of(load_mix(path, split="heldout"), {"model": "m"}, {"temperature": 0.0})


def training_plan(path):
    pytest.importorskip("verl", reason="the 'train' extra is not installed")
    from ssrl_core.verl.checks import folder_of, plan_of

    return folder_of, plan_of("grpo", {"data": {"train_batch_size": 4}, "trainer": {}}, path)


@pytest.fixture
def install_task(install_toy):
    """A function that installs a task with options."""

    def install_task(name, task_version="1", **facts):
        sys.modules.pop(f"ssrl_plugin_{name}", None)
        options = "@hookimpl\ndef ssrl_task", f"{OPTIONS}\n@hookimpl\ndef ssrl_task"
        install_toy(options, ('version="1"', f'version="{task_version}", options=Own'), name=name, **facts)

    return install_task


@pytest.mark.parametrize("plan_at", [export_plan, evaluation_plan, training_plan])
def test_work_is_resumed_unless_the_mix_an_image_or_a_version_changed(
    plan_at, install_task, pictures, write_mix, tmp_path
):
    def write(text, name="mix.yaml"):
        return write_mix(f"source: 'folder:{pictures}'\n{text}", name)

    def resume(path):
        open_source.cache_clear()  # as in a new process
        folder_of, plan = plan_at(path)
        folder_of(tmp_path / "work").settle(plan, started=(tmp_path / "work" / PLAN).exists())

    def refused(difference):
        with pytest.raises(SSRLError, match=r"holds another .*, which this one would continue") as error:
            resume(path)
        assert difference in str(error.value)

    install_task("toy")
    install_task("other")
    (tmp_path / "work").mkdir()
    path = write(MIX)
    resume(path)
    resume(write(f"# the same\ninclude: {path.name}\n", "including.yaml"))
    write(
        "allowed_distributions: ['*']\n"
        + MIX.replace("a: 1, b: 2", "b: 2, a: 1").replace("other: ", "other: {weight: 1}")
    )
    resume(path)

    write(MIX.replace("a: 1", "a: 3"))
    refused("mix.tasks.toy.options.a: 1 -> 3")
    write(MIX + "seed: 5\n")
    refused("mix.seed: 0 -> 5")
    write(MIX.replace(TOY, "").replace("other: ", f"other: , {TOY}"))
    refused("mix.tasks: order toy, other -> other, toy")
    write(MIX)
    resume(path)

    before = (pictures / "00 é.png").read_bytes()
    Image.new("RGB", (96, 72)).save(pictures / "00 é.png")
    refused(".digest: '")
    (pictures / "00 é.png").write_bytes(before)
    (pictures / "one more.png").write_bytes(before)
    refused(".images: 12 -> 13")
    (pictures / "one more.png").unlink()
    resume(path)

    install_task("toy", task_version="2")
    refused("tasks.toy: '1' -> '2'")
    install_task("toy", version="0.2")
    refused("versions.ssrl-plugin-toy: '0.1' -> '0.2'")


def test_only_the_order_of_tasks_and_of_level_shares_counts():
    before = {"mix": {"tasks": {"a": {"level": {"1": 1.0, "2": 1.0}, "options": {"x": 1, "y": 2}}, "b": {}}}}
    options = {"mix": {"tasks": {"a": {"options": {"y": 2, "x": 1}, "level": {"1": 1.0, "2": 1.0}}, "b": {}}}}
    tasks = {"mix": {"tasks": {"b": {}, "a": before["mix"]["tasks"]["a"]}}}
    levels = {"mix": {"tasks": {"a": {"level": {"2": 1.0, "1": 1.0}, "options": {"x": 1, "y": 2}}, "b": {}}}}
    assert list(differences(before, options)) == []
    assert list(differences(before, tasks)) == ["mix.tasks: order a, b -> b, a"]
    assert list(differences(before, levels)) == ["mix.tasks.a.level: order 1, 2 -> 2, 1"]
    assert list(differences({"a": 1, "c": [1]}, {"b": None, "c": [2]})) == ["a: 1 -> None", "c: [1] -> [2]"]


SOURCE = """
from ssrl_core import SourceImage, hookimpl

class Made:
    has_depth = False
    MORE
    def __len__(self): return COUNT
    def image_id(self, position): return f"PREFIX{position}"
    def load(self, image_id): raise NotImplementedError

@hookimpl
def ssrl_open_source(uri): return Made()
"""


def test_images_are_identified_by_the_digest_of_the_source_or_else_by_their_ids(install, install_toy, write_mix):
    install_toy()
    path = write_mix("source: 'made:'\nsize: 64\ntasks: {toy: }")

    def images(count, prefix, more="pass"):
        sys.modules.pop("ssrl_source_made", None)
        code = SOURCE.replace("COUNT", str(count)).replace("PREFIX", prefix).replace("MORE", more)
        install("ssrl-source-made", entry_points={"ssrl.sources": {"made": "ssrl_source_made"}}, code=code)
        return plan_of_mix(load_mix(path))["sources"]["made:"]

    ids, others, many = images(3, "a"), images(3, "b"), images(2**40, "a")
    own = images(3, "a", more="def digest(self): return 'own'")
    assert ids["images"] == others["images"] == 3 and ids["digest"] != others["digest"]
    assert own == {"images": 3, "digest": "own"} and many == {"images": 2**40, "digest": None}


# ---- the folder ----


def folder_at(path):
    path.mkdir(exist_ok=True)
    return ResumableFolder(path, "experiment", MixError, own=("log.txt",))


def test_results_without_a_plan_and_a_damaged_plan_are_explained(tmp_path):
    folder = folder_at(tmp_path)
    with pytest.raises(MixError, match=r"has results of an earlier experiment, but no plan\.json"):
        folder.settle({"a": 1}, started=True)
    assert not (tmp_path / PLAN).exists()
    with pytest.raises(MixError, match=r"holds no experiment: cannot read plan\.json"):
        folder.plan()
    (tmp_path / PLAN).write_text('{"a": 1')
    with pytest.raises(MixError, match=r"cannot read plan\.json"):
        folder.settle({"a": 1}, started=True)
    folder.settle({"a": (1, "é")}, started=False)
    assert folder.plan() == {"a": [1, "é"]}


def test_a_folder_with_other_files_and_no_plan_is_refused(tmp_path):
    folder_at(tmp_path / "new").refuse_others()
    ResumableFolder(tmp_path / "missing", "experiment", MixError).refuse_others()
    for name in ("log.txt", LOCK, ".shard.0123.tmp"):
        (tmp_path / "new" / name).write_text("")
    folder_at(tmp_path / "new").refuse_others()
    (tmp_path / "new" / "thesis.tex").write_text("")
    with pytest.raises(MixError, match=r"is not empty \(thesis\.tex\) and holds no experiment: use a new folder"):
        folder_at(tmp_path / "new").refuse_others()
    folder_at(tmp_path / "new").settle({}, started=False)
    folder_at(tmp_path / "new").refuse_others()


def test_a_lock_is_refused_with_its_holder_and_free_after_sigkill(tmp_path):
    code = """
import sys
from pathlib import Path
from ssrl_core.errors import MixError
from ssrl_core.resume import ResumableFolder
with ResumableFolder(Path(sys.argv[1]), "experiment", MixError).locked():
    print("locked", flush=True)
    sys.stdin.read()
"""
    command = [sys.executable, "-c", code, str(tmp_path)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "locked\n"
    for _ in range(2):  # the first refusal does not make the process forget its lock
        with pytest.raises(MixError, match=rf"process {process.pid} on .* is working on the experiment in"):
            folder_at(tmp_path).locked().__enter__()
    process.kill()
    process.wait()
    with folder_at(tmp_path).locked():
        assert (tmp_path / LOCK).read_text().startswith(f"process {os.getpid()} on ")


def test_a_lock_is_released_after_an_error(tmp_path):
    folder = folder_at(tmp_path)
    with pytest.raises(ZeroDivisionError), folder.locked():
        raise ZeroDivisionError
    assert (tmp_path / LOCK).read_text() == ""
    with folder.locked(), pytest.raises(MixError, match=f"process {os.getpid()} on"), folder.locked():
        pass
