"""The two files that define an export.

plan.json  everything that the content of the shards depends on; see ``ssrl_core.resume``
mix.yaml   the mix in one file with absolute sources, which the workers read
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import SSRLError
from ..files import written_whole
from ..mix import Mix
from ..resume import PLAN, ResumableFolder, plan_of_mix
from ..resume import versions as versions_of
from ..yamlfile import dump

MIX = "mix.yaml"
FORMAT = 4
"""Format version of an export; incremented with every change of the content of its files."""


class ExportError(SSRLError):
    """An export cannot start or resume. Finished shards are kept."""


def folder_of(path: Path) -> ResumableFolder:
    """The folder of an export."""
    return ResumableFolder(path, "export", ExportError)


def plan_of(mix: Mix, *, samples: int, shard_size: int, images: str) -> dict[str, Any]:
    """Everything that the content of the shards depends on, in plain JSON types.

    Args:
        mix: of the split to export.
        samples: number of samples, from the first.
        shard_size: maximum number of samples in a shard.
        images: how images are stored, in words.
    """
    plan = {"format": FORMAT, **plan_of_mix(mix), "samples": samples, "shard_size": shard_size, "images": images}
    return plan | {"versions": plan["versions"] | _writers()}


def versions(mix: Mix) -> dict[str, str]:
    """Versions of everything that determines the bytes of an export. Raises ExportError if a library is missing."""
    return versions_of(mix) | _writers()


def _writers() -> dict[str, str]:
    """Versions of the libraries that write images and shards."""
    try:
        import fpng
        import pyarrow as pa
    except ImportError as err:
        raise ExportError("an export needs fpng and pyarrow: pip install 'ssrl-core[export]'") from err
    return {"fpng": fpng.__version__, "pyarrow": pa.__version__}


def digest(plan: Mapping[str, Any]) -> str:
    """A short hash of the plan."""
    return hashlib.sha256(json.dumps(plan, sort_keys=True).encode()).hexdigest()[:16]


def settle(folder: Path, plan: Mapping[str, Any], mix: Mix) -> None:
    """Write plan and mix into a folder. Raises ExportError if the folder has another plan."""
    folder_of(folder).settle(plan, started=(folder / PLAN).exists())
    content = mix.config.model_dump(mode="json", exclude_unset=True)
    with written_whole(folder / MIX) as file:
        file.write(dump(content).encode())
