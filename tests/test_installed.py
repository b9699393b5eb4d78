import shutil
import sys
import warnings
from pathlib import Path

import pytest

from ssrl_core import hookspecs
from ssrl_core.cli.list import list_tasks
from ssrl_core.errors import DuplicatePlugin, IncompatiblePlugin, NotAllowed, UnknownPlugin
from ssrl_core.mix import load_mix
from ssrl_core.plugins import load_source_hooks, load_task
from ssrl_core.plugins.installed import ALLOWED, SOURCES, TASKS, WRAPPERS, check_allowed, find

TOY = (Path(__file__).parent / "fixtures" / "ssrl_plugin_toy.py").read_text(encoding="utf-8")
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
    here = ".".join(map(str, hookspecs.API_VERSION))
    assert f"needs version {version} of the hooks, and this ssrl-core has {here}" in str(error.value)
    assert "pip install --upgrade ssrl-core ssrl-plugin-toy" in str(error.value)


def test_a_plugin_says_which_version_of_the_hooks_it_needs(install_toy, probe):
    install_toy(("from PIL", "SSRL_API = '1.0'\nfrom PIL"))
    assert load_task("toy").api_version == load_task("probe").api_version == "1.0"


def entry(value="ssrl_plugin_toy", name="toy"):
    return {"ssrl": {name: value}}


def loaded_with_warnings(name="toy"):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        task = load_task(name)
    return task, [str(warning.message) for warning in caught]


def test_a_folder_that_shadows_the_module_of_a_plugin_is_named(install_toy, tmp_path, monkeypatch):
    install_toy()
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "ssrl_plugin_toy.py").write_text(TOY)
    monkeypatch.syspath_prepend(str(tmp_path / "work"))  # as PYTHONPATH, or the working directory of python -m
    (warning,) = loaded_with_warnings()[1]
    assert warning.startswith("plugin 'toy' of ssrl-plugin-toy 0.1: ")
    assert (
        f"{tmp_path}/work/ssrl_plugin_toy.py is imported instead of its {tmp_path}/site0/ssrl_plugin_toy.py" in warning
    )
    load_task.cache_clear()
    (row,) = [row for row in list_tasks() if row["task"] == "toy"]
    assert row["state"] == "ok" and "is imported instead of its" in row["health"]


def test_a_module_of_another_distribution_in_front_is_named(install_toy, install):
    install_toy()
    install("acme-tools", code=None, entry_points=entry("ssrl_plugin_toy:other", "other"))
    (site := sys.path[0]) and Path(site, "ssrl_plugin_toy.py").write_text(TOY)
    _, warned = loaded_with_warnings()
    assert len(warned) == 1 and f"{site}/ssrl_plugin_toy.py is imported instead" in warned[0]


def test_of_two_versions_of_a_distribution_on_the_path_the_first_counts_and_the_other_is_named(install_toy, tmp_path):
    install_toy()
    install_toy(version="0.2")
    task, warned = loaded_with_warnings()
    assert task.plugin.version == "0.2"
    assert len(warned) == 1 and f"ssrl-plugin-toy 0.1 in {tmp_path}/site0" in warned[0] and "installed too" in warned[0]


def test_two_versions_of_a_distribution_in_one_folder_are_duplicates(install_toy, tmp_path):
    install_toy()
    left = shutil.copytree(
        tmp_path / "site0/ssrl_plugin_toy-0.1.dist-info", tmp_path / "site0/ssrl_plugin_toy-0.2.dist-info"
    )
    (left / "METADATA").write_text("Metadata-Version: 2.1\nName: ssrl-plugin-toy\nVersion: 0.2\n")
    load_task.cache_clear()
    with pytest.raises(DuplicatePlugin) as error:
        load_task("toy")
    for part in ("ssrl-plugin-toy 0.1", "ssrl-plugin-toy 0.2", f"all in {tmp_path}/site0", "Uninstall all but one"):
        assert part in str(error.value)


def test_a_name_that_a_distribution_gives_twice_is_a_duplicate(install, tmp_path):
    install("acme-toy", code="", entry_points=entry("acme_toy:a"))
    path = next(tmp_path.glob("site0/*.dist-info/entry_points.txt"))
    path.write_text("[ssrl]\ntoy = acme_toy:a\ntoy = acme_toy:b\n")
    load_task.cache_clear()
    with pytest.raises(DuplicatePlugin, match=r"acme-toy 0.1 \(acme_toy:a\) and acme-toy 0.1 \(acme_toy:b\)"):
        load_task("toy")


@pytest.mark.parametrize(
    "kind", ["the same folder twice", "a link to the folder", "an equal egg-info", "an editable one"]
)
def test_a_second_sight_of_the_same_distribution_is_no_fault(install_toy, tmp_path, monkeypatch, kind):
    install_toy()
    site = tmp_path / "site0"
    if kind == "the same folder twice":
        sys.path.append(str(site))
    elif kind == "a link to the folder":
        (tmp_path / "lib64").symlink_to(site)
        monkeypatch.syspath_prepend(str(tmp_path / "lib64"))
    elif kind == "an equal egg-info":
        egg = tmp_path / "src" / "ssrl_plugin_toy.egg-info"
        shutil.copytree(site / "ssrl_plugin_toy-0.1.dist-info", egg)
        (egg / "METADATA").rename(egg / "PKG-INFO")
        monkeypatch.syspath_prepend(str(tmp_path / "src"))
    else:
        (tmp_path / "src").mkdir()
        (site / "ssrl_plugin_toy.py").rename(tmp_path / "src" / "ssrl_plugin_toy.py")
        (site / "toy.pth").write_text(f"{tmp_path}/src\n")
        (site / "ssrl_plugin_toy-0.1.dist-info" / "RECORD").write_text("toy.pth,,\n")
        monkeypatch.syspath_prepend(str(tmp_path / "src"))
    load_task.cache_clear()
    assert loaded_with_warnings()[1] == []


@pytest.mark.parametrize("old", ["old", "site0"])  # a folder on the path; what a wheel left
def test_a_folder_that_shadows_an_editable_plugin_is_named(install_toy, tmp_path, monkeypatch, old):
    install_toy()
    site = tmp_path / "site0"
    for name in ("src", old):
        (tmp_path / name).mkdir(exist_ok=True)
        (tmp_path / name / "ssrl_plugin_toy.py").write_text(TOY)
        monkeypatch.syspath_prepend(str(tmp_path / name))
    if old != "site0":
        (site / "ssrl_plugin_toy.py").unlink()
    (site / "toy.pth").write_text(f"{tmp_path}/src\n")
    (site / "ssrl_plugin_toy-0.1.dist-info" / "RECORD").write_text("toy.pth,,\n")
    load_task.cache_clear()
    (warning,) = loaded_with_warnings()[1]
    assert f"{tmp_path}/{old}/ssrl_plugin_toy.py is imported instead of its {tmp_path}/src/" in warning


def test_remains_without_metadata_are_named_by_their_folder(install_toy, tmp_path, monkeypatch):
    install_toy()
    for name in ("a", "b"):
        remains = tmp_path / name / "ssrl_plugin_gone-0.1.dist-info"
        remains.mkdir(parents=True)
        (remains / "entry_points.txt").write_text("[ssrl]\ntoy = ssrl_plugin_gone\n")
        monkeypatch.syspath_prepend(str(tmp_path / name))
    with pytest.raises(DuplicatePlugin) as error:
        load_task("toy")
    for folder in ("a", "b"):
        assert f"(no name, in {tmp_path}/{folder}) (no version)" in str(error.value)
