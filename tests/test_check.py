"""``ssrl check``: the oracle of a test file, what is printed, and where."""

from __future__ import annotations

import json
import sys

import pytest
from typer.testing import CliRunner

from ssrl_core.cli import app
from ssrl_core.errors import SSRLError
from ssrl_core.testing.oracle import load_oracle

TESTS = """
from ssrl_core.testing import PretextTaskTests


class TestConformance(PretextTaskTests):
    task = "toy"
    samples = 30
    size = 64
    levels = ("1",)

    def solve(self, source, sample):
        return {"A", "B"}


class TestEveryLevel(TestConformance):
    samples = 99
"""


@pytest.fixture
def project(install_toy, tmp_path):
    """The toy as a project: metadata and module in the project's folder, and tests beside them."""
    install_toy(("(32, 32)", "(64, 64)"))
    (folder,) = tmp_path.glob("site*")
    (folder / "pyproject.toml").write_text('[project]\nname = "ssrl_plugin.toy"\ndescription = "x"\n')
    (folder / "tests").mkdir()
    (folder / "tests" / "test_toy.py").write_text(TESTS)
    yield folder
    for name in ("test_toy", "test_other"):
        sys.modules.pop(name, None)


def check(*words):
    return CliRunner().invoke(app(["check"]), ["check", "toy", "--no-cache", *words])


ORACLE = ("--only", "ambiguity.oracle")


def test_the_oracle_beside_the_plugin_is_used_and_named(project):
    done = check(*ORACLE, "-n", "24", "--json")
    assert "oracle: TestConformance of " in done.stderr and "size 64" in done.stderr and "samples" not in done.stderr
    report = json.loads(done.stdout)
    assert (report["samples"], report["size"]) == (24, 64)
    assert "the oracle says ['A', 'B'] instead of" in report["checks"][0]["measured"]


def test_the_settings_of_a_named_oracle_count_unless_the_command_line_says_otherwise(project):
    named = ("--oracle", str(project / "tests" / "test_toy.py"), "--json")
    assert json.loads(check(*ORACLE, *named).stdout)["samples"] == 30
    assert json.loads(check(*ORACLE, *named, "-n", "26").stdout)["samples"] == 26


def test_the_oracle_can_be_left_out(project):
    done = check(*ORACLE, "-n", "24", "--no-oracle")
    assert "no oracle: override solve" in done.stdout and done.stderr == ""


def test_a_damaged_test_file_is_reported_and_not_used(project):
    (project / "tests" / "test_toy.py").write_text(TESTS + "\nimport nonesuch\n")
    done = check(*ORACLE, "-n", "24")
    assert "no oracle: " in done.stderr and "No module named 'nonesuch'" in done.stderr
    assert "not run" in done.stdout


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (TESTS.replace('"toy"', '"other"'), "no subclass of PretextTaskTests has task = 'toy'; there are .* other"),
        ("x = 1", "no subclass of PretextTaskTests has task = 'toy'$"),
        (TESTS.replace("TestEveryLevel(TestConformance)", 'TestAgain(PretextTaskTests):\n    task = "toy"\nclass X'),
         "TestConformance and TestAgain both have task = 'toy'"),
        ("1 / 0", "does not import: ZeroDivisionError"),
    ],
)  # fmt: skip
def test_a_file_without_one_oracle_is_refused(project, text, message):
    path = project / "tests" / "test_other.py"
    path.write_text(text)
    with pytest.raises(SSRLError, match=message):
        load_oracle(path, "toy")


def test_without_pytest_the_command_that_installs_it_is_shown(project, monkeypatch):
    monkeypatch.setitem(sys.modules, "pytest", None)
    monkeypatch.delitem(sys.modules, "ssrl_core.testing.suite")
    with pytest.raises(SSRLError, match=r"pip install 'ssrl-core\[testing\]'"):
        load_oracle(project / "tests" / "test_toy.py", "toy")


def test_failures_come_last_and_quiet_prints_nothing_else_but_the_summary(project):
    words = ("--only", "contract.truth", "--only", "ambiguity.oracle", "--only", "contract.hooks", "-n", "24")
    lines = [line for line in check(*words).stdout.splitlines() if not line.startswith(" ")]
    assert [line.split()[:2] for line in lines[:-1]] == [
        ["ok", "contract.hooks"],
        ["ok", "contract.truth@1"],
        ["ok", "contract.generates@1"],
        ["FAILED", "ambiguity.oracle@1"],
    ]
    quiet = [line for line in check(*words, "--quiet").stdout.splitlines() if not line.startswith(" ")]
    assert quiet[0].startswith("FAILED") and quiet[1].startswith("toy: 4 checks ran") and len(quiet) == 2


def test_the_samples_that_show_a_failure_are_written(project, tmp_path):
    done = check(*ORACLE, "-n", "24", "--failures", str(tmp_path / "shown"))
    assert "10 samples written" in done.stderr
    assert len(list((tmp_path / "shown").rglob("*.json"))) == 10
