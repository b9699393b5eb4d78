"""The cost of faults: the table in tests/FAULTS.md, and tests of faults that belong to no other file."""

import json
import os
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from PIL import Image

from ssrl_core.errors import PluginFailed
from ssrl_core.mix import load_mix

ROOT = Path(__file__).parents[1]
SHOWS_ITS_IMAGE = (
    (
        "def ssrl_generate_sample(rng):",
        "def ssrl_generate_sample(rng, source):\n    truth = 'AB'[rng.integers(2)]\n    pass",
    ),
    ('Sample((Image.new("RGB", (32, 32)),), "AB"[rng.integers(2)])', "Sample((Image.fromarray(source.rgb),), truth)"),
)


@pytest.fixture
def toy_mix(install_toy, pictures, write_mix):
    """A function that writes a mix of a task that shows its images, with code that runs after it drew its truth."""

    def write(code="pass"):
        sys.modules.pop("ssrl_plugin_toy", None)
        install_toy(*SHOWS_ITS_IMAGE, ("\n    pass", f"\n    {code}"))
        return write_mix(f"source: 'folder:{pictures}'\nsize: 64\nsamples: 1000\ntasks: {{toy: }}")

    return write


def test_every_fault_of_the_table_has_its_test():
    rows = [
        line
        for line in (ROOT / "tests" / "FAULTS.md").read_text(encoding="utf-8").splitlines()
        if line.startswith("| ")
    ]
    code = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    tests = set(re.findall(r"^def (test_\w+)", code, re.MULTILINE))
    assert len(rows) > 15
    for row in rows[1:]:
        named = re.findall(r"`(test_\w+)`", row)
        assert named and set(named) <= tests, row


@pytest.mark.parametrize("fault", ["deleted", "truncated", "replaced"])
def test_an_image_that_is_lost_during_a_run_is_replaced_by_another(toy_mix, pictures, fault):
    mix = load_mix(toy_mix())
    before = [mix[index] for index in range(40)]
    for number in range(0, 12, 2):
        path = pictures / f"{number:02} é.png"
        if fault == "deleted":
            path.unlink()
        elif fault == "truncated":
            path.write_bytes(path.read_bytes()[:500])
        else:
            Image.new("RGB", (96, 72), (9, 9, 9)).save(path)
    after = [mix[index] for index in range(40)]
    reason = {"deleted": "file missing", "truncated": "unreadable image"}.get(fault)
    assert mix.rejections["toy"].keys() == ({reason} if reason else set())
    for old, new in zip(before, after, strict=True):
        assert new.sample.truth == old.sample.truth
        hit = int(old.recipe.image_id[:2]) % 2 == 0
        assert (new.recipe != old.recipe) == (hit and fault != "replaced")
        assert (new.sample.images != old.sample.images) == hit


def test_a_plugin_that_fails_on_an_image_gets_another_one_with_the_same_truth(toy_mix, caplog):
    whole = [load_mix(toy_mix())[index] for index in range(60)]
    mix = load_mix(toy_mix("if source.id.startswith('05'): raise ZeroDivisionError('of five')"))
    for index, expected in enumerate(whole):
        example = mix[index]
        assert example.sample.truth == expected.sample.truth
        if expected.recipe.image_id.startswith("05"):
            assert example.recipe.attempt > 0 and not example.recipe.image_id.startswith("05")
        else:
            assert example == expected
    assert mix.rejections["toy"].keys() == {"plugin failed: ZeroDivisionError"}
    assert caplog.text.count("of five") == 1  # later failures are only counted


def test_a_plugin_that_fails_on_a_truth_is_an_error_and_no_bias(toy_mix):
    mix = load_mix(toy_mix("if truth == 'B': raise ZeroDivisionError('never B')"))
    with pytest.raises(PluginFailed, match=r"(?s)plugin 'toy' of ssrl-plugin-toy 0.1.*never B.*failed on 8 images"):
        for index in range(20):
            mix[index]


def test_a_plugin_without_memory_is_an_error_that_leaves_its_samples_as_they_are(toy_mix):
    mix = load_mix(toy_mix("raise MemoryError('no more')"))
    with pytest.raises(PluginFailed, match="no more"):
        mix[0]
    assert not mix.rejections["toy"]


def test_a_source_plugin_that_raises_costs_the_image(install, install_toy, write_mix):
    source = """
    import numpy as np
    from ssrl_core import SourceImage, hookimpl

    class Shaky:
        has_depth = False
        def __len__(self): return 10
        def image_id(self, position): return str(position)
        def load(self, image_id):
            if image_id == "3": raise KeyError("three")
            return SourceImage(image_id, None if image_id == "4" else np.zeros((80, 100, 3), np.uint8))

    @hookimpl
    def ssrl_open_source(uri): return Shaky()
    """
    install_toy(*SHOWS_ITS_IMAGE)
    install("shaky", entry_points={"ssrl.sources": {"shaky": "shaky"}}, code=textwrap.dedent(source))
    mix = load_mix(write_mix("source: 'shaky:'\nsize: 64\ntasks: {toy: }"))
    assert {mix[index].recipe.image_id for index in range(80)} <= set("01256789")
    assert mix.rejections["toy"].keys() == {"plugin failed: KeyError", "plugin failed: AttributeError"}


