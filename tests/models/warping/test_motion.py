"""Functions of time, the motion encoder and decoder."""

import doctest

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from cinnema.models.layers import ResidualBlock
from cinnema.models.warping import motion
from cinnema.models.warping.motion import MotionDecoder, MotionEncoder, TemporalBasis


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("num_basis", "num_frames"), [(1, 1), (1, 16), (4, 16), (6, 12), (4, 5)])
def test_fitting_inverts_sampling_up_to_its_small_ridge(num_basis: int, num_frames: int) -> None:
    basis = TemporalBasis(num_basis=num_basis, num_frames=num_frames)
    coefficients = noise(2, num_basis, 2, 3, 5)
    found = basis.fit(basis.clip(coefficients))
    torch.testing.assert_close(found, coefficients, atol=0.02, rtol=0.01)


def test_fitting_is_least_squares_and_nearly_repeats_itself() -> None:
    basis, flow = TemporalBasis(num_basis=4, num_frames=16), noise(2, 2, 16, 4, 4)
    fitted = basis.clip(basis.fit(flow))
    torch.testing.assert_close(basis.clip(basis.fit(fitted)), fitted, atol=5e-3, rtol=0)
    left = flow - fitted
    assert left.square().sum() < flow.square().sum()
    assert (left * fitted).sum().abs() < 0.01 * flow.square().sum()  # what is left is orthogonal


def test_more_functions_than_frames_are_no_harm() -> None:
    basis, flow = TemporalBasis(num_basis=6, num_frames=2), noise(1, 2, 2, 4, 4)
    torch.testing.assert_close(basis.clip(basis.fit(flow)), flow, atol=0.01, rtol=0)


def test_nothing_has_moved_at_time_zero() -> None:
    basis = TemporalBasis(num_basis=4, num_frames=16)
    assert (basis.at(noise(3, 4, 2, 5, 5), torch.zeros(3)) == 0).all()


@given(st.floats(0, 2))
def test_motion_is_odd_in_time(time: float) -> None:
    basis, coefficients = TemporalBasis(num_basis=4, num_frames=16), noise(1, 4, 2, 3, 3)
    forth = basis.at(coefficients, torch.tensor([time]))
    torch.testing.assert_close(basis.at(coefficients, torch.tensor([-time])), -forth)


def test_a_time_between_agrees_with_the_frames() -> None:
    basis, coefficients = TemporalBasis(num_basis=4, num_frames=16), noise(16, 4, 2, 5, 5)
    one = coefficients[:1].expand(16, -1, -1, -1, -1)
    frames = basis.clip(coefficients[:1])[0].transpose(0, 1)
    torch.testing.assert_close(basis.at(one, torch.arange(1, 17) / 16), frames)


def test_each_clip_has_its_own_time() -> None:
    basis, coefficients = TemporalBasis(num_basis=3, num_frames=8), noise(2, 3, 2, 4, 4)
    times = torch.tensor([0.25, 0.8])
    both = basis.at(coefficients, times)
    for index in range(2):
        alone = basis.at(coefficients[index : index + 1], times[index : index + 1])
        torch.testing.assert_close(both[index : index + 1], alone)


def test_a_network_that_was_rounded_keeps_an_exact_basis() -> None:
    basis = TemporalBasis(num_basis=4, num_frames=16)
    exact = basis.samples.clone()
    holder = torch.nn.Sequential(basis).bfloat16()
    flow = noise(1, 2, 16, 4, 4).bfloat16()
    assert holder[0].fit(flow).dtype == torch.bfloat16
    assert basis.clip(basis.fit(flow)).dtype == torch.bfloat16
    assert torch.equal(holder.float()[0].samples, exact)
    assert basis.state_dict() == {}


def make_encoder(z_dim: int = 32) -> MotionEncoder:
    torch.manual_seed(0)
    return MotionEncoder(num_basis=4, z_dim=z_dim, width=16)


@pytest.mark.parametrize("scale", [1e-3, 0.05, 3.0])
def test_z_has_unit_root_mean_square(scale: float) -> None:
    z = make_encoder()(scale * noise(5, 4, 2, 16, 16))
    assert z.shape == (5, 32)
    torch.testing.assert_close(z.square().mean(1), torch.ones(5), atol=1e-3, rtol=0)


def test_z_of_a_clip_does_not_depend_on_the_others() -> None:
    encoder, coefficients = make_encoder(), noise(3, 4, 2, 16, 16)
    torch.testing.assert_close(
        encoder(coefficients)[1:2], encoder(coefficients[1:2]), atol=1e-5, rtol=1e-5
    )


def test_slow_and_fast_clips_have_different_z() -> None:
    encoder, coefficients = make_encoder(), 0.02 * noise(1, 4, 2, 16, 16)
    assert (encoder(coefficients) - encoder(4 * coefficients)).abs().max() > 0.05


@pytest.mark.parametrize("size", [4, 8, 16, 20])
def test_a_decoder_takes_features_of_any_size(size: int) -> None:
    torch.manual_seed(0)
    decoder = MotionDecoder(num_basis=3, z_dim=32, feature_dim=8, width=16)
    coefficients = decoder(noise(2, 32), noise(2, 8, size, size))
    assert coefficients.shape == (2, 3, 2, 16, 16)
    assert coefficients.abs().max() < 0.01  # untrained, it hardly moves anything


def test_a_decoder_follows_both_z_and_the_picture() -> None:
    torch.manual_seed(0)
    decoder = MotionDecoder(num_basis=3, z_dim=32, feature_dim=8, width=16)
    z, features = noise(2, 32), noise(2, 8, 16, 16)
    here = decoder(z[:1], features[:1])
    assert not torch.allclose(decoder(z[1:], features[:1]), here, atol=1e-6)
    assert not torch.allclose(decoder(z[:1], features[1:]), here, atol=1e-6)


def test_a_new_residual_block_is_the_identity_but_for_its_bias() -> None:
    torch.manual_seed(0)
    block, x = ResidualBlock(16), noise(2, 16, 8, 8)
    torch.testing.assert_close(block(x), x + block.conv1.bias[:, None, None])


def test_the_examples_run() -> None:
    assert doctest.testmod(motion).failed == 0
