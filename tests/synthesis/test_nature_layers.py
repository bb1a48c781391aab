"""Layers of a photograph at its own size."""

import numpy as np
import pytest

from cinnema.models.nature.kinds import KINDS
from cinnema.synthesis.nature_layers import cut_layers, solve_alphas

SKY, WATER, PLANTS = (KINDS.index(name) for name in ("sky", "water", "plants"))
CELLS, SIZE = 48, 192


def seen(sky: np.ndarray) -> np.ndarray:
    """Probabilities of a picture whose rows are sky with given probabilities, and else still."""
    probabilities = np.zeros((1 + len(KINDS), CELLS, CELLS), np.float32)
    probabilities[1 + SKY] = sky[:, None]
    probabilities[0] = 1 - sky[:, None]
    return probabilities


def test_what_the_network_doubts_to_be_sky_stands_though_it_has_its_colours() -> None:
    """A far headland under a cloud of its colour."""
    sky = np.full(CELLS, 0.01, np.float32)
    sky[:24], sky[24:30] = 0.99, 0.6
    pixels = np.full((SIZE, SIZE, 3), (90, 110, 160), np.uint8)
    pixels += np.random.default_rng(0).integers(0, 9, pixels.shape, np.uint8)
    alpha = solve_alphas(seen(sky), pixels)[SKY]
    assert alpha[: 4 * 20].min() == 1
    assert alpha[4 * 25 :].max() == 0


def test_colours_of_what_half_stands_are_not_in_what_is_warped() -> None:
    sky = np.full(CELLS, 0.01, np.float32)
    sky[:24], sky[24:30] = 0.99, 0.6
    pixels = np.full((SIZE, SIZE, 3), (90, 110, 160), np.uint8)
    pixels[4 * 24 :] = (40, 50, 60)
    (layer,) = cut_layers(pixels, solve_alphas(seen(sky), pixels), seen(sky))
    assert layer.kind == SKY
    assert np.abs(layer.plate.astype(int) - (90, 110, 160)).max() <= 3


def all_of(kind: int) -> np.ndarray:
    """Probabilities of a picture of one kind."""
    probabilities = np.full((1 + len(KINDS), CELLS, CELLS), 0.002, np.float32)
    probabilities[1 + kind] = 0.99
    return probabilities


def ripples(colour: tuple[int, int, int]) -> np.ndarray:
    """A picture of about one colour."""
    noise = np.random.default_rng(0).integers(-9, 10, (SIZE, SIZE, 1))
    return np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8)


POST, FOAM, GULL, LETTER, FLOWER = (
    (slice(80, 100), slice(60, 66)),
    (slice(80, 100), slice(110, 150)),
    (slice(80, 86), slice(120, 126)),
    (slice(80, 120), slice(60, 66)),
    (slice(80, 120), slice(110, 150)),
)


@pytest.mark.parametrize(("kind", "colour"), [(WATER, (90, 130, 150)), (PLANTS, (150, 160, 80))])
def test_dark_things_too_small_for_the_network_stand_and_bright_ones_move(
    kind: int, colour: tuple[int, int, int]
) -> None:
    """A post or a deer stands; foam, glints and blossoms move along."""
    pixels = ripples(colour)
    pixels[POST], pixels[FOAM] = (30, 25, 20), (215, 225, 225)
    alpha = solve_alphas(all_of(kind), pixels)[kind]
    assert alpha[POST].max() < 0.05
    assert alpha[FOAM].min() == 1
    assert alpha[:60].min() == 1
    (layer,) = cut_layers(pixels, {kind: alpha}, all_of(kind))
    assert layer.plate[POST].min() > 60  # the post leaves no copy in what moves


def test_a_single_bright_thing_stands() -> None:
    """A gull or a far sail."""
    pixels = ripples((90, 130, 150))
    pixels[GULL] = (235, 235, 230)
    alpha = solve_alphas(all_of(WATER), pixels)[WATER]
    assert alpha[GULL].max() < 0.05
    assert alpha[:60].min() == 1


def test_white_lettering_over_leaves_stands_and_a_white_flower_moves() -> None:
    pixels = ripples((60, 90, 40))
    pixels[LETTER] = pixels[FLOWER] = 255
    alpha = solve_alphas(all_of(PLANTS), pixels)[PLANTS]
    assert alpha[LETTER].max() < 0.05
    assert alpha[FLOWER].min() == 1
    assert solve_alphas(all_of(WATER), pixels)[WATER].min() == 1  # there, it may be foam
