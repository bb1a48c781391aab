"""What is enlarged, reflected and filled at the photograph's own size."""

from collections.abc import Callable
from typing import Literal

import numpy as np
import pytest
import torch

from cinnema.media.pictures import to_pixels, to_tensor
from cinnema.models.layers import fill
from cinnema.synthesis.native import Enlarged, fill_hidden, mirrored, strips

Photographs = Callable[[int, int], np.ndarray]


@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
def test_fields_are_enlarged_as_torch_does_in_strips(mode: Literal["bilinear", "bicubic"]) -> None:
    field = torch.randn(2, 16, 16, generator=torch.Generator().manual_seed(0))
    size, columns = (900, 700), slice(100, 300)
    whole = torch.nn.functional.interpolate(field[None], size, mode=mode, align_corners=False)[0]
    enlarged = Enlarged(field, size, mode=mode, columns=columns)
    parts = list(strips(*size))
    assert len(parts) > 1
    for rows in parts:
        np.testing.assert_allclose(enlarged.rows(rows), whole[:, rows, columns], atol=1e-5)


def test_places_far_beyond_the_edges_are_reflected() -> None:
    places = np.arange(-70, 90, dtype=np.float32)
    around = np.pad(np.arange(10), (70, 80), mode="symmetric")
    np.testing.assert_array_equal(mirrored(places, 10), around)


def test_large_photographs_are_filled_as_small_ones(photograph: Photographs) -> None:
    height, width = 960, 1280
    pixels = photograph(height, width)
    seen = np.zeros((height, width), np.float32)
    seen[:640] = 1
    expected = fill(to_tensor(pixels)[None], torch.from_numpy(seen)[None, None])
    plate, of_all = fill_hidden(pixels, seen), to_pixels(expected[0])
    assert np.array_equal(plate[:640], pixels[:640])
    hidden = np.abs(plate[656:].astype(int) - of_all[656:])
    was_there = np.abs(pixels[656:].astype(int) - of_all[656:])
    assert hidden.mean() < 0.2 * was_there.mean()
