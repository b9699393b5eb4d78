import sys

import pytest

from ssrl_core.errors import DuplicatePlugin, IncompatiblePlugin, NotAllowed, UnknownPlugin
from ssrl_core.mix import load_mix
from ssrl_core.plugins import load_source_hooks, load_task
from ssrl_core.plugins.installed import ALLOWED, SOURCES, TASKS, WRAPPERS, check_allowed, find

TRAP = "raise RuntimeError('nobody asked for this plugin')"


def test_only_the_plugins_that_a_mix_names_are_imported(install_toy, install, write_mix):
    install_toy()
    install_toy(name="trap", code=TRAP)
    install("ssrl-plugin-trap-images", code=TRAP, entry_points={"ssrl.sources": {"trap": "ssrl_plugin_trap_images"}})
    install("ssrl-plugin-trap-around", code=TRAP, entry_points={"ssrl.wrappers": {"trap": "ssrl_plugin_trap_around"}})
    mix = load_mix(write_mix("size: 64\ntasks: {toy: }"))
    assert mix[0].prompt.startswith("<image>A or B?")
    assert [name for name in sys.modules if name.startswith("ssrl_plugin_trap")] == []


def test_a_distribution_that_the_environment_does_not_allow_is_not_imported(install_toy, monkeypatch):
    install_toy(code=TRAP)
    monkeypatch.setenv(ALLOWED, "ssrl-plugin-flipped-patch, acme-*")
    with pytest.raises(NotAllowed) as error:
        load_task("toy")
    assert str(error.value) == (
        "plugin 'toy' of ssrl-plugin-toy 0.1 may not be loaded: SSRL_ALLOWED_DISTRIBUTIONS allows only "
        "ssrl-plugin-flipped-patch, acme-*. If you trust it, add ssrl-plugin-toy there"
    )


@pytest.mark.parametrize("allowed", ["ssrl-plugin-toy", "SSRL_Plugin.Toy", "other, ssrl-plugin-*", "*"])
def test_a_distribution_that_is_named_or_matched_is_allowed_however_it_is_spelt(install_toy, monkeypatch, allowed):
    install_toy()
    monkeypatch.setenv(ALLOWED, allowed)
    assert load_task("toy").name == "toy"


def test_an_empty_variable_allows_nothing_but_the_core(install_toy, probe, pictures, monkeypatch):
    install_toy()
    monkeypatch.setenv(ALLOWED, "")
    with pytest.raises(NotAllowed, match=r"allows only ssrl-core\."):
        load_task("toy")
    with pytest.raises(NotAllowed, match="'blank' of ssrl-plugin-probe"):
        load_source_hooks("blank")
    assert load_source_hooks("folder").ssrl_open_source(uri=f"folder:{pictures}")


@pytest.mark.parametrize(
    ("name", "group", "command"),
    [
        ("synthetic", SOURCES, "to install it: pip install ssrl-source-rooms"),
        ("matterport", SOURCES, "to install it, if that is its name: pip install ssrl-source-matterport"),
        ("rotated_crop", TASKS, "to install it, if that is its name: pip install ssrl-plugin-rotated-crop"),
        ("blur", WRAPPERS, "to install it, if that is its name: pip install ssrl-plugin-blur"),
    ],
)
def test_a_missing_plugin_is_answered_with_the_command_that_installs_it(monkeypatch, name, group, command):
    module = sys.modules["ssrl_core.plugins.installed"]  # the package has a function of this name
    monkeypatch.setattr(module, "installed", lambda group: {"folder": [], "rgbd": []})
    with pytest.raises(UnknownPlugin) as error:
        find(name, group=group)
    assert str(error.value).splitlines()[1:] == ["  installed: folder, rgbd", f"  {command}"]


def test_other_settings_than_the_environment_can_restrict_what_is_loaded(install_toy, probe):
    install_toy()
    check_allowed(find("toy"), ["ssrl-plugin-toy"], where="mix.yaml: allow")
    with pytest.raises(NotAllowed, match=r"mix\.yaml: allow allows only ssrl-plugin-toy\. If you trust it, add"):
        check_allowed(find("blank", group=SOURCES), ["ssrl-plugin-toy"], where="mix.yaml: allow")


def test_allowing_one_of_two_claimants_settles_which_is_meant(install_toy, monkeypatch):
    install_toy()
    install_toy(distribution="acme-toy", version="2.0")
    with pytest.raises(DuplicatePlugin, match=f"Uninstall all but one of them, or allow only one in {ALLOWED}"):
        load_task("toy")
    monkeypatch.setenv(ALLOWED, "acme-*")
    assert load_task("toy").plugin.distribution == "acme-toy"


@pytest.mark.parametrize("requirement", ["ssrl-core>=9", "SSRL_Core[train]>=9 ; python_version>='3'", "ssrl.core<0.1"])
def test_a_plugin_for_another_release_of_the_core_is_refused_before_it_is_imported(install_toy, requirement):
    install_toy(code=TRAP, requires=["numpy>=2", requirement])
    with pytest.raises(IncompatiblePlugin) as error:
        load_task("toy")
    assert "'toy' of ssrl-plugin-toy 0.1 needs ssrl-core" in str(error.value)
    assert "pip install --upgrade ssrl-core ssrl-plugin-toy" in str(error.value)


@pytest.mark.parametrize(
    "requirement",
    [
        "ssrl-core>=0.0.1,<99",
        "ssrl-core",
        "ssrl-core>=9 ; python_version < '3'",
        "ssrl-core>=9 ; extra == 'later'",
        "ssrl-core-extras>=9",
        "numpy>=99",
        "ssrl-core ><",
    ],
)
def test_a_requirement_that_is_met_or_not_about_the_core_lets_the_plugin_load(install_toy, requirement):
    install_toy(requires=[requirement])
    assert load_task("toy").name == "toy"


@pytest.mark.parametrize("version", ["1.99", "2.0", "0.9"])
def test_a_plugin_for_other_hooks_is_refused_with_the_line_to_upgrade(install_toy, version):
    install_toy(("from PIL", f"SSRL_API = '{version}'\nfrom PIL"))
    with pytest.raises(IncompatiblePlugin) as error:
        load_task("toy")
    assert f"needs version {version} of the hooks, and this ssrl-core has 1.0" in str(error.value)
    assert "pip install --upgrade ssrl-core ssrl-plugin-toy" in str(error.value)


def test_a_plugin_says_which_version_of_the_hooks_it_needs(install_toy, probe):
    install_toy(("from PIL", "SSRL_API = '1.0'\nfrom PIL"))
    assert load_task("toy").api_version == load_task("probe").api_version == "1.0"
