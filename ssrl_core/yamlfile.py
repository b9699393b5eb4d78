"""Reading what people write: YAML mappings, with a clear message for everything that can be wrong with the file."""

from __future__ import annotations

from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from .errors import SSRLError


def read_mapping(path: Path, *, what: str, error: type[SSRLError]) -> dict[str, Any]:
    """The mapping in a YAML file; ``what`` it is and the ``error`` to raise are the caller's."""
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=_UniqueKeys)
    except OSError as err:
        raise error(f"cannot read the {what} {str(path)!r}: {err.strerror}") from err
    except (yaml.YAMLError, UnicodeDecodeError) as err:
        raise error(f"{path} is not valid YAML: {err}") from err
    if not isinstance(content, dict):
        found = "an empty file" if content is None else f"a {type(content).__name__}"
        raise error(f"{path}: a {what} is a mapping, not {found}")
    return {str(key): value for key, value in content.items()}


class _UniqueKeys(yaml.SafeLoader):
    """YAML in which a key that stands twice is an error: of two entries, the first would be lost in silence."""

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
