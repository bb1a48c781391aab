"""`cinnema animate` where something is wrong: a line, an exit code, and nothing half-written."""

import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cinnema.core.weights import save_weights

Run = Callable[..., Any]


def make_missing(path: Path) -> None:
    """A file that is not there."""


def make_empty(path: Path) -> None:
    path.touch()


def make_truncated(path: Path) -> None:
    Image.effect_noise((96, 64), 80).convert("RGB").save(path)
    path.write_bytes(path.read_bytes()[:2000])


def make_text(path: Path) -> None:
    path.write_text("not a picture")


def make_dot(path: Path) -> None:
    Image.new("RGB", (1, 1)).save(path)


def make_huge(path: Path) -> None:
    """A PNG that claims 20,000 x 20,000 pixels; only the header is there."""
    head = b"IHDR" + struct.pack(">IIBBBBB", 20_000, 20_000, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + head + struct.pack(">I", zlib.crc32(head))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk)


BAD_PHOTOS = {
    "missing": make_missing,
    "empty": make_empty,
    "truncated": make_truncated,
    "text": make_text,
    "1x1": make_dot,
    "20000x20000": make_huge,
}


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # where output goes by default


def is_one_line_about(result: Any, name: object) -> bool:
    errors = [line for line in result.err if line.startswith("cinnema: error: ")]
    return len(errors) == 1 and str(name) in errors[0] and "Traceback" not in str(result.err)


@pytest.mark.parametrize("make", BAD_PHOTOS.values(), ids=BAD_PHOTOS)
def test_a_bad_photograph_is_the_users_mistake(
    animate: Run, tmp_path: Path, out: Path, make: Callable[[Path], None]
) -> None:
    make(tmp_path / "bad.png")
    result = animate(tmp_path / "bad.png")

    assert result.code == 2
    assert is_one_line_about(result, tmp_path / "bad.png")
    assert result.out == []
    assert not out.exists()


@pytest.mark.parametrize("make", BAD_PHOTOS.values(), ids=BAD_PHOTOS)
def test_a_bad_photograph_does_not_stop_the_others(
    animate: Run, take_photo: Run, tmp_path: Path, out: Path, make: Callable[[Path], None]
) -> None:
    photos = [tmp_path / name for name in ("a.png", "bad.png", "c.png")]
    take_photo(photos[0])
    make(photos[1])
    take_photo(photos[2])
    result = animate(*photos, "-n", 1)

    assert result.code == 1
    assert is_one_line_about(result, photos[1])
    assert {"a_s0_00.mp4", "c_s0_00.mp4"} <= {path.name for path in out.iterdir()}
    assert not list(out.glob("bad*"))


def test_a_folder_without_pictures_does_not_stop_the_others(
    animate: Run, photo: Path, tmp_path: Path
) -> None:
    (tmp_path / "nothing").mkdir()
    result = animate(tmp_path / "nothing", photo, "-n", 1)
    assert result.code == 1
    assert is_one_line_about(result, tmp_path / "nothing")
    assert len(result.out) == 2


