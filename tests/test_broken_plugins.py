"""A plugin with each kind of fault beside a healthy one: the message, and that the healthy one works."""

import numpy as np
import pytest

from ssrl_core.cli.list import list_tasks
from ssrl_core.errors import PluginError, SourceError
from ssrl_core.mix import load_mix
from ssrl_core.plugins import load_task
from ssrl_core.plugins.installed import ALLOWED

DRAWN = "return Sample("
SCORED = "return float(answer == truth)"
FOR_EVER = "import threading; threading.Event().wait()"

# Refused on loading: fault -> (changes, facts of the distribution, message).
ON_LOADING = {
    "import error": ([("from PIL", "import nowhere\nfrom PIL")], {}, "does not import: ModuleNotFoundError: No module"),
    "ends the process": ([("from PIL", "raise SystemExit(1)\nfrom PIL")], {}, "does not import: SystemExit: 1"),
    "missing hook": ([("def ssrl_verify_answer", "def check")], {}, "ssrl_verify_answer: missing"),
    "wrong signature": (
        [("(answer, truth)", "(answer, key)")],
        {},
        "no argument 'key' exists; there are: answer, truth",
    ),
    "info raises": ([('version="1", ', "")], {}, "ssrl_task_info raised TypeError"),
    "needs a newer core": ([], {"requires": ["ssrl-core>=9"]}, "needs ssrl-core>=9, and "),
    "needs newer hooks": ([("from PIL", "SSRL_API = '1.9'\nfrom PIL")], {}, "needs version 1.9 of the hooks"),
}

# Found in use: fault -> (change, message).
IN_USE = {
    "raises in generate": ((DRAWN, "1 / 0; return Sample("), "ssrl_generate_sample raised ZeroDivisionError"),
    "ends the process in generate": (
        (DRAWN, "raise SystemExit; return Sample("),
        "ssrl_generate_sample raised SystemExit",
    ),
    "returns no sample": ((DRAWN, "return 'A'; return Sample("), "not a Sample with images and truth"),
    "raises in the prompt": (
        ('return "<image>', 'return 1 / 0, "<image>'),
        "ssrl_format_prompt raised ZeroDivisionError",
    ),
    "raises in verify": ((SCORED, "1 / 0"), "ssrl_verify_answer raised ZeroDivisionError"),
    "scores NaN": ((SCORED, "return float('nan')"), "ssrl_verify_answer returned nan, not a number in [0, 1]"),
    "scores text": ((SCORED, "return 'right'"), "ssrl_verify_answer returned 'right', not a number in [0, 1]"),
    "sleeps in verify": ((SCORED, FOR_EVER), "ssrl_verify_answer did not return within 0.05 s, on answer 'A'"),
}


@pytest.fixture
def healthy(install_toy, write_mix):
    """A function that checks that the healthy task beside the broken one is listed, makes samples and scores them."""
    install_toy(name="healthy")

    def check():
        (row,) = [row for row in list_tasks() if row["task"] == "healthy"]
        assert row["health"] == "ok"
        mix = load_mix(write_mix("size: 64\ntasks: {healthy: }"))
        example = mix[0]
        truth = example.sample.truth
        assert mix.tasks["healthy"].verify_answer(truth, truth=truth, params={}, limit=60) == 1.0

    return check


def use(name, write_mix):
    """The error when a mix of the healthy and the broken task makes two samples and scores an answer."""
    with pytest.raises(PluginError) as error:
        mix = load_mix(write_mix(f"size: 64\ntasks: {{healthy: , {name}: }}"))
        for index in range(2):
            assert mix[index].prompt
        mix.tasks[name].verify_answer("A", truth="A", params={}, limit=0.05)
    return str(error.value)


@pytest.mark.parametrize("fault", ON_LOADING)
def test_a_plugin_that_cannot_be_loaded_is_explained(fault, install_toy, healthy, write_mix):
    changes, facts, message = ON_LOADING[fault]
    install_toy(*changes, name="broken", **facts)
    told = use("broken", write_mix)
    assert message in told and "'broken' of ssrl-plugin-broken 0.1" in told
    (row,) = [row for row in list_tasks() if row["task"] == "broken"]
    assert row["state"] == "broken" and message in row["health"]
    healthy()


@pytest.mark.parametrize("fault", IN_USE)
def test_a_plugin_that_fails_in_use_is_explained(fault, install_toy, healthy, write_mix):
    change, message = IN_USE[fault]
    name = fault.replace(" ", "_")
    install_toy(change, name=name)
    told = use(name, write_mix)
    assert message in told and f"{name!r} of ssrl-plugin-{name} 0.1" in told
    healthy()


def test_a_name_claimed_twice_is_explained(install_toy, healthy, write_mix):
    install_toy(name="broken")
    install_toy(name="broken", distribution="acme-broken", version="2.0")
    told = use("broken", write_mix)
    assert "'broken' is claimed by" in told and "acme-broken 2.0" in told and "ssrl-plugin-broken 0.1" in told
    healthy()


def test_a_distribution_that_is_not_allowed_is_explained(install_toy, healthy, write_mix, monkeypatch):
    install_toy(name="broken")
    monkeypatch.setenv(ALLOWED, "ssrl-plugin-healthy,ssrl-source-rooms")
    assert "may not be loaded: SSRL_ALLOWED_DISTRIBUTIONS allows only ssrl-plugin-healthy" in use("broken", write_mix)
    healthy()


def test_a_task_that_rejects_every_image_is_explained(install_toy, healthy, pictures, write_mix):
    install_toy(
        (DRAWN, "from ssrl_core import SourceRejected; raise SourceRejected('dull'); return Sample("), name="picky"
    )
    with pytest.raises(SourceError, match=r"task 'picky', level '1': 64 images in a row .* \(dull: 64\)"):
        load_mix(write_mix(f"source: 'folder:{pictures}'\nsize: 64\ntasks: {{picky: }}"))[0]
    healthy()


def test_a_broken_task_that_a_mix_does_not_name_is_not_noticed(install_toy, healthy):
    install_toy(("from PIL", "raise KeyError\nfrom PIL"), name="broken")
    healthy()
    assert load_task("healthy").generate_sample(None, rng=np.random.default_rng(0), level="1", options=None)
