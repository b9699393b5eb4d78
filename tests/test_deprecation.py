"""Old names of hooks and arguments. The core has none at present, so the tests add some to its table."""

import warnings

import pytest

from ssrl_core import hookspecs
from ssrl_core.errors import BrokenPlugin
from ssrl_core.hookspecs import Deprecation
from ssrl_core.plugins import load_task

OLD_HOOK = ("def ssrl_verify_answer", "def ssrl_check_answer")
OLD_ARGUMENT = (
    "(answer, truth):\n    return float(answer == truth)",
    "(key, answer):\n    return float(answer == key)",
)


@pytest.fixture
def deprecated(monkeypatch):
    monkeypatch.setitem(hookspecs.DEPRECATED, "ssrl_check_answer", Deprecation("ssrl_verify_answer", until="2.0"))
    new = "ssrl_verify_answer.truth"
    monkeypatch.setitem(hookspecs.DEPRECATED, "ssrl_verify_answer.key", Deprecation(new, until="3.0"))


@pytest.mark.parametrize(
    ("changes", "warning"),
    [
        (
            [OLD_HOOK],
            "plugin 'toy' of ssrl-plugin-toy 0.1: ssrl_check_answer works until version 2.0 of the hooks; "
            "use ssrl_verify_answer instead",
        ),
        (
            [OLD_ARGUMENT],
            "plugin 'toy' of ssrl-plugin-toy 0.1: ssrl_verify_answer.key works until version 3.0 of the hooks; "
            "use ssrl_verify_answer.truth instead",
        ),
    ],
)
def test_an_old_name_still_works_and_warns_of_what_to_use(install_toy, deprecated, changes, warning):
    install_toy(*changes)
    with pytest.warns(DeprecationWarning) as caught:
        task = load_task("toy")
    assert [str(w.message) for w in caught] == [warning]
    assert task.verify_answer("A", truth="A", params={}) == 1.0
    assert task.verify_answer("A", truth="B", params={}) == 0.0


def test_a_plugin_that_has_the_old_and_the_new_hook_serves_both_cores_without_a_warning(install_toy, deprecated):
    install_toy(
        ("@hookimpl\ndef ssrl_v", "@hookimpl\ndef ssrl_check_answer():\n    return 0.5\n\n\n@hookimpl\ndef ssrl_v")
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert load_task("toy").verify_answer("A", truth="A", params={}) == 1.0


@pytest.mark.parametrize("change", [OLD_HOOK, OLD_ARGUMENT])
def test_an_old_name_that_is_not_in_the_table_is_a_mistake(install_toy, change):
    install_toy(change)
    with pytest.raises(BrokenPlugin, match=r"there is no such hook|no argument 'key' exists"):
        load_task("toy")


def test_every_deprecation_of_the_core_says_what_to_use_and_until_when():
    for old, gone in hookspecs.DEPRECATED.items():
        major, minor = map(int, gone.until.split("."))
        assert (major, minor) > hookspecs.API_VERSION and minor == 0, f"{old} should have gone"
        assert hasattr(hookspecs, gone.use.partition(".")[0])
