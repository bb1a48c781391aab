"""Any folder of videos: what is one, what decides its split, its speed, and what is damaged."""

import json
import tempfile
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from cinnema.core.errors import UserError
from cinnema.data.records import BadRecord, RawClip
from cinnema.data.sources.folder import Folder
from cinnema.media.videos import write_video

Make = Callable[..., Any]


@pytest.fixture
def put(tmp_path: Path, film: Make, write_pictures: Make) -> Make:
    """Write a video; the suffix says how, none makes a folder of frames."""

    def write(place: str, num_frames: int = 18, *, fps: float = 10, seed: int = 0) -> Path:
        path, frames = tmp_path / place, film(num_frames, seed=seed)
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".npz":
            np.savez_compressed(path, clip=frames)
            return path
        if path.suffix:
            return write_video(path, frames, fps=fps)
        folder: Path = write_pictures(path, frames, "{}.png")
        return folder

    return write


def names(source: Folder) -> list[str]:
    return [item.name for item in source.items()]


def counted(clips: Sequence[RawClip]) -> list[int]:
    """The frames' numbers, as their blue tells."""
    blue = np.concatenate([clip.frames[..., 2].mean(axis=(1, 2)) for clip in clips])
    return [int(number) for number in np.round((blue - 10) / 3)]


def test_every_kind_of_video_is_found_however_deep(
    tmp_path: Path, put: Make, clips_of: Make
) -> None:
    places = ["a.mp4", "a.gif", "deep/down/b.webp", "deep/c.npy", "d.npz", "deep/frames"]
    for place in places:
        put(place)
    for other in ("notes.txt", ".hidden.mp4", ".git/x.mp4", "deep/cover.jpg", "d.csv"):
        (tmp_path / other).parent.mkdir(exist_ok=True)
        (tmp_path / other).write_bytes(b"no video")
    source = Folder(tmp_path, size=36)
    assert names(source) == sorted(places)
    clips = clips_of(source)
    assert {clip.name for clip in clips} == {
        "a.mp4/0", "a.gif/0", "deep/down/b.webp/0", "deep/c.npy/0", "d.npz/clip/0",
        "deep/frames/0",
    }  # fmt: skip
    for clip in clips:
        assert clip.source == clip.name.removesuffix("/0").removesuffix("/clip")
        assert clip.frames.shape == (18, 36, 36, 3)
    exact = [clip for clip in clips if clip.name.startswith(("deep/c", "d.npz", "deep/frames"))]
    assert all(counted([clip]) == list(range(18)) for clip in exact)
    rates = {clip.name[:5]: round(clip.fps, 2) for clip in clips}
    assert rates == {
        "a.mp4": 10, "a.gif": 10, "deep/": 25, "d.npz": 25,
    } | {"deep/": rates["deep/"]}  # fmt: skip


def test_generated_videos_beside_others_are_left_out_and_told(tmp_path: Path, put: Make) -> None:
    for name in ("sub/a_edit_00", "sub/a_edit_grid"):
        put(f"{name}.mp4", 2)
    for suffix in (".json", ".nu.safetensors"):
        (tmp_path / f"sub/a_edit_00{suffix}").touch()
    assert names(Folder(tmp_path)) == ["sub/a_edit_00.mp4", "sub/a_edit_grid.mp4"]
    put("a.mp4", 2)
    with pytest.warns(UserWarning, match=r"sub/a_edit_00.mp4, sub/a_edit_grid.mp4 lie beside"):
        assert names(Folder(tmp_path)) == ["a.mp4"]


def test_the_root_itself_may_be_a_folder_of_frames(
    tmp_path: Path, film: Make, write_pictures: Make, clips_of: Make
) -> None:
    write_pictures(tmp_path, film(18), "img_{}.jpg")
    (clip,) = clips_of(Folder(tmp_path))
    assert (clip.name, clip.source, len(clip.frames)) == ("./0", ".", 18)


def test_numbered_pictures_alone_are_a_video_and_that_is_said(tmp_path: Path, put: Make) -> None:
    put("DCIM/frames")
    with pytest.warns(UserWarning, match=r"pictures in frames are read .* if they are photographs"):
        assert [item.name for item in Folder(tmp_path / "DCIM").items()] == ["frames"]
    put("DCIM/a.npy")
    (tmp_path / "DCIM/manifest.json").write_text('[{"path": "a.npy"}]')
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert [item.name for item in Folder(tmp_path / "DCIM").items()] == ["a.npy"]


def test_links_to_folders_are_followed_once(tmp_path: Path, put: Make) -> None:
    put("there/a.npy")
    (tmp_path / "root").mkdir()
    (tmp_path / "root/link").symlink_to(tmp_path / "there")
    (tmp_path / "there/back").symlink_to(tmp_path / "root")
    assert names(Folder(tmp_path / "root")) == ["link/a.npy"]


