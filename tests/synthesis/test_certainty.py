"""How likely a motion is among the model's own, and how familiar a photograph."""

from collections.abc import Callable
from copy import deepcopy

import numpy as np
import pytest
import torch

from cinnema.media.pictures import resize_for_model, to_tensor
from cinnema.synthesis.certainty import Certainty
from cinnema.synthesis.pipeline import Pipeline


@pytest.fixture
def certainty(nature: Pipeline, coast: Callable[[int, int], np.ndarray]) -> Certainty:
    return Certainty(nature.model, to_tensor(resize_for_model(coast(64, 96), nature.model.size)))


def test_ranks_of_the_models_own_draws_are_uniform(
    certainty: Certainty, nature: Pipeline, coast: Callable[[int, int], np.ndarray]
) -> None:
    videos = nature.iterate(coast(64, 96), num_samples=100, seed=5, num_frames=1, size=(16, 16))
    ranks = sorted(certainty.rank(video.z) for video in videos)
    away = np.abs(np.array(ranks) - (np.arange(100) + 0.5) / 100)
    assert away.max() < 0.2  # of 100 and 200 draws; 0.2 has a probability below 1 %


def test_the_most_likely_motion_ranks_first_and_a_wild_one_last(
    certainty: Certainty, nature: Pipeline, coast: Callable[[int, int], np.ndarray]
) -> None:
    def rank(temperature: float) -> float:
        (video,) = nature(
            coast(64, 96), num_samples=1, num_frames=1, size=(16, 16), temperature=temperature
        )
        return certainty.rank(video.z)

    assert rank(0.0) == 1.0
    assert rank(3.0) == 0.0


def test_ranks_are_given_for_models_without_kinds_too(pipe: Pipeline) -> None:
    model = pipe.model
    certainty = Certainty(model, torch.zeros(3, model.size, model.size))
    assert certainty.is_familiar is None
    assert 0 <= certainty.rank(torch.zeros(model.z_dim)) <= 1


def test_a_control_has_its_own_ranks(certainty: Certainty, nature: Pipeline) -> None:
    z = torch.zeros(nature.model.z_dim)
    assert 0 <= certainty.rank(z, torch.tensor([0.1, 0.0])) <= 1


def test_looks_far_from_the_training_are_not_familiar(
    nature: Pipeline, coast: Callable[[int, int], np.ndarray]
) -> None:
    model = deepcopy(nature.model)
    x0 = to_tensor(resize_for_model(coast(64, 96), model.size))
    assert Certainty(model, x0).distance == 0  # its looks are projected to nothing
    assert Certainty(model, x0).is_familiar is True
    with torch.no_grad():
        model.look_projection[:, 0] = 1.0
    assert Certainty(model, x0).is_familiar is False


def test_nothing_that_moves_has_no_distance(nature: Pipeline) -> None:
    rock = torch.tensor([90.0, 70.0, 60.0]) / 127.5 - 1
    size = nature.model.size
    assert Certainty(nature.model, rock[:, None, None].expand(3, size, size)).distance is None
