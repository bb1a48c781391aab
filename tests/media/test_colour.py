"""Colours of files to sRGB, against the numbers of the standards."""

import numpy as np
import pytest

from cinnema.media.colour import ColourSpace, are_primaries, colour_space, to_srgb

BT709, BT2020, P3 = 1, 9, 12
SRGB, LINEAR, PQ, HLG = 13, 8, 16, 18


def shown(values: tuple[float, float, float], space: ColourSpace) -> list[int]:
    return to_srgb(np.round(np.array([[values]]) * 65_535).astype(np.uint16), space)[0, 0].tolist()


def test_srgb_stays_as_it_is_at_every_level() -> None:
    levels = np.repeat(np.arange(256, dtype=np.uint16)[:, None, None], 3, axis=2)
    assert np.array_equal(to_srgb(levels * np.uint16(257), ColourSpace()), levels)
    assert ColourSpace().is_srgb
    assert colour_space(2, 2).is_srgb  # nothing is stated


def test_light_is_encoded_by_the_curve_of_srgb() -> None:
    assert shown((0.5, 0.18, 0.0), colour_space(BT709, LINEAR)) == [188, 118, 0]


@pytest.mark.parametrize(("primaries", "transfer"), [(BT2020, PQ), (BT2020, HLG), (P3, SRGB)])
def test_greys_have_no_colour_in_any_space(primaries: int, transfer: int) -> None:
    for value in (0.0, 0.2, 0.5, 0.75, 1.0):
        red, green, blue = shown((value,) * 3, colour_space(primaries, transfer))
        assert max(red, green, blue) - min(red, green, blue) <= 1


def test_display_p3_has_redder_reds() -> None:
    """0.6, 0.3, 0.1 in Display P3 is 0.644, 0.277, 0.001 in sRGB, as CSS Color 4's sample code."""
    assert shown((0.6, 0.3, 0.1), colour_space(P3, SRGB)) == pytest.approx([165, 72, 0], abs=3)
    assert shown((0.0, 1.0, 0.0), colour_space(BT2020, SRGB)) == [0, 255, 0]  # out of the gamut


def test_reference_white_of_hdr_is_nearly_white_and_darker_levels_are_true() -> None:
    """203 cd/m2 are 58 % of PQ and 75 % of HLG (BT.2408); below the knee nothing changes."""
    for value, transfer in ((0.5806, PQ), (0.75, HLG)):
        assert 225 <= shown((value,) * 3, colour_space(BT709, transfer))[0] <= 240
    tenth = (20.3 / 10_000) ** 0.1593017578125  # of white, which is 89 in sRGB
    value = ((0.8359375 + 18.8515625 * tenth) / (1 + 18.6875 * tenth)) ** 78.84375
    assert shown((value,) * 3, colour_space(BT709, PQ))[0] == pytest.approx(89, abs=1)


@pytest.mark.parametrize("transfer", [PQ, HLG])
def test_brighter_is_never_shown_darker(transfer: int) -> None:
    values = np.linspace(0, 65_535, 512).astype(np.uint16)
    levels = to_srgb(np.stack([values] * 3, axis=-1)[None], colour_space(BT2020, transfer))[0, :, 0]
    assert (np.diff(levels.astype(int)) >= 0).all()
    assert (levels[0], levels[-1]) == (0, 255)


@pytest.mark.parametrize("transfer", [4, 5, 8, 9, 10, 17])
@pytest.mark.parametrize("primaries", [1, 4, 5, 6, 7, 8, 9, 10, 11, 12, 22])
def test_every_code_point_takes_black_to_black_and_white_to_white(
    primaries: int, transfer: int
) -> None:
    space = colour_space(primaries, transfer)
    assert are_primaries(space.chromaticities)
    assert shown((0, 0, 0), space) == [0, 0, 0]
    assert min(shown((1, 1, 1), space)) >= 253


def test_points_on_a_line_or_without_white_are_no_primaries() -> None:
    assert not are_primaries((0.1, 0.1, 0.2, 0.2, 0.3, 0.3, 0.31, 0.33))
    assert not are_primaries((0.64, 0.33, 0.30, 0.60, 0.15, 0.06, 0.0, 0.0))
