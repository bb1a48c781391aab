"""The 2021 model as one: what its maps do, and what a photograph becomes of it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from cinnema.core.errors import UserError
from cinnema.media.pictures import to_pixels, to_tensor
from cinnema.media.videos import VideoFile
from cinnema.models.control import Drift, EndPoint
from cinnema.models.files import load_model, save_model
from cinnema.paper.control import draw_end_point, end_point_one_hots
from cinnema.paper.model import PaperModel, PaperModelConfig
from cinnema.synthesis.pipeline import Pipeline
from cinnema.synthesis.residual import load_motion, save_motion
from cinnema.synthesis.video import Video
from paper_model import PARTS, networks

Photographs = Callable[[int, int], np.ndarray]


@pytest.fixture(scope="module")
def parts() -> dict[str, Any]:
    return networks(control=False)


@pytest.fixture(scope="module")
def painter(parts: dict[str, Any]) -> PaperModel:
    return PaperModel.of_networks("small", **parts)


@pytest.fixture(scope="module")
def controlled() -> PaperModel:
    return PaperModel.of_networks("arm", **networks(control=True))


@pytest.fixture(scope="module")
def painting(painter: PaperModel) -> Pipeline:
    return Pipeline(painter, precision="float32")


def video(rows: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(5)
    return torch.rand((rows, 9, 3, 64, 64), generator=generator) * 2 - 1


@torch.no_grad()
def by_hand(model: PaperModel, image: np.ndarray, nu: Tensor) -> np.ndarray:
    x0 = to_tensor(image)[None]
    z, _ = model.flow.to_latent(nu[None], model.image_encoder(x0))
    return np.stack([to_pixels(frame) for frame in model.decoder(x0, z)[0]])


# --- The model ------------------------------------------------------------------------------------


def test_the_encoder_sees_the_frames_after_the_first_and_may_draw(painter: PaperModel) -> None:
    clips = video()
    mu, log_var = painter.video_encoder(clips[:, 1:].transpose(1, 2))
    torch.testing.assert_close(painter.encode(clips), mu)
    drawn = painter.encode(clips, generator=torch.Generator().manual_seed(1))
    noise = torch.randn(mu.shape, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(drawn, mu + (log_var / 2).exp() * noise)


def test_folding_leaves_the_decoder_that_it_was_made_of(
    painter: PaperModel, parts: dict[str, Any]
) -> None:
    x0, z = video()[:, 0], torch.randn(2, 8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(painter.decode(x0, z), parts["decoder"](x0, z), atol=1e-4, rtol=0)
    assert not [name for name in painter.state_dict() if "weight_orig" in name]
    assert "g_0.conv_0.weight_orig" in parts["decoder"].state_dict()


def test_a_saved_model_comes_back_to_the_bit(painter: PaperModel, tmp_path: Path) -> None:
    sha256 = save_model(tmp_path / "small.safetensors", painter)
    loaded = load_model(tmp_path / "small.safetensors")
    assert loaded.sha256 == sha256
    assert isinstance(loaded.model, PaperModel)
    assert loaded.model.config == painter.config
    assert not loaded.model.training
    state = painter.state_dict()
    assert loaded.model.state_dict().keys() == state.keys()
    assert all(torch.equal(value, state[k]) for k, value in loaded.model.state_dict().items())


@pytest.mark.parametrize(
    ("part", "field", "value", "match"),
    [
        ("decoder", "spectral_norm", True, "folded"),
        ("video_encoder", "z_dim", 6, r"video_encoder\.z_dim must be equal, got 8 and 6"),
        ("flow", "in_channels", 6, r"flow\.in_channels must be equal, got 8 and 6"),
        ("flow", "embedding_dim", 6, r"embedding_dim and image_encoder\.z_dim must.*6 and 5"),
        ("flow", "control", True, "and the 30 of the control must be equal, got 5 and 35"),
        ("image_encoder", "in_size", 128, "size and.*got 64 and 128"),
        ("video_encoder", "stride_s", (2, 2, 2, 2), "8 frames of 64 px.*1 of 2x2"),
        ("video_encoder", "stride_t", (1, 1, 1, 1), "4 of 4x4"),
    ],
)
def test_parts_that_do_not_fit_are_refused(part: str, field: str, value: Any, match: str) -> None:
    configs: dict[str, Any] = {name: dict(config) for name, config in PARTS.items()}
    configs["decoder"]["spectral_norm"] = False
    configs[part][field] = value
    with pytest.raises(ValueError, match=match):
        PaperModelConfig(name="wrong", **configs)


# --- The control ----------------------------------------------------------------------------------


def test_the_end_point_falls_into_ten_bins_an_axis() -> None:
    least, span = (0.42638585, -0.3080245, 0.19146784), (0.42850533, 0.54029283, 0.12564658)
    for share, expected in ((0.0, 0), (0.05, 0), (0.149, 1), (0.55, 5), (1.0, 9), (-2, 0), (3, 9)):
        point = torch.tensor([[a + share * b for a, b in zip(least, span, strict=True)]])
        one_hots = end_point_one_hots(point)
        assert one_hots.nonzero()[:, 1].tolist() == [expected, 10 + expected, 20 + expected]
        assert one_hots.sum() == 3


def test_drawn_end_points_reach_every_bin() -> None:
    generator = torch.Generator().manual_seed(0)
    points = torch.stack([draw_end_point(generator=generator) for _ in range(300)])
    assert (end_point_one_hots(points).sum(dim=0) > 10).all()


def test_the_control_changes_the_video(controlled: PaperModel) -> None:
    assert controlled.control_dim == 3
    x0 = video(1)[:, 0]
    c = controlled.condition(x0, torch.tensor([[0.5, 0.0, 0.25]]))
    other = controlled.condition(x0, torch.tensor([[0.8, 0.0, 0.25]]))
    assert c.shape == (1, 35)
    assert torch.equal(c[:, :5], other[:, :5])
    nu = torch.zeros(1, 8)
    assert not torch.equal(controlled.to_latent(nu, c)[0], controlled.to_latent(nu, other)[0])


def test_a_control_that_does_not_fit_is_refused(
    painter: PaperModel, controlled: PaperModel
) -> None:
    x0 = video(1)[:, 0]
    with pytest.raises(UserError, match="takes no control"):
        painter.condition(x0, torch.zeros(1, 3))
    with pytest.raises(UserError, match="needs a control"):
        controlled.condition(x0)
    for eta in (torch.zeros(1, 30), torch.full((1, 3), torch.nan)):
        with pytest.raises(UserError, match="3 finite numbers"):
            controlled.condition(x0, eta)


# --- Photographs ----------------------------------------------------------------------------------


SEED = 4


@pytest.fixture(scope="module")
def square() -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (64, 64, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def pair(painting: Pipeline, square: np.ndarray) -> list[Video]:
    """Two samples of one photograph, one clip each."""
    return list(painting.animate(square, num_samples=2, num_frames=8, seed=SEED))


def test_frames_are_those_of_the_decoder(
    painter: PaperModel, square: np.ndarray, pair: list[Video]
) -> None:
    for animation in pair:
        expected = by_hand(painter, square, animation.nu)
        assert np.abs(animation.frames.astype(int) - expected).max() <= 1
        note = "frames are decoded at 64x64 px; fps is how fast they are shown"
        assert animation.settings["note"] == note
    assert not np.array_equal(pair[0].frames, pair[1].frames)


def test_longer_videos_are_decoded_again_from_the_last_frame_with_the_same_nu(
    painting: Pipeline, painter: PaperModel, square: np.ndarray, pair: list[Video]
) -> None:
    (animation,) = painting.animate(square, num_samples=1, num_frames=11, seed=SEED)
    assert np.array_equal(animation.frames[:8], pair[0].frames)
    again = by_hand(painter, animation.frames[7], animation.nu)
    assert np.abs(animation.frames[8:].astype(int) - again[:3]).max() <= 6  # x0 in 8 bits


def test_a_pingpong_plays_forwards_and_backwards(
    painting: Pipeline, square: np.ndarray, pair: list[Video]
) -> None:
    (both,) = painting.animate(square, num_samples=1, num_frames=4, seed=SEED, loop="pingpong")
    there = pair[0].frames[:4]
    assert np.array_equal(both.frames, np.concatenate([there, there[2:0:-1]]))


def test_pixels_that_are_kept_still_are_those_of_the_photograph(
    painting: Pipeline, square: np.ndarray, pair: list[Video]
) -> None:
    mask = np.zeros((64, 64), bool)
    mask[:, 40:] = True
    (kept,) = painting.animate(square, num_samples=1, num_frames=2, seed=SEED, keep_still=mask)
    assert np.array_equal(kept.frames[:, :, 40:], np.stack([square[:, 40:]] * 2))
    assert np.array_equal(kept.frames[:, :, :40], pair[0].frames[:2, :, :40])
    assert kept.settings["keep_still"] is True


def test_at_another_size_frames_are_resized_and_the_note_says_so(
    painting: Pipeline, photograph: Photographs
) -> None:
    image = photograph(90, 150)
    (native,) = painting.animate(image, num_samples=1, num_frames=2)
    (asked,) = painting.animate(image, num_samples=1, num_frames=2, size=(40, 30))
    (model,) = painting.animate(image, num_samples=1, num_frames=2, size="model")
    assert native.frames.shape == (2, 90, 150, 3)
    assert asked.frames.shape == (2, 30, 40, 3)
    assert model.frames.shape == (2, 64, 64, 3)
    assert "resized to 150x90" in native.settings["note"]
    assert "resized to 40x30" in asked.settings["note"]
    assert "resized" not in model.settings["note"]


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"motion_strength": 1.5}, r"motion_strength.*no flow.*1\.5"),
        ({"motion_strength": 0}, "motion_strength"),
        ({"loop": "seamless"}, "seamless.*pingpong"),
        ({"nu": torch.zeros(9)}, r"\(8,\)"),
        ({"eta": torch.zeros(3)}, "takes no control"),
    ],
)
def test_options_that_a_decoder_does_not_support_are_refused(
    painting: Pipeline, photograph: Photographs, options: dict[str, Any], match: str
) -> None:
    with pytest.raises(UserError, match=match):
        painting.iterate(photograph(64, 64), **options)


def test_each_sample_draws_its_own_control_unless_one_is_given(
    controlled: PaperModel, photograph: Photographs
) -> None:
    pipe, image = Pipeline(controlled), photograph(64, 64)
    drawn = pipe.animate(image, num_samples=2, num_frames=1)
    assert drawn[0].settings["eta"] != drawn[1].settings["eta"]
    told = pipe.animate(image, num_samples=2, num_frames=1, eta=torch.tensor([0.5, 0.0, 0.25]))
    assert {tuple(one.settings["eta"]) for one in told} == {(0.5, 0.0, 0.25)}
    assert torch.equal(told[0].nu, drawn[0].nu)
    for eta in (torch.zeros(2), torch.full((3,), torch.inf)):
        with pytest.raises(UserError, match="3 finite numbers"):
            pipe.animate(image, eta=eta)


def test_a_nu_file_brings_its_control(
    controlled: PaperModel, photograph: Photographs, tmp_path: Path
) -> None:
    pipe, image = Pipeline(controlled), photograph(64, 64)
    (first,) = pipe.animate(image, num_samples=1, num_frames=2, temperature=0.5)
    save_motion(tmp_path / "nu.safetensors", first)
    (again,) = pipe.animate(image, nu=tmp_path / "nu.safetensors", num_frames=2)
    assert np.array_equal(again.frames, first.frames)
    (other,) = pipe.animate(
        image,
        nu=load_motion(tmp_path / "nu.safetensors"),
        num_frames=2,
        eta=torch.tensor([0.5, 0.0, 0.25]),
    )
    assert other.settings["eta"] == [0.5, 0, 0.25]
    with pytest.raises(UserError, match="needs a control beside nu"):
        pipe.animate(image, nu=first.nu, num_frames=2)


# --- Tasks ----------------------------------------------------------------------------------------

OWN, OTHER = EndPoint(x=0.5, y=0.0, z=0.25), EndPoint(x=0.8, y=0.2, z=0.3)


def query(model: PaperModel) -> VideoFile:
    frames = to_pixels(video()[0, : model.num_frames + 1])
    return VideoFile(frames=frames, fps=30, path=Path("arm.mp4"))


def test_continuous_clips_overlap_and_begin_as_animate_does(
    painting: Pipeline, photograph: Photographs
) -> None:
    image, length = photograph(64, 64), painting.model.num_frames
    overlap = length // 4
    (clip,) = painting.animate(image, num_samples=1, num_frames=length)
    (long,) = painting.extend(image, num_samples=1, num_frames=length + 2)
    assert len(long.frames) == length + 2
    assert np.array_equal(long.frames[: length - overlap], clip.frames[: length - overlap])
    assert f"clips overlap by {overlap} frames" in long.settings["note"]


def test_every_frame_of_a_query_is_taken_as_it_comes(painting: Pipeline) -> None:
    model = painting.model
    motion = painting.read_motion(query(model))
    assert motion.about["query"]["frame_step"] == 1
    assert motion.about["query"]["model_fps"] is None
    again = painting.transfer(motion, motion.query.x0)
    torch.testing.assert_close(again.z, motion.z, atol=1e-4, rtol=1e-4)


def test_a_query_of_a_robot_comes_with_its_end_point(controlled: PaperModel) -> None:
    pipe, arm = Pipeline(controlled), query(controlled)
    motion = pipe.read_motion(arm, query_eta=OWN)
    same, other = (pipe.transfer(motion, motion.query.x0, eta=eta) for eta in (None, OTHER))
    torch.testing.assert_close(same.z, motion.z, atol=1e-4, rtol=1e-4)
    assert torch.equal(same.nu, other.nu)
    assert not torch.allclose(same.z, other.z)
    assert other.settings["eta"] == pytest.approx([0.8, 0.2, 0.3])
    assert same.settings["query"]["eta_is"] == "given"
    with pytest.raises(UserError, match=r"needs the end point of the query.*x from 0.4264"):
        pipe.read_motion(arm)
    with pytest.raises(UserError, match="end point of a video cannot be estimated from its frames"):
        pipe.edit(arm, eta=OTHER)
    with pytest.raises(UserError, match=r"has no drift as its control.*end point"):
        pipe.transfer(motion, motion.query.x0, eta=Drift(direction=0))
