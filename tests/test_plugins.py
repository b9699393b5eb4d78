import subprocess
import sys

import pytest

from ssrl_core import SourceRejected
from ssrl_core.errors import BrokenPlugin, DuplicatePlugin, PluginFailed, UnknownPlugin
from ssrl_core.plugins import find, installed, load_task

GOOD = """
from PIL import Image
from ssrl_core import Level, Sample, SourceRejected, TaskInfo, hookimpl

@hookimpl
def ssrl_task_info():
    return TaskInfo(version="1", summary="s", levels={"1": Level("l", 0.5, ("A", "B"))})

@hookimpl
def ssrl_generate_sample(rng):
    return Sample((Image.new("RGB", (32, 32)),), "A")

@hookimpl
def ssrl_format_prompt():
    return "<image>A or B?"

@hookimpl
def ssrl_verify_answer(answer, truth):
    return float(answer == truth)
"""


@pytest.fixture
def task(install):
    def build(code, name="ssrl-plugin-toy", version="0.1"):
        install(name, code=code, version=version, entry_points={"ssrl": {"toy": name.replace("-", "_")}})

    return build


def test_an_installed_plugin_is_listed_without_importing_it(task):
    task("raise SystemExit('imported')")
    assert [p.distribution for p in installed()["toy"]] == ["ssrl-plugin-toy"]
    assert "ssrl_plugin_toy" not in sys.modules


def test_a_good_plugin_loads(task):
    task(GOOD)
    loaded = load_task("toy")
    assert loaded.info.summary == "s"
    assert loaded.verify_answer("A", truth="A", params={}) == 1.0


def test_an_unknown_task_is_answered_with_what_is_installed_and_how_to_install_it(task):
    task(GOOD)
    with pytest.raises(UnknownPlugin) as error:
        find("toyy")
    assert "Did you mean 'toy'?" in str(error.value)
    assert "pip install ssrl-plugin-toyy" in str(error.value)


def test_two_distributions_of_one_task_are_both_named(task):
    task(GOOD, name="ssrl-plugin-toy")
    task(GOOD, name="ssrl-plugin-other", version="2.0")
    with pytest.raises(DuplicatePlugin, match=r"(?s)ssrl-plugin-toy 0\.1.*") as error:
        load_task("toy")
    assert "ssrl-plugin-other 2.0" in str(error.value)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (("from PIL", "import nowhere_to_be_found\nfrom PIL"), "does not import: ModuleNotFoundError"),
        (("from PIL", "1 / 0\nfrom PIL"), "does not import: ZeroDivisionError"),
        (("@hookimpl\ndef ssrl_verify_answer", "def ssrl_verify_answer"), "ssrl_verify_answer: not marked"),
        (("def ssrl_verify_answer", "def check"), "ssrl_verify_answer: missing"),
        (("def ssrl_verify_answer", "def ssrl_verify_answr"), "Did you mean 'ssrl_verify_answer'?"),
        (("(answer, truth)", "(answer, key)"), "no argument 'key' exists"),
        (("(answer, truth)", "(answer, truth='A')"), "'truth' has a default value"),
        (('version="1", ', ""), "ssrl_task_info raised TypeError"),
        (('levels={"1": Level("l", 0.5, ("A", "B"))}', "levels={}"), "must return a TaskInfo with levels"),
        (('levels={"1"', "levels={1"), "names of levels must be text"),
    ],
)
def test_a_broken_plugin_is_named_with_its_version_and_its_fault(task, change, complaint):
    task(GOOD.replace(*change))
    with pytest.raises(BrokenPlugin) as error:
        load_task("toy")
    assert complaint in str(error.value)
    assert "'toy' of ssrl-plugin-toy 0.1" in str(error.value)


def test_a_broken_plugin_keeps_its_traceback_and_leaves_the_others_alone(task, install):
    task("def broken():\n    raise KeyError('deep inside')\nbroken()\n")
    install("ssrl-plugin-fine", code=GOOD, entry_points={"ssrl": {"fine": "ssrl_plugin_fine"}})
    with pytest.raises(BrokenPlugin) as error:
        load_task("toy")
    assert isinstance(error.value.__cause__, KeyError)
    assert load_task("fine").info.version == "1"


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (('return Sample((Image.new("RGB", (32, 32)),), "A")', "raise KeyError('x')"), "raised KeyError"),
        (('return Sample((Image.new("RGB", (32, 32)),), "A")', "return 'A'"), "not a Sample"),
        (('return Sample((Image.new("RGB", (32, 32)),), "A")', "return Sample((), 'A')"), "not a Sample"),
    ],
)
def test_a_generator_that_fails_is_named(task, change, complaint):
    task(GOOD.replace(*change))
    loaded = load_task("toy")
    source = type("S", (), {"id": "7"})()
    with pytest.raises(PluginFailed) as error:
        loaded.generate_sample(source, rng=None, level="1", options=None)
    assert complaint in str(error.value)
    assert "ssrl-plugin-toy 0.1" in str(error.value)


def test_a_rejected_source_passes_through(task):
    task(GOOD.replace('return Sample((Image.new("RGB", (32, 32)),), "A")', "raise SourceRejected('flat')"))
    with pytest.raises(SourceRejected, match="flat"):
        load_task("toy").generate_sample(None, rng=None, level="1", options=None)


def test_a_prompt_must_mark_every_image(task):
    task(GOOD.replace("<image>A or B?", "A or B?"))
    loaded = load_task("toy")
    sample = loaded.generate_sample(None, rng=None, level="1", options=None)
    with pytest.raises(PluginFailed, match="must return text with 1 '<image>'"):
        loaded.format_prompt(sample)


@pytest.mark.parametrize("value", ["float('nan')", "2.0", "'yes'", "None", "-0.1", "1 / 0"])
def test_a_verifier_must_return_a_number_between_0_and_1(task, value):
    task(GOOD.replace("return float(answer == truth)", f"return {value}"))
    with pytest.raises(PluginFailed, match="ssrl_verify_answer"):
        load_task("toy").verify_answer("A", truth="A", params={})


def test_importing_the_core_and_the_plugins_imports_no_heavy_library():
    code = (
        "import sys, ssrl_core, ssrl_core.mix, ssrl_core.cli\n"
        "from ssrl_core.plugins import installed, load_task\n"
        "[load_task(name) for name in installed()]\n"
        "heavy = {'torch', 'transformers', 'verl', 'vllm', 'ray', 'matplotlib', 'pandas', 'scipy'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_the_remains_of_a_removed_distribution_do_not_hide_the_others(task, tmp_path, monkeypatch):
    task(GOOD)
    remains = tmp_path / "remains" / "ssrl_plugin_gone-0.1.dist-info"
    remains.mkdir(parents=True)
    (remains / "entry_points.txt").write_text("[ssrl]\ngone = ssrl_plugin_gone\n")
    monkeypatch.syspath_prepend(str(remains.parent))
    assert {"toy", "gone"} <= set(installed())
