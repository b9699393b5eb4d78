"""Inputs as people have them: kinds of files, orders, units, layouts of tables. Read, or refused with a true reason."""

from __future__ import annotations

import base64
import csv
import gzip
import io
import json
import logging
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from ssrl_core.errors import SourceError, SourceRejected
from ssrl_core.sources import base as base_module
from ssrl_core.sources import open_source
from ssrl_core.sources.depth import NO_CAMERA, read_depth, read_intrinsics, read_intrinsics_file
from ssrl_core.types import ImageSource, Intrinsics

h5py = pytest.importorskip("h5py")
pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

HEIGHT, WIDTH = 72, 96
Y, X = np.mgrid[0:HEIGHT, 0:WIDTH]
PICTURE = np.stack([X * 2, Y * 3, (X + Y) % 256], axis=2).astype(np.uint8)
METRES = (1 + X / 100 + Y / 50).astype(np.float32)
MILLIMETRES = (METRES * 1000).round().astype(np.uint16)
VALID = (X // 8 + Y // 8) % 2 > 0


@pytest.fixture(autouse=True)
def fresh(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("SSRL_CACHE", str(tmp_path_factory.mktemp("cache")))
    open_source.cache_clear()
    base_module._seen.clear()
    yield


def image_file(array: np.ndarray | Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    image = array if isinstance(array, Image.Image) else Image.fromarray(array)
    image.save(file, kind, **options)
    return file.getvalue()


def npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def npz(**arrays: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)
    return file.getvalue()


def hdf5(**arrays: np.ndarray) -> bytes:
    file = io.BytesIO()
    with h5py.File(file, "w") as opened:
        for name, array in arrays.items():
            opened[name] = array
    return file.getvalue()


def depth_of(depth: bytes | np.ndarray, *, mask: bytes | None = None, scale: float | None = None) -> np.ndarray:
    return read_depth(depth, mask=mask, scale=scale, size=(WIDTH, HEIGHT))


def reason(depth: bytes | np.ndarray, **options: Any) -> str:
    with pytest.raises(SourceRejected) as caught:
        depth_of(depth, **options)
    return caught.value.reason


def put(path: Path, content: bytes | str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def reason_of(source: ImageSource, image_id: str) -> str:
    with pytest.raises(SourceRejected) as caught:
        source.load(image_id)
    return caught.value.reason


# images, depth, masks ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_with_depth_are_as_stored_whatever_the_orientation_tag_of_a_tiff(
    tmp_path: Path, orientation: int
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    put(tmp_path / "color/0.tif", image_file(PICTURE, "TIFF", exif=exif))
    put(tmp_path / "depth/0.tif", image_file(MILLIMETRES, "TIFF", exif=exif))
    put(tmp_path / "mask/0.tif", image_file(VALID, "TIFF", exif=exif))
    image = open_source(f"rgbd:{tmp_path}?color=color/*.tif&depth=depth/*.tif&mask=mask/*.tif").load("0")
    assert np.array_equal(image.rgb, PICTURE)
    assert np.allclose(image.depth[VALID], METRES[VALID], atol=1e-3) and np.isnan(image.depth[~VALID]).all()
    upright = open_source(f"folder:{tmp_path}/color").load("0.tif").rgb
    assert upright.shape[:2] == ((WIDTH, HEIGHT) if orientation > 4 else (HEIGHT, WIDTH))
    assert np.array_equal(upright, PICTURE) == (orientation == 1)


FLOATS = {
    "npy": npy(METRES),
    "npy64": npy(METRES.astype(np.float64)),
    "npyF": npy(np.asfortranarray(METRES)),
    "npy>": npy(METRES.astype(">f4")),
    "tiff": image_file(METRES, "TIFF"),
    "npz": npz(depth=METRES, other=METRES),
    "npz of one": npz(arr_0=METRES),
    "hdf5": hdf5(depth=METRES, other=METRES),
    "hdf5 of one": hdf5(dataset=METRES),
    "1 x H x W": npy(METRES[None]),
    "H x W x 1": npy(METRES[..., None]),
}


@pytest.mark.parametrize("kind", FLOATS)
def test_a_scale_applies_to_floats_too_and_only_if_it_is_given(kind: str) -> None:
    assert np.array_equal(depth_of(FLOATS[kind]), METRES)
    assert np.allclose(depth_of(FLOATS[kind], scale=0.001), METRES / 1000)
    assert np.allclose(depth_of(npy(MILLIMETRES)), METRES, atol=1e-3)
    assert np.allclose(depth_of(npy(MILLIMETRES), scale=1), METRES * 1000, atol=1)


MASKS = {
    "1 bit": image_file(VALID),
    "8 bits": image_file(VALID.astype(np.uint8)),
    "16 bits": image_file(VALID.astype(np.uint16) * 65535),
    "palette": image_file(Image.fromarray(VALID.astype(np.uint8) * 255).convert("P")),
    "colours": image_file(np.stack([VALID * 0, VALID * 0, VALID], axis=2).astype(np.uint8)),
    "TIFF of floats": image_file(VALID.astype(np.float32), "TIFF"),
    "npy of bool": npy(VALID),
    "npy of H x W x 1": npy(VALID[..., None].astype(np.int64)),
    "npz": npz(mask=VALID, depth=METRES),
    "hdf5": hdf5(anything=VALID),
}


@pytest.mark.parametrize("kind", MASKS)
def test_a_mask_may_be_of_any_kind_in_which_0_is_invalid(kind: str) -> None:
    depth = depth_of(npy(METRES), mask=MASKS[kind])
    assert np.array_equal(np.isnan(depth), ~VALID) and np.array_equal(depth[VALID], METRES[VALID])


@pytest.mark.parametrize(
    ("mask", "why"),
    [
        (b"no image", "unreadable mask"),
        (npy(VALID)[:-5], "unreadable mask"),
        (image_file(Image.fromarray(PICTURE).convert("RGBA")), "mask has transparency"),
        (npy(PICTURE), "mask is not single-channel"),
        (npz(a=VALID, b=VALID), "npz file without 'mask'"),
        (npy(VALID[:, :-1]), "depth and mask differ in size"),
        (npy(VALID * 0), "no valid depth"),
    ],
)
def test_a_mask_that_cannot_be_used_is_the_reason(mask: bytes, why: str) -> None:
    assert reason(npy(METRES), mask=mask) == why


@pytest.mark.parametrize(
    ("depth", "why"),
    [
        (npz(near=METRES, far=METRES), "npz file without 'depth'"),
        (hdf5(near=METRES, far=METRES), "HDF5 file without 'depth'"),
        (hdf5(**{"group/depth": METRES}), "HDF5 file without 'depth'"),
        (npz(depth=METRES)[:-30], "unreadable depth"),
        (npy(METRES.ravel()), "depth is no array of H x W"),
        (npy(np.zeros((0, 4))), "depth is no array of H x W"),
        (npy(METRES + 1j), "depth is no array of numbers"),
        (npy(VALID), "depth is no array of numbers"),
        (npy(METRES.astype("U5")), "depth is no array of numbers"),
        (np.array([[None, 1.0]]), "depth is no array of numbers"),
        (image_file(PICTURE), "depth is not single-channel"),
        (image_file(VALID), "depth of few values"),
        (
            image_file(METRES, "TIFF", save_all=True, append_images=[Image.fromarray(METRES)]),
            "depth has several frames",
        ),
        (image_file(Image.fromarray(PICTURE).convert("P")), "depth of few values"),
        (image_file(Image.fromarray(PICTURE).convert("LA")), "depth has transparency"),
        (image_file((METRES * 50).astype(np.uint8)), "depth of 8 bits needs a scale"),
        (b"\x76\x2f\x31\x01" + b"\0" * 99, "unreadable depth: OpenEXR file"),
        (b"Pf\n96 72\n-1.0\n" + METRES.tobytes(), "unreadable depth: PFM file"),
        (b"P5 96 72 65535\n" + MILLIMETRES.tobytes(), "unreadable depth: PNM file"),
        (b"MATLAB 5.0 MAT-file", "unreadable depth: HDF5 or MATLAB file"),
        (gzip.compress(npy(METRES), mtime=0), "unreadable depth: compressed file"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "unreadable depth: Git LFS pointer file"),
        (b"<!DOCTYPE html><html>404", "unreadable depth: HTML or SVG file"),
    ],
)
def test_depth_that_is_not_read_has_a_reason_that_is_true(depth: bytes | np.ndarray, why: str) -> None:
    assert reason(depth) == why


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1", "HEIC"),
        (b"\0\0\0\x1cftypavif", "AVIF"),
        (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000"),
        (npy(PICTURE), "NumPy or zip"),
        (b"\n<?xml version='1.0'?><svg/>", "HTML or SVG"),
    ],
)
def test_an_image_of_another_kind_is_refused_by_its_name(tmp_path: Path, content: bytes, kind: str) -> None:
    put(tmp_path / "a.jpg", content)
    assert reason_of(open_source(f"folder:{tmp_path}"), "a.jpg") == f"unreadable image: {kind} file"


def with_everything(folder: Path) -> None:
    """The same picture with depth for every kind of source."""
    put(folder / "rgb/0.png", image_file(PICTURE))
    put(folder / "depth/0.npy", npy(METRES))
    put(folder / "m.csv", "image,depth\nrgb/0.png,depth/0.npy\n")
    put(folder / "color.csv", "image\nrgb/0.png\n")
    with tarfile.open(folder / "a.tar", "w") as archive:
        archive.add(folder / "rgb/0.png", "0.png")
        archive.add(folder / "depth/0.npy", "0.depth.npy")
    rows = {"image": [image_file(PICTURE)], "depth": [npy(METRES)], "rows": [METRES.tolist()]}
    pq.write_table(pa.table(rows), folder / "t.parquet")


@pytest.mark.parametrize(
    "uri",
    [
        "rgbd:{}?color=rgb/*.png&depth=depth/*.npy",
        "rgbd:{0}?color={0}/rgb/*.png&depth=./depth/*.npy",
        "manifest:{}/m.csv?",
        "webdataset:{}?depth=.Depth.NPY",
        "dataset:{}?depth=depth",
        "dataset:{}?depth=rows",
    ],
)
def test_every_source_applies_a_scale_to_floats(tmp_path: Path, uri: str) -> None:
    with_everything(tmp_path)
    for scale, factor in (("", 1), ("&scale=100", 0.01), ("&scale=0.01", 0.01), ("&scale=1", 1)):
        source = open_source(uri.format(tmp_path) + scale)
        depth = source.load(source.image_id(0)).depth
        assert np.allclose(depth, METRES * factor, rtol=1e-6), scale


@pytest.mark.parametrize(
    ("uri", "complaint"),
    [
        ("webdataset:{}?scale=1000", "scale has no effect, because the source has no depth"),
        ("dataset:{}?scale=1000", "scale has no effect, because the source has no depth"),
        ("manifest:{}/color.csv?scale=1000", "scale has no effect, because the source has no depth"),
        ("webdataset:{}?mask=png", "the option mask needs the option depth"),
        ("webdataset:{}/a.tar?files=b*.tar", "files has no effect, because the URI names a file"),
        ("dataset:{}/t.parquet?files=u*", "files has no effect, because the URI names a file"),
        ("rgbd:{}?color=rgb/*.png&depth=depth/*.npy&mask=masks/*.png", "files matches mask=masks/"),
        ("rgbd:{}?color=rgb/*.png&depth=depth/*.npy&intrinsics=camera/*.txt", "files matches intrinsics=camera/"),
        ("rgbd:{}?color=rgb/*.png&depth=depth/*.npy&scale=", "option 'scale' is empty"),
        ("dataset:{}?image=", "option 'image' is empty"),
    ],
)
def test_an_option_without_effect_is_an_error(tmp_path: Path, uri: str, complaint: str) -> None:
    with_everything(tmp_path)
    with pytest.raises(SourceError, match=complaint):
        len(open_source(uri.format(tmp_path)))


# cameras -----------------------------------------------------------------------------------------------------------

CAMERA = Intrinsics(585, 586.5, 320, 240.25)
MATRIX = [[585, 0, 320], [0, 586.5, 240.25], [0, 0, 1]]
HOMOGENEOUS = [[585, 0, 320, 0], [0, 586.5, 240.25, 0], [0, 0, 1, 0], [0, 0, 0, 1]]


@pytest.mark.parametrize(
    "text",
    [
        "585,586.5,320,240.25",
        "585 586.5 320 240.25\r\n",
        "5.85e2;5.865E2;3.2e+2;240.25",
        MATRIX,
        HOMOGENEOUS,
        HOMOGENEOUS[:3],
        np.ravel(MATRIX),
        np.array(MATRIX),
        str(np.array(MATRIX)),
        str(MATRIX),
        "# fx fy cx cy\n585 586.5 320 240.25",
        "585 1e-9 320\n0 586.5 240.25\n0 0 1.0000001\n",
    ],
)
def test_cameras_in_their_usual_writings(text: Any) -> None:
    camera = read_intrinsics(text)
    assert camera == CAMERA
    if isinstance(text, str):
        for content in (text.encode("utf-8-sig"), text.encode("utf-16"), text.encode().replace(b"\n", b"\r\n")):
            assert read_intrinsics_file(content) == CAMERA


@pytest.mark.parametrize(
    "text",
    [
        np.array(MATRIX).T,  # column by column, as Open3D writes it
        np.array(HOMOGENEOUS).T,
        "206.6 206.6 159.5 119.5 0.26 -0.95 -0.005 0.003 1.16",  # with distortion
        [[585, 2, 320], [0, 586.5, 240.25], [0, 0, 1]],  # skew
        [[-585, 0, 320], [0, -586.5, 240.25], [0, 0, -1]],
        [[585, 0, 320], [0, 586.5, 240.25], [0, 0, 2]],
        np.linalg.inv(np.array(MATRIX)),
        np.eye(4),  # a pose
        [[0.9, 0.1, 0, 3], [-0.1, 0.9, 0, 4], [0, 0, 1, 5], [0, 0, 0, 1]],
        "0.91,1.22,0.5,0.5",  # shares of the image's width and height
        "640 480 585 585 320 240",
        "718.86 0 607.19 45.38 0 718.86 185.22 -0.11 0 0 1 0.004",  # 3 x 4, of a stereo pair
        "585,nan,320,240",
        "585,inf,320,240",
        [[585, 0, float("nan")], [0, 586.5, 240.25], [0, 0, 1]],
        "fx 585 fy 585 cx 320 cy 240",
        "P2: 585 585 320 240",
        '{"fx": 585, "fy": 585, "cx": 320, "cy": 240}',
        {"fx": 585, "fy": 585, "cx": 320, "cy": 240},
        "585,5 586,5 320,0 240,2",  # decimal commas
        "",
        None,
        585.0,
        [[585, 0], [0, 586.5, 320]],
    ],
)
def test_numbers_that_are_no_camera_are_refused_with_what_is_expected(text: Any) -> None:
    with pytest.raises(ValueError, match=r"expected the pixels fx,fy,cx,cy, or the rows of a 3 x 3 matrix"):
        read_intrinsics(text)


def test_a_transposed_camera_is_refused_in_every_source(tmp_path: Path) -> None:
    with_everything(tmp_path)
    transposed = "585 0 0\n0 585 0\n320 240 1"
    put(tmp_path / "k/0.txt", transposed)
    put(tmp_path / "k/1.npy", npy(np.array(MATRIX)))
    pairs = f"rgbd:{tmp_path}?color=rgb/*.png&depth=depth/*.npy"
    with pytest.raises(SourceError, match=r"file 'k/0.txt': expected the pixels(.|\n)*Is it transposed\?"):
        open_source(f"{pairs}&intrinsics=k/0.txt")
    with pytest.raises(SourceError, match=r"file 'k/1.npy': expected the pixels.* in a text file"):
        open_source(f"{pairs}&intrinsics=k/1.npy")
    with pytest.raises(SourceError, match="expected the pixels"):
        open_source(f"webdataset:{tmp_path}?intrinsics=k/0.txt")
    assert reason_of(open_source(f"{pairs}&intrinsics=k/*.txt"), "0") == NO_CAMERA
    assert open_source(f"{pairs}&intrinsics=5.85e2,5.85e2,3.2e2,2.4e2").intrinsics == Intrinsics(585, 585, 320, 240)
    row = {"image": "rgb/0.png", "intrinsics": np.array(MATRIX).T.tolist()}
    put(tmp_path / "m.jsonl", json.dumps(row) + '\n{"image": "depth/0.npy"}')
    assert open_source(f"manifest:{tmp_path}/m.jsonl").skipped == {NO_CAMERA: 1}
    pq.write_table(pa.table({"image": [image_file(PICTURE)], "k": [row["intrinsics"]]}), tmp_path / "t.parquet")
    assert reason_of(open_source(f"dataset:{tmp_path}?intrinsics=k"), "t.parquet#0") == NO_CAMERA


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("&intrinsics=50,50,48,36", ""),
        ("&intrinsics=1170,1170,648,484", "cx=648.0, cy=484.0) is unusual for 96 x 72 pixels"),
        ("&intrinsics=48,36,50,50", "its centre is not in the middle, or fx is not fy"),
        ("&intrinsics=50,38,50,36", "its centre is not in the middle, or fx is not fy"),
        ("&intrinsics=25,25,24,18", "its centre is not in the middle, or fx is not fy"),
        ("&intrinsics=[60,55,40,40]", ""),
        ("&scale=0.001", "its depth is from 0.001 to 0.00337 m. The scale may be wrong"),
        ("&units=mm", "its depth is from 1000 to 3370 m. The scale may be wrong"),
    ],
)
def test_units_that_cannot_be_right_are_reported_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, options: str, message: str
) -> None:
    with_everything(tmp_path)
    if options == "&units=mm":
        put(tmp_path / "depth/0.npy", npy(METRES * 1000))
        options = ""
    with caplog.at_level(logging.WARNING):
        source = open_source(f"rgbd:{tmp_path}?color=rgb/*.png&depth=depth/*.npy{options}")
        for _ in range(2):
            source.load("0")
    assert len(caplog.messages) == bool(message)
    assert all(message in text and "Later images are not looked at" in text for text in caplog.messages)


