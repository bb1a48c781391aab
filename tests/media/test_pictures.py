"""Photographs from files."""

import struct
import zlib
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image, ImageCms

from cinnema.core.errors import UserError
from cinnema.media.pictures import (
    read_mask,
    read_photograph,
    resize,
    resize_for_model,
    resize_mask,
    to_pixels,
    to_tensor,
)

ORIENTATION = 0x0112


@pytest.fixture
def colours() -> np.ndarray:
    """A smooth picture, 24 high and 32 wide, without any symmetry."""
    y, x = np.mgrid[:24, :32]
    return np.stack([8 * x, 10 * y, 4 * x + 2 * y], axis=-1).astype(np.uint8)


@pytest.mark.parametrize("suffix", ["png", "bmp", "tiff", "webp", "jpg"])
def test_every_format_is_read(tmp_path: Path, colours: np.ndarray, suffix: str) -> None:
    path = tmp_path / f"picture.{suffix}"
    options = {"lossless": True} if suffix == "webp" else {"quality": 95}
    Image.fromarray(colours).save(path, **options)
    pixels = read_photograph(path)
    assert pixels.shape == (24, 32, 3)
    error = np.abs(pixels.astype(int) - colours)
    assert error.max() <= (25 if suffix == "jpg" else 0)
    assert error.mean() < 3


@pytest.mark.parametrize("orientation", range(1, 9))
def test_all_exif_orientations_come_out_upright(
    tmp_path: Path, colours: np.ndarray, orientation: int
) -> None:
    """The file's first row and column are the sides of the scene that EXIF's table names."""
    as_stored = {
        1: colours,
        2: colours[:, ::-1],
        3: colours[::-1, ::-1],
        4: colours[::-1],
        5: colours.swapaxes(0, 1),
        6: np.rot90(colours),
        7: np.rot90(colours, 2).swapaxes(0, 1),
        8: np.rot90(colours, -1),
    }[orientation]
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    path = tmp_path / "turned.png"
    Image.fromarray(np.ascontiguousarray(as_stored)).save(path, exif=exif)
    assert np.array_equal(read_photograph(path), colours)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_damaged_exif_does_not_refuse_the_photograph(tmp_path: Path, colours: np.ndarray) -> None:
    path = tmp_path / "odd.jpg"
    Image.fromarray(colours).save(path, exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff\x01\x12nonsense")
    assert read_photograph(path).shape == (24, 32, 3)


@pytest.mark.parametrize("suffix", ["png", "tiff"])
def test_greys_of_16_bits_are_scaled_and_not_clipped(tmp_path: Path, suffix: str) -> None:
    levels = np.linspace(0, 65_535, 32 * 24).astype(np.uint16).reshape(24, 32)
    path = tmp_path / f"deep.{suffix}"
    Image.fromarray(levels).save(path)
    expected = np.round(levels / 257).astype(np.uint8)
    assert np.array_equal(read_photograph(path), np.stack([expected] * 3, axis=-1))
    mask = read_mask(path, (24, 32))
    assert np.abs(mask - levels / 65_535).max() <= 0.51 / 255


def test_a_turned_grey_of_16_bits_is_read(tmp_path: Path) -> None:
    levels = np.linspace(0, 65_535, 32 * 24).astype(np.uint16).reshape(24, 32)
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    Image.fromarray(levels).save(tmp_path / "deep.png", exif=exif)
    pixels = read_photograph(tmp_path / "deep.png")
    assert np.array_equal(pixels[..., 0], np.rot90(np.round(levels / 257), -1))


def test_colours_of_16_bits_are_scaled(tmp_path: Path) -> None:
    levels = np.linspace(0, 65_535, 20 * 20 * 3).astype(">u2").reshape(20, 20, 3)
    write_png_16(tmp_path / "deep.png", levels)
    error = read_photograph(tmp_path / "deep.png") - levels / 257
    assert np.abs(error).max() <= 1


def write_png_16(path: Path, levels: np.ndarray) -> None:
    """Write RGB of 16 bits, which Pillow does not."""
    height, width, _ = levels.shape
    rows = b"".join(b"\0" + row.tobytes() for row in levels)
    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + png_chunk(b"IHDR", header)
        + png_chunk(b"IDAT", zlib.compress(rows))
        + png_chunk(b"IEND", b"")
    )


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def test_floating_point_pictures_are_refused(tmp_path: Path) -> None:
    Image.fromarray(np.ones((20, 20), np.float32)).save(tmp_path / "float.tiff")
    with pytest.raises(UserError, match=r"float\.tiff has greys of 32 bits.*save it"):
        read_photograph(tmp_path / "float.tiff")


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA"])
def test_grey_and_palette_pictures_become_colours(
    tmp_path: Path, colours: np.ndarray, mode: str
) -> None:
    image = Image.fromarray(colours).convert(mode)
    image.save(tmp_path / "few.png")
    expected = np.asarray(image.convert("RGB"))
    assert np.array_equal(read_photograph(tmp_path / "few.png"), expected)


