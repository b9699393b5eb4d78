"""The public API does not change unnoticed: ``public_api.txt`` lists it, and the changelog has a hash of that file.

After a change, ``python tests/test_public_api.py`` updates the file and prints the line for CHANGELOG.md.
"""

import ast
import hashlib
import importlib
import inspect
import re
from dataclasses import MISSING
from pathlib import Path
from types import ModuleType

import ssrl_core

HERE = Path(__file__).parent
SNAPSHOT = HERE / "public_api.txt"
CHANGELOG = HERE.parent / "CHANGELOG.md"
MODULES = ("hookspecs", "types", "options", "errors", "answers", "drawing", "regions", "views", "prompts", "testing")


def public_api() -> str:
    """Every public name that a plugin may use, with its signature or fields, a line each."""
    lines = [f"ssrl_core: {name}" for name in ssrl_core.__all__]
    for name in MODULES:
        module = importlib.import_module(f"ssrl_core.{name}")
        for public in sorted(getattr(module, "__all__", None) or defined(module)):
            if not public.startswith("_"):
                lines += describe(f"{name}.{public}", getattr(module, public))
    return "\n".join(lines) + "\n"


def defined(module: ModuleType) -> set[str]:
    """The names that the module's own text defines; those that it imports belong elsewhere."""
    names = set()
    for node in ast.parse(inspect.getsource(module)).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names |= {target.id for target in targets if isinstance(target, ast.Name)}
    return names


def describe(name: str, value: object) -> list[str]:
    if inspect.isroutine(value):
        return [f"{name}{signature(value)}"]
    if not inspect.isclass(value):
        return [f"{name}: {type(value).__name__}"]
    lines = [f"class {name}({', '.join(base.__name__ for base in value.__bases__)})"]
    optional = {
        field.name
        for field in getattr(value, "__dataclass_fields__", {}).values()
        if field.default is not MISSING or field.default_factory is not MISSING
    } | set(getattr(value, "_field_defaults", ()))
    for field, kind in inspect.get_annotations(value).items():
        kind = getattr(kind, "__forward_arg__", kind)
        lines.append(f"{name}.{field}: {kind}{' = ...' if field in optional else ''}")
    for key, member in list(vars(value).items()):
        function = getattr(member, "__func__", member)
        if not key.startswith("_") and inspect.isroutine(function) and key not in getattr(value, "_fields", ()):
            lines.append(f"{name}.{key}{signature(function)}")
    return lines


def signature(function: object) -> str:
    return re.sub(r" at 0x[0-9a-f]+", "", str(inspect.signature(function)))


def line_for_changelog(api: str) -> str:
    return f"Public API `{hashlib.sha256(api.encode()).hexdigest()[:12]}`"


def test_the_public_api_is_the_one_that_the_changelog_names():
    api = public_api()
    remedy = "python tests/test_public_api.py updates it; state in CHANGELOG.md what changed"
    assert api.splitlines() == SNAPSHOT.read_text(encoding="utf-8").splitlines(), remedy
    unreleased = CHANGELOG.read_text(encoding="utf-8").split("\n## ")[1]
    assert line_for_changelog(api) in unreleased, f"write below the latest heading: {line_for_changelog(api)}"


if __name__ == "__main__":
    SNAPSHOT.write_text(public_api(), encoding="utf-8")
    print(line_for_changelog(public_api()))