# tables, tars, manifests -------------------------------------------------------------------------------------------

JPEG = image_file(PICTURE, "JPEG")
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"
TEXT = base64.b64encode(JPEG).decode()


def cells(folder: Path) -> dict[str, list[Any]]:
    """Cells that contain the picture in different ways."""
    return {
        "bytes": [JPEG],
        "record": [{"bytes": JPEG, "path": None}],
        "list of one record": [[{"bytes": JPEG, "path": None}]],
        "list of one": [[JPEG]],
        "path": ["a/0.jpg"],
        "dotted path": ["./a/../a//0.jpg"],
        "list of one path": [["a/0.jpg"]],
        "absolute path": [str(folder / "a/0.jpg")],
        "record of an absolute path": [{"bytes": None, "path": str(folder / "a/0.jpg")}],
        "path through a link": [str(folder.parent / "link/a/0.jpg")],
        "path through a link inside": [str(folder / "inside/0.jpg")],
        "address": [f"file://{folder}/a/0.jpg"],
        "base64": [TEXT],
        "base64 in lines": ["\n".join(TEXT[k : k + 76] for k in range(0, len(TEXT), 76))],
        "data URI": [f"data:image/jpeg;base64,{TEXT}"],
    }


@pytest.mark.parametrize("kind", cells(Path("/")))
@pytest.mark.parametrize("name", ["t.parquet", "T.PARQUET"])
def test_a_cell_may_contain_an_image_in_any_usual_way(tmp_path: Path, kind: str, name: str) -> None:
    folder = tmp_path / "data"
    put(folder / "a/0.jpg", JPEG)
    os.symlink(folder, tmp_path / "link")
    put(tmp_path / "big/0.jpg", JPEG)
    os.symlink(tmp_path / "big", folder / "inside")
    pq.write_table(pa.table({"the.image": cells(folder)[kind]}), folder / name)
    source = open_source(f"dataset:{folder}?image=the.image")
    assert np.array_equal(source.load(f"{name}#0").rgb, np.array(Image.open(io.BytesIO(JPEG))))
    assert ("a/0.jpg" in source.files()) == ("path" in kind or kind == "address")


