"""Numbers at their ends: frames are finite, or a line says what is not."""

import copy
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from bodies import tiny_body
from cinnema.core.errors import UserError
from cinnema.media.formats import MAX_SIDE
from cinnema.media.videos import VideoFile
from cinnema.models.base import VideoModel
from cinnema.paper.model import PaperModel
from cinnema.synthesis.pipeline import Pipeline
from paper_model import tiny_paper_model
from small_models import tiny_model
from small_nature import nature_model

pytestmark = [
    pytest.mark.filterwarnings("error::RuntimeWarning"),
    pytest.mark.filterwarnings(
        "ignore:.*(nothing in this photograph|animate a simulated|moves in)"
    ),
    pytest.mark.filterwarnings("ignore:.*different frames fill"),
]

MODELS: dict[str, Callable[[], VideoModel]] = {
    "nature": nature_model,
    "nature with a network": lambda: tiny_model(size=64),
    "keypoints": tiny_body,
    "the paper's": tiny_paper_model,
}


@pytest.fixture(scope="module", params=MODELS)
def pipeline(request: pytest.FixtureRequest) -> Pipeline:
    return Pipeline(MODELS[request.param]())


def two_colours() -> np.ndarray:
    picture = np.zeros((32, 48, 3), np.uint8)
    picture[:16] = (90, 160, 240)  # sky, to a model that tells kinds by their colours
    return picture


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


PICTURES = {
    "black": np.zeros((32, 48, 3), np.uint8),
    "white": np.full((32, 48, 3), 255, np.uint8),
    "all sky": np.full((32, 48, 3), (90, 160, 240), np.uint8),
    "two colours": two_colours(),
    "widest": np.full((16, MAX_SIDE, 3), (90, 160, 240), np.uint8),
    "tall": noise(1500, 16),
}


@pytest.mark.parametrize("name", PICTURES)
def test_any_picture_has_a_video(pipeline: Pipeline, name: str) -> None:
    # The couplings of the paper have no bound, so that what is far out becomes infinite.
    temperature = 1.0 if isinstance(pipeline.model, PaperModel) else 5.0
    (video,) = pipeline(PICTURES[name], num_samples=1, num_frames=1, temperature=temperature)
    assert video.frames.shape == (1, *PICTURES[name].shape)
    assert bool(video.nu.isfinite().all())
    assert bool(video.z.isfinite().all())


def test_a_black_video_moves_nothing_that_is_not_finite(pipeline: Pipeline) -> None:
    black = VideoFile(np.zeros((40, 64, 64, 3), np.uint8), fps=8.0, path=Path("black.mp4"))
    video = pipeline.transfer(black, two_colours(), num_frames=1)
    assert bool(video.z.isfinite().all())


def outcome_of(pipeline: Pipeline, nu: torch.Tensor) -> str:
    try:
        (video,) = pipeline(two_colours(), nu=nu, num_frames=2)
    except UserError as error:
        return str(error)
    return "a video" if bool(video.z.isfinite().all()) else "NaN"


@pytest.mark.parametrize("size", [1e3, 1e20, 3e38])
def test_a_residual_far_out_has_a_video_or_is_refused(pipeline: Pipeline, size: float) -> None:
    nu = torch.full((pipeline.model.z_dim,), size)
    nu[1::2] *= -1
    outcome = outcome_of(pipeline, nu)
    may_be_refused = size > 1e3 or isinstance(pipeline.model, PaperModel)
    assert outcome == "a video" or (may_be_refused and "not finite" in outcome)


@pytest.mark.parametrize("factor", [1e30, float("nan"), float("inf")])
def test_weights_that_diverged_are_told(pipeline: Pipeline, factor: float) -> None:
    model = copy.deepcopy(pipeline.model)
    with torch.no_grad():
        for parameter in model.flow.parameters():
            parameter.mul_(factor)
    with pytest.raises(UserError, match=r"nu: these weights .* not finite: use smaller numbers"):
        Pipeline(model)(two_colours(), num_samples=1, num_frames=1)
