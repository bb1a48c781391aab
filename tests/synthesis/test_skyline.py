"""The network's answer, corrected by what a photograph can show."""

import numpy as np
import pytest

from cinnema.models.nature.kinds import KINDS, STILL
from cinnema.synthesis.skyline import corrected, doubt

SKY, WATER, PLANTS = (1 + KINDS.index(name) for name in ("sky", "water", "plants"))
CELLS = 48


def seen(sky: np.ndarray, other: int) -> np.ndarray:
    """Probabilities of a picture of sky and of one other class."""
    probabilities = np.zeros((1 + len(KINDS), CELLS, CELLS), np.float32)
    probabilities[SKY] = sky
    probabilities[other] = 1 - sky
    return probabilities


def coast() -> np.ndarray:
    """Probability of a sky in the upper half."""
    sky = np.full((CELLS, CELLS), 0.01, np.float32)
    sky[:24] = 0.995
    return sky


def test_a_scrap_of_cloud_that_is_taken_for_plants_is_sky() -> None:
    sky = coast()
    sky[10:13, 20:24] = 0.3
    found = corrected(seen(sky, PLANTS))
    assert found[SKY, 10:13, 20:24].min() == 1
    assert found[PLANTS, :24].max() < 0.01
    assert found[PLANTS, 25:].min() > 0.9


@pytest.mark.parametrize(
    ("other", "rows", "columns"),
    [
        (STILL, slice(10, 13), slice(20, 24)),  # a bird
        (PLANTS, slice(20, 26), slice(20, 24)),  # a tree that stands on the ground
        (PLANTS, slice(0, 5), slice(20, 24)),  # a branch that enters from above
        (PLANTS, slice(2, 22), slice(10, 40)),  # a tree that fills the sky
    ],
)
def test_other_things_in_the_sky_stay_what_they_are(
    other: int, rows: slice, columns: slice
) -> None:
    sky = coast()
    sky[rows, columns] = 0.1
    assert np.array_equal(corrected(seen(sky, other)), seen(sky, other))


def test_sky_around_water_seen_from_above_is_water() -> None:
    sky = np.full((CELLS, CELLS), 0.99, np.float32)
    sky[24:, 12:36] = 0.01
    found = corrected(seen(sky, WATER))
    assert found[WATER].min() > 0.98
    assert found[SKY].max() < 0.02


def test_a_sky_that_reaches_the_bottom_of_a_picture_without_water_stays() -> None:
    sky = np.full((CELLS, CELLS), 0.99, np.float32)
    sky[24:, 12:36] = 0.01
    assert np.array_equal(corrected(seen(sky, STILL)), seen(sky, STILL))


def test_the_mirror_of_a_sky_is_water_and_the_sky_stays() -> None:
    probabilities = seen(coast(), WATER)
    probabilities[:, 36:] = 0
    probabilities[SKY, 36:] = 1
    found = corrected(probabilities)
    assert found[SKY, :24].min() > 0.99
    assert found[WATER, 36:].min() == 1


def test_a_hill_behind_a_doubtful_outline_is_doubted_as_a_whole() -> None:
    sky = coast()
    sky[18, :] = 0.93
    sky[19:24] = 0.98
    found = doubt(sky)
    assert found[18:24].min() > 0.5
    assert found[:18].max() == 0


def test_a_doubtful_cloud_that_touches_nothing_is_not_doubted() -> None:
    sky = coast()
    sky[5:9, 5:40] = 0.7
    assert doubt(sky)[:20].max() == 0


def test_an_even_sky_of_which_the_network_is_not_sure_is_not_doubted() -> None:
    sky = coast()
    sky[:24] = 0.8
    assert doubt(sky)[:24].max() == 0


def test_a_picture_without_sky_has_no_doubt() -> None:
    assert doubt(np.full((CELLS, CELLS), 0.2, np.float32)).max() == 0


@pytest.mark.parametrize("name", ["water", "fire", "plants"])
def test_what_the_network_is_hardly_anywhere_sure_of_stands(name: str) -> None:
    kind = 1 + KINDS.index(name)
    probabilities = seen(np.zeros((CELLS, CELLS), np.float32), STILL)
    doubtful, sure = (slice(5, 15), slice(5, 15)), (slice(30, 40), slice(30, 40))
    for place, share in ((doubtful, 2), (sure, 3)):
        probabilities[kind][place] = 0.5
        probabilities[kind][place][:share] = 0.97
        probabilities[STILL][place] = 1 - probabilities[kind][place]
    found = corrected(probabilities)
    assert found[STILL][doubtful].min() == pytest.approx(1)
    assert found[kind][doubtful].max() == 0
    assert np.array_equal(found[kind][sure], probabilities[kind][sure])
    assert np.allclose(found.sum(0), 1)


def test_a_picture_of_nothing_but_doubt_stands() -> None:
    probabilities = np.full((1 + len(KINDS), CELLS, CELLS), 0.2, np.float32)
    probabilities[1 + KINDS.index("falling")] = 0
    probabilities[PLANTS] = 0.32
    probabilities[STILL] = 0.08
    assert corrected(probabilities)[PLANTS].max() == 0