@pytest.mark.parametrize(
    ("cell", "why"),
    [
        (None, "cell without image"),
        ([], "cell without image"),
        ([JPEG, JPEG], "cell with a list of several"),
        ({"bytes": None, "path": None}, "cell without image"),
        ("", "not a path"),
        ("/elsewhere/0.jpg", "path not below the folder"),
        ("../0.jpg", "path not below the folder"),
        ("a/../../0.jpg", "path not below the folder"),
        ("https://host/0.jpg", "path not below the folder"),
        ("s3://bucket/0.jpg", "path not below the folder"),
        ("gone/0.jpg", "file missing"),
        (r"a\0.jpg", "file missing: its path has backslashes"),
        (TEXT[: len(TEXT) // 8 * 4], "unreadable image"),
        ("data:image/svg+xml,<svg/>", "not a path"),
        (3, "cell without image"),
        (PICTURE.tolist(), "cell with a list of several"),
    ],
)
def test_a_cell_without_a_usable_image_has_a_true_reason(tmp_path: Path, cell: Any, why: str) -> None:
    put(tmp_path / "a/0.jpg", JPEG)
    pq.write_table(pa.table({"image": [cell]}), tmp_path / "t.parquet")
    assert reason_of(open_source(f"dataset:{tmp_path}"), "t.parquet#0") == why


@pytest.mark.parametrize(
    ("cell", "why"),
    [
        (None, "cell without depth"),
        ([1.0, 2.0], "depth is no array of H x W"),
        ([[1.0, None], [1.0, 2.0]], "depth is no array of numbers"),
        ([[1.0], [1.0, 2.0]], "unreadable depth"),
    ],
)
def test_a_cell_without_usable_depth_has_a_true_reason(tmp_path: Path, cell: Any, why: str) -> None:
    pq.write_table(pa.table({"image": [JPEG], "depth": [cell]}), tmp_path / "t.parquet")
    assert reason_of(open_source(f"dataset:{tmp_path}?depth=depth"), "t.parquet#0") == why


def test_a_table_of_another_format_is_read_or_named(tmp_path: Path) -> None:
    table = pa.table({"image": [JPEG, JPEG]})
    for name, writer in (("data-0.arrow", pa.ipc.new_file), ("data-1.ARROW", pa.ipc.new_stream)):
        with pa.OSFile(str(tmp_path / name), "wb") as file, writer(file, table.schema) as written:
            written.write_table(table)
    put(tmp_path / "a.parquet", POINTER)
    put(tmp_path / "b.parquet", b"nothing")
    source = open_source(f"dataset:{tmp_path}")
    assert source.skipped == {"file not readable": 1, "file not readable: Git LFS pointer file": 1}
    assert [source.load(source.image_id(k)).id for k in range(4)] == [
        *("data-0.arrow#0", "data-0.arrow#1", "data-1.ARROW#0", "data-1.ARROW#1")
    ]


def manifest(folder: Path, content: str | bytes, name: str = "m.csv", *, rgbd: bool = True) -> ImageSource:
    """The source of a manifest beside three pairs of files."""
    for number in range(3):
        put(folder / f"rgb/{number}.png", image_file(PICTURE))
        put(folder / f"z/{number}.npy", npy(METRES))
    put(folder / name, content)
    source = open_source(f"manifest:{folder}/{name}")
    assert source.has_depth == rgbd
    return source


@pytest.mark.parametrize("name", ["m.csv", "m.TSV"])
@pytest.mark.parametrize(
    "content",
    [
        "image, depth\nrgb/0.png, z/0.npy\nrgb/1.png, z/1.npy\n",
        "image ,depth \nrgb/0.png ,z/0.npy \nrgb/1.png,z/1.npy",
        "image;depth\nrgb/0.png;z/0.npy\nrgb/1.png;z/1.npy\n",
        "image\tdepth\nrgb/0.png\tz/0.npy\nrgb/1.png\tz/1.npy\n",
        "\n\nimage,depth\n\nrgb/0.png,z/0.npy\n   \nrgb/1.png,z/1.npy\n\n",
        '\ufeff"image","depth"\r\n"rgb/0.png","z/0.npy"\r\n"rgb/1.png","z/1.npy"\r\n',
        "image,depth\rrgb/0.png,z/0.npy\rrgb/1.png,z/1.npy\r",
        "image,depth,\nrgb/0.png,z/0.npy,\nrgb/1.png,z/1.npy,,\n",
        ",image,depth\n0,rgb/0.png,z/0.npy\n1,rgb/1.png,z/1.npy\n",
        'image,depth,caption\nrgb/0.png,z/0.npy,"a\n\nb"\nrgb/1.png,z/1.npy,\n',
        "image,depth,mask,scale,intrinsics\nrgb/0.png,z/0.npy,NaN,nan,None\nrgb/1.png,z/1.npy,null,,\n",
        "image,depth\n{0}/rgb/0.png,{0}/z/0.npy\n{0}/rgb/1.png,file://{0}/z/1.npy\n",
        "image,depth\nz/../rgb/0.png,z/0.npy\nrgb/1.png,z/1.npy\n",
        'image,depth,scale,intrinsics\nrgb/0.png,z/0.npy,1,"[[50, 0, 48], [0, 50, 36], [0, 0, 1]]"\n'
        "rgb/1.png,z/1.npy,,\n",
    ],
)
def test_a_csv_file_may_be_laid_out_in_any_usual_way(tmp_path: Path, content: str, name: str) -> None:
    text = content.replace("{0}", str(tmp_path))
    source = manifest(tmp_path, text.removeprefix("\ufeff").encode("utf-16") if name == "m.TSV" else text, name)
    assert sorted(source.image_id(k) for k in range(len(source))) == ["rgb/0.png", "rgb/1.png"]
    assert source.skipped == {}
    for number in range(2):
        assert np.array_equal(source.load(f"rgb/{number}.png").depth, METRES)


@pytest.mark.parametrize(
    "lines",
    [
        ['{"image": "rgb/0.png", "depth": "z/0.npy"}', "", "  ", '{"image": "rgb/1.png", "depth": "z/1.npy"}', ""],
        ['{"image": ["rgb/0.png"], "depth": ["z/0.npy"]}', '{"image": ["rgb/1.png"], "depth": "z/1.npy"}'],
        [
            '{"image": "rgb/0.png", "depth": "z/0.npy", "scale": NaN, "mask": NaN, "intrinsics": NaN}',
            '{"image": "rgb/1.png", "depth": "z/1.npy", "scale": null, "mask": null, "intrinsics": ""}',
        ],
    ],
)
def test_a_jsonl_file_may_be_laid_out_in_any_usual_way(tmp_path: Path, lines: list[str]) -> None:
    source = manifest(tmp_path, "\r\n".join(lines), "m.JSONL")
    assert len(source) == 2 and source.skipped == {}
    assert np.array_equal(source.load("rgb/1.png").depth, METRES)


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ('{"image": "rgb/0.png", "depth": NaN}', "line without depth"),
        ('{"image": NaN, "depth": "z/0.npy"}', "line without image"),
        ('{"image": "rgb/0.png", "image": "rgb/1.png", "depth": "z/0.npy"}', "line with a key twice"),
        ('{"image": ["rgb/0.png", "rgb/1.png"], "depth": "z/0.npy"}', "not a path"),
        ('{"image": {"path": "rgb/0.png"}, "depth": "z/0.npy"}', "not a path"),
        ('{"image": 7, "depth": "z/0.npy"}', "not a path"),
        ('{"image": "data:image/png;base64,AAAA", "depth": "z/0.npy"}', "not a path"),
        ('{"image": "/elsewhere/0.png", "depth": "z/0.npy"}', "path not below the folder"),
        ('{"image": "rgb/0.png", "depth": "../z/0.npy"}', "path not below the folder"),
        ('{"image": "https://host/0.png", "depth": "z/0.npy"}', "path not below the folder"),
        ('{"image": "\\ud800.png", "depth": "z/0.npy"}', "name is not Unicode"),
        ('{"image": "rgb/0.png", "depth": "z/0.npy", "scale": 0}', "scale is no positive number"),
        ('{"image": "rgb/0.png", "depth": "z/0.npy", "scale": true}', "scale is no positive number"),
        ('{"image": "rgb/0.png", "depth": "z/0.npy", "scale": Infinity}', "scale is no positive number"),
        ('{"image": "rgb/0.png", "depth": "z/0.npy", "intrinsics": []}', NO_CAMERA),
        ('[{"image": "rgb/0.png", "depth": "z/0.npy"}]', "line not readable"),
        ('"rgb/0.png"', "line not readable"),
        ("{'image': 'rgb/0.png'}", "line not readable"),
    ],
)
def test_a_line_that_is_left_out_has_a_true_reason(tmp_path: Path, line: str, why: str) -> None:
    source = manifest(tmp_path, '{"image": "rgb/2.png", "depth": "z/2.npy"}\n' + line + "\n", "m.jsonl")
    assert len(source) == 1 and source.skipped == {why: 1}


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("image,depth\nrgb/2.png,z/2.npy\nrgb/0,1.png,z/0.npy\n", "line with more cells than columns"),
        ("image,depth\nrgb/2.png,z/2.npy\nrgb/0.png\n", "line without depth"),
        (b"image,depth\nrgb/2.png,z/2.npy\nrgb/\xe9.png,z/0.npy\n", "name is not Unicode"),
    ],
)
def test_a_line_of_a_csv_file_that_is_left_out_has_a_true_reason(
    tmp_path: Path, content: str | bytes, why: str
) -> None:
    source = manifest(tmp_path, content)
    assert len(source) == 1 and source.skipped == {why: 1}