def test_thumbnails_and_single_pictures_are_no_frames(
    tmp_path: Path, put: Make, film: Make, write_pictures: Make
) -> None:
    for number in (1, 2, 3):
        put(f"clip{number}.npy")
    write_pictures(tmp_path, film(4)[1:], "clip{}.jpg")  # 0 to 2: only 0 is no thumbnail
    write_pictures(tmp_path / "posters", film(1), "poster{}.png")
    write_pictures(tmp_path / "pages", film(3), "poster.png")
    assert names(Folder(tmp_path)) == ["clip1.npy", "clip2.npy", "clip3.npy"]


def test_arrays_that_are_no_clips_are_passed_over(
    tmp_path: Path, film: Make, clips_of: Make, put: Make
) -> None:
    put("frames")
    np.save(tmp_path / "frames/positions.npy", np.zeros((18, 3)))
    np.savez(tmp_path / "labels.npz", a=np.zeros(3), b=film(18).astype(np.float32))
    np.savez(tmp_path / "two.npz", a=film(18), b=film(20), c=np.zeros((2, 2, 2, 4), np.uint8))
    clips = clips_of(Folder(tmp_path))
    assert [clip.name for clip in clips] == ["frames/0", "two.npz/a/0", "two.npz/b/0"]
    assert [clip.source for clip in clips] == ["frames", "two.npz", "two.npz"]
    assert [len(clip.frames) for clip in clips] == [18, 18, 20]


def test_long_videos_are_cut_and_the_stride_slows_the_rate(
    tmp_path: Path, put: Make, clips_of: Make
) -> None:
    for place in ("a.mp4", "b.npy", "c.npz", "d"):
        put(place, 80)
        source = Folder(tmp_path, stride=2, min_frames=5, max_frames=15, size=36)
        clips = clips_of(source)
        assert [clip.name.rpartition("/")[2] for clip in clips] == ["0", "1", "2"][: len(clips)]
        assert [len(clip.frames) for clip in clips] == [15, 15, 10]
        assert counted(clips) == list(range(0, 80, 2))
        assert clips[0].fps == (5 if place == "a.mp4" else 12.5)
        if place == "d":
            break
        (tmp_path / place).unlink()


def test_frames_are_stretched_or_cropped(tmp_path: Path, clips_of: Make) -> None:
    frames = np.zeros((18, 20, 60, 3), np.uint8)
    frames[:, :, 20:40] = 255
    np.save(tmp_path / "a.npy", frames)
    (stretched,) = clips_of(Folder(tmp_path, size=30))
    (cropped,) = clips_of(Folder(tmp_path, size=30, fit="crop"))
    assert (cropped.frames == 255).all()
    assert stretched.frames.mean() == pytest.approx(85)


def test_folders_at_the_top_decide_the_split(tmp_path: Path, put: Make, splits_of: Make) -> None:
    for place in ("Train/a", "val/a", "validation/b", "eval/c", "test/d", "more/test/e", "f"):
        put(f"{place}.npy")
    assert splits_of(Folder(tmp_path)) == {
        "Train/a.npy": "train", "val/a.npy": "validation", "validation/b.npy": "validation",
        "eval/c.npy": "validation", "test/d.npy": "test", "more/test/e.npy": "train",
        "f.npy": "train",
    }  # fmt: skip


def test_otherwise_every_third_video_of_a_folder_is_held_out(
    tmp_path: Path, put: Make, splits_of: Make
) -> None:
    for place in ("sea/a", "sea/b", "sea/c", "sea/d", "sky/b", "sky/c", "only/a", "z"):
        put(f"{place}.npy", 2)
    held_out = {k: v for k, v in splits_of(Folder(tmp_path)).items() if v != "train"}
    assert held_out == {"sea/a.npy": "validation", "sea/d.npy": "test", "sky/b.npy": "validation"}


def test_a_manifest_lists_the_videos_and_their_strides(
    tmp_path: Path, put: Make, read_all: Make
) -> None:
    for place in ("v/a.mp4", "v/b.npy", "v/c", "v/unlisted.npy"):
        put(place, 80)
    entries = [
        {"path": "v/b.npy", "texture": "fire", "suggested_stride": 4},
        {"path": "v/c", "suggested_stride": 2},
        {"path": "v/a.mp4"},
        {"path": "v/gone.mp4"},
    ]
    (tmp_path / "manifest.json").write_text(json.dumps(entries))
    source = Folder(tmp_path, stride=2, size=36, min_frames=5)
    assert names(source) == ["v/a.mp4", "v/b.npy", "v/c", "v/gone.mp4"]
    a, b, c, gone = read_all(source)
    assert [a.fps, b.fps, c.fps] == [5, 25 / 8, 25 / 4]
    assert [counted([clip]) for clip in (a, b, c)] == [[*range(0, 80, k)] for k in (2, 8, 4)]
    assert gone == BadRecord(name="v/gone.mp4", reason="it does not exist")
    assert [clip.label for clip in (a, b, c)] == ["v", "fire", "v"]
    before = source.settings()["manifest"]
    entries[0]["suggested_stride"] = 5
    (tmp_path / "manifest.json").write_text(json.dumps(entries))
    assert before != source.settings()["manifest"] is not None


