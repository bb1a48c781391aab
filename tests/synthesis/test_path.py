"""The path of a hand, transferred to a picture in which it starts elsewhere."""

import pytest
import torch
from torch import Tensor

from bodies import TIGHT, tiny_body
from cinnema.models.keypoint.model import KeypointModel
from cinnema.synthesis.path import TransferredPath, has_path, transfer_path
from cinnema.synthesis.pipeline import Pipeline


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def pictures(seed: int, num: int = 3) -> Tensor:
    return torch.tanh(noise(num, 3, 32, 32, seed=seed))


def path_in(model: KeypointModel, x0: Tensor, carried: TransferredPath) -> Tensor:
    z, _ = model.to_latent(carried.nu, model.condition(x0, carried.eta))
    return model.read_landmarks(x0, z)


def away(path: Tensor) -> Tensor:
    return path - path[:, :1]


@pytest.fixture
def body() -> KeypointModel:
    return tiny_body()


def test_a_model_with_an_end_point_that_predicts_landmarks_has_a_path(
    body: KeypointModel, pipe: Pipeline
) -> None:
    assert has_path(body)
    assert not has_path(tiny_body(steered=False))
    assert not has_path(tiny_body(landmarks=0))
    assert not has_path(pipe.model)


def test_a_path_transferred_to_its_own_picture_is_the_clip_itself(body: KeypointModel) -> None:
    x0, z = pictures(1), noise(3, 8)
    carried = transfer_path(body, x0, z, x0)
    back, _ = body.to_latent(carried.nu, body.condition(x0, carried.eta))
    torch.testing.assert_close(back, z, atol=1e-3, rtol=0)
    torch.testing.assert_close(carried.eta, body.read_landmarks(x0, z)[:, -1])
    torch.testing.assert_close(carried.displacement, carried.kept)


def test_the_hand_of_another_picture_takes_the_same_path_from_where_it_is(
    body: KeypointModel,
) -> None:
    x0, other, z = pictures(1), pictures(2), noise(3, 8)
    wanted = away(body.read_landmarks(x0, z))
    carried = transfer_path(body, x0, z, other)
    kept = away(path_in(body, other, carried)) - wanted
    # What nu and the displaced end point make without regard to the path:
    own = body.read_landmarks(x0, z)[:, -1]
    nu, _ = body.to_residual(z, body.condition(x0, own))
    told = TransferredPath(nu, carried.eta, carried.displacement, carried.kept)
    uncorrected = away(path_in(body, other, told)) - wanted
    assert kept.norm() < 0.2 * uncorrected.norm()
    assert kept.norm() < 0.1 * wanted.norm()
    place = body.read_landmarks(other, z)[:, 0]
    torch.testing.assert_close(carried.eta, place + wanted[:, -1])


def test_another_residual_is_kept_except_for_the_path(body: KeypointModel) -> None:
    x0, other, z, nu = pictures(1), pictures(2), noise(3, 8), noise(3, 8, seed=5)
    carried = transfer_path(body, x0, z, other, nu=nu)
    wanted = away(body.read_landmarks(x0, z))
    kept = away(path_in(body, other, carried))
    assert (kept - wanted).norm() < 0.1 * wanted.norm()
    # One that has this path already stays as it is.
    own = transfer_path(body, x0, z, x0).nu
    torch.testing.assert_close(transfer_path(body, x0, z, x0, nu=own).nu, own, atol=1e-3, rtol=0)


def test_a_path_is_cut_where_it_leaves_the_range() -> None:
    body = tiny_body(end_point=TIGHT)
    x0, other, z = pictures(1), pictures(2), 3 * noise(3, 8)
    carried = transfer_path(body, x0, z, other)
    assert float(carried.eta.abs().max()) <= 0.01 + 1e-6
    place = body.read_landmarks(other, z)[:, 0]
    torch.testing.assert_close(carried.kept, carried.eta - place)


def test_a_given_end_point_is_the_end_of_the_path(body: KeypointModel) -> None:
    x0, other, z = pictures(1), pictures(2), noise(3, 8)
    start = body.read_landmarks(x0, z)[:, 0]
    end = start + torch.tensor([0.05, -0.02, 0.01])
    carried = transfer_path(body, x0, z, other, eta=end)
    torch.testing.assert_close(carried.displacement, end - start)
    place = body.read_landmarks(other, z)[:, 0]
    torch.testing.assert_close(carried.eta - place, end - start, atol=1e-6, rtol=1e-4)


def test_it_needs_no_gradients_of_its_caller_and_each_row_is_alone(body: KeypointModel) -> None:
    with torch.inference_mode():
        x0, other, z = pictures(1), pictures(2), noise(3, 8)
        all_of_them = transfer_path(body, x0, z, other)
        one = transfer_path(body, x0[:1], z[:1], other[:1])
    torch.testing.assert_close(all_of_them.nu[:1], one.nu, atol=1e-4, rtol=0)
    assert not all_of_them.nu.requires_grad
    assert not all_of_them.nu.is_inference()
