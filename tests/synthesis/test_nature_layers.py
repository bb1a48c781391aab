"""Layers of a photograph at its own size."""

import numpy as np

from cinnema.models.nature.kinds import KINDS
from cinnema.synthesis.nature_layers import cut_layers, solve_alphas

SKY = KINDS.index("sky")
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
