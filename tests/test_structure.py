"""Which module may import which: the layers, no circles, and what plugins and sources may use."""

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from importlib.util import resolve_name
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CORE = ROOT / "ssrl_core"

CONTRACT = {"", "hookspecs", "types", "options", "errors", "answers", "prompts", "drawing", "regions", "views"}
LAYERS = [  # from top to bottom; different names in one layer do not import each other, except in the lowest layer
    {"__main__"},
    {"cli"},
    {"benchmarks"},
    {"verl", "export", "evaluate", "testing", "trl", "verifiers"},
    {"resume", "pages"},
    {"reward"},
    {"models"},
    {"mix"},
    {"sample"},
    {"sources"},
    {"plugins"},
    CONTRACT | {"form", "seeding", "files", "yamlfile", "resampling"},
]
HEAVY = {"torch", "transformers", "verl", "vllm", "ray", "matplotlib", "pandas", "scipy", "pyarrow", "datasets"}
PUBLIC = {"ssrl_core", *(f"ssrl_core.{name}" for name in CONTRACT - {""})}


def module_of(path):
    """``ssrl_core.mix`` for the path of its ``__init__.py``."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {module_of(path): path for path in CORE.rglob("*.py")}


def imports(path):
    """The absolute names of the modules that a file imports, anywhere in it."""
    package = module_of(path) if path.name == "__init__.py" else module_of(path.parent)
    tree = ast.parse(path.read_text(encoding="utf-8"))
    if (
        path == CORE / "__init__.py"
    ):  # it re-exports names of modules above it, for type checkers here, lazily otherwise
        tree.body = [node for node in tree.body if not isinstance(node, ast.If)]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = resolve_name("." * node.level + (node.module or ""), package)
            names = [f"{base}.{alias.name}" for alias in node.names]
            yield from (name if name in MODULES else base for name in names)


@pytest.fixture(scope="module")
def graph():
    """Module of the core -> the modules of the core that it imports."""
    assert len(MODULES) > 80
    return {module: set(imports(path)) & MODULES.keys() - {module} for module, path in MODULES.items()}


def wing(module):
    return module.split(".")[1] if "." in module else ""


def test_imports_run_from_layer_to_layer_downwards_only(graph):
    layer = {name: number for number, names in enumerate(LAYERS) for name in names}
    assert {wing(module) for module in graph} == layer.keys()
    for module, imported in graph.items():
        for other in imported:
            above, below = wing(module), wing(other)
            lowest = {above, below} <= LAYERS[-1]
            assert above == below or lowest or layer[above] < layer[below], f"{module} imports {other}"


def test_no_modules_import_each_other_in_a_circle(graph):
    list(TopologicalSorter(graph).static_order())  # CycleError names a circle


def test_only_the_verl_package_imports_verl_ray_and_vllm():
    for path in CORE.rglob("*.py"):
        allowed = {"ray"} if path == CORE / "export" / "cluster.py" else set()
        used = {name.split(".")[0] for name in imports(path)} & {"verl", "ray", "vllm"}
        assert CORE / "verl" in path.parents or used <= allowed, path


@pytest.mark.parametrize(
    ("kind", "allowed", "least"), [("plugin", PUBLIC, 5), ("source", PUBLIC | {"ssrl_core.sources.options"}, 1)]
)
def test_plugins_and_sources_import_only_the_public_api(kind, allowed, least):
    paths = list((ROOT / "plugins").glob(f"*/ssrl_{kind}_*/*.py"))
    assert len(paths) >= least
    for path in paths:
        assert {name for name in imports(path) if name.split(".")[0] == "ssrl_core"} <= allowed, path


def test_importing_the_package_imports_none_of_the_modules_whose_names_it_re_exports():
    later = "sorted(set(map('ssrl_core.{}'.format, ssrl_core._LATER.values())) & set(sys.modules))"
    use = "[getattr(ssrl_core, name) for name in ssrl_core.__all__]"
    code = f"import sys, ssrl_core; print({later}); {use}; print({later})"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.split("\n")[:2] == [
        "[]",
        str([f"ssrl_core.{name}" for name in ("mix", "options", "plugins", "reward", "sample")]),
    ]


def test_importing_the_core_and_the_plugins_imports_no_heavy_library():
    code = (
        "import sys, ssrl_core, ssrl_core.cli, ssrl_core.resume, ssrl_core.reward\n"
        "from ssrl_core.plugins import SOURCES, installed, load_source_hooks, load_task\n"
        "[load_task(name) for name in installed()] and [load_source_hooks(name) for name in installed(SOURCES)]\n"
        f"print(sorted({HEAVY} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
