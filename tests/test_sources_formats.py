"""Published layouts of data sets, local and remote stores, damaged files, digests and relative paths."""

from __future__ import annotations

import functools
import http.server
import io
import json
import os
import shutil
import tarfile
import threading
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
from PIL import Image

from ssrl_core.errors import SourceError, SourceRejected, SSRLError
from ssrl_core.mix import load_mix
from ssrl_core.seeding import stable_hash
from ssrl_core.sources import Split, base, load_image, open_source, resolve_uri, rgbd
from ssrl_core.sources.depth import NO_CAMERA
from ssrl_core.sources.index import index_by_id, list_ids
from ssrl_core.sources.store import Store, locate
from ssrl_core.types import ImageSource, Intrinsics

h5py = pytest.importorskip("h5py")
pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

WIDTH, HEIGHT = 96, 72


@pytest.fixture(autouse=True)
def fresh(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty cache folder for each test, and no source from an earlier test."""
    cache = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("SSRL_CACHE", str(cache))
    open_source.cache_clear()
    yield cache
    fsspec.filesystem("memory").store.clear()
    fsspec.filesystem("memory").pseudo_dirs[:] = [""]


def picture(number: int = 0) -> np.ndarray:
    """A colourful gradient, another for each number."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    rgb = np.stack([x * 2, y * 3, (x + y + 40 * number) % 256], axis=2)
    return rgb.astype(np.uint8)


def encoded(array: np.ndarray, kind: str = "PNG") -> bytes:
    """The bytes of an image file."""
    file = io.BytesIO()
    Image.fromarray(array).save(file, kind)
    return file.getvalue()


def npy(array: np.ndarray) -> bytes:
    """The bytes of a NumPy file."""
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def hdf5(array: np.ndarray, name: str = "depth") -> bytes:
    """The bytes of an HDF5 file with one array."""
    file = io.BytesIO()
    with h5py.File(file, "w") as opened:
        opened.create_dataset(name, data=array)
    return file.getvalue()


def units(per_metre: int) -> np.ndarray:
    """A ramp from 1 m to 4 m in whole numbers, with a hole of 0 and one of 65535."""
    depth = np.tile(np.linspace(1, 4, WIDTH) * per_metre, (HEIGHT, 1)).round().astype(np.uint16)
    depth[:8, :8], depth[8:16, :8] = 0, 65535
    return depth


def metres() -> np.ndarray:
    """The same ramp in metres, as floats, with NaN for the holes."""
    depth = np.tile(np.linspace(1, 4, WIDTH), (HEIGHT, 1)).astype(np.float32)
    depth[:16, :8] = np.nan
    return depth


def put(path: Path, content: bytes) -> None:
    """Write a file and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def ids_of(source: ImageSource) -> list[str]:
    """All ids of a source, sorted."""
    return sorted(source.image_id(position) for position in range(len(source)))


def reason_of(source: ImageSource, image_id: str) -> str:
    """The reason for which an image is rejected."""
    with pytest.raises(SourceRejected) as caught:
        source.load(image_id)
    return caught.value.reason


def assert_ramp(depth: np.ndarray | None, *, tolerance: float = 1e-3) -> None:
    """The depth is that of ``metres``."""
    assert depth is not None and depth.dtype == np.float32
    assert np.array_equal(np.isnan(depth), np.isnan(metres()))
    assert np.nanmax(np.abs(depth - metres())) < tolerance


# data sets with depth --------------------------------------------------------------------------------------------


def test_diode_has_arrays_with_masks(tmp_path: Path) -> None:
    scan = tmp_path / "train/indoors/scene_00000/scan_00003"
    depth = np.nan_to_num(metres(), nan=7.0)
    put(scan / "00000_00003_indoors_000_010.png", encoded(picture()))
    put(scan / "00000_00003_indoors_000_010_depth.npy", npy(depth[..., None]))
    put(scan / "00000_00003_indoors_000_010_depth_mask.npy", npy(np.isfinite(metres()).astype(np.float64)))
    for query, camera in (("?layout=diode", Intrinsics(886.81, 927.06, 512, 384)), ("", None)):
        source = open_source(f"rgbd:{tmp_path}{query}")
        assert ids_of(source) == ["train/indoors/scene_00000/scan_00003/00000_00003_indoors_000_010"]
        image = source.load(source.image_id(0))
        assert_ramp(image.depth)
        assert np.array_equal(image.rgb, picture()) and image.intrinsics == camera
    put(scan / "00000_00003_indoors_000_010_depth_mask.npy", npy(np.ones((5, 5))))
    assert reason_of(source, source.image_id(0)) == "depth and mask differ in size"


def test_megadepth_has_hdf5_in_another_folder(tmp_path: Path) -> None:
    scene = tmp_path / "phoenix/S6/zl548/MegaDepth_v1/0022/dense0"
    depth = np.nan_to_num(metres(), nan=0.0)
    depth[8:16, :8] = -1.0  # ordinal depth is negative
    put(scene / "imgs/123_o.jpg", encoded(picture(), "JPEG"))
    put(scene / "depths/123_o.h5", hdf5(depth))
    put(scene / "imgs/456_o.jpg", encoded(picture(), "JPEG"))
    for query in ("?layout=megadepth", ""):
        source = open_source(f"rgbd:{tmp_path}{query}")
        assert ids_of(source) == ["phoenix/S6/zl548/MegaDepth_v1/0022/dense0/123_o"]
        image = source.load(source.image_id(0))
        assert_ramp(image.depth)
        assert image.intrinsics is None and source.skipped == {"colour without depth": 1}


def test_nyu_sync_has_millimetres_beside_the_pictures(tmp_path: Path) -> None:
    for room in ("bathroom_0001", "study 2"):
        put(tmp_path / room / "rgb_00045.jpg", encoded(picture(), "JPEG"))
        put(tmp_path / room / "sync_depth_00045.png", encoded(units(1000)))
    source = open_source(f"rgbd:{tmp_path}?layout=nyu")
    assert ids_of(source) == ["bathroom_0001/00045", "study 2/00045"]
    image = source.load("study 2/00045")
    assert_ramp(image.depth)
    assert image.intrinsics == Intrinsics(518.8579, 519.4696, 325.5824, 253.7362)


def test_each_scan_of_scannet_has_its_own_camera(tmp_path: Path) -> None:
    for scan, focal in (("scene0000_00", 1170), ("scene0000_01", 1165)):
        put(tmp_path / scan / "color/0.jpg", encoded(np.kron(picture(), np.ones((2, 2, 1), np.uint8)), "JPEG"))
        put(tmp_path / scan / "depth/0.png", encoded(units(1000)))
        camera = f"{focal}.0 0.0 647.75 0.0\n0.0 1171.2 483.75 0.0\n0.0 0.0 1.0 0.0\n0.0 0.0 0.0 1.0\n"
        put(tmp_path / scan / "intrinsic/intrinsic_color.txt", camera.encode())
    for query in ("?layout=scannet", ""):
        source = open_source(f"rgbd:{tmp_path}{query}")
        images = [source.load(image_id) for image_id in ("scene0000_00/0", "scene0000_01/0")]
        assert [image.intrinsics for image in images] == [
            Intrinsics(focal, 1171.2, 647.75, 483.75) for focal in (1170, 1165)
        ]
        assert_ramp(images[0].depth[::2, ::2])
    put(tmp_path / "scene0000_02/color/0.jpg", encoded(picture(), "JPEG"))
    put(tmp_path / "scene0000_02/depth/0.png", encoded(units(1000)))
    put(tmp_path / "scene0000_02/intrinsic/intrinsic_color.txt", b"no numbers")
    assert reason_of(source, "scene0000_02/0") == NO_CAMERA


def test_tum_pairs_by_time_and_has_5000_units_in_a_metre(tmp_path: Path) -> None:
    desk = tmp_path / "rgbd_dataset_freiburg1_desk"
    for time in ("1305031452.791720", "1305031452.823674", "1305031453.500000"):
        put(desk / f"rgb/{time}.png", encoded(picture()))
    for time in ("1305031452.774000", "1305031452.822978", "1305031453.000000"):
        put(desk / f"depth/{time}.png", encoded(units(5000)))
    source = open_source(f"rgbd:{tmp_path}?layout=tum")
    first, second = f"{desk.name}/1305031452.791720", f"{desk.name}/1305031452.823674"
    assert ids_of(source) == [first, second] and source.skipped == {"colour without depth": 1}
    image = source.load(second)
    assert_ramp(image.depth)
    assert image.intrinsics == Intrinsics(525, 525, 319.5, 239.5)
    (desk / "depth/1305031452.774000.png").unlink()
    assert reason_of(source, first) == "file missing"


def test_a_recording_of_tum_needs_a_layout_or_a_scale(tmp_path: Path) -> None:
    for folder in ("rgb", "depth"):
        put(tmp_path / f"{folder}/1.5.png", encoded(picture() if folder == "rgb" else units(5000)))
        put(tmp_path / f"{folder}.txt", b"1.5 file\n")
    with pytest.raises(SourceError, match="layout=tum"):
        open_source(f"rgbd:{tmp_path}")
    assert_ramp(open_source(f"rgbd:{tmp_path}?scale=5000").load("1.5").depth)


def test_depth_of_65535_is_invalid_in_7scenes(tmp_path: Path) -> None:
    put(tmp_path / "chess/seq-01/frame-000000.color.png", encoded(picture()))
    put(tmp_path / "chess/seq-01/frame-000000.depth.png", encoded(units(1000)))
    image = open_source(f"rgbd:{tmp_path}?layout=7scenes").load("chess/seq-01/frame-000000")
    assert_ramp(image.depth)
    assert image.intrinsics == Intrinsics(585, 585, 320, 240)


def test_the_error_for_an_unknown_layout_lists_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"Did you mean 'scannet'(.|\n)*layouts: 7scenes"):
        open_source(f"rgbd:{tmp_path}?layout=scanet")


@pytest.mark.parametrize("scale", ["0.001", "1000"])
def test_a_scale_is_metres_per_unit_or_units_per_metre(tmp_path: Path, scale: str) -> None:
    put(tmp_path / "a_rgb.png", encoded(picture()))
    put(tmp_path / "a_depth.png", encoded(units(1000)))
    assert_ramp(open_source(f"rgbd:{tmp_path}?scale={scale}").load("a").depth)


def linked_hdf5(target: Path) -> bytes:
    """An HDF5 file whose depth is in another file."""
    target.write_bytes(hdf5(metres()))
    file = io.BytesIO()
    with h5py.File(file, "w") as opened:
        opened["depth"] = h5py.ExternalLink(str(target), "depth")
    return file.getvalue()


def test_hostile_depth_is_rejected_before_memory_is_allocated(tmp_path: Path) -> None:
    huge = io.BytesIO()
    np.lib.format.write_array_header_1_0(huge, {"descr": "<f4", "fortran_order": False, "shape": (10**6, 10**6)})
    bomb = io.BytesIO()
    with h5py.File(bomb, "w") as opened:  # a few hundred bytes that unpack to 40 GB
        opened.create_dataset("depth", (10**5, 10**5), "f4", chunks=(1000, 1000), compression="gzip", fillvalue=1.0)
    pickled = io.BytesIO()
    np.save(pickled, np.array([[{}]], dtype=object), allow_pickle=True)
    put(tmp_path / "imgs/a.jpg", encoded(picture(), "JPEG"))
    put(tmp_path / "depths/a.h5", b"")
    source = open_source(f"rgbd:{tmp_path}?layout=megadepth")
    for content, reason in (
        (huge.getvalue(), "image too large"),
        (bomb.getvalue(), "image too large"),
        (pickled.getvalue(), "unreadable depth: pickled objects"),
        (linked_hdf5(tmp_path / "secret.h5"), "unreadable depth"),
        (hdf5(np.zeros((HEIGHT, WIDTH))), "no valid depth"),
        (npy(np.ones((3, HEIGHT, WIDTH))), "depth is not single-channel"),
        (b"", "unreadable depth"),
    ):
        put(tmp_path / "depths/a.h5", content)
        assert reason_of(source, "a") == reason


def with_depth(folder: Path, kind: str, depth: bytes) -> str:
    """The URI of a source that holds one picture with this depth, each kind in its own way."""
    color = encoded(picture(3))
    if kind == "webdataset":
        write_tar(folder / "a.tar", {"0.png": color, "0.depth.png": depth})
        return f"webdataset:{folder}?depth=depth.png&intrinsics=50,50,48,36"
    if kind == "dataset":
        pq.write_table(pa.table({"image": [{"bytes": color}], "far": [{"bytes": depth}]}), folder / "a.parquet")
        return f"dataset:{folder}?depth=far&intrinsics=50,50,48,36"
    put(folder / "a_rgb.png", color)
    put(folder / "a_depth.png", depth)
    put(folder / "all.csv", b"image,depth\na_rgb.png,a_depth.png\n")
    return f"{kind}:{folder}{'/all.csv' * (kind == 'manifest')}?intrinsics=50,50,48,36"


@pytest.mark.parametrize("kind", ["rgbd", "webdataset", "dataset", "manifest"])
def test_depth_is_not_read_if_it_is_not_needed(tmp_path: Path, kind: str) -> None:
    whole, damaged = tmp_path / "whole", tmp_path / "damaged"
    for folder, depth in ((whole, encoded(units(1000))), (damaged, b"no image")):
        folder.mkdir()
        source = open_source(with_depth(folder, kind, depth))
        image = load_image(source, source.image_id(0), depth=False)
        assert np.array_equal(image.rgb, picture(3)) and image.depth is None
        assert image.intrinsics == Intrinsics(50, 50, 48, 36)
        if folder == whole:
            assert_ramp(load_image(source, source.image_id(0), depth=True).depth)
        else:
            assert reason_of(source, source.image_id(0)) == "unreadable depth"


# tar files -------------------------------------------------------------------------------------------------------


def write_tar(path: Path, members: dict[str, bytes], **options: Any) -> None:
    """A tar file with these members."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", **options) as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


