"""Videos of a nature model that follow arrows."""

import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from bodies import noisy_video, tiny_body
from cinnema.core.errors import UserError
from cinnema.models.control import Drift
from cinnema.models.nature.kinds import KINDS
from cinnema.models.nature.model import KIND_DIM, MOTION_DIM
from cinnema.models.nature.reading import velocity_of
from cinnema.synthesis.hints import Arrow
from cinnema.synthesis.pipeline import Pipeline
from cinnema.synthesis.residual import save_motion
from cinnema.synthesis.video import Video
from small_nature import textured

Coast = Callable[[int, int], np.ndarray]

SKY, WATER = KINDS.index("sky"), KINDS.index("water")
# In the middle of cells of the field's grid; the photograph has 96x64 pixels.
ON_SKY, ON_WATER = (76, 4.5), (10, 54.5)


@pytest.fixture(scope="module")
def photo(coast: Coast) -> np.ndarray:
    return coast(64, 96)


def velocity_at(pipe: Pipeline, video: Video, kind: int, x: float, y: float) -> torch.Tensor:
    """Return the velocity of a point in cells of a second, as the renderer integrates it."""
    model = pipe.model
    field = velocity_of(model.read_motion(video.z[None])[kind][0])[0]
    dynamics = model.config.dynamics[kind]
    row, column = int((y + 0.5) / 2), int((x + 0.5) / 3)
    rate = model.fps if video.settings["protocol"] == "paper" else dynamics.rate
    return field[:, row, column] * dynamics.gain * rate * torch.tensor([96.0, 64.0])


@pytest.mark.parametrize("protocol", ["natural", "paper"])
def test_a_video_moves_at_an_arrow_as_the_arrow_says(
    nature: Pipeline, photo: np.ndarray, protocol: str
) -> None:
    arrows = [(*ON_SKY, -4, 1), (*ON_WATER, 0, -6)]
    for video in nature(photo, num_samples=2, num_frames=1, arrows=arrows, protocol=protocol):
        for kind, (x, y, *wanted) in zip((SKY, WATER), arrows, strict=True):
            got = velocity_at(nature, video, kind, x, y)
            assert (got - torch.tensor(wanted)).norm() < 0.8


def test_arrows_are_in_pixels_of_the_photograph_whatever_the_frames_size(
    nature: Pipeline, photo: np.ndarray
) -> None:
    arrows = [Arrow(*ON_SKY, -4, 1)]
    native, large = (
        nature(photo, num_samples=1, num_frames=1, arrows=arrows, size=size)[0]
        for size in ("native", (192, 128))
    )
    assert torch.equal(native.nu, large.nu)


def test_samples_differ_in_what_the_arrow_leaves_open(nature: Pipeline, photo: np.ndarray) -> None:
    first, second = nature(photo, num_samples=2, num_frames=1, arrows=[(*ON_SKY, -4, 1)])
    plain = nature(photo, num_samples=1, num_frames=1)[0]
    assert (first.nu - second.nu)[:KIND_DIM].norm() > 1
    assert torch.equal(first.nu[MOTION_DIM:], plain.nu[MOTION_DIM:])
    assert torch.equal(first.nu[KIND_DIM:MOTION_DIM], plain.nu[KIND_DIM:MOTION_DIM])


def test_the_settings_name_the_arrows_and_make_the_video_again(
    nature: Pipeline, photo: np.ndarray
) -> None:
    video = nature(photo, num_samples=1, num_frames=2, arrows=[(*ON_SKY, -4, 1)])[0]
    assert video.settings["arrows"] == [[*ON_SKY, -4, 1]]
    again = nature(photo, num_samples=1, num_frames=2, arrows=video.settings["arrows"])[0]
    np.testing.assert_array_equal(video.frames, again.frames)


def test_a_motion_file_makes_the_same_video_without_arrows(
    nature: Pipeline, photo: np.ndarray, tmp_path: Path
) -> None:
    video = nature(
        photo, num_samples=1, num_frames=2, temperature=0.7, arrows=[(*ON_SKY, -4, 1)],
        current=Drift(direction=90, speed=0.5),
    )[0]  # fmt: skip
    save_motion(tmp_path / "a.nu.safetensors", video)
    again = nature(photo, nu=tmp_path / "a.nu.safetensors", num_frames=2)[0]
    np.testing.assert_array_equal(video.frames, again.frames)