NAMESPACE = ["unshare", "--map-root-user", "--mount"]
IN_A_SMALL_FILESYSTEM = """
import subprocess, sys
from pathlib import Path
from ssrl_core.export import ExportError, export
mix, folder, size = sys.argv[1:]
mount = lambda options: subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", folder], check=True)
settings = {"samples": 60, "shard_size": 20}
def fails():
    try:
        export(Path(mix), Path(folder), **settings)
    except ExportError as err:
        print(err)
mount(f"size={size}")
fails()
left = sorted(path.name for path in Path(folder).iterdir())
print(left)
mount("remount,ro")
fails()
mount("remount,rw,size=100m")
print(export(Path(mix), Path(folder), **settings)["shards"])
"""


@pytest.mark.skipif(
    not shutil.which("unshare") or subprocess.run([*NAMESPACE, "true"], capture_output=True).returncode != 0,
    reason="needs a mount namespace of its own",
)
def test_a_full_and_then_a_read_only_filesystem_cost_nothing_but_the_time(toy_mix, tmp_path):
    pytest.importorskip("pyarrow", reason="pyarrow is not installed: pip install 'ssrl-core[export]'")
    from ssrl_core.export import export

    mix = toy_mix()
    whole = export(mix, tmp_path / "whole", samples=60, shard_size=20)
    (tmp_path / "small").mkdir()
    size = 2 * whole["shards"][0]["bytes"]  # one shard, the plan, and a part of the second shard
    result = subprocess.run(
        [*NAMESPACE, sys.executable, "-c", IN_A_SMALL_FILESYSTEM, str(mix), str(tmp_path / "small"), str(size)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    full, left, read_only, shards = result.stdout.splitlines()
    assert "cannot write into" in full and "No space left on device" in full
    assert eval(left) == [".lock", "mix.yaml", "plan.json", whole["shards"][0]["file"]]
    assert "Read-only file system" in read_only
    assert eval(shards) == whole["shards"]


def forged(path, job, *, columns, rows=None):
    """A Parquet file that claims to be shard 0 of an export, with other content."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from ssrl_core.export.rows import schema

    table = pa.Table.from_pylist(columns, schema=schema(files=job.files)) if isinstance(columns, list) else columns
    facts = {"plan": job.plan, "shard": 0, "rows": rows or table.num_rows, "counts": {}, "rejected": {}, "images": ""}
    pq.write_table(table.replace_schema_metadata({"ssrl": json.dumps(facts)}), path, compression="zstd")


ROW = {
    "data_source": "toy@1",
    "prompt": [{"role": "user", "content": "?"}],
    "reward_model": {"style": "rule", "ground_truth": "{}"},
    "extra_info": {"index": 0, "split": "train", "task": "toy", "level": "1", "truth": "A", "recipe": "{}"},
}


def attacks(flag):
    """Name -> settings of an export, and a function that forges its shard."""
    import pyarrow as pa

    payload = f"cposix\nsystem\n(S'touch {flag}'\ntR.".encode()
    extension = {"ARROW:extension:name": "arrow.py_extension_type", "ARROW:extension:metadata": payload}
    pickled = pa.schema([pa.field("data_source", pa.binary(), metadata=extension)])
    return {
        "pickle": ({}, {"columns": pa.table([pa.array([b"x"] * 10)], schema=pickled)}),
        "endless file": ({"files": True}, {"columns": [ROW | {"images": ["/dev/zero"]}] * 10}),
        "bomb": ({}, {"columns": [ROW | {"images": [{"bytes": bytes(50_000_000)}]}] * 10}),
        "footer that lies": ({}, {"columns": [ROW | {"images": []}], "rows": 10}),
    }


def test_a_malicious_shard_runs_nothing_fills_no_memory_and_is_made_again(toy_mix, tmp_path):
    pytest.importorskip("pyarrow", reason="pyarrow is not installed: pip install 'ssrl-core[export]'")
    from ssrl_core.export import export
    from ssrl_core.export.plan import digest, folder_of
    from ssrl_core.export.shards import Job

    mix, flag, exports = toy_mix(), tmp_path / "was run", {}
    for attack, (settings, shard) in attacks(flag).items():
        folder, settings = tmp_path / attack, {"samples": 10, "shard_size": 10, **settings}
        exports[str(folder)] = settings, export(mix, folder, **settings)
        job = Job(folder, "train", 10, 10, None, "files" in settings, digest(folder_of(folder).plan()))
        forged(folder / exports[str(folder)][1]["shards"][0]["file"], job, **shard)
    bomb = next((tmp_path / "bomb").glob("*.parquet"))
    assert bomb.stat().st_size < 1_000_000
    limited = (
        "import json, resource, sys; from pathlib import Path; from ssrl_core.export import export\n"
        "import pyarrow.parquet; from ssrl_core.mix import load_mix; load_mix(sys.argv[1])[0]\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "before = peak(); resource.setrlimit(resource.RLIMIT_AS, (8_000_000_000,) * 2)\n"
        "for folder, (settings, _) in json.loads(sys.argv[2]).items():\n"
        "    export(Path(sys.argv[1]), Path(folder), **settings)\n"
        "print(peak() - before)"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    arguments = [sys.executable, "-c", limited, str(mix), json.dumps(exports)]
    result = subprocess.run(arguments, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert not flag.exists()
    assert int(result.stdout) < 300_000  # KB
    for folder, (_, manifest) in exports.items():
        assert json.loads((Path(folder) / "manifest.json").read_text()) == manifest, folder
