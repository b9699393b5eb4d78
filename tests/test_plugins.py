import sys

import numpy as np
import pytest

from ssrl_core import SourceRejected
from ssrl_core.errors import BrokenPlugin, DuplicatePlugin, PluginFailed, UnknownPlugin
from ssrl_core.plugins import find, installed, load_task

GENERATED = 'return Sample((Image.new("RGB", (32, 32)),), "AB"[rng.integers(2)])'


def test_an_installed_plugin_is_found_without_importing_it(install_toy):
    install_toy(code="raise SystemExit('imported')")
    assert [p.distribution for p in installed()["toy"]] == ["ssrl-plugin-toy"]
    assert "ssrl_plugin_toy" not in sys.modules


def test_a_good_plugin_loads(install_toy):
    install_toy()
    loaded = load_task("toy")
    assert loaded.info.summary == "s"
    assert loaded.verify_answer("A", truth="A", params={}) == 1.0


def test_an_unknown_task_is_answered_with_what_is_installed_and_how_to_install_it(install_toy):
    install_toy()
    with pytest.raises(UnknownPlugin) as error:
        find("toyy")
    assert "Did you mean 'toy'?" in str(error.value)
    assert "pip install" not in str(error.value)
    with pytest.raises(UnknownPlugin, match="pip install ssrl-plugin-other-thing"):
        find("other_thing")


def test_two_distributions_of_one_task_are_both_named(install_toy):
    install_toy()
    install_toy(distribution="ssrl-plugin-other", version="2.0")
    with pytest.raises(DuplicatePlugin, match=r"(?s)ssrl-plugin-toy 0\.1.*") as error:
        load_task("toy")
    assert "ssrl-plugin-other 2.0" in str(error.value)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (("from PIL", "import nowhere_to_be_found\nfrom PIL"), "does not import: ModuleNotFoundError"),
        (("from PIL", "1 / 0\nfrom PIL"), "does not import: ZeroDivisionError"),
        (("from PIL", "raise SystemExit(3)\nfrom PIL"), "does not import: SystemExit: 3"),
        (("@hookimpl\ndef ssrl_verify_answer", "def ssrl_verify_answer"), "ssrl_verify_answer: not marked"),
        (("def ssrl_verify_answer", "def check"), "ssrl_verify_answer: missing"),
        (("def ssrl_verify_answer", "def ssrl_verify_answr"), "Did you mean 'ssrl_verify_answer'?"),
        (("(answer, truth)", "(answer, key)"), "no argument 'key' exists"),
        (("(answer, truth)", "(answer, truth='A')"), "'truth' has a default value"),
        (("(answer, truth)", "(answer, *, truth)"), "'truth' must be positional or keyword"),
        (("@hookimpl\ndef ssrl_verify", "@hookimpl(wrapper=True)\ndef ssrl_verify"), "write @hookimpl without wrapper"),
        (("from PIL", "SSRL_API = 1\nfrom PIL"), "SSRL_API must be text such as '1.0', not 1"),
        (('version="1", ', ""), "ssrl_task_info raised TypeError"),
        (('levels={"1": Level("l", 0.5, ("A", "B"))}', "levels={}"), "must return a TaskInfo with levels"),
        (('levels={"1"', "levels={1"), "must return version and names of levels as text"),
        (('levels={"1": Level("l", 0.5, ("A", "B"))}', 'levels=["1"]'), "must return a TaskInfo with levels"),
        (("levels=", "options=dict, levels="), "options that are a subclass of ssrl_core.Options"),
    ],
)
def test_a_broken_plugin_is_named_with_its_version_and_its_fault(install_toy, change, complaint):
    install_toy(change)
    with pytest.raises(BrokenPlugin) as error:
        load_task("toy")
    assert complaint in str(error.value)
    assert "'toy' of ssrl-plugin-toy 0.1" in str(error.value)


def test_a_broken_plugin_keeps_its_traceback_and_leaves_the_others_alone(install_toy):
    install_toy(code="def broken():\n    raise KeyError('deep inside')\nbroken()\n")
    install_toy(name="fine")
    with pytest.raises(BrokenPlugin) as error:
        load_task("toy")
    assert isinstance(error.value.__cause__, KeyError)
    assert load_task("fine").info.version == "1"


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ((GENERATED, "raise KeyError('x')"), "raised KeyError"),
        ((GENERATED, "return 'A'"), "not a Sample"),
        ((GENERATED, "return Sample((), 'A')"), "not a Sample"),
        ((GENERATED, "import numpy; return Sample((numpy.zeros((9, 9, 3)),), 'A')"), "not a tuple of Pillow images"),
        ((GENERATED, "from PIL import Image; return Sample(Image.new('RGB', (9, 9)), 'A')"), "not a tuple of Pillow"),
    ],
)
def test_a_generator_that_fails_is_named(install_toy, change, complaint):
    install_toy(change)
    loaded = load_task("toy")
    source = type("S", (), {"id": "7"})()
    with pytest.raises(PluginFailed) as error:
        loaded.generate_sample(source, rng=None, level="1", options=None)
    assert complaint in str(error.value)
    assert "ssrl-plugin-toy 0.1" in str(error.value)


def test_a_rejected_source_passes_through(install_toy):
    install_toy((GENERATED, "from ssrl_core import SourceRejected; raise SourceRejected('flat')"))
    with pytest.raises(SourceRejected, match="flat"):
        load_task("toy").generate_sample(None, rng=None, level="1", options=None)


def test_a_prompt_must_mark_every_image(install_toy):
    install_toy(("<image>A or B?", "A or B?"))
    loaded = load_task("toy")
    sample = loaded.generate_sample(None, rng=np.random.default_rng(0), level="1", options=None)
    with pytest.raises(PluginFailed, match="must return text with 1 '<image>'"):
        loaded.format_prompt(sample)


@pytest.mark.parametrize("value", ["float('nan')", "2.0", "'yes'", "None", "-0.1", "1 / 0"])
def test_a_verifier_must_return_a_number_between_0_and_1(install_toy, value):
    install_toy(("return float(answer == truth)", f"return {value}"))
    with pytest.raises(PluginFailed, match="ssrl_verify_answer"):
        load_task("toy").verify_answer("A", truth="A", params={})


def test_the_remains_of_a_removed_distribution_do_not_hide_the_others(install_toy, tmp_path, monkeypatch):
    install_toy()
    remains = tmp_path / "remains" / "ssrl_plugin_gone-0.1.dist-info"
    remains.mkdir(parents=True)
    (remains / "entry_points.txt").write_text("[ssrl]\ngone = ssrl_plugin_gone\n")
    monkeypatch.syspath_prepend(str(remains.parent))
    assert {"toy", "gone"} <= set(installed())