def shard(*numbers: int) -> dict[str, bytes]:
    """The members of samples with picture, depth and other things."""
    members = {}
    for number in numbers:
        key = f"{number:06d}"
        members |= {
            f"{key}.jpg": encoded(picture(number), "JPEG"),
            f"{key}.depth.png": encoded(units(1000)),
            f"{key}.json": b"{}",
        }
    return members


@pytest.mark.parametrize("kind", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT])
def test_tar_files_are_read_with_random_access(tmp_path: Path, kind: int) -> None:
    write_tar(tmp_path / "train-0.tar", shard(0, 1, 2), format=kind)
    deep = f"{'folder é/' * 8}long name{'x' * 60}"
    write_tar(tmp_path / "sub/train-1.tar", {f"{deep}.png": encoded(picture(7)), "b/x.y.webp": b""}, format=kind)
    source = open_source(f"webdataset:{tmp_path}?files=*train-*.tar")
    assert not source.has_depth and source.skipped == {"no image by its extension: its name has a further dot": 1}
    assert ids_of(source) == [f"sub/train-1.tar/{deep}", *(f"train-0.tar/{k:06d}" for k in range(3))]
    assert np.array_equal(source.load(f"sub/train-1.tar/{deep}").rgb, picture(7))
    expected = np.array(Image.open(io.BytesIO(encoded(picture(1), "JPEG"))))
    assert np.array_equal(source.load("train-0.tar/000001").rgb, expected)