def test_cmyk_is_read_in_its_colours(tmp_path: Path) -> None:
    cyan_magenta = np.zeros((32, 32, 4), np.uint8)
    cyan_magenta[:16, :, 0] = 255
    cyan_magenta[16:, :, 1] = 255
    Image.fromarray(cyan_magenta, mode="CMYK").save(tmp_path / "print.jpg", quality=95)
    pixels = read_photograph(tmp_path / "print.jpg").astype(int)
    assert np.abs(pixels[:12] - [0, 255, 255]).max() < 12
    assert np.abs(pixels[20:] - [255, 0, 255]).max() < 12


def test_transparent_parts_lie_over_white(tmp_path: Path, colours: np.ndarray) -> None:
    alpha = np.full((24, 32), 255, np.uint8)
    alpha[:8], alpha[8:16] = 0, 128
    Image.fromarray(np.dstack([colours, alpha])).save(tmp_path / "cut out.png")
    pixels = read_photograph(tmp_path / "cut out.png")
    weight = alpha[..., None] / 255
    expected = weight * colours + (1 - weight) * 255
    assert np.abs(pixels - expected).max() <= 1


def test_a_palette_with_a_transparent_colour_is_read(tmp_path: Path) -> None:
    image = Image.new("P", (20, 20), 1)
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.paste(0, (0, 0, 20, 10))
    image.save(tmp_path / "logo.png", transparency=0)
    pixels = read_photograph(tmp_path / "logo.png")
    assert (pixels[:10] == 255).all()
    assert (pixels[10:] == [0, 0, 255]).all()


def test_an_embedded_profile_is_applied_and_a_broken_one_ignored(
    tmp_path: Path, colours: np.ndarray
) -> None:
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for profile in (srgb, b"no profile at all"):
        Image.fromarray(colours).save(tmp_path / "phone.png", icc_profile=profile)
        error = read_photograph(tmp_path / "phone.png").astype(int) - colours
        assert np.abs(error).max() <= 1


def jpeg_of_noise() -> bytes:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    with BytesIO() as file:
        Image.fromarray(noise).save(file, format="JPEG")
        return file.getvalue()