@pytest.mark.parametrize("name", ["m.csv", "m.jsonl"])
@pytest.mark.parametrize("damage", [b"x", b"\x00\xd8", b"\x00\xd8\x00\x00\n\x00"])
def test_damage_in_utf_16_ends(tmp_path: Path, name: str, damage: bytes) -> None:
    lines = {"m.csv": "image\na.png\n", "m.jsonl": '{"image": "a.png"}\n'}
    put(tmp_path / name, b"\xff\xfe" + lines[name].encode("utf-16-le") + damage)
    source = open_source(f"manifest:{tmp_path}/{name}")
    assert source.index.value("a.png") == {} and len(source) + sum(source.skipped.values()) == 2


def test_depth_that_only_later_lines_have_is_not_dropped_in_silence(tmp_path: Path) -> None:
    source = manifest(tmp_path, "image,depth\nrgb/0.png,\nrgb/1.png,z/1.npy\n", rgbd=False)
    assert len(source) == 2 and source.skipped == {"depth not used, because the first line has none": 1}


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("image,depth,image\na,b,c\n", "two columns 'image'"),
        ("image,depth,depth\na,b,c\n", "two columns 'depth'"),
        ("Image,depth\na,b\n", "no column 'image', only"),
        ("image,depth\na,b\n".encode("utf-16-le"), "no column 'image', only"),
        (gzip.compress(b"image\na.png\n", mtime=0), "it is no table: compressed file"),
        (POINTER, "it is no table: Git LFS pointer file"),
        ("", "no column 'image', only"),
        ("\n \n", "no column 'image', only"),
    ],
)
def test_a_csv_file_without_one_column_of_images_is_refused(
    tmp_path: Path, content: str | bytes, complaint: str
) -> None:
    with pytest.raises(SourceError, match=complaint):
        manifest(tmp_path, content)


