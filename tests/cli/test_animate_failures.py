"""`cinnema animate` with a mistake: a line of error, an exit code, and nothing half-written."""

import json
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from cinnema.core.errors import UserError
from cinnema.core.files import write_json
from cinnema.core.weights import save_weights
from cinnema.synthesis.pipeline import Pipeline

from .conftest import Run, files_of, names_in, photograph_at


def write_truncated(path: Path) -> None:
    Image.effect_noise((96, 64), 80).convert("RGB").save(path)
    path.write_bytes(path.read_bytes()[:2000])


def write_huge(path: Path) -> None:
    """A PNG that claims 20,000 x 20,000 pixels; only the header is there."""
    head = b"IHDR" + struct.pack(">IIBBBBB", 20_000, 20_000, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + head + struct.pack(">I", zlib.crc32(head))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk)


BAD_PHOTOS: dict[str, Callable[[Path], object]] = {
    "missing.png": lambda _: None,
    "empty.png": Path.touch,
    "truncated.png": write_truncated,
    "text.png": lambda path: path.write_text("not a picture"),
    "dot.png": Image.new("RGB", (1, 1)).save,
    "huge.png": write_huge,
    "no pictures": Path.mkdir,
    "clip.mp4": Path.touch,
}


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # where output goes by default


def write_bad_photos(folder: Path) -> list[Path]:
    folder.mkdir()
    for name, write in BAD_PHOTOS.items():
        write(folder / name)
    return [folder / name for name in BAD_PHOTOS]


def test_bad_photographs_are_the_users_mistake(animate: Run, tmp_path: Path, out: Path) -> None:
    bad = write_bad_photos(tmp_path / "bad")
    result = animate(*bad)
    assert (result.code, result.out) == (2, [])
    errors = sorted(line for line in result.err if line.startswith("cinnema: error: "))
    for path in bad:
        assert [str(path) in line for line in errors].count(True) == 1
    assert len(errors) == len(bad)
    assert not out.exists()


def test_what_cinnema_wrote_into_a_folder_of_photographs_is_not_animated_when_it_is_read_again(
    animate: Run, tmp_path: Path
) -> None:
    folder = tmp_path / "photos"
    photograph_at(folder / "a.png")
    for name in ("a_s0_00.json", "a_s0_00.nu.safetensors"):
        (folder / name).touch()
    for name in ("a_s0_00.webp", "a_s0_grid.png"):
        Image.new("RGB", (96, 64)).save(folder / name)
    result = animate(folder, "-o", tmp_path / "out", "-n", 1, "--num-frames", 1)
    assert result.code == 0
    assert any("a_s0_00.webp and 1 more was written by cinnema" in line for line in result.err)
    assert names_in(tmp_path / "out") == files_of("a_s0", 0)
    (folder / "a.png").unlink()
    assert animate(folder).is_mistake(folder, "holds no other picture")


def test_bad_photographs_do_not_stop_the_others(animate: Run, tmp_path: Path, out: Path) -> None:
    bad = write_bad_photos(tmp_path / "bad")
    first, last = (photograph_at(tmp_path / name) for name in ("a.png", "c.png"))
    result = animate(first, *bad, last, "-n", 1, "--num-frames", 1)
    assert result.code == 1
    assert "Traceback" not in "".join(result.err)
    assert names_in(out) == files_of("a_s0", 0) | files_of("c_s0", 0)


