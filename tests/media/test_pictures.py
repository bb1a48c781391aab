"""Photographs from files."""

import base64
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
from PIL import Image, ImageCms, PngImagePlugin

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


def with_chunks(path: Path, pixels: np.ndarray, **chunks: bytes) -> Path:
    """Save a PNG with more chunks before its pixels."""
    info = PngImagePlugin.PngInfo()
    for name, content in chunks.items():
        info.add(name.encode(), content)
    Image.fromarray(pixels).save(path, pnginfo=info)
    return path


@pytest.mark.parametrize(
    ("chunks", "expected"),
    [
        ({"gAMA": (100_000).to_bytes(4, "big")}, 168),  # light, as it is
        ({"gAMA": (45_455).to_bytes(4, "big")}, 100),  # sRGB's
        ({"gAMA": bytes(4)}, 100),  # no gamma
        ({"gAMA": (100_000).to_bytes(4, "big"), "sRGB": b"\0"}, 100),
        ({"gAMA": (100_000).to_bytes(4, "big"), "cHRM": bytes(32)}, 168),
        ({"cICP": bytes((1, 8, 0, 1))}, 168),
        ({"gAMA": (100_000).to_bytes(4, "big"), "cICP": bytes((1, 13, 0, 1))}, 100),
    ],
)
@pytest.mark.parametrize("shape", [(16, 16), (16, 16, 3), (16, 16, 4)])
def test_what_a_png_says_of_its_colours_is_honoured(
    tmp_path: Path, shape: tuple[int, ...], chunks: dict[str, bytes], expected: int
) -> None:
    pixels = np.full(shape, 100, np.uint8)
    if len(shape) == 3:
        pixels[..., 3:] = 255
    path = with_chunks(tmp_path / "a.png", pixels, **chunks)
    assert (read_photograph(path) == expected).all()
    with Image.open(path) as image:  # pixels in memory mean the same
        assert (read_photograph(image) == expected).all()


def test_the_primaries_of_a_png_are_honoured(tmp_path: Path) -> None:
    p3 = (31_270, 32_900, 68_000, 32_000, 26_500, 69_000, 15_000, 6_000)  # white first
    chunks = {
        "gAMA": (45_455).to_bytes(4, "big"),
        "cHRM": b"".join(value.to_bytes(4, "big") for value in p3),
    }
    pixels = np.full((16, 16, 3), (153, 77, 26), np.uint8)
    read = read_photograph(with_chunks(tmp_path / "a.png", pixels, **chunks)).astype(int)
    assert np.abs(read - [165, 72, 0]).max() <= 3
    read = read_photograph(with_chunks(tmp_path / "b.png", pixels, cICP=bytes((12, 13, 0, 1))))
    assert np.abs(read.astype(int) - [165, 72, 0]).max() <= 3


GREY_TAGS = (
    (b"desc", b"desc" + bytes(4) + struct.pack(">I", 5) + b"gray\0" + bytes(80)),
    (b"wtpt", b"XYZ " + bytes(4) + struct.pack(">3i", 0xF6D6, 0x10000, 0xD32D)),
    (b"kTRC", b"curv" + bytes(4) + struct.pack(">IH", 1, 256) + bytes(2)),
    (b"cprt", b"text" + bytes(4) + b"none" + bytes(4)),
)


def grey_profile() -> bytes:
    """A profile of greys in linear light."""
    table, data, start = b"", b"", 132 + 12 * len(GREY_TAGS)
    for name, content in GREY_TAGS:
        table += name + struct.pack(">II", start + len(data), len(content))
        data += content + bytes(-len(content) % 4)
    body = struct.pack(">I", len(GREY_TAGS)) + table + data
    head = struct.pack(
        ">I4sI4s4s4s", 128 + len(body), b"lcms", 0x02400000, b"mntr", b"GRAY", b"XYZ "
    )
    head += struct.pack(">6H4s", 2020, 1, 1, 0, 0, 0, b"acsp").ljust(28 + 4, b"\0")
    white = struct.pack(">3I", 0xF6D6, 0x10000, 0xD32D)
    return head.ljust(68, b"\0") + white.ljust(60, b"\0") + body