def tar(path: Path, *members: tuple[str, bytes], kind: bytes = tarfile.REGTYPE, mode: Any = "w") -> Path:
    with tarfile.open(path, mode) as archive:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.type = kind
            if kind == tarfile.LNKTYPE:
                member.linkname = "0.jpg"
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


@pytest.mark.parametrize(
    ("members", "options", "ids"),
    [
        ((("0.JPG", JPEG), ("1.Jpeg", JPEG)), "", ["0", "1"]),
        ((("./0.jpg", JPEG), ("./1.jpg", JPEG)), "", ["./0", "./1"]),
        ((("a.b/0.jpg", JPEG), ("a.c/0.jpg", JPEG)), "", ["a.b/0", "a.c/0"]),
        ((("0.rgb.JPG", JPEG), ("0.x.jpg", JPEG)), "?image=.RGB.jpg", ["0"]),
        ((("0.jpg", JPEG), ("._0.jpg", b"x"), ("0.json", b"{}"), ("1.jpg", JPEG)), "", ["0", "1"]),
    ],
)
def test_names_in_tar_files_may_be_written_in_any_case(
    tmp_path: Path, members: tuple[tuple[str, bytes], ...], options: str, ids: list[str]
) -> None:
    tar(tmp_path / "A.TAR", *members)
    for uri in (f"webdataset:{tmp_path}{options}", f"webdataset:{tmp_path}/A.TAR{options}"):
        source = open_source(uri)
        found = sorted(source.image_id(k) for k in range(len(source)))
        assert found == [f"A.TAR/{name}" for name in ids]
        assert source.load(found[0]).rgb.shape == PICTURE.shape


