"""The catalog: its file, what commands and errors say of it, badges, and the program that checks its entries."""

from __future__ import annotations

import fcntl
import functools
import importlib.util
import json
import subprocess
import sys
import time
import tomllib
import xml.etree.ElementTree as ET
import zipfile
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from typer.testing import CliRunner

from ssrl_core.cli import app
from ssrl_core.cli.catalog import changes, update
from ssrl_core.cli.list import not_installed
from ssrl_core.errors import SSRLError, UnknownPlugin
from ssrl_core.plugins import catalog as catalogs
from ssrl_core.plugins.catalog import SHIPPED, Catalog, dump, newest, offers, read, saved_file
from ssrl_core.plugins.installed import BENCHMARKS, BUILT_IN, SCORERS, SOURCES, TASKS, WRAPPERS, find
from ssrl_core.testing.badge import badge

ROOT = Path(__file__).parents[1]
ENTRY = "distributions:\n  ssrl-plugin-x:\n    summary: s\n    tasks: [x]\n"
LATER = "updated: '2999-01-01'\n"
CHECKED = "date: '2999-01-01', core: 0.1.0, version: '1.0'"
OFFERED = f"""{LATER}distributions:
  ssrl-plugin-follow-route:
    summary: walk | over a picture
    tasks: [follow_route]
    sources: [routes]
    checked: {{{CHECKED}, status: passed, samples: 300, declared: 2}}
  ssrl-plugin-tell-tale: {{summary: t, tasks: [tell_tale], checked: {{{CHECKED}, status: failed, faults: ["x: a@1"]}}}}
  ssrl-plugin-gone: {{summary: g, tasks: [gone], checked: {{date: '2999-01-01', status: vanished}}}}
  ssrl-plugin-new-one: {{summary: n, tasks: [new_one], needs: [depth], home: "https://example.org/n"}}
"""


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    """The cache folder of one test."""
    monkeypatch.setenv("SSRL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def saved(cache) -> Path:
    """A saved catalog, newer than the shipped one."""
    cache.mkdir()
    saved_file().write_text(OFFERED)
    return saved_file()


def ssrl(*words):
    return CliRunner().invoke(app([words[0]]), list(words))


@pytest.fixture
def server(tmp_path):
    """The address of a folder ``served`` on this machine."""
    (tmp_path / "served").mkdir()

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    handler = functools.partial(Quiet, directory=str(tmp_path / "served"))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as served:
        Thread(target=served.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{served.server_port}"
        served.shutdown()


# The file


def test_the_shipped_catalog_lists_every_plugin_of_this_repository_as_it_is():
    listed = read(SHIPPED).distributions
    projects = [tomllib.loads(path.read_text())["project"] for path in sorted(ROOT.glob("plugins/*/pyproject.toml"))]
    assert len(projects) >= 6
    for project in projects:
        groups = {group.removeprefix("ssrl."): set(names) for group, names in project["entry-points"].items()}
        entry = listed[project["name"]]
        assert set(entry.tasks) == groups.get("ssrl", set()) and set(entry.sources) == groups.get("sources", set())
        assert project["description"].endswith(entry.summary)


def test_the_shipped_file_is_as_the_program_writes_it_so_that_a_check_changes_few_lines():
    assert SHIPPED.read_text() == dump(read(SHIPPED))


def test_a_catalog_is_read_back_as_it_was_written(saved, tmp_path):
    catalog = read(saved)
    (tmp_path / "again.yaml").write_text(dump(catalog))
    assert read(tmp_path / "again.yaml") == catalog


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("distributions: {}", "updated: missing"),
        (LATER + ENTRY + "    taks: [y]", r"ssrl-plugin-x\.taks: there is no such key\. Did you mean 'tasks'\?"),
        (LATER + ENTRY.replace("[x]", "x"), r"ssrl-plugin-x\.tasks: 'x': Input should be a valid tuple"),
        (LATER + ENTRY.replace("[x]", "[X y]"), r"ssrl-plugin-x\.tasks\.0: 'X y': "),
        (LATER + ENTRY.replace("tasks: [x]", "needs: [depth]"), r"ssrl-plugin-x: it provides nothing: give names"),
        (LATER + ENTRY.replace("ssrl-plugin-x", "ssrl plugin"), r"distributions\.ssrl plugin: 'ssrl plugin': "),
        (LATER + ENTRY + "    home: 'javascript:alert(1)'", r"ssrl-plugin-x\.home: 'javascript:alert\(1\)': "),
        (LATER + ENTRY + "    checked: {date: '2026-01-01', status: fine}", r"checked\.status: 'fine': .*'vanished'"),
        (LATER + ENTRY + "  other: {summary: o, tasks: [x]}", "tasks: ssrl-plugin-x and other both provide 'x'"),
        (LATER + ENTRY.replace("summary: s", 'summary: "a\\nb"'), r"ssrl-plugin-x\.summary: "),
    ],
)
def test_a_mistake_in_a_catalog_is_explained_with_file_and_key(tmp_path, text, message):
    (tmp_path / "catalog.yaml").write_text(text)
    with pytest.raises(SSRLError, match=message) as error:
        read(tmp_path / "catalog.yaml")
    assert all(line.startswith(f"{tmp_path}/catalog.yaml: ") for line in str(error.value).splitlines())


