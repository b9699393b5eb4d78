"""What the conformance kit keeps between runs: which edits make samples anew, and which do not."""

from __future__ import annotations

import importlib
import os
import sys
from concurrent.futures import Future
from types import SimpleNamespace

import pytest

from ssrl_core import plugins, sources
from ssrl_core.plugins import load_task
from ssrl_core.testing import cache, check_task, lots
from ssrl_core.testing.keys import Keys
from ssrl_core.testing.reached import NotFollowed, code_digest

TASK = '''
"""A task."""
from PIL import Image
from ssrl_core import Level, Options, Sample, TaskInfo, hookimpl
from ssrl_core.prompts import draw_wording
from . import shapes
from .noise import noise as draw_noise

WORDINGS = {"plain": "<image>A or B?", "plain 2": "<image>Is it A, or B?"}
SIDE = 32
KINDS = []
LIMIT = 40


def kind(function):
    KINDS.append(function)
    return function


@kind
def first(side):
    return side


@hookimpl
def ssrl_task_info():
    return TaskInfo(version="1", summary="s", levels={"1": Level("l", 0.5, ("A", "B"))})


@hookimpl
def ssrl_generate_sample(rng):
    """A sample."""
    truth = "AB"[rng.integers(2)]  # drawn first
    wording = draw_wording(WORDINGS, "varied", rng=rng)
    grey = draw_noise(rng)
    return Sample((Image.new("RGB", (KINDS[0](SIDE), shapes.height()), (grey,) * 3),), truth, {"prompt": wording})


@hookimpl
def ssrl_format_prompt(sample):
    return WORDINGS[sample.params["prompt"]]


@hookimpl
def ssrl_verify_answer(answer, truth):
    return float(len(answer) < LIMIT and answer == truth)
'''
FILES = {
    "__init__.py": TASK,
    "shapes.py": "HEIGHT = 32\ndef height():\n    return HEIGHT\n",
    "noise.py": "import numpy\ndef noise(rng):\n    return int(rng.integers(1, 256))\ndef unused():\n    return 1\n",
}


@pytest.fixture
def package(install, tmp_path):
    """A function that writes the package of a task with changes to its code: (file, old, new). Returns its folder."""
    install("ssrl-plugin-kept", entry_points={"ssrl": {"kept": "ssrl_plugin_kept"}})
    folder = tmp_path / "site0" / "ssrl_plugin_kept"

    def write(*changes):
        folder.mkdir(exist_ok=True)
        files = dict(FILES)
        for file, old, new in changes:
            assert old in files[file]
            files[file] = files[file].replace(old, new)
        for name, text in files.items():
            (folder / name).write_text(text)
            os.utime(folder / name, ns=(0, write.time))
        write.time += 10**9
        for name in [name for name in sys.modules if name.startswith("ssrl_plugin_kept")]:
            del sys.modules[name]
        importlib.invalidate_caches()
        plugins.load_task.cache_clear()
        sources.open_source.cache_clear()
        return folder

    write.time = 10**18
    return write


def digest():
    return code_digest([("ssrl_plugin_kept", "ssrl_generate_sample")])


@pytest.mark.parametrize(
    "change",
    [
        ("__init__.py", "Is it A, or B?", "A? Or B?"),
        ("__init__.py", 'return WORDINGS[sample.params["prompt"]]', 'return WORDINGS["plain"]'),
        ("__init__.py", "LIMIT = 40", "LIMIT = 50"),
        ("__init__.py", "answer == truth", "answer.upper() == truth"),
        ("__init__.py", '"""A sample."""', '"""One sample."""'),
        ("__init__.py", "  # drawn first", ""),
        ("noise.py", "return 1", "return 2"),
    ],
)
def test_an_edit_of_what_no_sample_depends_on_keeps_the_samples(package, change):
    package()
    before = digest()
    package(change)
    assert digest() == before


@pytest.mark.parametrize(
    "change",
    [
        ("__init__.py", '"AB"[rng', '"BA"[rng'),
        ("__init__.py", "SIDE = 32", "SIDE = 33"),
        ("__init__.py", '"plain 2":', '"plain 3":'),
        ("__init__.py", "    return side", "    return side + 1"),
        ("__init__.py", "    KINDS.append(function)", "    KINDS.insert(0, function)"),
        ("__init__.py", "LIMIT = 40", "LIMIT = 40\nWORDINGS.update(plain='<image>?')"),
        ("__init__.py", 'draw_wording(WORDINGS, "varied", rng=rng)', "max(WORDINGS.values())"),
        ("noise.py", "256", "255"),
        ("shapes.py", "HEIGHT = 32", "HEIGHT = 33"),
    ],
)
def test_an_edit_of_what_samples_depend_on_makes_them_anew(package, change):
    package()
    before = digest()
    package(change)
    assert digest() != before


def test_values_of_wordings_count_where_samples_use_them(package):
    uses = ("__init__.py", 'draw_wording(WORDINGS, "varied", rng=rng)', "max(WORDINGS.values())")
    package(uses)
    before = digest()
    package(uses, ("__init__.py", "Is it A, or B?", "A? Or B?"))
    assert digest() != before