def bad_pictures(folder: Path) -> dict[str, str]:
    """Make one file of each kind that cannot be taken, and say what the error must tell."""
    whole = jpeg_of_noise()
    (folder / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "header.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(30))
    (folder / "notes.jpg").write_text("no picture, but words")
    (folder / "empty.jpg").touch()
    (folder / "folder.jpg").mkdir()
    Image.new("RGB", (1, 1)).save(folder / "dot.png")
    Image.new("RGB", (100, 15)).save(folder / "thin.png")
    for width, height in ((20_000, 20_000), (11_000, 10_000), (16_385, 20)):
        header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
        data = png_chunk(b"IDAT", zlib.compress(b""))
        name = f"{width}x{height}.png"
        (folder / name).write_bytes(b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + data)
    return {
        "cut.jpg": "damaged or cut short",
        "header.png": "not a picture",
        "notes.jpg": "not a picture.*use a JPEG",
        "empty.jpg": "is empty",
        "folder.jpg": "is a folder",
        "missing.jpg": "does not exist",
        "dot.png": "1x1 pixels, less than 16 on a side: use a larger",
        "thin.png": "100x15 pixels, less than 16",
        "20000x20000.png": "400 megapixels, over 100: scale it down",
        "11000x10000.png": "11000x10000 pixels, over 100 megapixels",
        "16385x20.png": "more than 16384 on a side",
    }


@pytest.mark.filterwarnings("error")
def test_what_cannot_be_read_is_named_in_one_line(tmp_path: Path) -> None:
    for name, complaint in bad_pictures(tmp_path).items():
        with pytest.raises(UserError, match=complaint) as caught:
            read_photograph(tmp_path / name)
        assert str(tmp_path / name) in str(caught.value)
        assert "\n" not in str(caught.value)


def test_every_kind_of_photograph_gives_the_same_pixels(
    tmp_path: Path, colours: np.ndarray
) -> None:
    Image.fromarray(colours).save(tmp_path / "a.png")
    kinds: list[Any] = [
        colours,
        Image.fromarray(colours),
        Image.fromarray(np.dstack([colours, np.full((24, 32), 255, np.uint8)])),
        to_tensor(colours),
        tmp_path / "a.png",
        str(tmp_path / "a.png"),
    ]
    for kind in kinds:
        assert np.array_equal(read_photograph(kind), colours)


@pytest.mark.parametrize(
    ("photograph", "words"),
    [
        (np.zeros((8, 8, 3), np.uint8), "8x8.*16"),
        (np.zeros((32, 32), np.uint8), "uint8.*32, 32"),
        (np.zeros((32, 32, 3), np.float32), "uint8.*float32"),
        (torch.zeros(1, 3, 32, 32), r"\(3, height, width\)"),
        (torch.full((3, 32, 32), 255.0), r"\[-1, 1\].*255"),
        (torch.full((3, 32, 32), torch.nan), r"\[-1, 1\]"),
        (Image.new("F", (32, 32)), "32 bits"),
        (Image.new("RGB", (8, 32)), "8x32.*16"),
        (Path("nowhere.jpg"), "nowhere.jpg"),
    ],
)
def test_values_that_are_not_a_photograph_are_refused(photograph: Any, words: str) -> None:
    with pytest.raises(UserError, match=words):
        read_photograph(photograph)


@pytest.mark.parametrize(
    ("mask", "expected"),
    [
        (np.ones((16, 20), bool), 1.0),
        (np.full((16, 20), 51, np.uint8), 0.2),
        (np.full((16, 20), 0.5), 0.5),
    ],
)
def test_a_mask_may_be_an_array(mask: np.ndarray, expected: float) -> None:
    found = read_mask(mask, (16, 20))
    assert found.dtype == np.float32
    assert found == pytest.approx(expected)


@pytest.mark.parametrize(
    ("mask", "words"),
    [
        (np.ones((20, 16), bool), "height and width"),
        (np.full((16, 20), 2.0), r"in \[0, 1\]"),
        (np.ones((16, 20), np.int64), "int64"),
    ],
)
def test_arrays_that_are_not_a_mask_are_refused(mask: np.ndarray, words: str) -> None:
    with pytest.raises(UserError, match=words):
        read_mask(mask, (16, 20))


def test_pictures_are_resized_to_the_height_and_width_asked_for(colours: np.ndarray) -> None:
    assert resize(colours, (24, 32)) is colours
    assert resize(colours, (50, 10)).shape == (50, 10, 3)
    assert resize_for_model(colours, 16).shape == (16, 16, 3)
    assert np.array_equal(resize_for_model(colours, 64), resize(colours, (64, 64)))
    assert np.array_equal(
        resize_for_model(colours[:16, :16], 8)[0, 0], colours[:2, :2].mean((0, 1))
    )
    assert resize_mask(np.eye(4, dtype=np.float32), (8, 2)).shape == (8, 2)


def test_a_mask_is_read_as_numbers_from_0_to_1(tmp_path: Path) -> None:
    image = Image.new("RGBA", (20, 16), (255, 255, 255, 0))
    image.paste((255, 255, 255, 255), (0, 0, 10, 16))
    image.paste((128, 128, 128, 255), (0, 0, 10, 8))
    image.save(tmp_path / "mask.png")
    mask = read_mask(tmp_path / "mask.png", (16, 20))
    assert mask.dtype == np.float32
    assert (mask[:, 10:] == 0).all()
    assert (mask[8:, :10] == 1).all()
    assert mask[:8, :10] == pytest.approx(128 / 255)


def test_a_mask_of_another_size_is_refused(tmp_path: Path) -> None:
    Image.new("L", (20, 16)).save(tmp_path / "mask.png")
    with pytest.raises(UserError, match=r"mask\.png is 20x16 pixels, the photograph 16x20"):
        read_mask(tmp_path / "mask.png", (20, 16))


@given(arrays(np.uint8, st.tuples(st.integers(1, 3), st.just(4), st.just(5), st.just(3))))
def test_pixels_survive_the_tensor(pixels: np.ndarray) -> None:
    x = to_tensor(pixels)
    assert x.shape == (*pixels.shape[:1], 3, 4, 5)
    assert x.min() >= -1
    assert x.max() <= 1
    assert np.array_equal(to_pixels(x), pixels)
    assert np.array_equal(to_pixels(to_tensor(pixels[0])), pixels[0])


def test_values_beyond_the_range_are_clamped_and_others_rounded() -> None:
    x = torch.tensor([-3.0, -1.0, 0.0, 0.005, 1.0, 3.0]).reshape(1, 2, 3).expand(3, 2, 3)
    assert to_pixels(x)[..., 0].flatten().tolist() == [0, 0, 128, 128, 255, 255]
    assert to_pixels(x.to(torch.bfloat16).requires_grad_()).dtype == np.uint8
