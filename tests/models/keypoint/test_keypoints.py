"""Keypoints of the picture: left and right, drawn, found, and followed by the flow."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from cinnema.models.keypoint.keypoints import (
    PointFinder,
    PointMotion,
    draw_points,
    expected_points,
    map_distance,
    sort_symmetric,
)

LEGS = (((0, 1), (2, 3)),)


def walker(*, left: float, right: float) -> Tensor:
    """A clip of two legs, knee and foot each, whose feet change sides in between."""
    xs = torch.tensor([[left, left, right, right], [right, right, left, left]])
    points = torch.stack([xs, torch.tensor([0.5, 0.8, 0.5, 0.8]).expand(2, 4)], dim=-1)
    return points.reshape(1, 2, 8)


def test_the_leg_further_left_in_x0_is_the_first_and_stays_it() -> None:
    sorted_already, crossed = walker(left=0.3, right=0.6), walker(left=0.6, right=0.3)
    assert torch.equal(sort_symmetric(sorted_already, LEGS), sorted_already)
    assert torch.equal(sort_symmetric(crossed, LEGS), sorted_already)


def test_a_limb_changes_sides_as_a_whole() -> None:
    track = walker(left=0.3, right=0.6)
    track[0, 0, 2] = 0.7  # the left leg's foot is put before the other, its knee far behind
    track[0, 0, 0] = 0.1
    assert torch.equal(sort_symmetric(track, LEGS), track)


def test_without_symmetric_limbs_or_points_a_track_stays_as_it_is() -> None:
    track, nothing = torch.rand(2, 3, 8), torch.zeros(2, 3, 0)
    assert sort_symmetric(track, ()) is track
    assert sort_symmetric(nothing, LEGS) is nothing


def test_a_drawn_point_is_1_where_it_is_and_fades() -> None:
    size = 32
    centre_of_a_cell = torch.tensor([[(20 + 0.5) / size, (5 + 0.5) / size]])
    drawn = draw_points(centre_of_a_cell, size=size)[0]
    assert drawn[5, 20] == 1
    assert drawn.argmax() == 5 * size + 20
    assert drawn[5, 21] == pytest.approx(math.exp(-0.5 * (1 / size / 0.03) ** 2))
    assert drawn[25, 2] < 1e-6


@settings(deadline=None, max_examples=30)
@given(x=st.floats(0.04, 0.96), y=st.floats(0.04, 0.96))
def test_a_point_on_a_map_is_found_where_it_was_put(x: float, y: float) -> None:
    point, cells = torch.tensor([[x, y]]), torch.arange(16)
    across, down = (1 - (point[0] * 16 - 0.5)[:, None].sub(cells).abs()).clamp_min(0)
    maps = (down[:, None] * across + 1e-12).log()[None]
    torch.testing.assert_close(expected_points(maps), point, atol=1e-4, rtol=0)
    assert map_distance(maps, point) < 1e-4


def test_a_map_that_sees_elsewhere_is_further_off_than_one_that_leaves_it_open() -> None:
    point = torch.tensor([[0.25, 0.25]])
    sure, other = (torch.full((1, 8, 8), -9.0) for _ in range(2))
    sure[0, 1:3, 1:3], other[0, 5:7, 5:7] = 0, 0
    either = torch.maximum(sure, other)
    right, open_, wrong = (float(map_distance(m, point)) for m in (sure, either, other))
    assert right < open_ < wrong
    assert open_ - right == pytest.approx(math.log(2), abs=0.05)


def test_a_point_outside_counts_at_the_edge() -> None:
    maps = torch.zeros(1, 8, 8)
    inside, outside = torch.tensor([[0.0, 0.0]]), torch.tensor([[-3.0, -0.5]])
    assert map_distance(maps, inside) == map_distance(maps, outside)
    assert torch.isfinite(map_distance(maps, outside))


def test_what_follows_a_point_comes_from_where_it_was() -> None:
    motion = PointMotion(in_dim=8, num_points=2)
    with torch.no_grad():
        motion.layer.bias.copy_(torch.tensor([20.0, 0.0, 0.0]))  # all follow the first
    start = torch.tensor([[[0.2, 0.5], [0.9, 0.9]]])
    now = torch.tensor([[[0.5, 0.4], [0.1, 0.1]]])
    flow = motion(torch.zeros(1, 8, 4, 4), start, now)
    expected = torch.tensor([-0.3, 0.1])[None, :, None, None].expand(1, 2, 4, 4)
    torch.testing.assert_close(flow, expected, atol=1e-5, rtol=0)


def test_what_follows_nothing_stands_still() -> None:
    motion = PointMotion(in_dim=8, num_points=2)
    with torch.no_grad():
        motion.layer.bias.copy_(torch.tensor([0.0, 0.0, 30.0]))
    flow = motion(torch.zeros(1, 8, 4, 4), torch.rand(1, 2, 2), torch.rand(1, 2, 2))
    assert flow.abs().max() < 1e-6


def test_a_finder_gives_a_map_for_each_point_at_the_finest_scale() -> None:
    find = PointFinder(widths=(16, 24, 32), num_points=5)
    maps = find(torch.rand(2, 16, 8, 8), torch.rand(2, 24, 4, 4), torch.rand(2, 32, 2, 2))
    assert maps.shape == (2, 5, 8, 8)
