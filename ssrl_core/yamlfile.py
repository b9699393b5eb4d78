"""Reads YAML mappings, with a clear message for every mistake in a file.

Text that YAML versions read differently is refused: ``no`` (false or text), ``010`` (8 or 10), ``1:30`` (90 or text).
An untrusted file cannot execute code, because the loader is PyYAML's safe one. It cannot fill the memory, because its
size, its depth and the number of its nodes, with aliases written out, are limited.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Hashable, Mapping
from itertools import chain
from pathlib import Path
from typing import Any, cast

import yaml

from .errors import SSRLError

LARGEST_FILE = 1_000_000  # bytes
MOST_NODES = 100_000  # keys, values and lists, with aliases written out
DEEPEST = 30
LONGEST_NUMBER = 100  # characters; also of other values that are not text

_ESCAPES = (
    "In double quotes a backslash begins an escape, and a block (|) keeps the end of its line. Use single quotes, or / "
    "in paths"
)
_WORD = re.compile(r"yes|no|on|off", re.IGNORECASE)
_BASE = re.compile(r"[-+]?(0([0-9_]{2,}|[89])|[0-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?)")
_PATH_KEY = re.compile(r"(.*_)?(source|include|mix|path|dir|files?)")


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
        content = read_value(data.decode())
    except (yaml.YAMLError, ValueError, LookupError, AttributeError, TypeError) as err:
        # PyYAML passes on the errors of its converters: ValueError for 40 March, KeyError for !!bool perhaps.
        raise error(f"{path} is not valid YAML: {err}{f'. {_ESCAPES}' * ('escape' in str(err))}") from err
    if not isinstance(content, dict):
        found = "an empty file" if content is None else f"a {type(content).__name__}"
        raise error(f"{path}: a {what} is a mapping, not {found}")
    return {str(key): value for key, value in content.items()}


def read_value(text: str) -> Any:
    """One YAML value, as in a file of ``read_mapping``. Raises yaml.YAMLError or ValueError."""
    return yaml.load(text, Loader=_Bounded)


def dump(content: Mapping[str, Any]) -> str:
    """A mapping as YAML that ``read_mapping`` reads back as it is; keys in their order."""
    return yaml.dump(dict(content), Dumper=_Quoting, sort_keys=False, allow_unicode=True)


def control_characters(text: str) -> str:
    """What is wrong with a text that names a file but contains control characters; "" if it contains none.

    In double quotes, YAML and Python read the backslash and the t of ``"C:\\temp"`` as one tab.
    """
    found = next((char for char in text if unicodedata.category(char) in ("Cc", "Zl", "Zp")), "")
    name = "a NUL character" if found == "\0" else f"the control character {found!r}"
    return found and f"{name} in {text!r:.80}. {_ESCAPES}"


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
            node.value.encode()  # a lone surrogate fails here already, not in a path or a prompt
            if found := control_characters(node.value.replace("\n", "").replace("\t", "")):
                raise _refusal(found, event)
            if isinstance(event, yaml.ScalarEvent) and event.implicit[0]:
                if _WORD.fullmatch(node.value):
                    raise _refusal(f"{node.value}: write true or false, or put it in quotes if it is text", event)
                if _BASE.fullmatch(node.value):
                    why = "a number in base 8 or 60 to some readers: write it in base 10, or in quotes if it is text"
                    raise _refusal(f"{node.value} is {why}", event)
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
        seen = set[Hashable]()
        for key, item in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag == "tag:yaml.org,2002:merge":
                continue
            value = self.construct_object(key)
            if value in seen or str(value) in seen:  # names of levels may be written as numbers
                raise yaml.constructor.ConstructorError(None, None, f"{value!r} stands twice", key.start_mark)
            seen |= {value, str(value)}
            for part in item.value if isinstance(item, yaml.SequenceNode) else [item]:
                is_path = isinstance(part, yaml.ScalarNode) and _PATH_KEY.fullmatch(str(value))
                if is_path and (found := control_characters(part.value)):
                    raise yaml.constructor.ConstructorError(None, None, f"{value}: {found}", part.start_mark)
        return super().construct_mapping(node, deep)


class _Quoting(yaml.SafeDumper):
    """Quotes every text that ``_Bounded`` would read as something else, or refuse."""


def _float(loader: _Bounded, node: yaml.ScalarNode) -> float:
    """A whole number with an exponent, such as 1e4, is an int. 81.000 is none: it may be 81 or 81,000."""
    value = float(loader.construct_yaml_float(node))
    return int(value) if "e" in node.value.lower() and value.is_integer() and abs(value) < 2**53 else value


_DIGITS = list("-+.0123456789")
_EXPONENT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)[eE][-+]?[0-9]+$")
# As in YAML 1.2: 1e-6 is a number, which PyYAML reads as text for want of a point; a date is text.
_Bounded.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in known if tag != "tag:yaml.org,2002:timestamp"]
    for first, known in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Bounded.add_implicit_resolver("tag:yaml.org,2002:float", _EXPONENT, _DIGITS)
_Bounded.add_constructor("tag:yaml.org,2002:float", _float)
_Quoting.add_implicit_resolver("tag:yaml.org,2002:float", _EXPONENT, _DIGITS)
_Quoting.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(_BASE.pattern + "$"), _DIGITS)


def _refusal(why: str, event: yaml.Event) -> yaml.YAMLError:
    return yaml.composer.ComposerError(None, None, why, cast(yaml.Mark | None, event.start_mark))
