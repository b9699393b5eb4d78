"""``manifest.json``: the result of an export, written after the last shard. It depends on plan and shards only."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..resume import write_json
from ..sources import open_source
from .plan import MIX

MANIFEST = "manifest.json"


def write_manifest(folder: Path, plan: Mapping[str, Any], shards: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Write and return the manifest.

    It contains the plan, and: ``mix``, the text of the mix file; ``rows``, their number; ``counts``: ``task@level`` ->
    rows; ``rejected``: task -> reason -> images; ``shards``: their names, rows, bytes and checksums. Each of the
    ``sources`` of the plan gets ``skipped``: reason -> number of files that the source does not use.

    Args:
        folder: of the export.
        plan: see ``plan_of``.
        shards: facts of the shards in order, see ``make_shard``.
    """
    rejected: dict[str, Counter[str]] = {}
    for shard in shards:
        for task, reasons in shard["rejected"].items():
            rejected.setdefault(task, Counter()).update(reasons)
    manifest = {
        **plan,
        "sources": {uri: {**facts, "skipped": _skipped(uri)} for uri, facts in plan["sources"].items()},
        "mix": (folder / MIX).read_text(encoding="utf-8"),
        "rows": sum(shard["rows"] for shard in shards),
        "counts": dict(sorted(sum((Counter(shard["counts"]) for shard in shards), Counter[str]()).items())),
        "rejected": {task: dict(reasons.most_common()) for task, reasons in rejected.items()},
        "shards": [{key: shard[key] for key in ("file", "rows", "bytes", "sha256")} for shard in shards],
    }
    write_json(folder / MANIFEST, manifest)
    return manifest


def _skipped(uri: str) -> dict[str, int]:
    return dict(sorted(getattr(open_source(uri), "skipped", {}).items()))