def test_a_single_tar_file_with_depth(tmp_path: Path) -> None:
    write_tar(tmp_path / "a.tar", shard(0, 1) | {"000002.jpg": encoded(picture(), "JPEG")})
    source = open_source(f"webdataset:{tmp_path}/a.tar?depth=depth.png&scale=1000&intrinsics=50,50,48,36")
    assert source.has_depth and ids_of(source) == ["a.tar/000000", "a.tar/000001"]
    image = source.load("a.tar/000001")
    assert_ramp(image.depth)
    assert image.intrinsics == Intrinsics(50, 50, 48, 36) and source.skipped == {"no depth or mask": 1}


def test_tar_files_are_indexed_once_until_they_change(tmp_path: Path, fresh: Path) -> None:
    path = tmp_path / "a.tar"
    write_tar(path, shard(0, 1))
    before = path.stat()
    assert len(open_source(f"webdataset:{path}")) == 2
    path.write_bytes(bytes(before.st_size))  # what a second walk would find empty
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    open_source.cache_clear()
    source = open_source(f"webdataset:{path}")
    assert len(source) == 2 and reason_of(source, "a.tar/000000") == "tar file changed"
    (index,) = fresh.glob("*.index")
    index.write_bytes(index.read_bytes()[:-5])  # an index that is not whole is made anew
    write_tar(path, shard(0, 1, 2))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    open_source.cache_clear()
    assert len(open_source(f"webdataset:{path}")) == 3


def test_tar_files_open_without_a_writable_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path / "no folder", b"")
    monkeypatch.setenv("SSRL_CACHE", str(tmp_path / "no folder" / "cache"))
    write_tar(tmp_path / "a.tar", shard(0))
    assert open_source(f"webdataset:{tmp_path}").load("a.tar/000000").rgb.shape == (HEIGHT, WIDTH, 3)


def test_only_samples_after_the_damage_of_a_tar_file_are_lost(tmp_path: Path) -> None:
    write_tar(tmp_path / "a.tar", shard(0, 1, 2))
    whole = (tmp_path / "a.tar").read_bytes()
    with tarfile.open(tmp_path / "a.tar") as archive:
        third = archive.getmember("000002.jpg").offset
    put(tmp_path / "b.tar", whole[: third + 700])
    put(tmp_path / "c.tar", whole[:third] + b"\xff" * 512 + whole[third + 512 :])
    put(tmp_path / "d.tar", b"nothing of the kind")
    with tarfile.open(tmp_path / "e.tar", "w:gz") as archive:
        archive.add(tmp_path / "d.tar", "000000.jpg")
    source = open_source(f"webdataset:{tmp_path}")
    good = [f"{name}.tar/{k:06d}" for name in "abc" for k in range(3 if name == "a" else 2)]
    assert set(good) <= set(ids_of(source)) <= {*good, "b.tar/000002"}
    assert source.skipped["tar file not readable to its end"] == 3
    assert source.skipped["tar file not readable to its end: compressed file"] == 1
    for image_id in good:
        source.load(image_id)
    with pytest.raises(SourceError, match=r"no sample(.|\n)*not readable to its end: compressed file"):
        open_source(f"webdataset:{tmp_path}/e.tar")


