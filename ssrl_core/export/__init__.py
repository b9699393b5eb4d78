"""A mix as Parquet shards that verl's stock dataset reads, or EasyR1, or ms-swift.

A row holds a sample of the mix, bit for bit, and its recipe. The bytes of a shard depend on the mix and the number of
the shard only. They do not depend on the process or machine that makes it, nor on interruptions.

    run       from a mix file to a folder with a manifest
    plan      everything that the shards depend on
    shards    one shard: complete or absent
    rows      one row
    rewards   reward functions of other trainers
    local     shards made in this process, or in subprocesses
    cluster   shards made on a Ray cluster
    manifest  the result
"""

from .plan import ExportError
from .run import export

__all__ = ["ExportError", "export"]
