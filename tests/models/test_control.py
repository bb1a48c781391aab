"""Controls: how users give them, which a model refuses, and how they are corrected."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from bodies import noisy_video, tiny_body
from cinnema.core.errors import UserError
from cinnema.media.pictures import to_tensor
from cinnema.media.videos import VideoFile
from cinnema.models.control import (
    ControlSpec,
    Drift,
    EndPoint,
    as_drift,
    correct_control,
    resolve_control,
)
from cinnema.paper.model import END_POINT_SPEC
from cinnema.synthesis.pipeline import Pipeline
from cinnema.synthesis.query import batch_of, read_query
from cinnema.synthesis.residual import save_motion

Photographs = Callable[[int, int], np.ndarray]

SPEC = ControlSpec(
    name="drift", labels=("right", "down"), unit="picture sizes", low=(-0.3, -0.3),
    high=(0.3, 0.3), typical=0.15, optional=True,
)  # fmt: skip


def eta_of(pipe: Pipeline, control: Any, size: tuple[int, int] = (64, 64)) -> torch.Tensor:
    return resolve_control(control, pipe.model.control, model=pipe.name, size=size)


@pytest.mark.parametrize(
    ("direction", "right_and_down"),
    [(0, (0.15, 0)), (90, (0, -0.15)), (180, (-0.15, 0)), (270, (0, 0.15)), (-90, (0, 0.15))],
)
def test_directions_go_counter_clockwise_from_the_right(
    pipe: Pipeline, direction: float, right_and_down: tuple[float, float]
) -> None:
    eta = eta_of(pipe, Drift(direction=direction))
    torch.testing.assert_close(eta, torch.tensor(right_and_down), atol=1e-6, rtol=0)


def test_a_direction_is_that_of_the_picture_as_it_is_seen(pipe: Pipeline) -> None:
    eta = eta_of(pipe, Drift(direction=45), size=(100, 400))
    right, up = float(eta[0]) * 400, -float(eta[1]) * 100
    assert right == pytest.approx(up)


@given(
    direction=st.floats(0, 359.9),
    speed=st.floats(0.05, 1),
    size=st.tuples(st.integers(50, 99), st.integers(50, 99)),
)
def test_what_is_seen_of_a_drift_is_what_was_asked_for(
    direction: float, speed: float, size: tuple[int, int]
) -> None:
    eta = resolve_control(Drift(direction=direction, speed=speed), SPEC, model="a", size=size)
    seen = as_drift(eta, SPEC, size=size)
    assert seen.speed == pytest.approx(speed, rel=1e-4)
    assert seen.direction is not None
    assert abs((seen.direction - direction + 180) % 360 - 180) < 0.01


def test_what_a_drift_does_not_name_is_the_videos_own(pipe: Pipeline) -> None:
    own = torch.tensor([0.0, -0.06])
    spec, name = pipe.model.control, pipe.name
    turned = resolve_control(Drift(direction=0), spec, model=name, size=(64, 64), measured=own)
    faster = resolve_control(Drift(speed=1), spec, model=name, size=(64, 64), measured=own)
    torch.testing.assert_close(turned, torch.tensor([0.06, 0.0]), atol=1e-6, rtol=0)
    torch.testing.assert_close(faster, torch.tensor([0.0, -0.15]), atol=1e-6, rtol=0)


def test_the_control_changes_the_video_and_not_nu(pipe: Pipeline, photograph: Photographs) -> None:
    image = photograph(48, 80)
    (free,) = pipe.animate(image, num_samples=1, num_frames=2)
    (left,) = pipe.animate(image, num_samples=1, num_frames=2, eta=Drift(direction=180))
    assert torch.equal(free.nu, left.nu)
    assert not torch.equal(free.z, left.z)
    assert (free.frames != left.frames).any()


def test_no_control_is_drawn_where_the_model_can_do_without(
    pipe: Pipeline, photograph: Photographs
) -> None:
    (free,) = pipe.animate(photograph(48, 80), num_samples=1, num_frames=1)
    assert "eta" not in free.settings
    assert pipe.model.draw_eta(generator=torch.Generator()) is None
    assert pipe.model.control_dim == 2


def test_a_nu_file_brings_its_drift(
    pipe: Pipeline, photograph: Photographs, tmp_path: Path
) -> None:
    image = photograph(48, 80)
    drift = Drift(direction=30, speed=0.5)
    (first,) = pipe.animate(image, num_samples=1, num_frames=2, eta=drift)
    save_motion(tmp_path / "nu.safetensors", first)
    (again,) = pipe.animate(image, nu=tmp_path / "nu.safetensors", num_frames=2)
    (other,) = pipe.animate(
        image, nu=tmp_path / "nu.safetensors", num_frames=2, eta=Drift(direction=210)
    )
    assert np.array_equal(again.frames, first.frames)
    assert again.settings["eta"] == first.settings["eta"]
    assert torch.equal(other.nu, first.nu)
    assert (other.frames != first.frames).any()


@pytest.mark.parametrize(
    ("control", "words"),
    [
        (
            Drift(direction=0, speed=3.1),
            "speed: must be from 0 to 3 .* 0 degrees.*64x64.*3.1.*right",
        ),
        (Drift(direction=0, speed=-1), "speed: must be from 0 to 3 .*got -1"),
        (Drift(direction=0, speed=float("nan")), "speed.*nan"),
        (Drift(direction=float("inf")), "direction: must be finite"),
        (Drift(speed=1), "direction: a speed needs a direction"),
        (
            EndPoint(x=0, y=0, z=0),
            "has no end point as its control.*drift.*right from -0.45 to 0.45",
        ),
        (torch.tensor([0.0, 0.46]), "down is 0.46, out of the range.*down from -0.45 to 0.45"),
        (torch.zeros(3), "takes 2 finite numbers.*right from -0.45"),
        (torch.tensor([0.0, torch.nan]), "takes 2 finite numbers"),
    ],
)
def test_a_control_of_another_kind_or_range_is_an_error_that_describes_the_models(
    pipe: Pipeline, photograph: Photographs, control: Any, words: str
) -> None:
    with pytest.raises(UserError, match=words):
        pipe.iterate(photograph(64, 64), eta=control)


@pytest.mark.parametrize(
    "control", [Drift(direction=0), EndPoint(x=0, y=0, z=0), torch.zeros(2)], ids=str
)
def test_a_model_without_a_control_says_so(photograph: Photographs, control: Any) -> None:
    with pytest.raises(UserError, match="body takes no control: leave it out"):
        Pipeline(tiny_body(steered=False)).iterate(photograph(64, 64), eta=control)


def test_the_error_names_the_fastest_speed_for_the_direction_and_the_pictures_shape(
    pipe: Pipeline,
) -> None:
    with pytest.raises(UserError, match=r"from 0 to 1.5 in the direction of 90 degrees.*400x100"):
        eta_of(pipe, Drift(direction=90, speed=2), size=(100, 400))


def test_an_end_point_has_the_range_of_the_training_set() -> None:
    point = EndPoint(x=0.6, y=0.0, z=0.25)
    eta = resolve_control(point, END_POINT_SPEC, model="arm", size=(64, 64))
    torch.testing.assert_close(eta, torch.tensor([0.6, 0.0, 0.25]))
    for corner in (END_POINT_SPEC.low, END_POINT_SPEC.high):
        END_POINT_SPEC.require(torch.tensor(corner), model="arm")
    far = EndPoint(x=0.6, y=0.0, z=0.5)
    with pytest.raises(UserError, match=r"z is 0.5, out of .* z from 0.1915 to 0.3171"):
        resolve_control(far, END_POINT_SPEC, model="arm", size=(64, 64))
    with pytest.raises(UserError, match=r"has no drift as its control: .* end point in metres"):
        resolve_control(Drift(direction=0), END_POINT_SPEC, model="arm", size=(64, 64))


def test_the_drift_of_a_video_is_read_off_it(pipe: Pipeline, drifting: VideoFile) -> None:
    video = batch_of(read_query(drifting, pipe.model), pipe.model)
    eta, _ = pipe.model.read_control(video)
    right = 4 / 96  # four frames of one pixel
    assert float(eta[0, 0]) == pytest.approx(right, rel=0.35)
    assert abs(float(eta[0, 1])) < 0.3 * right


def test_a_model_without_a_control_reads_none_off_a_video() -> None:
    video = to_tensor(noisy_video().frames)[None]
    with pytest.raises(UserError, match="takes no control"):
        tiny_body(steered=False).read_control(video)


def test_a_corrected_control_gives_the_requested_motion() -> None:
    requested = torch.tensor([[0.1, 0.0], [-0.05, 0.1]])
    bias = torch.tensor([[0.02, -0.03], [0.0, 0.04]])

    def read(tried: Tensor) -> Tensor:
        return 0.7 * tried + bias

    tried = correct_control(read, requested, SPEC)
    before, after = ((read(t) - requested).norm(dim=1) for t in (requested, tried))
    assert bool((after < 0.1 * before).all())


def test_a_correction_never_makes_worse_and_stays_near_the_range() -> None:
    requested = torch.tensor([[0.1, 0.2], [0.3, -0.3]])

    def contrary(tried: Tensor) -> Tensor:
        return -3 * tried

    assert torch.equal(correct_control(contrary, requested, SPEC), requested)

    def deaf(tried: Tensor) -> Tensor:
        return 0 * tried

    tried = correct_control(deaf, requested, SPEC)
    assert torch.equal(tried, requested)  # no control is nearer


def test_a_correction_is_at_most_as_large_as_allowed() -> None:
    requested = torch.tensor([[0.1, 0.0], [0.0, 0.2]])
    reach = torch.tensor([[0.03], [0.5]])

    def slow(tried: Tensor) -> Tensor:
        return 0.5 * tried

    tried = correct_control(slow, requested, SPEC, max_correction=reach)
    assert float((tried - requested)[0].norm()) == pytest.approx(0.03, abs=1e-6)
    assert float((tried - requested)[1].norm()) > 0.1