def test_what_a_tar_file_loses_has_a_true_reason(tmp_path: Path) -> None:
    tar(tmp_path / "a.tar", ("0.jpg", JPEG), ("0.jpg", JPEG), ("img.1.jpg", JPEG), ("img.2.jpg", JPEG), ("2.txt", b""))
    tar(tmp_path / "b.tar", ("3.jpg", b""), kind=tarfile.LNKTYPE)
    put(tmp_path / "c.tar", gzip.compress((tmp_path / "a.tar").read_bytes()))
    put(tmp_path / "d.tar", b"")
    put(tmp_path / "e.tar", POINTER)
    source = open_source(f"webdataset:{tmp_path}")
    assert len(source) == 1
    assert source.skipped == {
        "name twice in a row": 1,
        "no image by its extension: its name has a further dot": 1,
        "no image by its extension": 1,
        "link or special file": 1,
        "tar file not readable to its end": 1,
        "tar file not readable to its end: Git LFS pointer file": 1,
        "tar file not readable to its end: compressed file": 1,
    }


@pytest.mark.parametrize(
    ("suffix", "mode"), [("tar.gz", "w:gz"), ("TGZ", "w:gz"), ("tar.bz2", "w:bz2"), ("tar.xz", "w:xz")]
)
def test_a_compressed_tar_file_is_named_as_such(tmp_path: Path, suffix: str, mode: str) -> None:
    path = tar(tmp_path / f"a.{suffix}", ("0.jpg", JPEG), mode=mode)
    with pytest.raises(SourceError, match="1 skipped: tar file not readable to its end: compressed file"):
        open_source(f"webdataset:{path}")
    with pytest.raises(SourceError, match=r"no tar file \*.tar in .* Compressed ones must be unpacked"):
        open_source(f"webdataset:{tmp_path}")


