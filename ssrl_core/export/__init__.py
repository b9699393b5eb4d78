"""A mix as Parquet: rows that verl's stock dataset reads, in shards that are each a function of the mix and a number.

A row is the mix's own sample, bit for bit, and its recipe stands with it. What makes a shard, and on which machine, how
often it was killed and what it found half done do not matter for its bytes.

    run       from a mix file to a folder with a manifest
    plan      what is exported: settled before the first shard, and the same at every later start
    shards    one shard, whole or not there
    rows      one row
    local     shards made in this process, or in others on this machine
    cluster   shards made on a Ray cluster
    manifest  what it became
"""

from .manifest import summary
from .plan import ExportError
from .run import export

__all__ = ["ExportError", "export", "summary"]
