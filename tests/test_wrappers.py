import importlib
import json
import logging
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ssrl_core import Recipe, SourceImage, SourceRejected
from ssrl_core.errors import BrokenPlugin, NotAllowed, PluginFailed, UnknownPlugin
from ssrl_core.options import Options
from ssrl_core.plugins import load_task
from ssrl_core.plugins.installed import ALLOWED
from ssrl_core.seeding import generator
from ssrl_core.sources import open_source, to_working_size

FIXTURE = Path(__file__).parent / "fixtures" / "ssrl_plugin_near_duplicates.py"

VERSIONED = """
from dataclasses import replace
from ssrl_core import hookimpl

@hookimpl(wrapper=True)
def ssrl_task_info():
    info = yield
    return replace(info, version=info.version + "+{mark}")

@hookimpl(wrapper=True)
def ssrl_format_prompt(sample):
    return (yield) + " {mark}"
"""


@pytest.fixture
def room():
    source = open_source("synthetic:")
    return source.load(source.image_id(0))


@pytest.fixture
def near_duplicates(install, room):
    """The two wrappers of ``fixtures``, with one room on the list of known images."""
    module = "ssrl_plugin_near_duplicates"
    wrappers = {"near_duplicates": module, "accepted_log": f"{module}:accepted_log"}
    install("ssrl-plugin-near-duplicates", entry_points={"ssrl.wrappers": wrappers}, code=FIXTURE.read_text())
    plugin = importlib.import_module(module)
    plugin.KNOWN.write_text(f"{plugin.dhash(room.rgb):016x}\n", encoding="utf-8")
    return plugin.KNOWN.parent


def make(task, image):
    return task.generate_sample(image, rng=generator(0, stream="test", index=0), level="1", options=Options())


def test_one_wrapper_applies_to_every_task_that_it_is_named_with_and_to_no_other(install_toy, near_duplicates, room):
    install_toy()
    install_toy(name="other")
    seen_again = to_working_size(room, 224, rng=generator(0, stream="crop", index=0))
    for name in ("toy", "other"):
        task = load_task(name, wrappers=("near_duplicates",))
        with pytest.raises(SourceRejected, match="near-duplicate of a known image"):
            make(task, seen_again)
        plain = SourceImage("plain", np.full((224, 224, 3), 90, np.uint8))
        assert make(task, plain).truth == make(load_task(name), plain).truth
        assert make(load_task(name), seen_again).images


def test_the_log_has_the_sources_that_were_accepted_and_not_the_others(install_toy, near_duplicates, room, caplog):
    install_toy()
    task = load_task("toy", wrappers=("near_duplicates", "accepted_log"))
    with caplog.at_level(logging.INFO), pytest.raises(SourceRejected):
        make(task, room)
    assert caplog.messages == []
    with caplog.at_level(logging.INFO):
        make(task, SourceImage("plain", np.full((224, 224, 3), 90, np.uint8)))
    assert caplog.messages == ["plain: a sample of level 1"]


def test_each_wrapper_wraps_what_stands_before_it_and_can_mark_the_version(install_toy, install):
    install_toy()
    for mark in ("first", "second"):
        module = f"ssrl_plugin_{mark}"
        install(f"ssrl-plugin-{mark}", code=VERSIONED.format(mark=mark), entry_points={"ssrl.wrappers": {mark: module}})
    task = load_task("toy", wrappers=("second", "first"))
    assert task.info.version == "1+second+first"
    assert task.format_prompt(make(task, None)) == "<image>A or B? second first"
    assert load_task("toy").info.version == "1"


@pytest.mark.parametrize(
    ("code", "complaint"),
    [
        (
            "@hookimpl\ndef ssrl_format_prompt(sample):\n    yield",
            "a hook of a wrapper is marked with @hookimpl(wrapper=True)",
        ),
        ("@hookimpl(wrapper=True)\ndef ssrl_format_prompt(sample):\n    return 'x'", "and yields once"),
        ("@hookimpl(wrapper=True)\ndef ssrl_format_promt():\n    yield", "Did you mean 'ssrl_format_prompt'?"),
        ("@hookimpl(wrapper=True)\ndef ssrl_format_prompt(text):\n    yield", "no argument 'text' exists"),
        ("", "it has no hook to wrap; there are: ssrl_task_info, "),
    ],
)
def test_a_broken_wrapper_is_named_with_its_fault(install_toy, install, code, complaint):
    install_toy()
    code = f"from ssrl_core import hookimpl\n{code}"
    install("ssrl-plugin-around", code=code, entry_points={"ssrl.wrappers": {"around": "ssrl_plugin_around"}})
    with pytest.raises(BrokenPlugin, match=r"'around' of ssrl-plugin-around 0\.1") as error:
        load_task("toy", wrappers=("around",))
    assert complaint in str(error.value)
    assert load_task("toy").info.version == "1"


def test_a_failure_inside_wrappers_names_them(install_toy, install):
    install_toy()
    code = "from ssrl_core import hookimpl\n@hookimpl(wrapper=True)\ndef ssrl_verify_answer():\n    yield\n    return 7"
    install("ssrl-plugin-around", code=code, entry_points={"ssrl.wrappers": {"around": "ssrl_plugin_around"}})
    with pytest.raises(PluginFailed, match=r"'toy' of ssrl-plugin-toy 0\.1, in around: ssrl_verify_answer returned 7"):
        load_task("toy", wrappers=("around",)).verify_answer("A", truth="A", params={})


def test_an_unknown_or_forbidden_wrapper_is_explained(install_toy, near_duplicates, monkeypatch):
    install_toy()
    with pytest.raises(UnknownPlugin, match=r"provides the wrapper 'near_duplicate'\. Did you mean 'near_duplicates'"):
        load_task("toy", wrappers=("near_duplicate",))
    monkeypatch.setenv(ALLOWED, "ssrl-plugin-toy")
    with pytest.raises(NotAllowed, match=r"'near_duplicates' of ssrl-plugin-near-duplicates 0\.1 may not be loaded"):
        load_task("toy", wrappers=("near_duplicates",))


def test_a_recipe_carries_its_wrappers_and_is_as_before_without_any():
    facts = dict(task="toy", task_version="1", seed=0, split="train", index=3, level="1", options={})
    recipe = Recipe(**facts, source="synthetic:", image_id="7", attempt=0, size=64)
    assert "wrappers" not in json.loads(recipe.to_json())
    assert Recipe.from_json(recipe.to_json()) == recipe
    wrapped = Recipe(**facts, source="synthetic:", image_id="7", attempt=0, size=64, wrappers=("a", "b"))
    assert json.loads(wrapped.to_json())["wrappers"] == ["a", "b"]
    assert Recipe.from_json(wrapped.to_json()) == wrapped


def test_the_decision_on_an_image_is_the_same_in_every_process_and_order(near_duplicates):
    code = (
        "import sys; from ssrl_plugin_near_duplicates import dhash, known, NEAR; "
        "from ssrl_core.sources import open_source; source = open_source('synthetic:'); "
        "print({i: (dhash(source.load(source.image_id(i)).rgb) ^ known()[0]).bit_count() <= NEAR "
        "for i in sorted(range(4), reverse=len(sys.argv) > 1)} == {0: True, 1: False, 2: False, 3: False})"
    )
    for order in ([], ["reversed"]):
        command = [sys.executable, "-c", code, *order]
        result = subprocess.run(command, capture_output=True, text=True, env={"PYTHONPATH": str(near_duplicates)})
        assert result.stdout == "True\n", result.stderr