def test_without_a_size_frames_keep_their_shape_and_strides_are_noted(
    tmp_path: Path, film: Make, clips_of: Make
) -> None:
    tall = film(5, height=720, width=30)
    for name, frames in (("a.npy", tall), ("sea/b.npy", film(23)), ("sea/c.npy", film(4))):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        np.save(tmp_path / name, frames)
    entries = [
        {"path": "a.npy"},
        {"path": "sea/b.npy", "suggested_stride": 4, "source": "a diary", "licence": "CC0"},
        {"path": "sea/c.npy", "duplicate_share": 0.6},
    ]
    (tmp_path / "manifest.json").write_text(json.dumps(entries))
    source = Folder(tmp_path, size=None, min_frames=2, max_frames=11)
    assert source.left_out() == ["sea/c.npy"]
    a, *parts = clips_of(source)
    assert (a.frames.shape, a.stride, a.label) == ((5, 360, 15, 3), 1, None)
    assert counted(parts) == list(range(23))
    assert [len(part.frames) for part in parts] == [11, 11, 1]
    assert {(p.fps, p.stride, p.label, p.origin, p.licence) for p in parts} == {
        (25.0, 4, "sea", "a diary", "CC0")
    }


def test_photographs_beside_videos_are_left_out_and_told(tmp_path: Path, put: Make) -> None:
    put("DCIM/VID_1.mp4")
    put("DCIM")  # pictures 0.png, 1.png, ...
    found = r"DCIM contains 18 photographs \(0\.png.* beside videos \(VID_1\.mp4\)"
    with pytest.warns(UserWarning, match=found):
        assert names(Folder(tmp_path)) == ["DCIM/VID_1.mp4"]
    with pytest.raises(UserError, match=found):
        names(Folder(tmp_path, photographs="error"))
    assert names(Folder(tmp_path, photographs="frames")) == ["DCIM", "DCIM/VID_1.mp4"]


def test_a_manifest_of_another_program_is_ignored(tmp_path: Path, put: Make) -> None:
    put("a.npy")
    (tmp_path / "manifest.json").write_text('{"name": "app"}')
    assert names(Folder(tmp_path)) == ["a.npy"]
    assert Folder(tmp_path).settings()["manifest"] is None


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"[{", "not valid JSON"),
        (b"\xff\xfe\x00", "not valid JSON"),
        (b'["a.mp4"]', "entry 0 has no path"),
        (b'[{"path": "a"}, {"path": 3}]', "entry 1 has no path"),
        (b'[{"path": "../a.mp4"}]', "entry 0 lies outside of the folder"),
        (b'[{"path": "/a.mp4"}]', "entry 0 lies outside of the folder"),
        (b'[{"path": ""}]', "entry 0 lies outside of the folder"),
        (b'[{"path": "a", "suggested_stride": 0}]', "entry 0 has a stride of 0"),
        (b'[{"path": "a", "suggested_stride": true}]', "entry 0 has a stride of True"),
        (b'[{"path": "a"}, {"path": "./a"}]', "a is listed twice"),
        (b'{"format": "cinnema-clips"}', "is a packed data set"),
        (b"[]", "contains no video"),
    ],
)
def test_a_damaged_manifest_is_named(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "manifest.json").write_bytes(content)
    with pytest.raises(UserError, match=said):
        Folder(tmp_path).items()


def test_videos_that_are_too_short_are_named(tmp_path: Path, put: Make, read_all: Make) -> None:
    for place in ("a.gif", "b.npy", "c.npz", "d"):
        put(place, 16)
    assert read_all(Folder(tmp_path)) == [
        BadRecord(name=name, reason="it has 16 frames, fewer than 17")
        for name in ("a.gif", "b.npy", "c.npz/clip", "d")
    ]
    put("e.npy", 16)
    assert len(read_all(Folder(tmp_path, stride=2, min_frames=8))) == 5


