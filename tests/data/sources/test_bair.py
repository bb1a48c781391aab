"""BAIR from tfrecords and from converted pictures, whole and damaged."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cinnema.core.errors import UserError
from cinnema.data.records import BadRecord, RawClip
from cinnema.data.sources.bair import Bair

Make = Callable[..., Any]
Write = Callable[..., Path]


@pytest.fixture
def write_records(tfrecord: Any) -> Write:
    """Write records, given by their features or payloads, into a file of trajectories."""

    def write(path: Path, *records: dict[str, Any] | bytes) -> Path:
        payloads = [r if isinstance(r, bytes) else tfrecord.example(r) for r in records]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"".join(map(tfrecord.framed, payloads)))
        return path

    return write


@pytest.fixture
def write_clip(film: Make, write_pictures: Write) -> Write:
    """Write a converted clip: 30 pictures and their positions."""

    def write(folder: Path, *, seed: int = 0) -> Path:
        write_pictures(folder, film(30, height=64, seed=seed), "{}.png")
        positions = np.random.default_rng(seed).random((30, 3))
        np.savetxt(folder / "endeffector_positions.csv", positions, delimiter=",")
        return folder

    return write


def test_records_become_clips(tmp_path: Path, write_records: Write, bair_features: Make) -> None:
    first, second = bair_features(0), bair_features(1)
    write_records(tmp_path / "train/traj_512_to_513.tfrecords", first, second)
    source = Bair(tmp_path)
    (item,) = source.items()
    assert (item.name, item.split, item.clips) == ("train/traj_512_to_513.tfrecords", "train", 2)
    clips = list(source.read(item))
    assert [clip.name for clip in clips] == ["traj_512_to_513/1", "traj_512_to_513/2"]
    for clip, features in zip(clips, (first, second), strict=True):
        assert isinstance(clip, RawClip)
        pixels = b"".join(features[f"{t}/image_aux1/encoded"][0] for t in range(30))
        assert clip.frames.tobytes() == pixels
        assert clip.source == clip.name
        for track, key in (("end_effector", "endeffector_pos"), ("action", "action")):
            rows = np.stack([features[f"{t}/{key}"] for t in range(30)])
            assert np.array_equal(clip.tracks[track], rows)


def test_pictures_become_the_same_clips(tmp_path: Path, write_clip: Write, film: Make) -> None:
    for number in (2, 10, 1):
        write_clip(tmp_path / f"train/traj_512_to_767/{number}", seed=number)
    source = Bair(tmp_path)
    (item,) = source.items()
    assert (item.name, item.split, item.clips) == ("train/traj_512_to_767", "train", 256)
    clips = list(source.read(item))
    assert [clip.name for clip in clips] == [f"traj_512_to_767/{k}" for k in (1, 2, 10)]
    clip = clips[2]
    assert isinstance(clip, RawClip)
    assert np.array_equal(clip.frames, film(30, height=64, seed=10))
    positions = np.random.default_rng(10).random((30, 3))
    assert np.allclose(clip.tracks["end_effector"], positions, atol=1e-7)
    assert list(clip.tracks) == ["end_effector"]


def test_frames_are_made_square_at_the_size_asked_for(
    tmp_path: Path, write_records: Write, write_clip: Write, bair_features: Make, clips_of: Make
) -> None:
    write_records(tmp_path / "a/train/traj_0_to_0.tfrecords", bair_features())
    write_clip(tmp_path / "b/train/traj_0_to_0/1")
    for root in (tmp_path / "a", tmp_path / "b"):
        (clip,) = clips_of(Bair(root, size=32))
        assert (clip.frames.shape, clip.frames.dtype) == ((30, 32, 32, 3), np.uint8)


def test_the_other_camera_can_be_read(
    tmp_path: Path, write_records: Write, write_clip: Write, bair_features: Make, read_all: Make
) -> None:
    both = bair_features(0) | bair_features(1, camera="main")
    write_records(tmp_path / "train/traj_0_to_0.tfrecords", both)
    (clip,) = read_all(Bair(tmp_path, camera="main"))
    assert clip.frames[0].tobytes() == both["0/image_main/encoded"][0]
    write_clip(tmp_path / "pictures/train/traj_0_to_0/1")
    with pytest.raises(UserError, match="camera aux1 only: use the tfrecords for main"):
        Bair(tmp_path / "pictures", camera="main").items()


@pytest.mark.parametrize("layout", ["tfrecords", "png"])
def test_the_first_two_files_test_and_validate_wherever_they_lie(
    tmp_path: Path, layout: str
) -> None:
    suffix = ".tfrecords" if layout == "tfrecords" else ""
    places = {
        "train/traj_256_to_511": "validation", "train/traj_512_to_767": "train",
        "train/traj_10000_to_10255": "train", "val/traj_768_to_1023": "validation",
        "eval/traj_1024_to_1279": "validation", "test/traj_0_to_255": "test",
        "test/traj_1280_to_1535": "test",
    }  # fmt: skip
    for place in places:
        path = tmp_path / "softmotion30_44k" / (place + suffix)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch() if suffix else path.mkdir()
    for root in (tmp_path, tmp_path / "softmotion30_44k"):  # itself, or the one around it
        source = Bair(root)
        assert source.settings()["layout"] == layout
        found = {item.name.partition("softmotion30_44k/")[2] or item.name: item.split
                 for item in source.items()}  # fmt: skip
        assert found == {place + suffix: split for place, split in places.items()}
    assert [item.name for item in source.items()][-4:-1] == [
        f"train/traj_{k}{suffix}" for k in ("256_to_511", "512_to_767", "10000_to_10255")
    ]


def test_trajectories_in_two_folders_are_refused(tmp_path: Path, write_records: Write) -> None:
    for folder in ("train", "eval"):
        write_records(tmp_path / folder / "traj_512_to_767.tfrecords")
    with pytest.raises(UserError, match="traj_512_to_767 in both eval and train: remove one"):
        Bair(tmp_path).items()


def test_a_folder_without_trajectories_is_told_what_is_expected(tmp_path: Path) -> None:
    (tmp_path / "train/other").mkdir(parents=True)
    (tmp_path / "train/traj_1_to_2.txt").touch()
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"not a BAIR folder: it needs train/traj_<a>_to_<b>\.tf"):
        Bair(tmp_path).items()
    with pytest.raises(UserError, match="does not exist"):
        Bair(tmp_path / "none").settings()
    with pytest.raises(UserError, match="is a file, not a folder"):
        Bair(tmp_path / "file").items()
    with pytest.raises(UserError, match="size must be at least 1, got 0"):
        Bair(tmp_path, size=0)


def test_mirroring_keeps_the_arm_in_its_workspace() -> None:
    control = Bair(Path()).control
    least, most = -0.3080245, -0.3080245 + 0.54029283
    ends = np.array([[0.5, least, 0.2], [0.5, most, 0.2]], np.float32)
    assert np.allclose(control.mirrored(ends), ends[::-1], atol=1e-6)


def without(features: dict[str, Any], key: str) -> dict[str, Any]:
    return {name: values for name, values in features.items() if name != key}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda f: without(f, "7/image_aux1/encoded"), "it has no 7/image_aux1/encoded"),
        (lambda f: without(f, "29/action"), "it has no 29/action"),
        (lambda f: f | {"3/image_aux1/encoded": [b"short"]}, "3/image_aux1/encoded has 5 bytes"),
        (lambda f: f | {"3/image_aux1/encoded": []}, "is not one string of bytes"),
        (lambda f: f | {"3/image_aux1/encoded": np.ones(2, "f4")}, "is not one string of bytes"),
        (lambda f: f | {"4/endeffector_pos": np.ones(2, "f4")}, "4/endeffector_pos is not 3 float"),
        (lambda f: f | {"4/endeffector_pos": np.ones(3, "i8")}, "4/endeffector_pos is not 3 float"),
        (lambda f: f | {"4/action": [b"1234"]}, "4/action is not 4 floats"),
        (lambda f: f | {"4/endeffector_pos": np.full(3, np.nan, "f4")}, "is not finite"),
        (lambda _: b"no example", "it is not an example"),
    ],
)
def test_a_record_that_lacks_something_is_named(
    tmp_path: Path, write_records: Write, bair_features: Make, change: Make, said: str
) -> None:
    whole = bair_features()
    path = tmp_path / "train/traj_512_to_514.tfrecords"
    write_records(path, whole, change(bair_features()), whole)
    source = Bair(tmp_path)
    first, bad, last = source.read(source.items()[0])
    assert isinstance(first, RawClip)
    assert isinstance(last, RawClip)
    assert last.name == "traj_512_to_514/3"
    assert isinstance(bad, BadRecord)
    assert bad.name == "train/traj_512_to_514.tfrecords record 2"
    assert said in bad.reason


def test_bad_checksums_and_a_short_file_are_named(
    tmp_path: Path, write_records: Write, bair_features: Make
) -> None:
    path = tmp_path / "test/traj_0_to_255.tfrecords"
    write_records(path, bair_features(), bair_features(1))
    content = bytearray(path.read_bytes())
    content[1000] ^= 1
    path.write_bytes(content)
    source = Bair(tmp_path)
    bad, good, missing = source.read(source.items()[0])
    name = "test/traj_0_to_255.tfrecords"
    assert bad == BadRecord(name=f"{name} record 1", reason="its checksum is wrong")
    assert isinstance(good, RawClip)
    assert good.name == "traj_0_to_255/2"
    assert missing == BadRecord(
        name=f"{name} records 3 to 256", reason="they are missing: the file ends after 2"
    )


@pytest.fixture(scope="module")
def one_record(tfrecord: Any, bair_features: Make) -> bytes:
    return bytes(tfrecord.framed(tfrecord.example(bair_features())))


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_a_file_cut_short_anywhere_is_a_bad_record(one_record: bytes, data: Any) -> None:
    length = data.draw(st.integers(0, len(one_record) - 1))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "train/traj_5_to_5.tfrecords"
        path.parent.mkdir()
        path.write_bytes(one_record[:length])
        source = Bair(Path(folder))
        (bad,) = source.read(source.items()[0])
        assert isinstance(bad, BadRecord)
        assert bad.name.startswith("train/traj_5_to_5.tfrecords record")


def lines(count: int, line: str = "0.1,0.2,0.3") -> bytes:
    return "\n".join([line] * count).encode()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (lines(29), "it has 29 lines of 3 numbers, not 30 of 3"),
        (lines(31), "it has 31 lines of 3 numbers"),
        (lines(3, ",".join(["0.1"] * 30)), "it has 3 lines of 30 numbers"),
        (lines(29) + b"\n0.1,0.2", "it has 30 lines of 2 or 3 numbers"),
        (lines(29) + b"\nx,y,z", "something other than numbers"),
        (lines(29) + b"\n0.1,0.2,", "something other than numbers"),
        (lines(29) + b"\n0.1,nan,0.3", "not finite"),
        (lines(29) + b"\n0.1,1e99,0.3", "not finite"),
        (b"", "it has 0 lines"),
        (b"\xff\xfe", "it cannot be read"),
        (None, "it does not exist"),
    ],
)
def test_bad_positions_are_named(
    tmp_path: Path, write_clip: Write, content: bytes | None, said: str
) -> None:
    path = write_clip(tmp_path / "train/traj_512_to_767/1") / "endeffector_positions.csv"
    path.unlink() if content is None else path.write_bytes(content)
    write_clip(tmp_path / "train/traj_512_to_767/2")
    source = Bair(tmp_path)
    bad, good = source.read(source.items()[0])
    assert isinstance(good, RawClip)
    assert isinstance(bad, BadRecord)
    assert bad.name == "train/traj_512_to_767/1/endeffector_positions.csv"
    assert said in bad.reason


def test_bad_pictures_are_named(tmp_path: Path, write_clip: Write, write_pictures: Write) -> None:
    folders = [write_clip(tmp_path / f"train/traj_512_to_767/{k}") for k in (1, 2, 3)]
    (folders[0] / "17.png").unlink()
    truncated = folders[1] / "5.png"
    truncated.write_bytes(truncated.read_bytes()[:200])
    write_pictures(folders[2], [np.zeros((32, 64, 3), np.uint8)], "29.png")
    source = Bair(tmp_path)
    bad = list(source.read(source.items()[0]))
    place = "train/traj_512_to_767"
    assert bad[0] == BadRecord(name=f"{place}/1/17.png", reason="it does not exist")
    assert isinstance(bad[1], BadRecord)
    assert bad[1].name == f"{place}/2/5.png"
    assert bad[1].reason.startswith("it is damaged")
    assert bad[2] == BadRecord(
        name=f"{place}/3/29.png", reason="the frame is 64x32 pixels, the first 64x64"
    )


def test_an_empty_folder_of_trajectories_is_named(tmp_path: Path, read_all: Make) -> None:
    (tmp_path / "train/traj_512_to_767/notes").mkdir(parents=True)
    (bad,) = read_all(Bair(tmp_path))
    assert bad == BadRecord(
        name="train/traj_512_to_767", reason="it has none of the folders 1, 2, ..."
    )
