"""Which benchmarks are installed, and loading them."""

from __future__ import annotations

from ..errors import BrokenPlugin
from ..plugins.installed import BENCHMARKS, InstalledPlugin, check_requirement, find, installed
from .contract import Benchmark


def names() -> list[str]:
    """The names of all installed benchmarks, sorted."""
    return list(installed(BENCHMARKS))


def load(name: str) -> tuple[Benchmark, InstalledPlugin]:
    """A benchmark and the distribution that provides it. Raises PluginError."""
    plugin = find(name, group=BENCHMARKS)
    check_requirement(plugin)
    try:
        benchmark = plugin.entry_point.load()
    except Exception as err:  # anything that a module may raise
        raise BrokenPlugin(f"benchmark {plugin}: it cannot be imported ({type(err).__name__}: {err})") from err
    if not isinstance(benchmark, Benchmark):
        raise BrokenPlugin(
            f"benchmark {plugin}: {plugin.entry_point.value} is {type(benchmark).__name__}, and must be an "
            "ssrl_core.benchmarks.contract.Benchmark"
        )
    return benchmark, plugin