def test_a_current_moves_the_water_and_not_the_sky(nature: Pipeline, photo: np.ndarray) -> None:
    plain = nature(photo, num_samples=1, num_frames=1)[0]
    video = nature(photo, num_samples=1, num_frames=1, current=Drift(direction=180))[0]
    assert video.settings["current"] == {"direction": 180, "speed": None}
    sky, water = (slice(k * KIND_DIM, (k + 1) * KIND_DIM) for k in (SKY, WATER))
    assert torch.equal(video.nu[sky], plain.nu[sky])
    assert not torch.equal(video.nu[water], plain.nu[water])
    assert velocity_at(nature, video, WATER, *ON_WATER)[0] < 0


def test_arrows_on_water_go_with_a_direction_of_the_sky(
    nature: Pipeline, photo: np.ndarray
) -> None:
    wind = Drift(direction=0, speed=0.5)
    plain = nature(photo, num_samples=1, num_frames=1, eta=wind)[0]
    video = nature(photo, num_samples=1, num_frames=1, eta=wind, arrows=[(*ON_WATER, 0, -6)])[0]
    sky = slice(SKY * KIND_DIM, (SKY + 1) * KIND_DIM)
    torch.testing.assert_close(video.z[sky], plain.z[sky])
    with pytest.raises(UserError, match="the sky has a direction and speed already"):
        nature(photo, num_samples=1, num_frames=1, eta=wind, arrows=[(*ON_SKY, -4, 1)])


def test_a_current_and_a_direction_of_the_same_water_are_refused_before_the_first_video(
    nature: Pipeline,
) -> None:
    lake = textured("water", (64, 96))
    asked = {"eta": Drift(direction=0), "current": Drift(direction=180)}
    with pytest.raises(UserError, match=r"^current: the water .* shows no sky.* or current$"):
        nature.stream(lake, **asked)
    with pytest.raises(UserError, match=r"^arrows: the water .* or arrows and current$"):
        nature.iterate(lake, arrows=[(40, 30, 2, 0)], **asked)


def test_an_arrow_on_what_is_kept_still_moves_nothing_and_says_so(
    nature: Pipeline, photo: np.ndarray
) -> None:
    mask = np.zeros((64, 96), np.float32)
    mask[:32] = 1
    plain = nature(photo, num_samples=1, num_frames=1, keep_still=mask)[0]
    with pytest.warns(UserWarning, match="arrow 76,4.5,-4,1 is on still ground"):
        video = nature(
            photo, num_samples=1, num_frames=1, keep_still=mask, arrows=[(*ON_SKY, -4, 1)]
        )[0]
    np.testing.assert_array_equal(video.frames, plain.frames)


def test_an_arrow_on_rock_moves_what_a_move_mask_makes_move(
    nature: Pipeline, photo: np.ndarray
) -> None:
    rock = (48, 40)
    with pytest.warns(UserWarning, match="on still ground.*--move MASK"):
        nature(photo, num_samples=1, num_frames=1, arrows=[(*rock, 5, 0)])
    mask = np.zeros((64, 96), np.float32)
    mask[16:48, 36:60] = 1
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        video = nature(photo, num_samples=1, num_frames=1, move=mask, arrows=[(*rock, 5, 0)])[0]
    assert not any("arrow" in str(warning.message) for warning in told)
    assert velocity_at(nature, video, WATER, *rock)[0] == pytest.approx(5, abs=1.5)


def test_a_long_video_decoded_clip_by_clip_follows_arrows_too(
    nature: Pipeline, photo: np.ndarray
) -> None:
    arrows = [(*ON_SKY, -4, 1)]
    video = nature.extend(
        photo, num_samples=1, extension="paper", protocol="paper", num_frames=18, arrows=arrows,
        size=(64, 64),
    )[0]  # fmt: skip
    whole = nature(photo, num_samples=1, protocol="paper", num_frames=1, arrows=arrows)[0]
    torch.testing.assert_close(video.nu, whole.nu)


def test_arrows_outside_the_picture_are_refused(nature: Pipeline, photo: np.ndarray) -> None:
    with pytest.raises(UserError, match="outside the photograph, which has 96x64 pixels"):
        nature(photo, arrows=[(96, 5, 1, 1)])


def test_other_models_refuse_arrows_and_name_the_weights() -> None:
    body, photo = Pipeline(tiny_body()), noisy_video().frames[0]
    with pytest.raises(UserError, match=r"arrows: the weights body .* weights landscape"):
        body(photo, arrows=[(5, 5, 1, 1)])
    with pytest.raises(UserError, match=r"current: the weights body .* weights landscape"):
        body(photo, current=Drift(direction=0))