# anything at all ---------------------------------------------------------------------------------------------------

SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.binary(max_size=20)
PATHS = st.sampled_from(["rgb/0.png", "z/0.npy", "./rgb/0.png", "../x", "/x", "a\\b", "http://x/y", "", " rgb/0.png"])
NUMBERS = st.lists(st.floats() | st.integers(-(10**6), 10**6), max_size=17)


@pytest.fixture(scope="module")
def frames(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("frames")
    with_everything(folder)
    put(folder / "z/0.npy", npy(METRES))
    return folder


def all_of(uri: str) -> None:
    """Open a source and load everything; nothing but an error with a message and rejections may happen."""
    open_source.cache_clear()
    try:
        source = open_source(uri)
        ids = [source.image_id(k) for k in range(len(source))]
    except SourceError as err:
        assert str(err)
        return
    assert len(set(ids)) == len(ids)
    for image_id in ids:
        try:
            image = source.load(image_id)
        except SourceRejected as rejected:
            assert rejected.reason
        else:
            assert image.rgb.dtype == np.uint8 and (image.depth is None or np.isfinite(image.depth).any())
            if image.intrinsics is not None:
                assert np.isfinite([image.intrinsics.fx, image.intrinsics.cy]).all() and image.intrinsics.fx > 0


ROW = st.dictionaries(
    st.sampled_from(["image", "depth", "mask", "scale", "intrinsics", " image", "other"]),
    PATHS | SCALARS.filter(lambda cell: not isinstance(cell, bytes)) | NUMBERS | st.lists(PATHS, max_size=2),
)


@settings(max_examples=40, deadline=None)
@given(st.lists(ROW, max_size=6), st.binary(max_size=30), st.sampled_from([b"", b"", b"\xff\xfe", b"\xfe\xff"]))
def test_any_jsonl_file_is_read_or_refused(frames: Path, rows: list[dict[str, Any]], junk: bytes, mark: bytes) -> None:
    encoding = {b"": "utf-8", b"\xff\xfe": "utf-16-le", b"\xfe\xff": "utf-16-be"}[mark]
    lines = [json.dumps(row).encode(encoding) for row in rows]
    put(frames / "f.jsonl", mark + "\n".encode(encoding).join([*lines, junk]))
    all_of(f"manifest:{frames}/f.jsonl")


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.sampled_from(["image", "depth", "mask", "scale", "intrinsics", " image ", "x", ""]), max_size=5),
    st.lists(st.lists(PATHS | st.text(max_size=12) | st.floats().map(str), max_size=6), max_size=5),
    st.sampled_from(",;\t"),
    st.sampled_from(["\n", "\r\n", "\r"]),
    st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "latin-1"]),
    st.integers(0, 3),
)
def test_any_csv_file_is_read_or_refused(
    frames: Path, header: list[str], rows: list[list[str]], delimiter: str, end: str, encoding: str, cut: int
) -> None:
    file = io.StringIO()
    csv.writer(file, delimiter=delimiter, lineterminator=end).writerows([header, *rows])
    content = file.getvalue().encode(encoding, errors="replace")
    put(frames / "f.csv", content[: len(content) - cut])
    all_of(f"manifest:{frames}/f.csv")