def test_links_in_tar_files_are_never_followed(tmp_path: Path) -> None:
    put(tmp_path / "secret.jpg", encoded(picture(), "JPEG"))
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for name, kind in (("a.jpg", tarfile.SYMTYPE), ("b.jpg", tarfile.LNKTYPE), ("c.jpg", tarfile.FIFOTYPE)):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, str(tmp_path / "secret.jpg")
            archive.addfile(member)
    with pytest.raises(SourceError, match="no sample"):
        open_source(f"webdataset:{tmp_path}")


# tables ----------------------------------------------------------------------------------------------------------


def write_parquet(path: Path, numbers: range, **columns: list[Any]) -> None:
    """A table of pictures as ``datasets`` writes it, three rows in a group."""
    cells = [{"bytes": encoded(picture(k)), "path": None} for k in numbers]
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"image": cells, **columns}), path, row_group_size=3)


def test_parquet_rows_are_images(tmp_path: Path) -> None:
    for part, numbers in enumerate((range(5), range(5, 9))):
        depth = [encoded(units(1000)) for _ in numbers]
        camera = [[[50.0, 0, 48], [0, 51, 36], [0, 0, 1]] for _ in numbers]
        write_parquet(tmp_path / f"data/train-{part:05d}-of-00002.parquet", numbers, depth_map=depth, camera=camera)
    write_parquet(tmp_path / "data/test-00000-of-00001.parquet", range(2))
    source = open_source(f"dataset:{tmp_path}?files=data/train-*&depth=depth_map&scale=1000&intrinsics=camera")
    assert source.has_depth and len(source) == len(set(ids_of(source))) == 9
    for position in range(9):
        image = source.load(source.image_id(position))
        assert np.array_equal(image.rgb, picture(position)) and image.intrinsics == Intrinsics(50, 51, 48, 36)
        assert_ramp(image.depth)
    assert len(open_source(f"dataset:{tmp_path}")) == 11
    assert len(open_source(f"dataset:{tmp_path}/data/test-00000-of-00001.parquet")) == 2
    write_parquet(tmp_path / "data/test[1].parquet", range(2))
    assert ids_of(open_source(f"dataset:{tmp_path}/data/test[1].parquet")) == [f"test[1].parquet#{k}" for k in range(2)]


def test_cells_may_be_bytes_paths_or_lists_of_numbers(tmp_path: Path) -> None:
    put(tmp_path / "images/ä b.png", encoded(picture(3)))
    depth = np.nan_to_num(metres(), nan=0).tolist()
    cells = [{"bytes": None, "path": "images/ä b.png"}, {"bytes": None, "path": "../secret.png"}, None]
    table = pa.table({"a": [encoded(picture(k)) for k in range(3)], "b": cells, "depth": [depth, depth, depth[:1]]})
    pq.write_table(table, tmp_path / "t.parquet")
    image = open_source(f"dataset:{tmp_path}?image=a&depth=depth").load("t.parquet#1")
    assert_ramp(image.depth)
    source = open_source(f"dataset:{tmp_path}?image=b&intrinsics=50,50,48,36")
    assert np.array_equal(source.load("t.parquet#0").rgb, picture(3))
    assert (
        reason_of(source, "t.parquet#1") == "path not below the folder"
        and reason_of(source, "t.parquet#2") == "cell without image"
    )