def test_the_saved_catalog_counts_unless_it_is_older(saved):
    assert newest()[1] == saved
    saved.write_text(OFFERED.replace("2999", "1999"))
    assert newest() == (read(SHIPPED), SHIPPED) and "follow_route" not in offers(TASKS)


def test_a_damaged_saved_catalog_is_named_by_the_command_and_ignored_elsewhere(saved):
    saved.write_text("distributions: [")
    with pytest.raises(SSRLError, match=f"remove {saved}, or replace it with ssrl catalog --update"):
        newest()
    assert offers(SOURCES)["synthetic"][0] == "ssrl-source-rooms"


# Commands and messages


def test_the_command_shows_facts_results_and_faults(saved):
    lines = ssrl("catalog").stdout.splitlines()
    assert lines[0] == f"catalog of 2999-01-01 ({saved})"
    rows = {line.split()[0]: line for line in lines if line.startswith("ssrl-plugin-")}
    assert "follow_route, source routes" in rows["ssrl-plugin-follow-route"]
    assert "passed, 2 declared" in rows["ssrl-plugin-follow-route"] and "1.0" in rows["ssrl-plugin-follow-route"]
    assert "depth" in rows["ssrl-plugin-new-one"] and "not checked" in rows["ssrl-plugin-new-one"]
    assert "vanished" in rows["ssrl-plugin-gone"]
    assert "ssrl-plugin-tell-tale: x: a@1" in lines


def test_the_command_prints_json_with_the_installed_versions(install_toy):
    listed = json.loads(ssrl("catalog", "--json").stdout)
    assert listed["file"] == str(SHIPPED)
    facts = listed["distributions"]["ssrl-plugin-flipped-patch"]
    assert facts["tasks"] == ["flipped_patch"] and facts["installed"]
    saved_file().parent.mkdir()
    saved_file().write_text(OFFERED)
    assert json.loads(ssrl("catalog", "--json").stdout)["distributions"]["ssrl-plugin-gone"]["installed"] is None


@pytest.mark.parametrize(
    ("name", "group", "line"),
    [
        ("follow_route", TASKS, "to install it: pip install ssrl-plugin-follow-route"),
        ("folow_route", TASKS, "to install 'follow_route': pip install ssrl-plugin-follow-route"),
        ("routes", SOURCES, "to install it: pip install ssrl-plugin-follow-route"),
        ("tell_tale", TASKS, "pip install ssrl-plugin-tell-tale (last check: failed; see ssrl catalog)"),
        ("gone", TASKS, "pip install ssrl-plugin-gone (last check: vanished; see ssrl catalog)"),
        ("something_else", TASKS, "to install it, if that is its name: pip install ssrl-plugin-something-else"),
        ("blur", WRAPPERS, "to install it, if that is its name: pip install ssrl-plugin-blur"),
        ("nearly", SCORERS, "to install it, if that is its name: pip install ssrl-plugin-nearly"),
        ("3dsr", BENCHMARKS, "to install it, if that is its name: pip install ssrl-plugin-3dsr"),
    ],
)
def test_an_unknown_name_is_answered_with_the_distribution_that_the_catalog_names(saved, name, group, line):
    with pytest.raises(UnknownPlugin) as error:
        find(name, group=group)
    assert str(error.value).splitlines()[-1].strip().endswith(line)