def test_existing_output_is_refused_before_anything_is_computed(
    animate: Run, photo: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out.mkdir()
    (out / "sky_s0_01.json").write_text("mine")
    monkeypatch.setattr("cinnema.synthesis.pipeline.Pipeline.from_pretrained", pytest.fail)
    assert animate(photo).is_mistake(out / "sky_s0_01.json", "--overwrite")
    assert names_in(out) == {"sky_s0_01.json"}


@pytest.mark.parametrize("size", [(95, 64), (64, 96)])
def test_a_mask_of_another_size_is_refused(
    animate: Run, photo: Path, out: Path, tmp_path: Path, size: tuple[int, int]
) -> None:
    Image.new("L", size).save(tmp_path / "mask.png")
    result = animate(photo, "--keep-still", tmp_path / "mask.png")
    assert result.is_mistake(tmp_path / "mask.png")
    assert not out.exists()


@pytest.mark.parametrize("option", ["--keep-still", "--nu", "--weights"])
def test_a_named_file_that_is_missing_is_refused(
    cinnema: Run, photo: Path, tmp_path: Path, option: str
) -> None:
    missing = tmp_path / "missing.file"
    assert cinnema("animate", photo, option, missing).is_mistake(missing)


@pytest.mark.parametrize("below", ["", "deeper"])
def test_an_output_folder_that_is_a_file_is_refused(
    animate: Run, photo: Path, tmp_path: Path, below: str
) -> None:
    (tmp_path / "file").write_text("mine")
    assert animate(photo, "-o", tmp_path / "file" / below).is_mistake(tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize(
    "write",
    [
        Path.touch,
        lambda path: path.write_text("not weights"),
        lambda path: save_file({"weight": torch.zeros(2)}, path),
        lambda path: save_weights(path, {}, {"name": "other", "layers": 3}),
    ],
    ids=["empty", "text", "of another program", "of another model"],
)
def test_a_wrong_weights_file_is_refused(
    animate: Run, photo: Path, out: Path, tmp_path: Path, write: Callable[[Path], object]
) -> None:
    weights = tmp_path / "wrong.safetensors"
    write(weights)
    assert animate(photo, weights=weights).is_mistake(weights)
    assert not out.exists()


def test_weights_of_an_unknown_name_are_refused(animate: Run, photo: Path) -> None:
    assert animate(photo, weights=Path("seascape")).is_mistake("seascape", "landscape")


def test_a_weights_file_is_not_a_nu_file(animate: Run, photo: Path, tiny_weights: Path) -> None:
    assert animate(photo, "--nu", tiny_weights).is_mistake(tiny_weights)


@pytest.mark.parametrize("kind", ["mp4", "png"])
def test_a_disk_that_fills_up_leaves_no_half_written_file(
    animate: Run, photo: Path, out: Path, small_disk: Run, kind: str
) -> None:
    with small_disk(600):
        result = animate(photo, "--format", kind)
    assert result.is_mistake("the disk is full")
    assert not out.exists()


def test_a_disk_that_fills_up_later_takes_the_incomplete_sample_away(
    animate: Run, photo: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, values: dict[str, object], *, overwrite: bool) -> None:
        if "_01" in path.name:
            raise UserError(f"{path} could not be written, as the disk is full")
        write_json(path, values, overwrite=overwrite)

    monkeypatch.setattr("cinnema.cli.outputs.write_json", full)
    assert animate(photo).code == 2
    assert names_in(out) == files_of("sky_s0", 0) - {"sky_s0_grid.png"}


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
        ("--size", "4x4"),
        ("--device", "toaster"),
        ("--device", "cuda:99"),
    ],
)
def test_an_option_out_of_range_is_refused_by_its_name(
    cinnema: Run, photo: Path, tiny_weights: Path, option: str, value: str
) -> None:
    result = cinnema("animate", photo, "--weights", tiny_weights, f"{option}={value}")
    assert result.is_mistake(option)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--format", "gif", "--fps", 60], ["--fps", "gif"]),
        (["--num-frames", 1, "--loop", "pingpong"], ["--num-frames"]),
        (["--num-frames", 2, "--seconds", 1], ["--seconds", "--num-frames"]),
        (["--loop", "pingpong", "--extension", "paper"], ["--loop"]),
    ],
)
def test_options_that_do_not_go_together_are_refused(
    cinnema: Run, photo: Path, options: list[object], words: list[str]
) -> None:
    assert cinnema("animate", photo, *options).is_mistake(*words)


def test_no_photograph_is_a_mistake(cinnema: Run) -> None:
    assert cinnema("animate").is_mistake("photograph")


@pytest.mark.parametrize("arguments", [["--format", "avi"], ["--frames", "many"]])
def test_values_that_do_not_parse_end_with_2(
    cinnema: Run, photo: Path, arguments: list[str]
) -> None:
    result = cinnema("animate", photo, *arguments)
    assert result.code == 2
    assert arguments[1] in "".join(result.err)
    assert "Traceback" not in "".join(result.err)


def test_an_interruption_ends_with_130_and_leaves_no_part(
    animate: Run, photo: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("cinnema.synthesis.residual.save_motion", interrupt)
    assert animate(photo).code == 130
    assert not out.exists()


def test_an_unforeseen_error_keeps_its_traceback_and_does_not_stop_the_others(
    animate: Run, tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = Pipeline.stream

    def break_down(pipeline: Pipeline, photograph: Path, **options: Any) -> object:
        if photograph.stem == "bad":
            raise ZeroDivisionError("ours to correct")
        return stream(pipeline, photograph, **options)

    monkeypatch.setattr(Pipeline, "stream", break_down)
    bad, good = photograph_at(tmp_path / "bad.png"), photograph_at(tmp_path / "good.png")
    result = animate(bad, good, "-n", 1)
    assert result.code == 1
    assert "ZeroDivisionError: ours to correct" in "".join(result.err)
    assert names_in(out) == files_of("good_s0", 0)


STRANGE = {
    "latin-1": b"m\xe9.png",
    "long": b"m" * 245 + b".png",
    "cjk": ("写" * 74).encode() + b".png",
}


@pytest.mark.parametrize("name", STRANGE.values(), ids=STRANGE)
def test_a_photograph_of_any_name_is_animated(
    animate: Run, tmp_path: Path, out: Path, name: bytes
) -> None:
    folder = tmp_path / "photos"
    photograph_at(folder / "a.png")
    photograph_at(folder / os.fsdecode(name))
    assert animate(folder, "-n", 1).code == 0
    assert len(names_in(out)) == 8
    assert files_of("a_s0", 0) <= names_in(out)
    for path in out.glob("*.json"):
        assert json.loads(path.read_text(encoding="utf-8"))["source"]["sha256"]


def test_links_in_a_loop_and_pipes_do_not_stop_the_others(
    animate: Run, tmp_path: Path, out: Path
) -> None:
    folder = tmp_path / "photos"
    photograph_at(folder / "a.png")
    (folder / "loop.png").symlink_to("loop.png")
    (folder / "gone.png").symlink_to("nowhere.png")
    os.mkfifo(folder / "pipe.png")
    result = animate(folder, folder / "loop.png", "-n", 1)
    assert result.code == 1
    errors = [line for line in result.err if line.startswith("cinnema: error: ")]
    assert len(errors) == 4
    assert names_in(out) == files_of("a_s0", 0)
