"""The sources folder: and rgbd:, decoding of damaged files, the split, and the working size."""

from __future__ import annotations

import io
import os
import pickle
import shutil
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps
from ssrl_source_rooms import ssrl_open_source as open_synthetic

from ssrl_core.errors import SourceError, SourceRejected
from ssrl_core.seeding import stable_hash
from ssrl_core.sources import Split, load_image, open_source, resolve_uri, to_working_size
from ssrl_core.sources import images as imageio
from ssrl_core.sources.folder import ssrl_open_source as open_folder
from ssrl_core.sources.rgbd import ssrl_open_source as open_rgbd
from ssrl_core.types import ImageSource, Intrinsics, SourceImage

KINECT = Path(__file__).parents[2] / "shared" / "data" / "rgbd_kinect"
pytestmark = [
    # Pillow warns before it refuses an image.
    pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning:PIL"),
]
needs_kinect = pytest.mark.skipif(not KINECT.is_dir(), reason=f"needs the Kinect frames in {KINECT}")


def picture(width: int = 96, height: int = 72) -> np.ndarray:
    """A colour gradient, different in every quarter."""
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([x * 255 // width, y * 255 // height, (x + y) * 255 // (width + height)], axis=2).astype(np.uint8)


def jpeg(rgb: np.ndarray, **options: object) -> bytes:
    """The bytes of a JPEG file."""
    file = io.BytesIO()
    Image.fromarray(rgb).save(file, "JPEG", quality=95, **options)
    return file.getvalue()


def load_one(folder: Path) -> SourceImage:
    """The only image of a folder source."""
    source = open_folder(f"folder:{folder}")
    assert source is not None and len(source) == 1
    return source.load(source.image_id(0))


def reason_for(folder: Path) -> str:
    """The reason for which the only image of a folder is rejected."""
    with pytest.raises(SourceRejected) as caught:
        load_one(folder)
    return caught.value.reason


# folder ----------------------------------------------------------------------------------------------------------


def test_a_folder_is_listed_recursively_and_sorted_by_relative_path(tmp_path: Path) -> None:
    for name in ("b.JPG", "a/z.png", "a/é ü.jpeg", "a/b c/100% wool.webp", "x.TIFF", "y.bmp"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture()).save(tmp_path / name, {"jpg": "JPEG"}.get(name.rpartition(".")[2].lower()))
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / "png").write_text("no extension")
    (tmp_path / "._b.JPG").write_bytes(b"metadata of a file manager")
    source = open_folder(f"folder:{tmp_path}")
    ids = [source.image_id(k) for k in range(len(source))]
    assert ids == sorted(["b.JPG", "a/z.png", "a/é ü.jpeg", "a/b c/100% wool.webp", "x.TIFF", "y.bmp"])
    assert source.skipped == {"other extension": 2, "hidden": 1}
    for image_id in ids:
        image = source.load(image_id)
        assert image.id == image_id and image.rgb.shape == (72, 96, 3) and image.rgb.dtype == np.uint8
        assert np.abs(image.rgb.astype(int) - picture()).mean() < 6, image_id
    assert not source.has_depth and len(source) == 6


def test_real_photographs_open_through_the_entry_point() -> None:
    data = pytest.importorskip("skimage.data")
    folder = Path(data.__file__).parent
    source = open_source(f"folder:{folder}")
    by_name = {source.image_id(k): k for k in range(len(source))}
    name = next(n for n in by_name if n.endswith("astronaut.png"))
    assert np.array_equal(source.load(name).rgb, data.astronaut())


def test_links_to_folders_are_followed_once(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "a.jpg").write_bytes(jpeg(picture()))
    (tmp_path / "real" / "loop").symlink_to(tmp_path, target_is_directory=True)
    source = open_folder(f"folder:{tmp_path}")
    assert [source.image_id(k) for k in range(len(source))] == ["real/a.jpg"]


@pytest.mark.parametrize("written", ["my photos", "my%20photos"])
def test_spaces_in_paths_may_be_percent_encoded(tmp_path: Path, written: str) -> None:
    (tmp_path / "my photos").mkdir()
    (tmp_path / "my photos" / "a.jpg").write_bytes(jpeg(picture()))
    assert len(open_folder(f"folder:{tmp_path}/{written}")) == 1


def test_an_existing_name_with_a_percent_sign_is_not_decoded(tmp_path: Path) -> None:
    (tmp_path / "50%20off").mkdir()
    (tmp_path / "50%20off" / "a.jpg").write_bytes(jpeg(picture()))
    assert len(open_folder(f"folder:{tmp_path}/50%20off")) == 1


def test_the_error_for_a_missing_path_names_the_part_that_exists(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"no folder .*nope.*\n.*exists and has no 'nope'"):
        open_folder(f"folder:{tmp_path}/nope/deeper")


def test_the_error_for_a_file_names_the_folder_that_contains_it(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(jpeg(picture()))
    with pytest.raises(SourceError, match="is a file, not a folder") as caught:
        open_folder(f"folder:{tmp_path}/a.jpg")
    assert str(tmp_path) in str(caught.value)


def test_the_error_for_a_folder_without_images_lists_the_extensions(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("text")
    with pytest.raises(SourceError, match=r"no image among the 1 files below(.|\n)*\*\.jpeg"):
        len(open_folder(f"folder:{tmp_path}"))


@pytest.mark.parametrize(
    "uri", ["folder:", "folder:/tmp?recursive=1", "folder:/a\0", "folder:/%00", "folder:~nobody-here/x"]
)
def test_unusable_folder_uris_are_source_errors(uri: str, tmp_path: Path) -> None:
    for written in (uri, resolve_uri(uri, base=tmp_path)):
        with pytest.raises(SourceError):
            open_folder(written)


def test_a_source_returns_none_for_another_scheme() -> None:
    assert open_folder("rgbd:/tmp") is open_rgbd("folder:/tmp") is open_synthetic("folder:/tmp") is None


@pytest.mark.parametrize("image_id", ["../secret.jpg", "/etc/passwd", "a/../../secret.jpg", "gone.jpg", "a.jpg/b.jpg"])
def test_ids_cannot_leave_the_folder(tmp_path: Path, image_id: str) -> None:
    (tmp_path / "secret.jpg").write_bytes(jpeg(picture()))
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").write_bytes(jpeg(picture()))
    with pytest.raises(SourceRejected, match="file missing"):
        open_folder(f"folder:{tmp_path}/photos").load(image_id)


def test_a_file_deleted_after_listing_is_rejected(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(jpeg(picture()))
    source = open_folder(f"folder:{tmp_path}")
    (tmp_path / "a.jpg").unlink()
    with pytest.raises(SourceRejected, match="file missing"):
        source.load("a.jpg")


@pytest.mark.skipif(sys.platform == "darwin", reason="file names are always Unicode there")
def test_names_that_are_not_unicode_are_skipped_and_counted(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(jpeg(picture()))
    with open(os.fsencode(tmp_path) + b"/\xff\xfe.jpg", "wb") as file:
        file.write(jpeg(picture()))
    source = open_folder(f"folder:{tmp_path}")
    assert len(source) == 1 and source.skipped == {"name is not Unicode": 1}


# decoding --------------------------------------------------------------------------------------------------------


def test_exif_rotation_is_applied(tmp_path: Path) -> None:
    upright = picture(96, 72)
    for orientation, stored in (
        (1, upright),
        (3, upright[::-1, ::-1]),
        (6, np.rot90(upright, 1)),
        (8, np.rot90(upright, -1)),
    ):
        exif = Image.Exif()
        exif[0x0112] = orientation
        (tmp_path / "a.jpg").write_bytes(jpeg(np.ascontiguousarray(stored), exif=exif))
        rgb = load_one(tmp_path).rgb
        assert rgb.shape == (72, 96, 3)
        assert np.abs(rgb.astype(int) - upright).mean() < 4, orientation


def test_damaged_exif_data_leave_the_image_as_stored(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(jpeg(picture(), exif=b"Exif\0\0II*\0\xff\xff\xff\xffgarbage"))
    assert load_one(tmp_path).rgb.shape == (72, 96, 3)


def test_transparent_pixels_are_blended_with_white(tmp_path: Path) -> None:
    alpha = np.zeros((72, 96), np.uint8)
    alpha[:36] = 255
    rgba = np.dstack([picture(), alpha])
    for name, image in (
        ("RGBA", Image.fromarray(rgba)),
        ("LA", Image.fromarray(rgba).convert("LA")),
        ("P", Image.fromarray(picture()).convert("P", palette=Image.Palette.ADAPTIVE)),
    ):
        if name == "P":
            image.info["transparency"] = image.getpixel((95, 71))
        image.save(tmp_path / "a.png", **({"transparency": image.info["transparency"]} if name == "P" else {}))
        rgb = load_one(tmp_path).rgb
        assert (rgb[-1, -1] == 255).all(), name
        seen, meant = (np.array(Image.fromarray(pixels).convert("L"), int)[:30] for pixels in (rgb, picture()))
        assert np.abs(seen - meant).mean() < 4, name


@pytest.mark.parametrize("mode", ["1", "L", "P", "CMYK", "YCbCr", "LAB"])
def test_every_common_mode_becomes_rgb(tmp_path: Path, mode: str) -> None:
    grey = picture().mean(axis=2).astype(np.uint8)
    image = Image.fromarray(picture())
    if mode == "LAB":
        image = Image.merge("LAB", (Image.fromarray(grey), *[Image.new("L", (96, 72), 128)] * 2))
    else:
        image = image.convert(mode)
    image.save(tmp_path / ("a.tif" if mode in ("CMYK", "LAB") else "a.jpg" if mode == "YCbCr" else "a.png"))
    rgb = load_one(tmp_path).rgb
    assert rgb.shape == (72, 96, 3) and rgb.dtype == np.uint8
    if mode != "1":
        assert np.corrcoef(rgb.mean(axis=2).ravel(), grey.ravel())[0, 1] > 0.95


def test_cmyk_jpegs_are_not_inverted(tmp_path: Path) -> None:
    Image.fromarray(picture()).convert("CMYK").save(tmp_path / "a.jpg", quality=95)
    assert np.abs(load_one(tmp_path).rgb.astype(int) - picture()).mean() < 6


@pytest.mark.parametrize(("top", "full"), [(65535, 65535), (4000, 4095), (1000, 1023), (255, 255)])
def test_grey_of_16_bits_is_scaled_by_its_bit_depth(tmp_path: Path, top: int, full: int) -> None:
    ramp = np.tile(np.linspace(0, top, 96).astype(np.uint16), (72, 1))
    for name in ("a.png", "b.tif"):
        folder = tmp_path / name[0]
        folder.mkdir()
        Image.fromarray(ramp).save(folder / name)
        rgb = load_one(folder).rgb
        assert (rgb[..., 0] == rgb[..., 2]).all()
        assert np.abs(rgb[..., 0] - ramp * (255 / full)).max() <= 0.51


def test_grey_of_floats_is_scaled_by_its_range(tmp_path: Path) -> None:
    Image.fromarray(np.tile(np.linspace(-5, 20, 96, dtype=np.float32), (72, 1))).save(tmp_path / "a.tif")
    rgb = load_one(tmp_path).rgb
    assert rgb.min() == 0 and rgb.max() == 255


def test_a_decompression_bomb_is_refused_by_its_header(tmp_path: Path) -> None:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    for side in (10_001, 13_000, 60_000):  # above our limit; Pillow warns; Pillow raises
        header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
        bomb = (
            b"\x89PNG\r\n\x1a\n"
            + chunk(b"IHDR", header)
            + chunk(b"IDAT", zlib.compress(b"\0" * 10_000))
            + chunk(b"IEND", b"")
        )
        (tmp_path / "a.png").write_bytes(bomb)
        assert reason_for(tmp_path) == "image too large"


def test_truncated_files_are_rejected_at_every_length(tmp_path: Path) -> None:
    for name, options in (
        ("a.jpg", {}),
        ("a.png", {}),
        ("a.webp", {}),
        ("a.bmp", {}),
        ("a.tif", {"compression": "tiff_lzw"}),
    ):
        file = io.BytesIO()
        Image.fromarray(picture()).save(file, Image.registered_extensions()[Path(name).suffix], **options)
        whole = file.getvalue()
        for share in (0.0, 0.02, 0.3, 0.7, 0.9):
            folder = tmp_path / f"{name}{share}"
            folder.mkdir()
            (folder / name).write_bytes(whole[: int(len(whole) * share)])
            assert reason_for(folder) == "unreadable image", (name, share)


def test_no_damage_to_a_file_raises_anything_but_a_rejection(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    for suffix in (".jpg", ".png", ".webp", ".bmp", ".tif"):
        file = io.BytesIO()
        Image.fromarray(picture()).save(file, Image.registered_extensions()[suffix])
        whole = np.frombuffer(file.getvalue(), np.uint8)
        for _ in range(30):
            damaged = whole.copy()
            damaged[rng.integers(min(len(whole), 400), size=6)] = rng.integers(256, size=6)
            path = tmp_path / f"a{suffix}"
            path.write_bytes(damaged.tobytes())
            try:
                rgb, _ = imageio.read_rgb(path.read_bytes())
                assert rgb.ndim == 3 and rgb.dtype == np.uint8
            except SourceRejected as rejected:
                assert rejected.reason in ("unreadable image", "image too large")


@pytest.mark.parametrize(
    "content", [b"", b"GIF89a", b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"%!PS-Adobe-3.0 EPSF-3.0\n", b"\0" * 999]
)
def test_content_that_is_not_an_image_is_rejected(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.jpg").write_bytes(content)
    assert reason_for(tmp_path).startswith("unreadable image")


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_jpeg_is_decoded_at_its_full_size_and_turned_upright(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    (tmp_path / "a.jpg").write_bytes(jpeg(picture(1600, 900), exif=exif))
    rgb = load_one(tmp_path).rgb
    assert rgb.shape == ((1600, 900, 3) if orientation > 4 else (900, 1600, 3))
    assert np.array_equal(rgb, np.asarray(ImageOps.exif_transpose(Image.open(tmp_path / "a.jpg"))))


@pytest.mark.parametrize("fault", [b"", b"trailer"], ids=["whole", "decoded by Pillow"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_large_jpeg_is_decoded_at_the_smallest_size_with_two_pixels_for_each_that_is_needed(
    tmp_path: Path, orientation: int, fault: bytes
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    (tmp_path / "a.jpg").write_bytes(jpeg(picture(1602, 901), exif=exif) + fault)
    stored = np.asarray(Image.open(tmp_path / "a.jpg"))
    source = open_source(f"folder:{tmp_path}")
    for size, divisor in ((369, 1), (368, 2), (185, 2), (184, 4), (93, 4), (92, 8)):
        rgb = load_image(source, "a.jpg", depth=False, size=size).rgb
        height, width = 901 // divisor, 1602 // divisor
        whole = stored[: height * divisor, : width * divisor]
        small = Image.fromarray(cv2.resize(whole, (width, height), interpolation=cv2.INTER_AREA))
        small.getexif()[0x0112] = orientation
        upright = np.asarray(ImageOps.exif_transpose(small)).astype(int)
        assert rgb.shape == upright.shape and np.abs(rgb - upright).mean() < 1, (size, divisor)


def test_decoding_at_a_smaller_size_rejects_no_image_as_too_small(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(jpeg(picture(1280, 80)))
    image = load_image(open_source(f"folder:{tmp_path}"), "a.jpg", depth=False, size=128)
    assert image.rgb.shape == (80, 1280, 3)


@pytest.mark.parametrize("shape", [(1283, 961), (320, 240)], ids=["depth as large", "smaller depth"])
def test_colour_depth_and_camera_of_a_divided_jpeg_agree(tmp_path: Path, shape: tuple[int, int]) -> None:
    rgb, depth = picture(1283, 961) // 2, np.full((961, 1283), 3000, np.uint16)
    rgb[400:440, 800:840], depth[400:440, 800:840] = (255, 255, 255), 1000
    (tmp_path / "a.color.jpg").write_bytes(jpeg(rgb))
    depth = cv2.resize(depth, shape, interpolation=cv2.INTER_NEAREST_EXACT)
    Image.fromarray(depth).save(tmp_path / "a.depth.png")
    source = open_source(f"rgbd:{tmp_path}?intrinsics=1000,1000,641,480")
    whole, small = source.load("a"), load_image(source, "a", depth=True, size=140)
    assert small.rgb.shape[:2] == small.depth.shape == (240, 320)
    for image in (whole, small):
        k = image.intrinsics
        for y, x in (np.argwhere(image.depth < 2).mean(axis=0), np.argwhere(image.rgb.min(axis=2) > 250).mean(axis=0)):
            ray = (x - k.cx) / k.fx, (y - k.cy) / k.fy
            assert np.allclose(ray, ((819.5 - 641) / 1000, (419.5 - 480) / 1000), atol=2e-3)


def test_a_jpeg_with_a_fault_is_decoded_as_pillow_does(tmp_path: Path) -> None:
    whole = jpeg(picture(640, 480))
    (tmp_path / "a.jpg").write_bytes(whole + b"trailer")
    assert np.array_equal(load_one(tmp_path).rgb, np.asarray(Image.open(io.BytesIO(whole))))
    rng = np.random.default_rng(0)
    for _ in range(40):
        damaged = bytearray(whole)
        for place in rng.integers(700, len(whole) - 2, size=8):
            damaged[place] = rng.integers(256)
        (tmp_path / "a.jpg").write_bytes(damaged)
        try:
            expected = np.asarray(Image.open(io.BytesIO(damaged)).convert("RGB"))
        except OSError:
            assert reason_for(tmp_path) == "unreadable image"
        else:
            assert np.array_equal(load_one(tmp_path).rgb, expected)
    (tmp_path / "a.jpg").write_bytes(whole[:-900])
    assert reason_for(tmp_path) == "unreadable image"


def test_several_threads_decode_the_same(tmp_path: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    for k in range(8):
        (tmp_path / f"{k}.jpg").write_bytes(jpeg(np.roll(picture(), k * 9, axis=1)))
    source = open_folder(f"folder:{tmp_path}")
    ids = [source.image_id(k % 8) for k in range(64)]
    once = {image_id: source.load(image_id).rgb for image_id in set(ids)}
    with ThreadPoolExecutor(8) as pool:
        for image in pool.map(source.load, ids):
            assert np.array_equal(image.rgb, once[image.id])


# rgbd ------------------------------------------------------------------------------------------------------------


def write_pair(
    folder: Path, name: str, depth: np.ndarray, *, color: str = "{}.color.jpg", at: str = "{}.depth.png"
) -> None:
    """A colour image and a depth image of that name."""
    for pattern in (color, at):
        (folder / pattern.format(name)).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture()).save(folder / color.format(name))
    target = folder / at.format(name)
    if target.suffix == ".npy":
        np.save(target, depth)
    else:
        Image.fromarray(depth).save(target)


def millimetres() -> np.ndarray:
    """A ramp from 500 to 4,000 mm, with a hole."""
    depth = np.tile(np.linspace(500, 4000, 96).astype(np.uint16), (72, 1))
    depth[:10, :10] = 0
    return depth


@needs_kinect
def test_the_kinect_folder_opens_with_the_defaults() -> None:
    source = open_source(f"rgbd:{KINECT}")
    assert len(source) == 40 and source.has_depth and source.image_id(1) == "frame-000010"
    image = source.load("frame-000010")
    raw = np.array(Image.open(KINECT / "frame-000010.depth.png"))
    assert image.rgb.shape == (480, 640, 3) and image.depth.dtype == np.float32
    assert np.array_equal(np.isnan(image.depth), (raw == 0) | (raw == 65535))
    assert np.allclose(np.nan_to_num(image.depth), np.where(raw == 65535, 0, raw) / 1000)
    assert image.intrinsics == Intrinsics(fx=585, fy=585, cx=320, cy=240)


@pytest.mark.parametrize(
    ("color", "at"),
    [("{}.color.png", "{}.depth.png"), ("color/{}.jpg", "depth/{}.png"), ("rgb/{}.png", "depth/{}.png"),
     ("{}-color.png", "{}-depth.png"), ("seq-01/{}.color.png", "seq-01/{}.depth.png")],
)  # fmt: skip
def test_common_layouts_need_no_options(tmp_path: Path, color: str, at: str) -> None:
    write_pair(tmp_path, "0001", millimetres(), color=color, at=at)
    source = open_rgbd(f"rgbd:{tmp_path}")
    assert len(source) == 1 and source.image_id(0) in ("0001", "seq-01/0001")
    depth = source.load(source.image_id(0)).depth
    assert np.isnan(depth[:10, :10]).all() and np.isclose(depth[40, -1], 4.0) and source.intrinsics is None


def test_patterns_scale_and_intrinsics_can_be_given(tmp_path: Path) -> None:
    write_pair(tmp_path, "a+b & c", millimetres(), color="im {}.png", at="z {}.png")
    uri = f"rgbd:{tmp_path}?color=im *.png&depth=z%20*.png&scale=0.0002&intrinsics=585,586.5,319.5,239.5"
    source = open_rgbd(uri)
    image = source.load("a+b & c")
    assert np.isclose(image.depth[40, -1], 0.8) and image.intrinsics == Intrinsics(585, 586.5, 319.5, 239.5)


def test_arrays_are_in_metres_and_their_invalid_values_are_nan(tmp_path: Path) -> None:
    depth = np.full((72, 96), 2.5)
    depth[0, :5] = 0, -1, np.inf, np.nan, -np.inf
    write_pair(tmp_path, "x", depth, color="{}_c.png", at="{}_d.npy")
    for scale, metres in (("", 2.5), ("&scale=0.5", 1.25), ("&scale=1000", 0.0025), ("&scale=1", 2.5)):
        loaded = open_rgbd(f"rgbd:{tmp_path}?color=*_c.png&depth=*_d.npy{scale}").load("x").depth
        assert np.isnan(loaded[0, :5]).all() and np.isnan(loaded).sum() == 5
        assert np.allclose(loaded[1:], metres, rtol=1e-6)


def test_files_without_a_partner_are_counted(tmp_path: Path) -> None:
    write_pair(tmp_path, "a", millimetres())
    write_pair(tmp_path, "b", millimetres())
    write_pair(tmp_path, "c", millimetres())
    (tmp_path / "b.depth.png").unlink()
    (tmp_path / "c.color.jpg").unlink()
    source = open_rgbd(f"rgbd:{tmp_path}")
    assert len(source) == 1 and source.skipped == {"colour without depth": 1, "depth without colour": 1}


def test_smaller_depth_is_resized_without_interpolation(tmp_path: Path) -> None:
    small = np.ascontiguousarray(millimetres()[::2, ::2])
    write_pair(tmp_path, "a", small)
    depth = open_rgbd(f"rgbd:{tmp_path}").load("a").depth
    assert depth.shape == (72, 96)
    assert set(np.unique(depth[np.isfinite(depth)])) <= set(np.unique(small * np.float32(0.001)))


@pytest.mark.parametrize(
    ("depth", "reason"),
    [
        (np.full((96, 72), 900, np.uint16), "depth and colour differ in shape"),
        (np.zeros((72, 96), np.uint16), "no valid depth"),
        (picture(), "depth is not single-channel"),
    ],
)
def test_depth_that_does_not_fit_is_rejected(tmp_path: Path, depth: np.ndarray, reason: str) -> None:
    write_pair(tmp_path, "a", depth)
    with pytest.raises(SourceRejected) as caught:
        open_rgbd(f"rgbd:{tmp_path}").load("a")
    assert caught.value.reason == reason


@pytest.mark.parametrize("at", ["{}_d.png", "{}_d.npy"])
def test_damaged_and_missing_depth_is_rejected(tmp_path: Path, at: str) -> None:
    write_pair(tmp_path, "a", millimetres(), color="{}_c.png", at=at)
    source = open_rgbd(f"rgbd:{tmp_path}?color=*_c.png&depth={at.format('*')}")
    file = tmp_path / at.format("a")
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(SourceRejected, match="unreadable depth"):
        source.load("a")
    file.unlink()
    with pytest.raises(SourceRejected, match="file missing"):
        source.load("a")


def test_depth_of_16_bits_is_decoded_as_pillow_does(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    smooth = cv2.GaussianBlur(rng.integers(1, 65535, size=(90, 121)).astype(np.uint16), (9, 9), 0)
    for number, values in enumerate((smooth, rng.integers(65536, size=(48, 64)).astype(np.uint16), smooth.T)):
        file = io.BytesIO()
        Image.fromarray(values).save(file, "png")
        whole = file.getvalue()
        assert np.array_equal(imageio.read_plane(whole), values) and imageio.read_plane(whole).dtype == np.uint16, (
            number
        )
        for _ in range(60):
            damaged = bytearray(whole)
            for place in rng.integers(8, len(whole), size=rng.integers(1, 4)):
                damaged[place] = rng.integers(256)
            try:
                with Image.open(io.BytesIO(damaged)) as image:
                    expected = np.asarray(image)
            except Exception:
                with pytest.raises(SourceRejected):
                    imageio.read_plane(bytes(damaged))
            else:
                if image.mode == "I;16":
                    assert np.array_equal(imageio.read_plane(bytes(damaged)), expected)


class Trap:
    """Makes a folder when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.path),)


def test_an_array_with_pickled_objects_is_never_unpickled(tmp_path: Path) -> None:
    write_pair(tmp_path, "a", millimetres(), color="{}_c.png", at="{}_d.npy")
    source = open_rgbd(f"rgbd:{tmp_path}?color=*_c.png&depth=*_d.npy")
    file = tmp_path / "a_d.npy"
    for write in (
        lambda: np.save(file, np.array([[Trap(tmp_path / "sprung")]], dtype=object), allow_pickle=True),
        lambda: file.write_bytes(pickle.dumps(Trap(tmp_path / "sprung"))),
    ):
        write()
        with pytest.raises(SourceRejected, match="unreadable depth"):
            source.load("a")
        assert not (tmp_path / "sprung").exists()


def test_images_with_depth_ignore_exif_rotation(tmp_path: Path) -> None:
    write_pair(tmp_path, "a", millimetres())
    exif = Image.Exif()
    exif[0x0112] = 6
    (tmp_path / "a.color.jpg").write_bytes(jpeg(picture(), exif=exif))
    image = open_rgbd(f"rgbd:{tmp_path}").load("a")
    assert image.rgb.shape[:2] == image.depth.shape == (72, 96)


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("?colour=*.jpg&depth=*.png", "Did you mean 'color'"),
        ("?color=*.jpg", "both color and depth"),
        ("?color=a.jpg&depth=*.png", r"exactly one \*"),
        ("?color=*/*.jpg&depth=*.png", r"exactly one \*"),
        ("?scale=0", "positive"),
        ("?scale=mm", "positive"),
        ("?scale=1&scale=2", "twice"),
        ("?intrinsics=nope.txt", "nope.txt"),
        ("?intrinsics=1,2,3", "fx,fy,cx,cy"),
        ("?intrinsics=-1,2,3,4", "positive|fx,fy,cx,cy"),
        ("?color=*.tif&depth=*.tif2", r"color=\*\.tif&depth=\*\.tif2"),
    ],
)
def test_bad_rgbd_options_are_source_errors(tmp_path: Path, query: str, message: str) -> None:
    write_pair(tmp_path, "a", millimetres())
    with pytest.raises(SourceError, match=message):
        len(open_rgbd(f"rgbd:{tmp_path}{query}"))


def test_the_error_for_a_folder_without_pairs_lists_the_patterns_tried(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(jpeg(picture()))
    with pytest.raises(SourceError) as caught:
        open_rgbd(f"rgbd:{tmp_path}")
    assert "color=*.color.jpg&depth=*.depth.png" in str(caught.value) and "rgb/*.png" in str(caught.value)


@pytest.mark.parametrize(
    "text", ["500 0 48\n0 510 36\n0 0 1\n", "500 0 48 0\n0 510 36 0\n0 0 1 0\n0 0 0 1\n", "500, 510, 48, 36"]
)
def test_intrinsics_files_contain_a_matrix_or_four_numbers(tmp_path: Path, text: str) -> None:
    write_pair(tmp_path, "a", millimetres())
    (tmp_path / "k.txt").write_text(text)
    assert open_rgbd(f"rgbd:{tmp_path}?intrinsics=k.txt").intrinsics == Intrinsics(500, 510, 48, 36)


# synthetic -------------------------------------------------------------------------------------------------------


def test_synthetic_options_set_size_and_seed() -> None:
    source = open_source("synthetic:?width=128&height=96&seed=3")
    image = source.load("17")
    assert image.rgb.shape == (96, 128, 3) and image.depth.shape == (96, 128) and source.has_depth
    other = open_source("synthetic:?width=128&height=96&seed=4").load("17")
    assert not np.array_equal(image.rgb, other.rgb)
    assert len(source) == 2**31 and source.image_id(5) == "5"


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("synthetic:?widht=320", "Did you mean 'width'"),
        ("synthetic:?width=ten", "whole number"),
        ("synthetic:?width=10", "64 to 2048"),
        ("synthetic:?seed=-1", "whole number"),
        ("synthetic:?seed=", "whole number"),
        ("synthetic:?seed=1&seed=2", "twice"),
        ("synthetic:?width=2048&height=64", "four times"),
        ("synthetic:rooms", "takes no path"),
    ],
)
def test_bad_synthetic_uris_are_source_errors(uri: str, message: str) -> None:
    with pytest.raises(SourceError, match=message):
        open_synthetic(uri)


@pytest.mark.parametrize("image_id", ["", "-1", "07", "1.0", "x", "²", str(2**31), "9" * 40])
def test_synthetic_ids_that_are_not_positions_are_source_errors(image_id: str) -> None:
    with pytest.raises(SourceError, match="whole numbers"):
        open_synthetic("synthetic:").load(image_id)


# in general ------------------------------------------------------------------------------------------------------


def test_sources_import_no_heavy_library() -> None:
    code = (
        "import sys, ssrl_core.sources.folder, ssrl_core.sources.rgbd, ssrl_source_rooms\n"
        "ssrl_source_rooms.ssrl_open_source('synthetic:').load('1')\n"
        "print([m for m in ('torch', 'transformers', 'verl', 'vllm', 'ray', 'skimage', 'scipy') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_a_relative_path_is_relative_to_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").write_bytes(jpeg(picture()))
    monkeypatch.chdir(tmp_path)
    assert len(open_folder("folder:photos")) == 1
    shutil.rmtree(tmp_path / "photos")


class Numbered:
    """A source of ``count`` images that cannot be loaded."""

    has_depth = False

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def image_id(self, position: int) -> str:
        return f"{position:04d}.jpg"

    def load(self, image_id: str) -> SourceImage:
        raise SourceRejected(image_id)


@pytest.mark.parametrize(("count", "fraction"), [(2, 0.1), (3, 0.5), (40, 0.02), (5000, 0.1)])
def test_train_and_heldout_never_share_an_image(count: int, fraction: float) -> None:
    source: ImageSource = Numbered(count)
    drawn = {}
    for part in ("train", "heldout", "validation"):
        split = Split(source, part, fraction=fraction)
        drawn[part] = {split.draw(np.random.default_rng(seed)) for seed in range(400)}
    assert drawn["train"] and drawn["heldout"] and not drawn["train"] & drawn["heldout"]
    assert drawn["validation"] == drawn["heldout"]


def test_the_parts_of_a_source_that_is_not_enumerated_never_share_an_image() -> None:
    source = open_source("synthetic:")
    train, heldout = (Split(source, part, fraction=0.1) for part in ("train", "heldout"))
    rng = np.random.default_rng(0)
    a, b = ({split.draw(rng) for _ in range(3000)} for split in (train, heldout))
    assert len(a) > 2990 and len(b) > 2990 and not a & b
    again = Split(source, "heldout", fraction=0.1)
    # The parts do not depend on the seed: an image for training in one run is not held out in another.
    assert not {again.draw(np.random.default_rng(seed)) for seed in range(3000)} & a


def test_both_parts_together_are_the_whole_source() -> None:
    source = Numbered(300)
    rng = np.random.default_rng(0)
    splits = [Split(source, part, fraction=0.3) for part in ("train", "heldout")]
    drawn = [{split.draw(rng) for _ in range(6000)} for split in splits]
    assert len(drawn[0]) + len(drawn[1]) == 300 and 50 < len(drawn[1]) < 130


@pytest.mark.parametrize(("part", "fraction"), [("heldout", 0.0), ("train", 1.0)])
@pytest.mark.parametrize("count", [10, 2**31])
def test_an_empty_part_is_an_error_and_not_an_endless_loop(part: str, fraction: float, count: int) -> None:
    with pytest.raises(SourceError, match="split"):
        Split(Numbered(count), part, fraction=fraction)


@pytest.mark.parametrize("size", [140, 448, 1024])
def test_resizing_keeps_image_depth_and_intrinsics_consistent(size: int) -> None:
    camera = Intrinsics(fx=500, fy=510, cx=310, cy=236)
    for seed in range(12):
        rng = np.random.default_rng(seed)
        u, v = int(rng.integers(150, 450)), int(rng.integers(120, 350))
        point = np.array([(u - camera.cx) / camera.fx, (v - camera.cy) / camera.fy, 1.0]) * 2.5
        rgb = np.zeros((480, 640, 3), np.uint8)
        rgb[v - 5 : v + 6, u - 5 : u + 6] = 255
        rgb = cv2.GaussianBlur(rgb, (5, 5), 0)  # edges as soft as those of a photograph
        depth = np.tile(np.arange(640, dtype=np.float32) + 1, (480, 1))
        small = to_working_size(SourceImage("a", rgb, depth, camera), size, rng=rng)
        assert max(small.rgb.shape[:2]) == size and small.depth.shape == small.rgb.shape[:2]
        k = small.intrinsics
        projected = k.fx * point[0] / point[2] + k.cx, k.fy * point[1] / point[2] + k.cy
        light = small.rgb[..., 0].astype(float)
        y, x = np.mgrid[0 : light.shape[0], 0 : light.shape[1]]
        assert np.allclose([(x * light).sum() / light.sum(), (y * light).sum() / light.sum()], projected, atol=0.1)
        # Depth is that of the centre of the pixels that colour was averaged over.
        columns = (np.arange(light.shape[1]) - k.cx) / k.fx * camera.fx + camera.cx
        assert np.abs(small.depth[0] - 1 - columns).max() <= 0.5 + 1e-3


def test_images_that_are_too_small_or_too_narrow_are_rejected() -> None:
    rng = np.random.default_rng(0)
    for shape, reason in (((63, 400), "image too small"), ((64, 1281), "image too narrow")):
        with pytest.raises(SourceRejected) as caught:
            to_working_size(SourceImage("a", np.zeros((*shape, 3), np.uint8)), 448, rng=rng)
        assert caught.value.reason == reason


@pytest.mark.parametrize("uri", ["folder", ":x", "", "nope:x"])
def test_uris_without_a_known_scheme_are_errors(uri: str) -> None:
    from ssrl_core.errors import SSRLError

    with pytest.raises(SSRLError):
        open_source(uri)


def test_the_held_out_images_of_an_endless_source_are_those_with_a_low_hash() -> None:
    source, rng = open_source("synthetic:"), np.random.default_rng(0)
    for part in ("train", "validation", "heldout"):
        split = Split(source, part, fraction=0.1)
        low = {stable_hash(split.draw(rng)) < 0.1 * 2**64 for _ in range(50)}
        assert low == {part != "train"}


def test_the_working_size_begins_with_a_random_crop() -> None:
    image = SourceImage("a", np.zeros((480, 640, 3), np.uint8))
    shapes = {to_working_size(image, 448, rng=np.random.default_rng(seed)).rgb.shape for seed in range(20)}
    assert len(shapes) > 1
