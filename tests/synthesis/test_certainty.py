"""How likely a motion is among the model's own, and how familiar a photograph."""

from collections.abc import Callable
from copy import deepcopy

import numpy as np
import pytest
import torch

from cinnema.synthesis.certainty import Certainty
from cinnema.synthesis.pipeline import Pipeline


@pytest.fixture
def certainty(nature: Pipeline, coast: Callable[[int, int], np.ndarray]) -> Certainty:
    return Certainty(nature.model, coast(64, 96))


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
    certainty = Certainty(model, np.zeros((20, 30, 3), np.uint8))
    assert certainty.is_familiar is None
    assert 0 <= certainty.rank(torch.zeros(model.z_dim)) <= 1


def test_a_control_has_its_own_ranks(certainty: Certainty, nature: Pipeline) -> None:
    z = torch.zeros(nature.model.z_dim)
    assert 0 <= certainty.rank(z, torch.tensor([0.1, 0.0])) <= 1


def test_looks_far_from_the_training_are_not_familiar(
    nature: Pipeline, coast: Callable[[int, int], np.ndarray]
) -> None:
    model = deepcopy(nature.model)
    near = Certainty(model, coast(64, 96))
    assert near.is_familiar is True
    with torch.no_grad():
        model.look_mean += 2.0
    far = Certainty(model, coast(64, 96))
    assert far.is_familiar is False
    assert far.distance is not None
    assert near.distance is not None
    assert far.distance > near.distance + 10


def test_nothing_that_moves_has_no_distance(nature: Pipeline) -> None:
    rock = np.full((32, 48, 3), (90, 70, 60), np.uint8)
    assert Certainty(nature.model, rock).distance is None
