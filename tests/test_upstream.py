"""The list of what we use of verl: it is complete, and the installed version has it."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("verl", reason="the 'train' extra is not installed")

from ssrl_core.verl.upstream import NAMES, WITH_VLLM, Name, faults

VERL = Path(__file__).parents[1] / "ssrl_core" / "verl"


def test_the_installed_version_has_every_name() -> None:
    # In a process of its own, because here another test may have replaced some of them already.
    result = subprocess.run(
        [sys.executable, "-m", "ssrl_core.verl.upstream"], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        (Name("call", "verl.utils.device.get_devise_name", "", "a reason"), "is gone"),
        (Name("call", "verl.utils.devise.get_device_name", "", "a reason"), "is gone"),
        (Name("call", "verl.utils.device.get_device_name", "self", "a reason"), r"has the parameters \(\)"),
    ],
)
def test_a_name_that_changed_is_reported_with_its_reason(name: Name, fault: str) -> None:
    (line,) = faults([name])
    assert re.search(fault, line)
    assert "a reason" in line and "docs/upgrading-verl.md" in line


def test_everything_that_is_imported_is_in_the_list() -> None:
    listed = {name.path for name in (*NAMES, *WITH_VLLM)}
    for path in VERL.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in ("verl", "vllm"):
                for alias in node.names:
                    name = f"{node.module}.{alias.name}"
                    assert any(one == name or one.startswith(f"{name}.") for one in listed), f"{path}: {name}"
