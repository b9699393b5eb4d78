"""An export on a Ray cluster of several nodes has the same bytes, even if a node is killed."""

import tempfile
import time
from contextlib import suppress

import pytest

pytest.importorskip("pyarrow", reason="pyarrow is not installed: pip install 'ssrl-core[export]'")
pytest.importorskip("ray", reason="Ray is not installed: pip install 'ssrl-core[train]'")

import ray
from ray.cluster_utils import Cluster

from ssrl_core.errors import SourceError
from ssrl_core.export import export

pytestmark = pytest.mark.slow

MIX = """
source: "synthetic:?width=192&height=144"
size: 112
seed: 5
tasks: {shuffled_patches: , flipped_patch: , cropped_patch: , depth_ordering: , relative_position: }
"""


def add_node(cluster, **facts):
    """A node of a cluster. Ray waits 15 s for the agents of the node, which is too short on a busy machine."""
    for _ in range(4):
        with suppress(Exception):  # Ray raises plain Exception
            return cluster.add_node(**facts)
    return cluster.add_node(**facts)


@pytest.fixture
def cluster(monkeypatch):
    """A function that starts a cluster: a head without CPUs, and a number of nodes with one logical CPU each."""
    started = []
    with tempfile.TemporaryDirectory(prefix="ray", ignore_cleanup_errors=True) as folder:  # socket paths must be short
        monkeypatch.setenv("RAY_TMPDIR", folder)  # other processes must not find this cluster
        monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        monkeypatch.setenv("OMP_NUM_THREADS", "1")

        def start(nodes):
            started.append(cluster := Cluster())
            add_node(cluster, num_cpus=0, include_dashboard=False)
            ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
            return cluster, [add_node(cluster, num_cpus=1) for _ in range(nodes)]

        yield start
        ray.shutdown()
        for one in started:
            one.shutdown()


def content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != ".lock"}


def test_a_node_that_is_killed_changes_no_byte(cluster, write_mix, tmp_path):
    settings = {"samples": 120, "shard_size": 10}
    mix = write_mix(MIX)
    alone = export(mix, tmp_path / "alone", **settings)
    running, nodes = cluster(3)
    told = []

    def kill_one(done, total):
        told.append((done, total))
        if len(told) == 2:
            running.remove_node(nodes.pop(), allow_graceful=False)  # SIGKILL of its raylet, which ends its workers

    manifest = export(mix, tmp_path / "together", ray=True, on_progress=kill_one, **settings)
    assert manifest == alone
    assert content(tmp_path / "together") == content(tmp_path / "alone")
    assert told == sorted(set(told)) and told[-1] == (120, 120)
    limit = time.monotonic() + 60
    while sum(node["Alive"] for node in ray.nodes()) > 3:  # the head and two others; Ray notices after a while
        assert time.monotonic() < limit
        time.sleep(0.2)


def test_an_error_on_a_node_is_raised_as_in_one_process(cluster, write_mix, tmp_path):
    cluster(1)
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.png").write_bytes(b"no image")
    (tmp_path / "photos" / "b.png").write_bytes(b"no image")
    mix = write_mix(f"source: 'folder:{tmp_path}/photos'\nsize: 64\ntasks: {{flipped_patch: }}")
    with pytest.raises(SourceError, match="unreadable image: 64"):
        export(mix, tmp_path / "out", samples=4, ray=True)