def test_the_list_names_tasks_of_the_catalog_that_are_not_installed_and_did_not_fail(saved, monkeypatch):
    assert ssrl("list").stdout.rstrip().splitlines()[-3:] == [
        "not installed, of the catalog:",
        "  follow_route: pip install ssrl-plugin-follow-route",
        "  new_one: pip install ssrl-plugin-new-one",
    ]
    monkeypatch.setattr("ssrl_core.cli.list.MOST_OFFERS", 1)
    assert not_installed(["new_two"]).splitlines()[1:] == [
        "  follow_route: pip install ssrl-plugin-follow-route",
        "  1 more: ssrl catalog",
    ]
    assert isinstance(json.loads(ssrl("list", "--json").stdout), list)
    saved.unlink()
    assert not_installed([name for name in offers(TASKS)]) == ""


def test_an_update_from_an_address_or_a_file_is_saved_and_says_what_changes(server, tmp_path):
    (tmp_path / "served" / "catalog.yaml").write_text(OFFERED)
    done = ssrl("catalog", "--update", f"{server}/catalog.yaml")
    assert done.exit_code == 0, done.output
    assert "added    ssrl-plugin-tell-tale: t (failed)\nremoved  ssrl-source-rooms\n" in done.stdout
    assert newest()[1] == saved_file() and "follow_route" in offers(TASKS)
    changed = OFFERED.replace("status: passed", "status: failed").replace("summary: n", "summary: N")
    (tmp_path / "file.yaml").write_text(changed)
    assert list(update(str(tmp_path / "file.yaml"))) == [
        "changed  ssrl-plugin-follow-route: passed, 2 declared -> failed, 2 declared",
        "changed  ssrl-plugin-new-one: other facts",
    ]
    assert list(update(str(tmp_path / "file.yaml"))) == ["nothing has changed"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "cannot fetch the catalog http.*404.*Nothing has changed"),
        (LATER + ENTRY.replace("summary: s", "sumary: s"), r"http.*/catalog\.yaml: .*sumary: there is no such key"),
        ("x" * 1_000_001, "is larger than 1000 KB"),
        ("updated: '1999-01-01'\n" + ENTRY, r"was updated on 1999-01-01, before the catalog in use"),
    ],
)
def test_an_update_that_cannot_be_used_is_refused_and_nothing_is_saved(server, tmp_path, text, message):
    if text is not None:
        (tmp_path / "served" / "catalog.yaml").write_text(text)
    with pytest.raises(SSRLError, match=message):
        list(update(f"{server}/catalog.yaml"))
    assert not saved_file().exists()


def test_an_update_replaces_a_damaged_catalog(saved, tmp_path):
    saved.write_text("updated: [")
    (tmp_path / "new.yaml").write_text(OFFERED)
    list(update(str(tmp_path / "new.yaml")))
    assert newest()[0] == read(tmp_path / "new.yaml")


def test_a_check_that_finds_the_same_again_is_told_apart_from_other_changes(saved):
    old = read(saved)
    saved.write_text(OFFERED.replace("version: '1.0'", "version: '1.1'"))
    assert changes(old, read(saved))[0] == "changed  ssrl-plugin-follow-route: checked again"


# Badges


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"status": "passed"}, "passed"),
        ({"status": "passed", "declared": 3}, "passed, 3 declared"),
        ({"status": "failed", "failed": 2, "declared": 3}, "2 failed"),
        ({"status": "vanished"}, "vanished"),
    ],
)
def test_a_badge_says_the_result_in_text_that_fits(facts, message):
    svg = ET.fromstring(badge(**facts, label="a < b"))
    label, text = svg.iter("{http://www.w3.org/2000/svg}text")
    assert (label.text, text.text) == ("a < b", message)
    assert float(text.get("x")) + float(text.get("textLength")) <= float(svg.get("width")) - 6
    assert ("#2e7d32" in badge(**facts)) == (facts["status"] == "passed")


