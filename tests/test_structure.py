"""Who may import whom."""

import ast
from pathlib import Path

ROOT = Path(__file__).parents[1]
PUBLIC = {"ssrl_core", "ssrl_core.answers", "ssrl_core.drawing", "ssrl_core.prompts", "ssrl_core.regions"}


def imported(path):
    """The absolute names of the modules that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield node.module


def test_only_the_verl_package_imports_verl_and_ray():
    inside = ROOT / "ssrl_core" / "verl"
    outside = [path for path in (ROOT / "ssrl_core").rglob("*.py") if inside not in path.parents]
    assert len(outside) > 20
    for path in outside:
        allowed = {"ray"} if path == ROOT / "ssrl_core" / "export" / "cluster.py" else set()
        assert {name.split(".")[0] for name in imported(path)} & {"verl", "ray", "vllm"} <= allowed, path


def test_plugins_import_only_the_public_interface():
    modules = list((ROOT / "plugins").glob("*/ssrl_plugin_*/*.py"))
    assert len(modules) >= 5
    for path in modules:
        assert {name for name in imported(path) if name.startswith("ssrl_core")} <= PUBLIC, path
