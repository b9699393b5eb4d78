"""A digest of the code that a function reaches, so that an edit elsewhere in its module does not change it.

The code is followed by its names: from a function to the functions, classes and constants that it mentions, and through
imports into other modules. Statements at the top of a module that do more than bind a name always count. Comments,
docstrings and blank lines do not count. Of a mapping that is passed to ``draw_wording`` or ``wording_option`` only the
keys count: these functions draw a name, and check a text that is one of the options.

Modules of Python and of installed distributions are not followed. Their versions count elsewhere; see ``cache``.
"""

from __future__ import annotations

import ast
import hashlib
import sys
from collections.abc import Collection, Iterable, Iterator
from functools import lru_cache
from importlib.util import find_spec, resolve_name
from pathlib import Path

_HIDDEN = {"__dict__", "__doc__", "__file__", "__import__", "__init_subclass__", "__subclasses__", "compile", "ctypes"}
_HIDDEN |= {"eval", "exec", "fromfile", "globals", "importlib", "imread", "inspect", "io", "load", "loadtxt", "locals"}
_HIDDEN |= {"memmap", "open", "os", "pathlib", "pkgutil", "subprocess", "sys", "vars"}
"""Names by which code reads files, or reaches code that it does not name."""

_PURE = {"hookimpl", "dataclass", "cache", "lru_cache"}
"""Decorators that change only what they decorate."""

_TAKE_KEYS = {"draw_wording", "wording_option"}

Reference = tuple[str, str]
"""A module and a name in it. An empty name is the whole module, ``NAME:keys`` the keys of a mapping."""


class NotFollowed(Exception):
    """The code may read files, or reach code that it does not name."""


def code_digest(roots: Iterable[Reference], *, trusted: Collection[str] = ()) -> str:
    """A digest of everything that the roots reach, in hexadecimal.

    Args:
        roots: where to begin.
        trusted: names of packages that may read files.

    Raises:
        NotFollowed: see there.
    """
    found: set[tuple[str, str]] = set()
    pending, seen = list(roots), set()
    while pending:
        module, name = reference = pending.pop()
        if reference in seen or (path := _path(module)) is None:
            continue
        seen.add(reference)
        for text, references, hidden in _statements(path, path.stat().st_mtime_ns, module, name):
            if hidden and module.partition(".")[0] not in trusted:
                raise NotFollowed(f"{path} uses {hidden!r}")
            found.add((module, text))
            pending += references
    return hashlib.sha256(repr(sorted(found)).encode()).hexdigest()


def _path(module: str) -> Path | None:
    """The file of a module that is to be followed; None if there is none."""
    if module.partition(".")[0] in sys.stdlib_module_names:
        return None
    try:
        spec = find_spec(module)
    except ImportError:  # of an optional library, or the name of a function
        return None
    if spec is None or not spec.has_location or spec.origin is None:
        return None
    path = Path(spec.origin)
    if {"site-packages", "dist-packages"} & {*path.parts}:
        return None
    if path.suffix != ".py":
        raise NotFollowed(f"{path} is not Python source")
    return path


@lru_cache(maxsize=64)
def _tree(path: Path, _modified: int) -> ast.Module:
    tree: ast.Module = _NoDocstrings().visit(ast.parse(path.read_bytes()))
    return tree


class _NoDocstrings(ast.NodeTransformer):
    def visit_Expr(self, node: ast.Expr) -> ast.stmt:
        is_text = isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        return ast.Pass() if is_text else node


@lru_cache(maxsize=8192)
def _statements(path: Path, modified: int, module: str, name: str) -> list[tuple[str, set[Reference], str]]:
    """The statements that a reference reaches, each as its text, its references, and the first hidden name in it."""
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    name, _, keys = name.partition(":")
    found = []
    for statement in _tree(path, modified).body:
        bound = _bound(statement)
        if bound is not None and name and name not in bound:
            continue
        if keys and bound is not None and (listed := _keys(statement)) is not None:
            found.append((f"{name}: {listed}", set[Reference](), ""))
            continue
        references = set(_references(statement, module, package, name if bound is not None else ""))
        hidden = min(_HIDDEN & {*_words(statement)}, default="")
        found.append((ast.dump(statement, annotate_fields=False), references, hidden))
    return found


def _bound(statement: ast.stmt) -> set[str] | None:
    """The names that a statement binds if it does nothing else; else None."""
    match statement:
        case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
            decorators = (node.func if isinstance(node, ast.Call) else node for node in statement.decorator_list)
            return {statement.name} if all(_last(node) in _PURE for node in decorators) else None
        case ast.Import():
            return {alias.asname or alias.name.partition(".")[0] for alias in statement.names}
        case ast.ImportFrom():
            names = {alias.asname or alias.name for alias in statement.names}
            return None if "*" in names else names
        case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
            return {name}
        case ast.Assign(targets=[ast.Tuple(elts=targets)]) if all(isinstance(node, ast.Name) for node in targets):
            return {node.id for node in targets if isinstance(node, ast.Name)}
        case ast.If(test=test) if _last(test) == "TYPE_CHECKING" and not statement.orelse:
            return set()
        case ast.Pass():
            return set()
    return None


def _last(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def _keys(statement: ast.stmt) -> list[object] | None:
    """The keys of the mapping that a statement binds, if they are constants; else None."""
    value = getattr(statement, "value", None)
    if not isinstance(value, ast.Dict) or not all(isinstance(key, ast.Constant) for key in value.keys):
        return None
    return [key.value for key in value.keys if isinstance(key, ast.Constant)]


def _words(statement: ast.stmt) -> Iterator[str]:
    """All names in a statement: of variables, attributes and imported modules."""
    for node in ast.walk(statement):
        match node:
            case ast.Name(id=name) | ast.Attribute(attr=name):
                yield name
            case ast.Import(names=aliases):
                yield from (alias.name.partition(".")[0] for alias in aliases)
            case ast.ImportFrom(level=0, module=str(name)):
                yield name.partition(".")[0]


def _references(statement: ast.stmt, module: str, package: str, name: str) -> Iterator[Reference]:
    """What a statement refers to; of an import at the top, only what it binds to ``name`` unless that is empty."""
    if name and isinstance(statement, ast.Import | ast.ImportFrom):
        chosen = [alias for alias in statement.names if (alias.asname or alias.name.partition(".")[0]) == name]
        yield from _imported(statement, chosen, package)
        return
    by_key = set()
    for node in ast.walk(statement):
        match node:
            case ast.Call(func=function, args=[ast.Name(id=mapping) as argument, *_]) if _last(function) in _TAKE_KEYS:
                by_key.add(argument)
                yield module, f"{mapping}:keys"
            case ast.Name(id=mentioned) if node not in by_key:  # walk yields a call before its arguments
                yield module, mentioned
            case ast.Import() | ast.ImportFrom():
                yield from _imported(node, node.names, package)


def _imported(
    statement: ast.Import | ast.ImportFrom, aliases: Iterable[ast.alias], package: str
) -> Iterator[Reference]:
    for alias in aliases:
        if isinstance(statement, ast.Import):
            yield from _whole(alias.name)
            continue
        base = resolve_name("." * statement.level + (statement.module or ""), package)
        yield base, "" if alias.name == "*" else alias.name
        yield from _whole(f"{base}.{alias.name}")  # it may be a module


def _whole(module: str) -> Iterator[Reference]:
    """A module, and what the import of the packages around it does."""
    yield module, ""
    while module := module.rpartition(".")[0]:
        yield module, " "