@pytest.mark.parametrize("line", ["open('x')", "__import__('x')", "Image.open('x')", "globals()"])
def test_code_that_may_read_files_or_hidden_code_is_not_followed(package, line):
    package(("noise.py", "    return int", f"    {line}\n    return int"))
    with pytest.raises(NotFollowed, match=r"noise\.py"):
        digest()


@pytest.fixture
def kept(monkeypatch, tmp_path):
    """The folder of kept files."""
    monkeypatch.setenv("SSRL_CHECK_CACHE", "1")
    monkeypatch.setenv("SSRL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "check"


def check():
    """The checks of all families that look at rows, and how many chunks of rows were drawn."""
    before = len(SUBMITTED)
    report = check_task("kept", only=["bias", "verifier.truth", "contract.prompt"], samples=60, size=64, workers=1)
    return [str(one) for one in report.checks], len(SUBMITTED) - before


SUBMITTED = []


@pytest.fixture
def submissions(monkeypatch):
    submit = lots.Drawer._submit
    monkeypatch.setattr(lots.Drawer, "_submit", lambda *args: SUBMITTED.append(args[2]) or submit(*args))


def test_a_second_run_draws_no_samples_until_an_edit_matters_or_a_file_is_damaged(package, kept, submissions):
    package()
    first, drawn = check()
    assert drawn == 4 and len(list(kept.glob("*.rows"))) == 4  # chunks of 50 and 10, of two sets
    assert check() == (first, 0)
    package(("__init__.py", "Is it A, or B?", "Which one, A or B?"), ("__init__.py", "== truth", "== truth[:]"))
    second, drawn = check()
    assert drawn == 0 and second != first  # the longest prompt is another one
    package(("__init__.py", "== truth", "== truth[::-1] + 'x'"))
    assert any("verifier.truth@1 failed" in line for line in check()[0])
    package()
    damaged = sorted(kept.glob("*.rows"))[0]
    damaged.write_bytes(damaged.read_bytes()[:-1])
    assert check() == (first, 1)
    package(("noise.py", "256", "255"))
    assert check()[1] == 4


PROMPT = 'return WORDINGS[sample.params["prompt"]]'
SEES = "return f'<image>{sample.images[0].getpixel((0, 0))}'"


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(("noise.py", "256", "128"), id="a name that does not tell the code"),
        pytest.param(("__init__.py", PROMPT, SEES), id="a prompt that depends on pixels"),
        pytest.param(("__init__.py", PROMPT, f"1 / sample.images[0].getpixel((0, 0))[0]; {PROMPT}"), id="and fails"),
    ],
)
def test_kept_samples_that_are_not_those_of_today_are_drawn_again(package, kept, submissions, monkeypatch, change):
    monkeypatch.setattr(Keys, "rows", lambda self, plan: plan.split.replace(" ", "-"))
    package()
    assert [check()[1] for _ in range(2)] == [4, 0]
    package(change)
    assert check()[1] == 4


def test_the_code_of_a_run_is_that_of_its_beginning(package, kept):
    from ssrl_core.plugins import load_task

    package()
    keys = Keys(load_task("kept"), "synthetic:")
    assert keys.unchanged
    package(("noise.py", "256", "128"))
    assert not keys.unchanged


def test_the_folder_is_bounded_and_its_oldest_files_go_first(tmp_path, monkeypatch):
    for number in range(4):
        cache.save(tmp_path / f"{number}.rows", b"x" * 1000)
        os.utime(tmp_path / f"{number}.rows", (number, number))
    assert cache.load(tmp_path / "0.rows") == b"x" * 1000  # a use makes it new
    monkeypatch.setattr(cache, "LIMIT", 2500)
    cache.prune(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0.rows", "3.rows"]


def test_nothing_is_kept_where_that_is_not_wanted(kept, monkeypatch):
    assert cache.default_folder() == kept
    kept.chmod(0o770)  # files of others are not unpickled
    assert cache.default_folder() is None
    kept.chmod(0o700)
    assert cache.default_folder() == kept
    monkeypatch.setenv("SSRL_CHECK_CACHE", "0")
    assert cache.default_folder() is None


@pytest.mark.parametrize("hangs", [False, True])
def test_what_stands_behind_others_in_the_queue_is_not_too_slow(monkeypatch, hangs):
    now, queue = [0.0], []

    def submit(rows, plan, chunk):
        queue.append((Future(), list(chunk)))
        return queue[-1][0]

    def wait(futures, timeout):
        """Of processes that take 100 s for each chunk, in the order in which they were submitted, or hang."""
        now[0] += min(100.0, timeout)
        if timeout >= 100 and not hangs:
            future, rows = queue.pop(0)
            future.set_result(rows)
        return SimpleNamespace(done={future for future in futures if future.done()})

    monkeypatch.setattr(lots, "wait", wait)
    monkeypatch.setattr(lots, "time", SimpleNamespace(monotonic=lambda: now[0]))
    drawer = lots.Drawer(load_task("shuffled_patches"), "synthetic:", workers=1, folder=None)
    drawer._pool = SimpleNamespace(submit=submit)
    drawer.begin(None, range(250))
    last = drawer.begin(None, range(250, 300))
    if hangs:
        with pytest.raises(TimeoutError):
            last()
        assert now[0] == lots.CHUNK_SECONDS
    else:
        assert last() == list(range(250, 300))
        assert now[0] == 600