def test_existing_output_is_refused_before_anything_is_computed(
    animate: Run, photo: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    animate(photo)
    before = {path: path.stat().st_mtime_ns for path in out.iterdir()}
    monkeypatch.setattr("cinnema.synthesis.pipeline.Pipeline.from_pretrained", pytest.fail)
    result = animate(photo)

    assert result.code == 2
    assert is_one_line_about(result, out / "sky_s0_00.mp4")
    assert "--overwrite" in result.err[0]
    assert {path: path.stat().st_mtime_ns for path in out.iterdir()} == before


@pytest.mark.parametrize("size", [(95, 64), (64, 96)])
def test_a_mask_of_another_size_is_refused(
    animate: Run, photo: Path, out: Path, tmp_path: Path, size: tuple[int, int]
) -> None:
    Image.new("L", size).save(tmp_path / "mask.png")
    result = animate(photo, "--keep-still", tmp_path / "mask.png")
    assert result.code == 2
    assert is_one_line_about(result, tmp_path / "mask.png")
    assert not out.exists()


@pytest.mark.parametrize("option", ["--keep-still", "--nu", "--weights"])
def test_a_named_file_that_is_missing_is_told(
    animate: Run, cinnema: Run, photo: Path, tmp_path: Path, option: str
) -> None:
    missing = tmp_path / "missing.file"
    result = cinnema("animate", photo, option, missing, "-o", tmp_path / "out")
    assert result.code == 2
    assert is_one_line_about(result, missing)


@pytest.mark.parametrize("below", ["", "deeper"])
def test_an_output_folder_that_is_a_file_is_told(
    animate: Run, photo: Path, tmp_path: Path, below: str
) -> None:
    (tmp_path / "file").write_text("mine")
    result = animate(photo, "-o", tmp_path / "file" / below)
    assert result.code == 2
    assert is_one_line_about(result, tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"


def make_text_weights(path: Path) -> None:
    path.write_text("not weights")


def make_foreign_weights(path: Path) -> None:
    import torch
    from safetensors.torch import save_file

    save_file({"weight": torch.zeros(2)}, path)


def make_other_weights(path: Path) -> None:
    save_weights(path, {}, {"name": "other", "layers": 3})


@pytest.mark.parametrize("make", [make_empty, make_text_weights, make_foreign_weights,
                                  make_other_weights])  # fmt: skip
def test_a_wrong_weights_file_is_told(
    animate: Run, photo: Path, out: Path, tmp_path: Path, make: Callable[[Path], None]
) -> None:
    weights = tmp_path / "wrong.safetensors"
    make(weights)
    result = animate(photo, weights=weights)
    assert result.code == 2
    assert is_one_line_about(result, weights)
    assert not out.exists()


def test_weights_of_an_unknown_name_are_told(animate: Run, photo: Path) -> None:
    result = animate(photo, weights=Path("seascape"))
    assert result.code == 2
    assert is_one_line_about(result, "seascape")


def test_a_weights_file_is_no_nu_file(animate: Run, photo: Path, tiny_weights: Path) -> None:
    result = animate(photo, "--nu", tiny_weights)
    assert result.code == 2
    assert is_one_line_about(result, tiny_weights)


@pytest.mark.parametrize("kind", ["mp4", "gif", "webp", "png", "npy"])
def test_a_disk_that_fills_up_leaves_no_half_written_file(
    animate: Run, photo: Path, out: Path, small_disk: Run, kind: str
) -> None:
    with small_disk(600):
        result = animate(photo, "--format", kind)
    assert result.code == 2
    assert is_one_line_about(result, "the disk is full")
    assert not out.exists()


def test_a_disk_that_fills_up_later_takes_the_incomplete_sample_away(
    animate: Run, photo: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cinnema.cli import outputs
    from cinnema.core.errors import UserError

    def full(path: Path, values: object, *, overwrite: bool) -> None:
        if "_01" in path.name:
            raise UserError(f"{path} could not be written, as the disk is full")
        original(path, values, overwrite=overwrite)

    original = outputs.write_json
    monkeypatch.setattr(outputs, "write_json", full)
    assert animate(photo).code == 2
    assert {path.name for path in out.iterdir()} == {
        "sky_s0_00.mp4",
        "sky_s0_00.json",
        "sky_s0_00.nu.safetensors",
    }


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--num-samples", "0"),
        ("--num-samples", "-1"),
        ("--seed", "-1"),
        ("--num-frames", "0"),
        ("--seconds", "0"),
        ("--seconds", "inf"),
        ("--fps", "0"),
        ("--fps", "1000"),
        ("--fps", "nan"),
        ("--temperature", "-0.5"),
        ("--temperature", "inf"),
        ("--motion-strength", "nan"),
        ("--size", "big"),
        ("--size", "0x10"),
        ("--size", "640x"),
        ("--device", "toaster"),
        ("--device", "cuda:99"),
    ],
)
def test_an_option_out_of_range_is_told_by_its_name(
    cinnema: Run, photo: Path, tiny_weights: Path, option: str, value: str
) -> None:
    result = cinnema("animate", photo, "--weights", tiny_weights, f"{option}={value}")
    assert result.code == 2
    assert is_one_line_about(result, option)


def test_a_gif_is_not_faster_than_players_play(animate: Run, photo: Path) -> None:
    result = animate(photo, "--format", "gif", "--fps", 60)
    assert result.code == 2
    assert is_one_line_about(result, "--fps")


def test_a_loop_needs_two_frames(animate: Run, photo: Path) -> None:
    result = animate(photo, "--frames", 1, "--loop", "pingpong")
    assert result.code == 2
    assert is_one_line_about(result, "--num-frames")


def test_no_photograph_is_told(cinnema: Run) -> None:
    result = cinnema("animate")
    assert result.code == 2
    assert is_one_line_about(result, "photograph")


@pytest.mark.parametrize(
    "arguments", [["--format", "avi"], ["--frames", "many"], ["--frmaes", "2"]]
)
def test_options_that_do_not_parse_end_with_2(
    cinnema: Run, photo: Path, arguments: list[str]
) -> None:
    result = cinnema("animate", photo, *arguments)
    assert result.code == 2
    assert "Traceback" not in "".join(result.err)


def test_an_interruption_ends_with_130_and_leaves_no_part(
    animate: Run, photo: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("cinnema.synthesis.residual.save_motion", interrupt)
    assert animate(photo).code == 130
    assert not out.exists()


def test_an_unforeseen_error_keeps_its_traceback(
    animate: Run, photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def break_down(*_: object, **__: object) -> np.ndarray:
        raise ZeroDivisionError("ours to mend")

    monkeypatch.setattr("cinnema.synthesis.pipeline.Pipeline.iterate", break_down)
    with pytest.raises(ZeroDivisionError):
        animate(photo)
