"""Reads YAML mappings, with a clear message for every mistake in a file.

An untrusted file cannot execute code, because the loader is PyYAML's safe one. It cannot fill the memory, because its
size, its depth and the number of its nodes, with aliases written out, are limited.
"""

from __future__ import annotations

import re
from collections.abc import Hashable
from itertools import chain
from pathlib import Path
from typing import Any, cast

import yaml

from .errors import SSRLError

LARGEST_FILE = 1_000_000  # bytes
MOST_NODES = 100_000  # keys, values and lists, with aliases written out
DEEPEST = 30
LONGEST_NUMBER = 100  # characters; also of dates and other values that are not text


def read_mapping(path: Path, *, what: str, error: type[SSRLError]) -> dict[str, Any]:
    """The mapping in a YAML file. Raises ``error`` with a message that calls the file ``what``."""
    try:
        with open(path, "rb") as file:
            data = file.read(LARGEST_FILE + 1)
    except OSError as err:
        raise error(f"cannot read the {what} {str(path)!r}: {err.strerror}") from err
    if len(data) > LARGEST_FILE:
        raise error(f"{path} is larger than {LARGEST_FILE // 1000} KB. Is it a {what}?")
    try:
        content = yaml.load(data.decode(), Loader=_Bounded)
    except (yaml.YAMLError, ValueError, LookupError, AttributeError, TypeError) as err:
        # PyYAML passes on the errors of its converters: ValueError for 40 March, KeyError for !!bool perhaps.
        raise error(f"{path} is not valid YAML: {err}") from err
    if not isinstance(content, dict):
        found = "an empty file" if content is None else f"a {type(content).__name__}"
        raise error(f"{path}: a {what} is a mapping, not {found}")
    return {str(key): value for key, value in content.items()}


class _Bounded(yaml.SafeLoader):
    """Limited YAML. A duplicate key is an error; PyYAML would ignore the first of them."""

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self._depth = 0
        self._extents: dict[int, tuple[int, int]] = {}  # id of a finished node -> nodes in it, levels below it

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        if self._depth == DEEPEST:  # before composing it, which recurses
            raise _refusal(f"nested deeper than {DEEPEST} levels", event)
        self._depth += 1
        node = super().compose_node(parent, index)
        self._depth -= 1
        if node is not None and id(node) not in self._extents:
            if isinstance(event, yaml.AliasEvent):
                raise _refusal("an alias inside of what it stands for", event)
            self._extents[id(node)] = self._extent(node, event)
        return node

    def _extent(self, node: yaml.Node, event: yaml.Event) -> tuple[int, int]:
        if isinstance(node, yaml.ScalarNode):
            if b"\0" in node.value.encode():  # a lone surrogate fails here already, not in a path or a prompt
                raise _refusal("a NUL character", event)
            if node.tag != "tag:yaml.org,2002:str" and len(node.value) > LONGEST_NUMBER:
                raise _refusal(f"a number of {len(node.value)} characters", event)
            return 1, 1
        children = [*chain.from_iterable(node.value)] if isinstance(node, yaml.MappingNode) else node.value
        extents = [self._extents[id(child)] for child in children]
        size, height = 1 + sum(size for size, _ in extents), 1 + max((height for _, height in extents), default=0)
        if size > MOST_NODES:
            raise _refusal(f"{size} keys and values, with aliases written out; at most {MOST_NODES} may be", event)
        if height > DEEPEST:
            raise _refusal(f"nested deeper than {DEEPEST} levels, with aliases written out", event)
        return size, height

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag == "tag:yaml.org,2002:merge":
                continue
            value = self.construct_object(key)
            if value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"{value!r} stands twice", key.start_mark)
            seen.add(value)
        return super().construct_mapping(node, deep)


# As in YAML 1.2: to PyYAML, 1e-6 is text, because it has no point.
_Bounded.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)[eE][-+]?[0-9]+$"), list("-+.0123456789")
)


def _refusal(why: str, event: yaml.Event) -> yaml.YAMLError:
    return yaml.composer.ComposerError(None, None, why, cast(yaml.Mark | None, event.start_mark))
