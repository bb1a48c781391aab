"""`cinnema data`: packed, looked at, checked, from the command line."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cinnema.cli.main import main
from cinnema.data.dataset import PackedDataset
from cinnema.media.videos import read_video, write_video

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def call(*arguments: object) -> tuple[int, str, str]:
        code = main(["data", *map(str, arguments)])
        out, err = capsys.readouterr()
        return code, out, err

    return call


@pytest.fixture
def footage(tmp_path: Path) -> Path:
    """Five short videos of squares that drift."""
    folder = tmp_path / "footage"
    for number in range(5):
        frames = np.zeros((20, 32, 32, 3), np.uint8)
        for t, frame in enumerate(frames):
            frame[8:20, t : t + 10] = 60 + 40 * number
        write_video(folder / f"clip{number}.gif", frames, fps=10)
    return folder


def test_a_folder_is_packed_shown_and_checked(run: Run, footage: Path, tmp_path: Path) -> None:
    packed = tmp_path / "packed"
    code, out, _ = run("prepare", "folder", footage, packed, "--size", 32)
    assert (code, "5 clips" in out) == (0, True)
    dataset = PackedDataset(packed)
    assert len(dataset) == 5
    assert dataset.manifest.size == 32
    code, out, _ = run("show", packed, "-n", 3, "-o", tmp_path / "look.png")
    assert code == 0
    assert out.split() == [str(tmp_path / "look.png"), str(tmp_path / "look.gif")]
    assert Image.open(tmp_path / "look.png").height > 3 * 112
    assert len(read_video(tmp_path / "look.gif").frames) == 20
    code, out, _ = run("check", packed)
    assert (code, "5 clips, no shard is damaged" in out) == (0, True)


def test_the_same_command_again_finds_everything_done(
    run: Run, footage: Path, tmp_path: Path
) -> None:
    arguments = ["prepare", "folder", footage, tmp_path / "packed", "--size", 32]
    run(*arguments)
    code, out, _ = run(*arguments)
    assert (code, "0 shards made" in out) == (0, True)
    code, _, err = run(*arguments[:-1], 48)
    assert (code, "size" in err) == (2, True)


def test_what_is_damaged_stops_the_work_or_is_listed(
    run: Run, footage: Path, tmp_path: Path
) -> None:
    (footage / "clip2.gif").write_bytes((footage / "clip2.gif").read_bytes()[:300])
    arguments = ["prepare", "folder", footage, tmp_path / "packed", "--size", 32]
    code, _, err = run(*arguments)
    assert code == 2
    assert "clip2.gif" in err
    assert "--skip-bad" in err
    code, out, _ = run(*arguments, "--skip-bad")
    assert code == 0
    assert "skipped clip2.gif" in out
    assert len(PackedDataset(tmp_path / "packed")) == 4


def test_a_damaged_shard_is_found(run: Run, footage: Path, tmp_path: Path) -> None:
    packed = tmp_path / "packed"
    run("prepare", "folder", footage, packed, "--size", 32)
    shard = next(packed.glob("*.npz"))
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    code, _, err = run("check", packed)
    assert (code, shard.name in err) == (2, True)


def test_futures_of_a_sky_are_packed_for_the_test_alone(run: Run, tmp_path: Path) -> None:
    packed = tmp_path / "sky"
    code, _, _ = run(
        "simulate", "sky", packed, "-n", 1, "--futures", 2, "--split", "test", "--size", 32
    )
    assert code == 0
    dataset = PackedDataset(packed)
    assert [entry.split for entry in dataset.manifest.clips] == ["test", "test"]
    first, second = (dataset.read(i) for i in range(2))
    assert np.array_equal(first.frames[0], second.frames[0])
    assert not np.array_equal(first.frames[-1], second.frames[-1])
    assert run("show", packed)[0] == 0


def test_a_folder_gets_the_control_of_the_sky(run: Run, footage: Path, tmp_path: Path) -> None:
    packed = tmp_path / "packed"
    arguments = ["prepare", "folder", footage, packed, "--size", 64, "--control", "wind"]
    assert run(*arguments)[0] == 0
    dataset = PackedDataset(packed)
    assert dataset.manifest.control is not None
    assert dataset.manifest.control.name == "wind"
    clip = dataset.read(0)
    assert clip.confidence is not None
    # The square moves by one pixel of 32 a frame to the right.
    assert clip.tracks["wind"][1:, 0].mean() > 0.01


def test_two_starts_train_and_test(run: Run, tmp_path: Path) -> None:
    assert run("simulate", "sky", tmp_path / "sky", "-n", 2, "--size", 32)[0] == 0
    entries = PackedDataset(tmp_path / "sky").manifest.clips
    assert [entry.split for entry in entries] == ["train", "test"]


def test_a_single_video_is_divided_in_time(run: Run, footage: Path, tmp_path: Path) -> None:
    for path in sorted(footage.iterdir())[1:]:
        path.unlink()
    code, out, _ = run("prepare", "folder", footage, tmp_path / "packed", "--size", 32)
    assert code == 0
    assert "the end of clip0.gif is held out instead" in out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("prepare", "dtdb", ".", "out", "--texture", "a/b"), "texture must be the name"),
        (("prepare", "bair", ".", "out", "--stride", 2), "--stride is an option of folder"),
        (("prepare", "folder", "nowhere", "out"), "nowhere"),
        (("simulate", "sky", "out", "-n", 0), "0"),
        (("simulate", "push", "out", "-n", 1, "--foregrounds", "."), "an option of sky"),
        (("show", "nowhere"), "nowhere"),
        (("check", "nowhere"), "nowhere"),
    ],
)
def test_mistakes_are_told_in_a_line(
    run: Run, arguments: tuple[object, ...], words: str, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    code, _, err = run(*arguments)
    assert code == 2
    assert words in err
    assert len(err.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()