def test_damaged_videos_are_named(
    tmp_path: Path, put: Make, read_all: Make, write_pictures: Make
) -> None:
    cut = put("a.mp4")
    cut.write_bytes(cut.read_bytes()[:-100])
    (tmp_path / "b.mp4").write_bytes(b"no video at all")
    np.save(tmp_path / "c.npy", np.zeros((18, 4, 4, 3), np.uint8))
    (tmp_path / "c.npy").write_bytes((tmp_path / "c.npy").read_bytes()[:-1])
    np.savez(tmp_path / "d.npz", a=np.asfortranarray(np.ones((18, 4, 4, 3), np.uint8)))
    odd = write_pictures(put("e"), [np.zeros((4, 4, 3), np.uint8)], "7{}.png")
    assert (odd / "70.png").is_file()
    put("f.npy")
    cut, foreign, short, columns, odd, good = read_all(Folder(tmp_path))
    assert cut == BadRecord(name="a.mp4", reason="it is truncated: 100 bytes of it are missing")
    assert foreign == BadRecord(name="b.mp4", reason="it is not a video that can be read")
    assert (short.name, short.reason[:24]) == ("c.npy", "it is damaged or cut sho")
    assert columns == BadRecord(name="d.npz", reason="an array is stored column by column")
    assert odd == BadRecord(name="e/70.png", reason="the frame is 4x4 pixels, the first 64x36")
    assert isinstance(good, RawClip)


def test_a_wrong_checksum_in_an_npz_file_is_named(
    tmp_path: Path, film: Make, read_all: Make
) -> None:
    np.savez(tmp_path / "a.npz", one=film(18), two=film(18))
    content = bytearray((tmp_path / "a.npz").read_bytes())
    content[2000] ^= 1  # in the first array
    (tmp_path / "a.npz").write_bytes(content)
    bad, good = read_all(Folder(tmp_path))
    assert bad.name == "a.npz/one"
    assert "Bad CRC-32" in bad.reason
    assert good.name == "a.npz/two/0"


def test_a_damaged_webp_is_not_taken_for_a_picture(
    tmp_path: Path, put: Make, read_all: Make
) -> None:
    cut = put("a.webp")
    cut.write_bytes(cut.read_bytes()[:50])
    put("b.npy")
    assert [bad.name for bad in read_all(Folder(tmp_path))] == ["a.webp", "b.npy/0"]


@pytest.fixture(scope="module")
def contents(film: Make, tmp_path_factory: Any) -> dict[str, bytes]:
    folder: Path = tmp_path_factory.mktemp("contents")
    frames = film(8, height=18, width=24)
    for kind in ("mp4", "gif", "webp", "npy"):
        write_video(folder / f"a.{kind}", frames, fps=10)
    np.savez_compressed(folder / "a.npz", a=frames)
    Image.fromarray(frames[0]).save(folder / "a.png")
    return {path.suffix: path.read_bytes() for path in folder.iterdir()}


@settings(max_examples=40, deadline=None)
@given(st.sampled_from([".mp4", ".gif", ".webp", ".npy", ".npz", ".png"]), st.data())
def test_damaged_bytes_bring_out_nothing_but_bad_records(
    contents: dict[str, bytes], read_all: Make, suffix: str, data: Any
) -> None:
    content = bytearray(contents[suffix])
    if data.draw(st.booleans()):
        content = content[: data.draw(st.integers(0, len(content) - 1))]
    else:
        content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "z").mkdir()
        np.save(root / "z" / "whole.npy", np.zeros((8, 4, 4, 3), np.uint8))
        for number in range(8 if suffix == ".png" else 1):
            damaged = suffix != ".png" or number == 5
            (root / f"a{number}{suffix}").write_bytes(content if damaged else contents[suffix])
        records = read_all(Folder(root, size=8, min_frames=8))
    assert all(isinstance(record, RawClip | BadRecord) for record in records)
    assert records[-1].name == "z/whole.npy/0"


def test_other_folders_are_told_what_is_expected(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    with pytest.raises(UserError, match=r"contains no video: it needs files \(mp4,"):
        Folder(tmp_path).items()
    with pytest.raises(UserError, match="does not exist"):
        Folder(tmp_path / "none").items()
    with pytest.raises(UserError, match="is a file, not a folder"):
        Folder(tmp_path / "notes.txt").settings()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"size": 0}, "size must be at least 1"),
        ({"stride": 0}, "stride must be at least 1"),
        ({"max_frames": 5}, r"max_frames must be at least min_frames \(17\), got 5"),
    ],
)
def test_options_out_of_range_are_refused(
    tmp_path: Path, options: dict[str, Any], said: str
) -> None:
    with pytest.raises(UserError, match=said):
        Folder(tmp_path, **options)


def test_a_file_of_splits_decides_and_leaves_the_others_out(
    tmp_path: Path, put: Make, splits_of: Make
) -> None:
    for name in ("train/sea.npy", "sky.npy", "moon.npy"):
        put(name)
    listed = tmp_path / "splits.json"
    listed.write_text('{"train": ["sky"], "test": ["sea"]}')
    source = Folder(tmp_path, splits=listed)
    assert splits_of(source) == {"sky.npy": "train", "train/sea.npy": "test"}
    assert source.settings()["splits"] != Folder(tmp_path).settings()["splits"]
