import json
import os
import subprocess
import sys

import pytest

from ssrl_core import hookspecs
from ssrl_core.cli.list import list_tasks, table_of_tasks
from ssrl_core.hookspecs import Deprecation
from ssrl_core.plugins.installed import ALLOWED

ON_IMPORT = "from PIL"


def listed(name, **settings):
    return [row for row in list_tasks(**settings) if row["task"] == name]


def test_a_row_has_the_facts_of_the_task(install_toy):
    install_toy(("levels={", 'needs_depth=True, levels={"0": Level("k", 0.125), '), version="1.2")
    (row,) = listed("toy")
    assert row == {
        "task": "toy",
        "distribution": "ssrl-plugin-toy",
        "distribution_version": "1.2",
        "state": "ok",
        "health": "ok",
        "version": "1",
        "summary": "s",
        "levels": {"0": 0.125, "1": 0.5},
        "takes": "image",
        "needs_depth": True,
        "needs_pose": False,
        "api": "1.0",
    }
    header, line = table_of_tasks([row]).splitlines()
    assert header.split() == ["task", "version", "distribution", "levels", "chance", "needs", "API", "health"]
    assert line.split() == ["toy", "1", "ssrl-plugin-toy", "1.2", "0", "1", "12.5%", "depth", "1.0", "ok"]


def test_a_chance_that_is_not_a_number_makes_the_plugin_broken(install_toy):
    install_toy(('Level("l", 0.5', 'Level("l", "half"'))
    (row,) = listed("toy")
    assert row["state"] == "broken" and "half" in row["health"]


def test_two_distributions_of_one_task_are_listed_and_not_imported(install_toy):
    install_toy(code="raise SystemExit")
    install_toy(code="raise SystemExit", distribution="acme-toy", version="2.0")
    rows = listed("toy")
    assert {(row["distribution"], row["state"]) for row in rows} == {
        ("ssrl-plugin-toy", "duplicate"),
        ("acme-toy", "duplicate"),
    }
    assert all("claimed by" in row["health"] and "Uninstall all but one" in row["health"] for row in rows)
    assert "ssrl_plugin_toy" not in sys.modules


def test_a_distribution_that_is_not_allowed_is_listed_and_not_imported(install_toy, monkeypatch):
    install_toy(code="raise SystemExit")
    install_toy(distribution="acme-toy")
    monkeypatch.setenv(ALLOWED, "acme-*")
    assert {row["distribution"]: row["state"] for row in listed("toy")} == {
        "ssrl-plugin-toy": "not allowed",
        "acme-toy": "ok",
    }
    assert "ssrl_plugin_toy" not in sys.modules


@pytest.mark.parametrize(
    "hang",
    [
        "import threading; threading.Event().wait()\nfrom PIL",
        "while True: pass\nfrom PIL",
        "while True:\n    try:\n        import nowhere_to_be_found\n    except Exception:\n        pass\nfrom PIL",
    ],
)
def test_a_plugin_that_hangs_at_import_is_listed_as_broken_and_others_are_not_affected(install_toy, monkeypatch, hang):
    monkeypatch.setenv(ALLOWED, "ssrl-plugin-toy,ssrl-plugin-toz")  # the limit may be too short for the others
    install_toy((ON_IMPORT, hang))
    install_toy(name="toz")
    health = {row["task"]: (row["state"], row["health"]) for row in list_tasks(limit=0.5)}
    assert health["toy"] == ("broken", "has not loaded within 0.5 s")
    assert health["toz"] == ("ok", "ok")


def test_output_of_a_plugin_goes_to_stderr(install_toy, capsys):
    install_toy((ON_IMPORT, "print('hello')\nfrom PIL"))
    (row,) = listed("toy")
    assert row["health"] == "ok"
    assert capsys.readouterr() == ("", "hello\n")


def test_a_deprecated_hook_is_named_in_the_health(install_toy, monkeypatch):
    monkeypatch.setitem(hookspecs.DEPRECATED, "ssrl_check_answer", Deprecation("ssrl_verify_answer", until="2.0"))
    install_toy(("def ssrl_verify_answer", "def ssrl_check_answer"))
    (row,) = listed("toy")
    assert row["state"] == "ok"
    assert row["health"] == (
        "ok; ssrl_check_answer works until version 2.0 of the hooks; use ssrl_verify_answer instead"
    )


def test_the_command_prints_healthy_and_broken_tasks_and_nothing_else(install_toy):
    install_toy((ON_IMPORT, "print('noise'); raise KeyError('deep inside')\nfrom PIL"))
    install_toy(name="toz")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-m", "ssrl_core", "list", "--json"]
    rows = json.loads(subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout)
    states = {row["task"]: row["state"] for row in rows}
    assert states.items() >= {("toy", "broken"), ("toz", "ok"), ("flipped_patch", "ok")}
    (line,) = [line for line in table_of_tasks(rows).splitlines() if line.startswith("toy ")]
    assert "ssrl-plugin-toy 0.1" in line and "BROKEN: does not import: KeyError: 'deep inside'" in line