@pytest.mark.parametrize(("chance", "code", "message"), [("0.5", 0, ">passed<"), ("1.5", 1, ">1 failed<")])
def test_the_check_of_a_task_writes_its_badge(install_toy, tmp_path, chance, code, message):
    install_toy(("0.5", chance))
    words = ("--no-cache", "-n", "24", "--only", "contract.levels", "--badge", str(tmp_path / "toy.svg"))
    assert ssrl("check", "toy", *words).exit_code == code
    assert message in (tmp_path / "toy.svg").read_text()


# The program that checks the entries


@pytest.fixture(scope="module")
def program():
    """The module ``.github/catalog.py``."""
    spec = importlib.util.spec_from_file_location("check_catalog", ROOT / ".github" / "catalog.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def write_wheel(index: Path, name: str, *, code: str = "", entry_points: str = "") -> None:
    """A distribution as a wheel in a folder of the index, whose listing pip reads."""
    module, readme = name.replace("-", "_"), f"It adds {entry_points}"
    facts = f"Metadata-Version: 2.1\nName: {name}\nVersion: 0.1\nSummary: x\n\n{readme}\n"
    files = {
        f"{module}.py": code,
        f"{module}-0.1.dist-info/METADATA": facts,
        f"{module}-0.1.dist-info/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{module}-0.1.dist-info/entry_points.txt": entry_points,
        f"{module}-0.1.dist-info/RECORD": "",
    }
    (index / name).mkdir()
    with zipfile.ZipFile(index / name / f"{module}-0.1-py3-none-any.whl", "w") as wheel:
        for file, content in files.items():
            wheel.writestr(file, content)


def test_entries_are_installed_from_an_index_and_checked(program, server, tmp_path, monkeypatch, capsys):
    """The environments of this test have the libraries of the one that runs it."""
    index, code = tmp_path / "served", (ROOT / "tests" / "fixtures" / "ssrl_plugin_faults.py").read_text()
    code = code.replace("    side = 32\n", "    side = 64\n")  # for images of 256 pixels
    for name, value in (("good", "sound"), ("bad", "NoVerifier_"), ("other", "sound")):
        entry_points = f"[ssrl]\n{name} = ssrl_plugin_{name}:{value}\n"
        write_wheel(index, f"ssrl-plugin-{name}", code=code, entry_points=entry_points)
    write_wheel(index, "ssrl-core")  # to see whether the index answers
    provided = {"good": "tasks: [good]", "bad": "tasks: [bad]", "gone": "tasks: [gone]", "other": "sources: [other]"}
    entries = "".join(f"  ssrl-plugin-{name}: {{summary: s, {names}}}\n" for name, names in provided.items())
    path = tmp_path / "catalog.yaml"
    path.write_text(f"updated: '2026-01-01'\ndistributions:\n{entries}")

    def environment(folder, name, settings):
        """As the real one, with the libraries of this environment instead of new ones."""
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
        (site,) = folder.glob("lib/python*/site-packages")
        (site / "here.pth").write_text("\n".join(dict.fromkeys(filter(None, sys.path))) + "\n")
        pip = [sys.executable, "-m", "pip", "--python", folder / "bin" / "python", "install", "--no-deps"]
        done = program.run([*map(str, pip), *settings.pip, name], settings)
        assert done.returncode == 0, done.stderr
        return folder / "bin" / "python"

    monkeypatch.setattr(program, "environment", environment)
    words = ["--catalog", path, "--index-url", server, "-n", "24", "--reports", tmp_path / "reports", "--strict"]
    monkeypatch.setattr(sys, "argv", ["catalog", *map(str, words)])
    assert program.main() == 1
    assert capsys.readouterr().out.endswith("1 of 4 entries passed\n")

    found = {name: entry.checked for name, entry in read(path).distributions.items()}
    good, bad = found["ssrl-plugin-good"], found["ssrl-plugin-bad"]
    assert (good.status, good.version, good.samples, good.declared, good.faults) == ("passed", "0.1", 24, 0, ())
    assert bad.status == "failed" and any(fault.startswith("bad: contract.hooks: ") for fault in bad.faults)
    assert found["ssrl-plugin-gone"].status == "vanished"
    assert found["ssrl-plugin-other"].faults == (
        "the entry does not list the tasks other",
        "ssrl-plugin-other 0.1 does not provide the sources other",
    )
    assert {file.name for file in (tmp_path / "reports").iterdir()} == {
        "ssrl-plugin-good-good.json",
        "ssrl-plugin-bad-bad.json",
    }
    assert path.read_text() == dump(read(path))


def test_declared_failures_are_counted_and_failures_are_named_in_one_line(program, saved, monkeypatch, tmp_path):
    def check_task(python, name, task, settings):
        failed = {"status": "failed", "id": "leaks.sizes", "level": "2", "measured": "0.9\nof " + "all " * 99}
        return {"task": task, "counts": {"declared": 2, "failed": 1}, "checks": [failed, {"status": "passed"}]}, ""

    found = {"version": "1.2", "core": "0.1.0", "needs": ["depth"], "provided": {"tasks": ["new_one"]}, "faults": []}
    monkeypatch.setattr(program, "is_on_index", lambda name, settings: True)
    monkeypatch.setattr(program, "environment", lambda folder, name, settings: folder)
    monkeypatch.setattr(program, "probe", lambda python, name, settings: found)
    monkeypatch.setattr(program, "check_task", check_task)
    settings = program.Settings((), 30, 1.0, tmp_path, None)
    entry = read(saved).distributions["ssrl-plugin-new-one"]
    checked = program.check("ssrl-plugin-new-one", entry, settings)
    assert (checked.status, checked.declared, checked.version, checked.core) == ("failed", 2, "1.2", "0.1.0")
    assert checked.faults[0].startswith("new_one: leaks.sizes@2: 0.9 of all") and len(checked.faults[0]) <= 200
    faults = program.check("ssrl-plugin-new-one", entry.model_copy(update={"needs": ()}), settings).faults
    assert faults[0] == "its tasks need depth, and the entry does not say so in needs"


def test_nothing_is_checked_if_the_index_does_not_answer(program, saved, monkeypatch):
    monkeypatch.setattr(program, "is_on_index", lambda name, settings: False)
    monkeypatch.setattr(sys, "argv", ["catalog", "--catalog", str(saved)])
    with pytest.raises(SSRLError, match=r"does not have ssrl-core, or cannot be reached\. Nothing was checked"):
        program.main()
    assert saved.read_text() == OFFERED


def test_new_and_changed_entries_are_selected(program, saved):
    old = read(saved)
    entries = dict(old.distributions)
    entries["ssrl-plugin-gone"] = entries["ssrl-plugin-gone"].model_copy(update={"summary": "back"})
    entries["ssrl-plugin-more"] = entries["ssrl-plugin-new-one"]
    new = Catalog.model_construct(updated=old.updated, distributions=entries)
    assert program.selected(new, only=None, since=old) == ["ssrl-plugin-gone", "ssrl-plugin-more"]
    assert program.selected(new, only=["ssrl-plugin-gone"], since=None) == ["ssrl-plugin-gone"]
    with pytest.raises(SSRLError, match="--only nothing: the catalog does not list it"):
        program.selected(new, only=["nothing"], since=None)


def test_a_command_that_does_not_end_is_stopped_with_its_subprocesses(program, tmp_path):
    settings = program.Settings((), 1, 3.0, tmp_path, None)
    (tmp_path / "child.py").write_text(
        "import fcntl, signal\nlock = open('lock', 'w')\nfcntl.flock(lock, fcntl.LOCK_EX)\n"
        "open('locked', 'w').close()\nsignal.alarm(60)\nsignal.pause()\n"
    )
    code = "import subprocess, sys; subprocess.run([sys.executable, 'child.py'])"
    done = program.run([sys.executable, "-c", code], settings)
    assert (done.returncode, done.stderr) == (124, "it did not end within 3 s")
    assert (tmp_path / "locked").exists()
    with open(tmp_path / "lock") as lock:
        begin = time.monotonic()
        fcntl.flock(lock, fcntl.LOCK_EX)  # free when the child has ended
        assert time.monotonic() - begin < 30


def test_the_groups_of_entry_points_are_the_kinds_of_the_catalog():
    groups = {"ssrl" if kind == "tasks" else f"ssrl.{kind}" for kind in catalogs.KINDS}
    assert groups == {TASKS, SOURCES, WRAPPERS, BENCHMARKS, SCORERS}
    assert offers(BUILT_IN) == {}
