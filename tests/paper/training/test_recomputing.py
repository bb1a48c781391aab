"""Activations that the backward pass computes again: the same training in less memory."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from cinnema.core.errors import UserError
from cinnema.data.loader import VideoBatch
from cinnema.paper.training import precision
from cinnema.paper.training.autoencoding import AutoencodingStep
from cinnema.paper.training.losses import perceptual_loss
from cinnema.training.loop import Position
from paper.training.small_networks import batch_of, distance, is_same, state_of

Make = Callable[..., AutoencodingStep]


def gradients(step: AutoencodingStep, batch: VideoBatch) -> dict[str, Tensor]:
    """Return the gradients of the reconstruction and of LPIPS."""
    step.networks.train()
    made = step.reconstruct(batch, number=0)
    torch.stack(list(step.generator_losses(made).values())).sum().backward()
    parameters = step.networks.named_parameters()
    return {name: p.grad for name, p in parameters if p.grad is not None}


def bytes_kept(step: AutoencodingStep, batch: VideoBatch) -> int:
    """Return the size of what autograd keeps of encoder and decoder, weights left out."""
    own = {p.data_ptr() for p in step.networks.parameters()}
    kept: dict[int, int] = {}

    def keep(x: Tensor) -> Tensor:
        if x.data_ptr() not in own:
            kept[x.data_ptr()] = x.nbytes
        return x

    step.networks.train()
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        step.reconstruct(batch, number=0)
    return sum(kept.values())


@pytest.mark.parametrize("name", ["float32", "fast"])
def test_two_clips_train_alike_to_the_bit(
    autoencoding: Make, small_batch: VideoBatch, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "fast_dtype", lambda _: torch.bfloat16)
    plain = autoencoding(precision=name)
    again = autoencoding(precision=name, recompute_activations=True)
    for number in range(2):  # singular vectors of spectral norms move in each
        position = Position(number, epoch=0)
        assert plain.take(small_batch, position) == again.take(small_batch, position)
    assert is_same(state_of(plain.networks), state_of(again.networks))
    assert plain.about() == again.about()


def test_more_clips_have_the_same_gradients_but_for_rounding(
    autoencoding: Make, small_batch: VideoBatch
) -> None:
    video = torch.cat([small_batch.video, small_batch.video[:1].flip(-1)])
    batch = batch_of(video)
    plain, again = autoencoding(), autoencoding(recompute_activations=True)
    expected, found = gradients(plain, batch), gradients(again, batch)
    assert found.keys() == expected.keys()
    for name, value in expected.items():  # of some biases, they are nothing but rounding
        bound = 1e-3 * float(value.abs().max()) + 1e-6
        torch.testing.assert_close(found[name], value, rtol=1e-3, atol=bound)
    for name, value in plain.networks.named_buffers():
        assert torch.equal(value, again.networks.get_buffer(name)), name


def test_less_is_kept_for_the_backward_pass(autoencoding: Make, small_batch: VideoBatch) -> None:
    plain = bytes_kept(autoencoding(), small_batch)
    assert bytes_kept(autoencoding(recompute_activations=True), small_batch) < plain / 4


def test_compiled_networks_are_not_computed_again(autoencoding: Make) -> None:
    with pytest.raises(UserError, match="compiled networks keep their activations"):
        autoencoding(precision="compiled", recompute_activations=True)


def test_the_perceptual_loss_of_many_pictures_has_the_gradient_of_each() -> None:
    torch.manual_seed(0)
    real, fake = torch.randn(2, 70, 3, 4, 4)
    fake.requires_grad_(True)
    plain = 30 * distance(fake, real).mean()
    found = perceptual_loss(fake, real, perceptual=distance, weight=30.0)
    torch.testing.assert_close(found, plain)
    (expected,) = torch.autograd.grad(2 * plain, fake)
    (gradient,) = torch.autograd.grad(2 * found, fake)
    torch.testing.assert_close(gradient, expected)


def test_the_perceptual_loss_of_few_pictures_has_the_same_gradient_to_the_bit() -> None:
    torch.manual_seed(0)
    real, fake = torch.randn(2, 7, 3, 4, 4)
    fake.requires_grad_(True)
    plain = 30 * distance(fake, real).mean()
    found = perceptual_loss(fake, real, perceptual=distance, weight=30.0)
    for a, b in zip(
        torch.autograd.grad(plain, fake), torch.autograd.grad(found, fake), strict=True
    ):
        assert torch.equal(a, b)


def test_a_perceptual_loss_without_gradients_has_none() -> None:
    real, fake = torch.randn(2, 3, 3, 4, 4)
    loss = perceptual_loss(fake, real, perceptual=distance, weight=1.0)
    assert not loss.requires_grad