def test_a_folder_written_by_save_to_disk(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    rows = {"image": [Image.fromarray(picture(k)) for k in range(7)], "depth": [Image.fromarray(units(1000))] * 7}
    features = datasets.Features({"image": datasets.Image(), "depth": datasets.Image()})
    saved = datasets.DatasetDict({"train": datasets.Dataset.from_dict(rows, features=features).shuffle(seed=1)})
    saved.save_to_disk(tmp_path / "saved", num_shards={"train": 2})
    source = open_source(f"dataset:{tmp_path}/saved?depth=depth&scale=1000")
    assert len(source) == 7 and source.image_id(0).startswith("train/data-00000-of-00002.arrow#")
    for position in range(7):
        image = source.load(source.image_id(position))
        assert np.array_equal(image.rgb, np.array(saved["train"][position]["image"]))
        assert_ramp(image.depth)


@pytest.mark.parametrize("image_id", ["t.parquet#9", "t.parquet", "t.parquet#-1", "u.parquet#0", "../t.parquet#0", "#"])
def test_missing_rows_are_rejected(tmp_path: Path, image_id: str) -> None:
    write_parquet(tmp_path / "t.parquet", range(2))
    assert reason_of(open_source(f"dataset:{tmp_path}"), image_id) in ("row missing", "file missing")


def test_the_error_for_a_missing_column_lists_the_others(tmp_path: Path) -> None:
    write_parquet(tmp_path / "t.parquet", range(2))
    with pytest.raises(SourceError, match=r"no column 'imgae'. Did you mean 'image'(.|\n)*columns: image"):
        len(open_source(f"dataset:{tmp_path}?image=imgae"))


def test_only_the_rows_of_a_damaged_table_are_lost(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a.parquet", range(2))
    put(tmp_path / "b.parquet", (tmp_path / "a.parquet").read_bytes()[:-9])
    put(tmp_path / "data-00000-of-00001.arrow", b"nothing of the kind")
    source = open_source(f"dataset:{tmp_path}")
    assert len(source) == 2 and source.skipped == {"file not readable": 2}
    with pytest.raises(SourceError, match="no row in the 0 files"):
        len(open_source(f"dataset:{tmp_path}/b.parquet"))


# manifests -------------------------------------------------------------------------------------------------------


def write_manifest(path: Path, rows: list[dict[str, Any]]) -> None:
    """A table of images, as its extension says."""
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return
    names = list(dict.fromkeys(name for row in rows for name in row))
    cells = [[str(row.get(name, "")) for name in names] for row in rows]
    lines = [",".join(f'"{cell}"' for cell in line) for line in [names, *cells]]
    path.write_text("\ufeff" + "\r\n".join(lines), encoding="utf-8")


@pytest.mark.parametrize("name", ["pairs.csv", "pairs.jsonl"])
def test_a_manifest_lists_images_depth_scale_and_intrinsics(tmp_path: Path, name: str) -> None:
    put(tmp_path / "rgb/é, 1.png", encoded(picture(1)))
    put(tmp_path / "rgb/2.png", encoded(picture(2)))
    put(tmp_path / "z/1.png", encoded(units(5000)))
    put(tmp_path / "z/2.png", encoded(units(1000)))
    put(tmp_path / "m/2.npy", npy(np.ones((HEIGHT, WIDTH), bool)))
    camera = "60,61,48,36" if name.endswith("csv") else [60, 61, 48, 36]
    first = {"image": "rgb/é, 1.png", "depth": "z/1.png", "scale": 5000, "intrinsics": camera, "label": "chair"}
    write_manifest(tmp_path / name, [first, {"image": "rgb/2.png", "depth": "z/2.png", "mask": "m/2.npy"}])
    source = open_source(f"manifest:{tmp_path}/{name}?intrinsics=50,50,48,36")
    assert source.has_depth and ids_of(source) == ["rgb/2.png", "rgb/é, 1.png"]
    for image_id, number, camera in (
        ("rgb/é, 1.png", 1, Intrinsics(60, 61, 48, 36)),
        ("rgb/2.png", 2, Intrinsics(50, 50, 48, 36)),
    ):
        image = source.load(image_id)
        assert_ramp(image.depth)
        assert np.array_equal(image.rgb, picture(number)) and image.intrinsics == camera


@pytest.mark.parametrize("name", ["pairs.csv", "pairs.jsonl"])
def test_unusable_lines_of_a_manifest_are_counted(tmp_path: Path, name: str) -> None:
    good = {"image": "a.png", "depth": "a.npy", "scale": "", "intrinsics": ""}
    rows = [good, good, {"image": "b.png"}, {"depth": "b.npy"}, {**good, "image": "../x.png"}]
    rows += [{**good, "image": "/x.png"}, {**good, "scale": "mm"}, {**good, "intrinsics": "1 2 3"}]
    write_manifest(tmp_path / name, rows)
    assert open_source(f"manifest:{tmp_path}/{name}").skipped == {
        "same name as another": 1,
        "line without depth": 1,
        "line without image": 1,
        "path not below the folder": 2,
        NO_CAMERA: 1,
        "scale is no positive number": 1,
    }


def test_lines_that_are_not_json_are_counted(tmp_path: Path) -> None:
    lines = [
        b'{"image": "a.png"}',
        b"[1]",
        b"{",
        b"[" * 100_000,
        b"\xff\xfe",
        b'{"image": ["a", "b"]}',
        b"x" * 3_000_000,
    ]
    put(tmp_path / "m.jsonl", b"\n".join(lines))
    source = open_source(f"manifest:{tmp_path}/m.jsonl")
    assert len(source) == 1 and not source.has_depth
    assert source.skipped["not a path"] == 1
    assert source.skipped["line not readable"] >= 5


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("m.csv", b"", "no column 'image'"),
        ("m.csv", b"img,depth\na,b\n", r"no column 'image', only \['img', 'depth'\]"),
        ("m.csv", b"image\n", "lists no image"),
        ("m.jsonl", b"{}\n{}\n", "2 skipped: line without image"),
        ("m.txt", b"", "is a file, not a folder and has none of the extensions .csv, .jsonl"),
    ],
)
def test_a_manifest_without_images_is_an_error(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    put(tmp_path / name, content)
    with pytest.raises(SourceError, match=message):
        open_source(f"manifest:{tmp_path}/{name}")


# remote stores ---------------------------------------------------------------------------------------------------


def write_everything(root: Path) -> dict[str, str]:
    """One source of each kind below a folder: URI with ``{}`` for the folder -> an id in it."""
    put(root / "photos/deep er/é 1.jpg", encoded(picture(), "JPEG"))
    put(root / "frames/a/rgb_00001.jpg", encoded(picture(), "JPEG"))
    put(root / "frames/a/sync_depth_00001.png", encoded(units(1000)))
    write_tar(root / "tars/0.tar", shard(0, 1))
    write_parquet(root / "table/t.parquet", range(4))
    write_manifest(root / "m.csv", [{"image": "photos/deep er/é 1.jpg"}])
    return {
        "folder:{}/photos": "deep er/é 1.jpg",
        "rgbd:{}/frames?layout=nyu": "a/00001",
        "rgbd:{}/frames": "a/00001",
        "webdataset:{}/tars?depth=depth.png": "0.tar/000001",
        "dataset:{}/table": "t.parquet#3",
        "dataset:{}/table/t.parquet": "t.parquet#3",
        "manifest:{}/m.csv": "photos/deep er/é 1.jpg",
    }


@pytest.mark.parametrize("place", ["memory://bucket/x", "simplecache::memory://bucket/x"])
def test_an_object_store_works_like_a_folder(tmp_path: Path, place: str) -> None:
    sources = write_everything(tmp_path)
    fsspec.filesystem("memory").put(str(tmp_path), "/bucket/x", recursive=True)
    for uri, image_id in sources.items():
        here, there = open_source(uri.format(tmp_path)), open_source(uri.format(place))
        assert ids_of(here) == ids_of(there) and image_id in ids_of(there)
        a, b = here.load(image_id), there.load(image_id)
        assert np.array_equal(a.rgb, b.rgb) and a.intrinsics == b.intrinsics
        assert (a.depth is None) == (b.depth is None) == (not here.has_depth)
        assert reason_of(there, f"{image_id}0") in ("file missing", "row missing")


class Ranges(http.server.SimpleHTTPRequestHandler):
    """Files of a folder, and parts of files, as object stores and most servers give them."""

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        path = Path(self.translate_path(self.path))
        wanted = self.headers.get("Range", "")
        if not wanted.startswith("bytes=") or not path.is_file():
            return super().do_GET()
        first, _, last = wanted.removeprefix("bytes=").partition("-")
        content = path.read_bytes()
        part = content[int(first) : int(last or len(content)) + 1]
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {first}-{int(first) + len(part) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        self.wfile.write(part)
        return None


@pytest.fixture
def serve() -> Iterator[Callable[[Path, type], str]]:
    """A function that serves a folder by HTTP and returns its address."""
    servers: list[http.server.ThreadingHTTPServer] = []

    def start(folder: Path, handler: type) -> str:
        made = functools.partial(handler, directory=str(folder))
        servers.append(http.server.ThreadingHTTPServer(("127.0.0.1", 0), made))
        threading.Thread(target=servers[-1].serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{servers[-1].server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def test_a_web_server_works_like_a_folder(
    tmp_path: Path, serve: Callable[[Path, type], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("aiohttp")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    sources = write_everything(tmp_path)
    for address in (serve(tmp_path, Ranges), serve(tmp_path, http.server.SimpleHTTPRequestHandler)):
        source = open_source(f"folder:{address}/photos")
        assert ids_of(source) == ["deep%20er/%C3%A9%201.jpg"]  # as the server calls it
        assert source.load(source.image_id(0)).rgb.shape == (HEIGHT, WIDTH, 3)
    address = serve(tmp_path, Ranges)
    for uri, image_id in sources.items():
        if "é" not in image_id:
            here, there = open_source(uri.format(tmp_path)), open_source(uri.format(address))
            assert np.array_equal(here.load(image_id).rgb, there.load(image_id).rgb)
            assert ids_of(here) == ids_of(there)


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("folder:memory://nowhere", "cannot list"),
        ("rgbd:memory://nowhere", "cannot list"),
        ("webdataset:memory://nowhere", "cannot list"),
        ("webdataset:memory://nowhere/a.tar", "cannot access its tar files"),
        ("dataset:memory://nowhere", "cannot list"),
        ("manifest:memory://nowhere/m.csv", "cannot read it: FileNotFoundError"),
        ("folder:nonsense://bucket/x", "fsspec cannot open 'nonsense://bucket/x'"),
    ],
)
def test_a_missing_remote_path_is_a_source_error(uri: str, message: str) -> None:
    with pytest.raises(SourceError, match=message):
        len(open_source(uri))


# relative paths --------------------------------------------------------------------------------------------------

NUMBERED = """
from ssrl_core import SourceError, hookimpl
class Numbered:
    has_depth = False
    def __init__(self, uri): self.uri = uri
    def __len__(self): return 10
    def image_id(self, position): return f"{self.uri} {position}"
    def load(self, image_id): raise SourceError(image_id)
@hookimpl
def ssrl_open_source(uri): return Numbered(uri)
"""


@pytest.mark.parametrize("scheme", ["folder", "rgbd", "webdataset", "dataset", "manifest", "thirdparty"])
def test_paths_are_relative_to_the_mix_in_every_scheme(tmp_path: Path, scheme: str) -> None:
    base = tmp_path.resolve()
    for written, path in (("x/y", f"{base}/x/y"), ("../x", f"{base.parent}/x"), ("~/x", str(Path("~/x").expanduser()))):
        assert resolve_uri(f"{scheme}:{written}?a=b", base=tmp_path) == f"{scheme}:{path}?a=b"
    assert resolve_uri(f"{scheme}:///data/x", base=tmp_path) == f"{scheme}:/data/x"
    for written in ("", "?a=b", "s3://bucket/x?scale=1", "simplecache::s3://bucket/x", "//host/x?a=b"):
        assert resolve_uri(f"{scheme}:{written}", base=tmp_path) == f"{scheme}:{written}"


def test_a_third_party_source_gets_absolute_paths_from_a_mix(
    install: Callable[..., None], write_mix: Callable[..., Path], tmp_path: Path
) -> None:
    install("ssrl-plugin-numbered", code=NUMBERED, entry_points={"ssrl.sources": {"numbered": "ssrl_plugin_numbered"}})
    write_mix("source: numbered:not/there?a=b\ntasks: {flipped_patch: }", "base.yaml")
    (tmp_path / "below").mkdir()
    path = write_mix("include: ../base.yaml\ntasks: {cropped_patch: {source: numbered://host/x}}", "below/mix.yaml")
    mix = load_mix(path)
    uri = f"numbered:{tmp_path.resolve()}/not/there?a=b"
    assert set(mix.config.sources) == {uri, "numbered://host/x"}
    assert open_source(uri).image_id(0) == f"{uri} 0"


# digests ---------------------------------------------------------------------------------------------------------


def flipped(path: Path) -> bytes:
    """The content of a file with one byte changed in the middle."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    return bytes(content)


def with_digests(root: Path) -> dict[str, list[tuple[Path, bytes]]]:
    """URIs of sources of each kind -> files behind them, each with other content of the same size."""
    write_parquet(root / "table/t.parquet", range(9), depth=[encoded(units(1000))] * 9)
    write_tar(root / "tars/a.tar", shard(0, 1))
    photo = encoded(picture(), "JPEG")
    other, depth = photo[:-2] + b"xx", encoded(units(1000))
    mask = npy(np.ones((HEIGHT, WIDTH), bool))
    for name, content in (("color", photo), ("depth", depth), ("mask", mask), ("k", b"50,50,48,36")):
        put(root / f"frames/{name}/1.{'npy' if name == 'mask' else 'txt' if name == 'k' else 'png'}", content)
    put(root / "photos/a.jpg", photo)
    put(root / "frames/camera.txt", b"50,50,48,36")
    put(root / "frames/m.csv", b"image,depth,mask\ncolor/1.png,depth/1.png,mask/1.npy\n")
    frames = root / "frames"
    images = [
        (frames / "color/1.png", other),
        (frames / "depth/1.png", depth[::-1]),
        (frames / "mask/1.npy", mask[::-1]),
    ]
    patterns = "color=**/color/*.png&depth=**/depth/*.png&mask=**/mask/*.npy"
    return {
        f"folder:{root}/photos": [(root / "photos/a.jpg", other)],
        f"rgbd:{frames}?{patterns}&intrinsics=k/*.txt": [*images, (frames / "k/1.txt", b"60,50,48,36")],
        f"rgbd:{frames}?{patterns}&intrinsics=**/camera.txt": [(frames / "camera.txt", b"60,50,48,36")],
        f"rgbd:{frames}?{patterns}&intrinsics=camera.txt": [(frames / "camera.txt", b"60,50,48,36")],
        f"manifest:{frames}/m.csv": images,
        f"webdataset:{root}/tars?depth=depth.png": [(root / "tars/a.tar", flipped(root / "tars/a.tar"))],
        f"dataset:{root}/table?depth=depth": [(root / "table/t.parquet", flipped(root / "table/t.parquet"))],
    }


def digest_of(uri: str) -> str:
    """The digest of a source opened anew."""
    open_source.cache_clear()
    rgbd._camera.cache_clear()
    source: Any = open_source(uri)
    return str(source.digest())


def test_a_digest_changes_with_the_content_of_any_file_and_not_with_its_times(tmp_path: Path) -> None:
    for uri, files in with_digests(tmp_path).items():
        before = digest_of(uri)
        for path, content in files:
            original, status = path.read_bytes(), path.stat()
            assert len(content) == len(original) and content != original
            path.write_bytes(content)
            os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
            assert digest_of(uri) != before, (uri, path)
            path.write_bytes(original)
            os.utime(path, ns=(10**18, 10**18))
            assert digest_of(uri) == before, (uri, path)


def test_a_digest_does_not_depend_on_the_folder(tmp_path: Path) -> None:
    uris = with_digests(tmp_path / "here")
    shutil.copytree(tmp_path / "here", tmp_path / "there")
    for uri in uris:
        assert digest_of(uri) == digest_of(uri.replace("/here/", "/there/"))


def test_a_digest_changes_when_an_image_is_added_removed_or_renamed(tmp_path: Path) -> None:
    put(tmp_path / "a.jpg", encoded(picture(), "JPEG"))
    digests = [digest_of(f"folder:{tmp_path}")]
    shutil.copy(tmp_path / "a.jpg", tmp_path / "b.jpg")
    digests.append(digest_of(f"folder:{tmp_path}"))
    (tmp_path / "a.jpg").unlink()
    digests.append(digest_of(f"folder:{tmp_path}"))
    (tmp_path / "b.jpg").rename(tmp_path / "c.jpg")
    digests.append(digest_of(f"folder:{tmp_path}"))
    assert len(set(digests)) == 4
    put(tmp_path / "notes.txt", b"not an image")
    assert digest_of(f"folder:{tmp_path}") == digests[-1]


def test_the_digest_of_a_manifest_ignores_unused_columns_and_covers_intrinsics(tmp_path: Path) -> None:
    put(tmp_path / "a.png", encoded(picture()))
    digests = []
    for row in ("a.png,x,,", "a.png,y,,", 'a.png,y,,"50,50,48,36"'):
        put(tmp_path / "m.csv", f"image,label,scale,intrinsics\n{row}\n".encode())
        digests.append(digest_of(f"manifest:{tmp_path}/m.csv"))
    assert digests[0] == digests[1] != digests[2]


def test_a_digest_covers_files_named_in_the_cells_of_a_table(tmp_path: Path) -> None:
    put(tmp_path / "a.png", encoded(picture()))
    pq.write_table(pa.table({"image": ["a.png"]}), tmp_path / "t.parquet")
    before = digest_of(f"dataset:{tmp_path}")
    put(tmp_path / "a.png", encoded(picture())[::-1])
    assert digest_of(f"dataset:{tmp_path}") != before


def test_a_digest_covers_only_the_size_of_files_beyond_a_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base, "MOST_HASHED", 2)
    for name in "abc":
        put(tmp_path / f"{name}.jpg", b"1" * 9000)
    before = digest_of(f"folder:{tmp_path}")
    put(tmp_path / "c.jpg", b"2" * 9000)
    assert digest_of(f"folder:{tmp_path}") == before
    put(tmp_path / "c.jpg", b"2" * 9001)
    assert digest_of(f"folder:{tmp_path}") != before
    put(tmp_path / "c.jpg", b"2" * 9000)
    put(tmp_path / "b.jpg", b"2" * 9000)
    assert digest_of(f"folder:{tmp_path}") != before


def test_the_digest_of_a_remote_source_changes_with_its_files() -> None:
    store = fsspec.filesystem("memory")
    store.pipe("/photos/a.jpg", encoded(picture(), "JPEG"))
    before = digest_of("folder:memory://photos")
    assert digest_of("folder:memory://photos") == before
    store.pipe("/photos/a.jpg", encoded(picture(1), "JPEG") + b"1")
    assert digest_of("folder:memory://photos") != before


def test_a_missing_file_is_part_of_the_digest(tmp_path: Path) -> None:
    put(tmp_path / "m.csv", b"image\na.png\n")
    before = digest_of(f"manifest:{tmp_path}/m.csv")
    put(tmp_path / "a.png", encoded(picture()))
    assert digest_of(f"manifest:{tmp_path}/m.csv") != before


# faults ----------------------------------------------------------------------------------------------------------

REASONS = {
    "depth and colour differ in shape",
    "depth is not single-channel",
    "file missing",
    "file not readable",
    "image too large",
    "no valid depth",
    "row group too large",
    "row missing",
    "cell without image",
    "tar file changed",
    "unreadable depth",
    "unreadable image",
    "unreadable table",
}


@pytest.mark.parametrize("fault", ["deleted", "cut", "emptied", "replaced", "a folder", "zeros"])
def test_a_file_that_changes_during_a_run_loses_only_its_images(tmp_path: Path, fault: str) -> None:
    opened = [(open_source(uri.format(tmp_path)), name) for uri, name in write_everything(tmp_path).items()]
    for source, image_id in opened:
        assert source.load(image_id).rgb.shape == (HEIGHT, WIDTH, 3)
    files = [path for path in tmp_path.rglob("*") if path.is_file() and path.name != "m.csv"]
    for path in files:
        content = path.read_bytes()
        path.unlink()
        if fault == "a folder":
            path.mkdir()
        elif fault != "deleted":
            after = {"cut": content[: len(content) // 2], "emptied": b"", "zeros": bytes(len(content))}
            path.write_bytes(after.get(fault, b"something else"))
    for source, image_id in opened:
        assert reason_of(source, image_id) in REASONS


def damaged(content: bytes, rng: np.random.Generator) -> bytes:
    """The content with some bytes changed."""
    array = np.frombuffer(content, np.uint8).copy()
    array[rng.integers(len(array), size=3)] = rng.integers(256, size=3)
    return array.tobytes()


@pytest.mark.parametrize("kind", ["h5", "npy", "parquet", "arrow", "tar"])
def test_damaged_files_raise_only_rejections_and_source_errors(tmp_path: Path, kind: str) -> None:
    small = np.ascontiguousarray(picture()[::4, ::4])
    if kind in ("h5", "npy"):
        depth = np.ones(small.shape[:2], np.float32)
        put(tmp_path / "imgs/a.png", encoded(small))
        path, image_id = tmp_path / f"depths/a.{kind}", "a"
        put(path, hdf5(depth) if kind == "h5" else npy(depth))
        uri = f"rgbd:{tmp_path}?color=imgs/*.png&depth=depths/*.{kind}"
    elif kind == "tar":
        path, image_id, uri = tmp_path / "a.tar", "a.tar/1", f"webdataset:{tmp_path}"
        write_tar(path, {"1.png": encoded(small), "2.png": encoded(small)})
    else:
        table = pa.table({"image": [{"bytes": encoded(small), "path": "x"}] * 2})
        path = tmp_path / ("a.parquet" if kind == "parquet" else "data-0.arrow")
        image_id, uri = f"{path.name}#1", f"dataset:{tmp_path}"
        pq.write_table(table, path)
        if kind == "arrow":
            with pa.ipc.new_stream(path, table.schema) as stream:
                stream.write_table(table)
    whole, rng, outcomes = path.read_bytes(), np.random.default_rng(3), Counter[str]()
    for _ in range(80):
        path.unlink()  # not overwritten, because a mapped file must not change
        path.write_bytes(damaged(whole, rng))
        open_source.cache_clear()
        try:
            source = open_source(uri)
            len(source)
            source.load(image_id)
            outcomes["loaded"] += 1
        except SourceRejected as rejected:
            assert rejected.reason in REASONS
            outcomes[rejected.reason] += 1
        except SourceError:
            outcomes["not opened"] += 1
    assert sum(outcomes.values()) == 80 and len(outcomes) >= 2, outcomes


def test_damaged_images_are_rejected_with_a_reason(tmp_path: Path) -> None:
    for name in ("a.jpg", "b.png"):
        put(tmp_path / name, b"no image")
    source = open_source(f"folder:{tmp_path}")
    assert {reason_of(source, image_id) for image_id in ids_of(source)} == {"unreadable image"}


def test_a_file_above_the_size_limit_is_rejected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = encoded(picture())
    put(tmp_path / "a.png", content)
    monkeypatch.setattr("ssrl_core.sources.store.MOST_BYTES", len(content))
    source = open_source(f"folder:{tmp_path}")
    assert np.array_equal(source.load("a.png").rgb, picture())
    put(tmp_path / "a.png", content + b"\0")
    assert reason_of(source, "a.png") == "file too large"


# size ------------------------------------------------------------------------------------------------------------


def peak_of(work: Callable[[], Any]) -> int:
    """Peak of the bytes that ``work`` allocates."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_the_memory_of_an_index_does_not_grow_with_its_length() -> None:
    def make(count: int) -> None:
        index = list_ids((f"train/part-{k // 1000:04d}/{k:012d}.jpg" for k in range(count)), {"skipped": {}})
        assert (
            len(index) == count and index.id(count - 1) == f"train/part-{(count - 1) // 1000:04d}/{count - 1:012d}.jpg"
        )

    assert peak_of(lambda: make(40_000)) < 500_000  # the strings alone take 3.6 MB


def test_a_cached_index_is_not_read_into_memory() -> None:
    def make(count: int) -> None:
        index = index_by_id(((f"{k:012d}.jpg", [k, k]) for k in range(count)), {"skipped": {}}, made_of=count)
        assert len(index) == count and index.value(f"{count - 1:012d}.jpg") == [count - 1, count - 1]

    make(20_000)
    assert peak_of(lambda: make(20_000)) < 100_000  # the strings alone take 1.3 MB


def test_a_process_that_only_loads_images_never_lists_them(tmp_path: Path) -> None:
    sources = write_everything(tmp_path)
    for uri in ("folder:{}/photos", "rgbd:{}/frames?layout=nyu", "dataset:{}/table"):
        source = open_source(uri.format(tmp_path))
        source.load(sources[uri])
        assert not {"index", "_rows"} & set(vars(source))


def test_large_remote_listings_are_removed_from_the_cache_of_fsspec(monkeypatch: pytest.MonkeyPatch) -> None:
    store, forgotten = fsspec.filesystem("memory"), list[str]()
    for name in ("a/1", "a/2", "b/1"):
        store.pipe(f"/cached/{name}.jpg", b"")
    monkeypatch.setattr("ssrl_core.sources.store._MANY", 1)
    monkeypatch.setattr(type(store), "invalidate_cache", lambda self, path: forgotten.append(path))
    assert len(list(Store("/cached", store).files(Counter()))) == 3
    assert forgotten == ["/cached/a", "/cached"]


def test_files_are_listed_in_the_order_of_their_paths(tmp_path: Path) -> None:
    names = ["a.jpg", "a/b.jpg", "a/b/c.jpg", "a-b.jpg", "a0.jpg", "ab/x.jpg", "A.jpg", "é/1.jpg", "é.jpg", "z/y/x.jpg"]
    for name in names:
        put(tmp_path / name, b"")
    assert list(Store(str(tmp_path)).files(Counter())) == sorted(names)
    fsspec.filesystem("memory").put(str(tmp_path), "/ordered", recursive=True)
    located = locate("folder:memory://ordered", "folder")
    assert located and list(located.store.files(Counter())) == sorted(names)


class Counted:
    """A source that counts how often it is asked for an id."""

    has_depth = False
    asked = 0

    def __len__(self) -> int:
        return 4000

    def image_id(self, position: int) -> str:
        self.asked += 1
        return f"{position:05d}.jpg"


def test_an_image_is_held_out_by_the_hash_of_its_id_computed_once() -> None:
    source: Any = Counted()
    splits = [Split(source, part, fraction=0.1) for _ in range(5) for part in ("train", "heldout")]
    assert source.asked == 4000
    heldout = {f"{k:05d}.jpg" for k in range(4000) if stable_hash(f"{k:05d}.jpg") < 0.1 * 2**64}
    rng = np.random.default_rng(0)
    assert {splits[1].draw(rng) for _ in range(20_000)} == heldout and splits[1].count == len(heldout)
    assert not {splits[0].draw(rng) for _ in range(20_000)} & heldout


def test_a_source_without_images_has_no_split(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(SSRLError, match="no image among"):
        Split(open_source(f"folder:{tmp_path}/empty"), "train", fraction=0.1)
    shutil.rmtree(tmp_path / "empty")