@settings(max_examples=100, deadline=None)
@given(NUMBERS.map(lambda numbers: " ".join(map(str, numbers))).map(str.encode) | st.binary(max_size=60))
def test_any_camera_file_is_read_or_refused(content: bytes) -> None:
    try:
        camera = read_intrinsics_file(content)
    except ValueError as err:
        assert str(err).startswith("expected the pixels fx,fy,cx,cy")
    else:
        assert min(camera.fx, camera.fy) >= 10 and np.isfinite([camera.fx, camera.fy, camera.cx, camera.cy]).all()


@settings(max_examples=40, deadline=None)
@given(
    st.lists(PATHS | st.none() | st.just(TEXT), max_size=4)
    | st.lists(st.just(JPEG) | st.binary(max_size=20) | st.none(), max_size=4)
    | st.lists(st.lists(PATHS, max_size=2), max_size=4)
    | st.lists(st.lists(st.lists(st.floats(width=32), max_size=3), max_size=3), max_size=3)
    | st.lists(st.floats() | st.none(), max_size=3),
    st.sampled_from(["", "&depth=image&scale=2", "&intrinsics=image"]),
)
def test_any_column_of_a_table_is_read_or_refused(frames: Path, column: list[Any], options: str) -> None:
    pq.write_table(pa.table({"image": column}), frames / "f.parquet")
    all_of(f"dataset:{frames}/f.parquet?image=image{options}")