@pytest.mark.parametrize("mode", ["L", "LA", "1"])
def test_a_profile_of_greys_is_applied(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "a.png"
    level = 255 if mode == "1" else 100
    Image.new("L", (16, 16), level).convert(mode).save(path, icc_profile=grey_profile())
    assert np.abs(read_photograph(path).astype(int) - (255 if mode == "1" else 168)).max() <= 1


def test_a_palette_and_a_grey_with_a_profile_of_colours_are_read(tmp_path: Path) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for mode in ("P", "L"):
        path = tmp_path / f"{mode}.png"
        Image.new("L", (16, 16), 100).convert(mode).save(path, icc_profile=profile)
        assert np.abs(read_photograph(path).astype(int) - 100).max() <= 1


def test_a_bitmap_whose_alpha_is_all_zero_is_opaque(tmp_path: Path) -> None:
    path = tmp_path / "a.bmp"
    Image.new("RGBA", (16, 16), (200, 100, 50, 7)).save(path)
    content = path.read_bytes()
    offset = int.from_bytes(content[10:14], "little")
    masks = struct.pack("<4I", 0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    header = (
        struct.pack("<IiiHHIIiiII", 108, 16, 16, 1, 32, 3, 1024, 0, 0, 0, 0) + masks + bytes(52)
    )
    for alpha, expected in ((0, [200, 100, 50]), (255, [200, 100, 50])):
        pixels = bytes((50, 100, 200, alpha)) * 256
        head = struct.pack("<2sIHHI", b"BM", 14 + len(header) + 1024, 0, 0, 14 + len(header))
        path.write_bytes(head + header + pixels)
        assert (read_photograph(path) == expected).all()
    assert offset > 0


HEIC = base64.b64decode(
    "AAAAHGZ0eXBoZWljAAAAAG1pZjFoZWljbWlhZgAAAXxtZXRhAAAAAAAAACFoZGxyAAAAAAAAAABwaWN0AAAAAAAAAAAA"
    "AAAAAAAAACJpbG9jAAAAAERAAAEAAQAAAAABoAABAAAAAAAAACsAAAAjaWluZgAAAAAAAQAAABVpbmZlAgAAAAABAABo"
    "dmMxAAAAAA5waXRtAAAAAAABAAAA/GlwcnAAAADcaXBjbwAAAHVodmNDAQNwAAAAkAAAAAAAHvAA/P34+AAADwNgAAEA"
    "GEABDAH//wNwAAADAJAAAAMAAAMAHroCQGEAAQApQgEBA3AAAAMAkAAAAwAAAwAeoCCBBZbqrprm4YGgwIAAAAyAAAAD"
    "AIRiAAEABkQBwXPBiQAAABNjb2xybmNseAAMAA0ABoAAAAAUaXNwZQAAAAAAAABAAAAAQAAAAChjbGFwAAAAIAAAAAEA"
    "AAAQAAAAAf///+AAAAAC////0AAAAAIAAAAQcGl4aQAAAAADCAgIAAAAGGlwbWEAAAAAAAAAAQABBYECAwWEAAAAM21k"
    "YXQAAAAnKAGvUhYFJOb86r//Wa//zMOQ5deTIlR6pEpbLaqAllpuq1CLS2yz"
)
"""32x16 pixels of (161, 79, 13) in Display P3"""


def test_what_iphones_take_is_read_in_its_colours(tmp_path: Path) -> None:
    path = tmp_path / "IMG_0001.HEIC"
    path.write_bytes(HEIC)
    read = read_photograph(path)
    assert read.shape == (16, 32, 3)
    assert np.abs(read.astype(int) - [174, 73, 0]).max() <= 4
    path.write_bytes(HEIC[:-20])
    with pytest.raises(UserError, match="damaged or cut short"):
        read_photograph(path)


def test_avif_is_read_in_its_colours(tmp_path: Path) -> None:
    path = tmp_path / "a.avif"
    Image.new("RGB", (32, 16), (153, 77, 26)).save(path, quality=100)
    assert np.abs(read_photograph(path).astype(int) - [153, 77, 26]).max() <= 4
    content = path.read_bytes()
    at = content.index(b"colrnclx") + 8
    path.write_bytes(content[:at] + struct.pack(">H", 12) + content[at + 2 :])  # Display P3
    assert np.abs(read_photograph(path).astype(int) - [165, 72, 0]).max() <= 6


def test_a_damaged_avif_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.avif"
    Image.effect_noise((64, 64), 80).convert("RGB").save(path)
    content = path.read_bytes()
    at = content.index(b"mdat") + 4
    path.write_bytes(content[:at] + bytes(len(content) - at))
    with pytest.raises(UserError, match="damaged or cut short"):
        read_photograph(path)
