"""The fast steps against those in float32: losses, gradients, and what a run is known by."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from cinnema.core.errors import UserError
from cinnema.data.loader import ClipLoader, VideoBatch
from cinnema.paper.spectral import SpectralConv2d
from cinnema.paper.training import precision
from cinnema.paper.training.assembly import schedule_of
from cinnema.paper.training.autoencoding import AutoencodingNetworks
from cinnema.paper.training.phases import AdamConfig
from cinnema.paper.training.precision import Arithmetic
from cinnema.training.loop import Position, fit
from paper.training.small_networks import is_same, state_of

CPU = torch.device("cpu")
Make = Callable[..., Any]


@pytest.fixture(autouse=True)
def any_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Numbers are the same where bf16 is slow."""
    monkeypatch.setattr(precision, "fast_dtype", lambda _: torch.bfloat16)


@pytest.fixture
def plain_descent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights move by their gradient: Adam's first step would tell its signs alone."""

    def optimiser(_: AdamConfig, networks: list[nn.Module], **_other: bool) -> torch.optim.SGD:
        return torch.optim.SGD([p for n in networks for p in n.parameters()], lr=1.0)

    monkeypatch.setattr(AdamConfig, "optimiser", optimiser)
    monkeypatch.setattr(AdamConfig, "rate", lambda *_: 1e-3)


def cosine(a: Tensor, b: Tensor) -> float:
    return float(functional.cosine_similarity(a, b, dim=0))


def weights_of(network: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten() for p in network.parameters()])


def moved_by(
    step: Any, batch: VideoBatch, names: tuple[str, ...]
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return the losses of a step and how far it moved each network."""
    networks = {name: getattr(step.networks, name) for name in names}
    before = {name: weights_of(network) for name, network in networks.items()}
    losses = step.take(batch, Position(0, epoch=0))
    return losses, {name: weights_of(networks[name]) - before[name] for name in names}


# A weight's gradient is that of every unit whose ReLU is open, and rounding to 8 bits opens or
# shuts some in each of 20 layers; so cosines fall where gradients of real and generated clips, or
# of what is almost the same clip, are all but equal and cancel. Autocast does no better.
@pytest.mark.parametrize(
    ("options", "least"),
    [
        ({"adversarial_from": 1}, {"decoder": 0.99, "encoder": 0.93}),
        ({"num_pictures": 32}, {"temporal": 0.9, "patch": 0.99}),
    ],
)
def test_stage_1_descends_what_it_does_in_float32(
    autoencoding: Make,
    small_batch: VideoBatch,
    plain_descent: None,
    options: dict[str, int],
    least: dict[str, float],
) -> None:
    true, fast = (
        moved_by(autoencoding(precision=name, **options), small_batch, tuple(least))
        for name in ("float32", "fast")
    )
    assert fast[0].keys() == true[0].keys()
    for name, value in true[0].items():
        # The penalty is the square of a gradient; what the generator is told of the discriminators
        # comes after these have moved by their own.
        error = {"penalty": 0.15, "adversarial_s": 0.06}.get(name, 0.03)
        assert fast[0][name] == pytest.approx(value, rel=error, abs=0.003), name
    for name, bound in least.items():
        assert cosine(fast[1][name], true[1][name]) > bound, name


def test_a_fast_step_of_stage_1_leaves_float32_weights(
    autoencoding: Make, small_batch: VideoBatch
) -> None:
    step = autoencoding(precision="fast")
    before = {name: p.detach().clone() for name, p in step.networks.named_parameters()}
    step.take(small_batch, Position(0, epoch=0))
    for name, p in step.networks.named_parameters():
        assert p.dtype == torch.float32
        assert torch.isfinite(p).all(), name
        assert not torch.equal(p, before[name]), name


def test_the_image_auto_encoder_descends_what_it_does_in_float32(
    conditioning: Make, batch: VideoBatch, plain_descent: None
) -> None:
    names = ("decoder", "patch")
    true, fast = (
        moved_by(conditioning(precision=name), batch, names) for name in ("float32", "fast")
    )
    for name in ("recon", "percep", "hinge"):
        assert fast[0][name] == pytest.approx(true[0][name], rel=0.03), name
    for name in names:
        assert cosine(fast[1][name], true[1][name]) > 0.98, name


def test_the_image_encoders_gradient_errs_no_more_than_under_autocast(
    conditioning: Make, batch: VideoBatch
) -> None:
    step = conditioning()
    real = batch.video[:, 0]

    def gradient(name: str) -> Tensor:
        arithmetic = Arithmetic(name, device=CPU)
        mean, _ = arithmetic.ready(step.gaussian)(real)
        loss = (arithmetic.ready(step.networks.decoder)(mean) - real).abs().mean()
        found = torch.autograd.grad(loss, list(step.networks.encoder.parameters()))
        return torch.cat([g.flatten() for g in found])

    true, fast = gradient("float32"), gradient("fast")
    with torch.autocast("cpu", torch.bfloat16):
        cast = gradient("float32")
    assert 1 > cosine(fast, true) > cosine(cast, true) - 0.02


def test_batch_norms_keep_float32_statistics_of_the_batch() -> None:
    torch.manual_seed(0)
    networks = [nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)) for _ in range(2)]
    networks[1].load_state_dict(networks[0].state_dict())
    x = 5 + torch.randn(8, 3, 6, 6)
    networks[0](x)
    Arithmetic("fast", device=CPU).ready(networks[1])(x)
    true, fast = networks[0][1], networks[1][1]
    assert fast.running_mean.dtype == torch.float32
    torch.testing.assert_close(fast.running_mean, true.running_mean, rtol=0.02, atol=0.005)
    assert int(fast.num_batches_tracked) == 1


def test_the_cinn_hears_almost_the_same_latents_and_conditions(
    flow: Make, batch: VideoBatch
) -> None:
    true, fast = (flow(precision=name).latents(batch, number=0) for name in ("float32", "fast"))
    for a, b in zip(true, fast, strict=True):
        assert b.dtype == torch.float32
        assert not torch.equal(a, b)
        assert (a - b).norm() < 0.05 * a.norm()


def test_spectral_norm_takes_one_step_each_time_a_network_is_made_ready() -> None:
    torch.manual_seed(0)
    network = SpectralConv2d(3, 8, 3)
    twin = SpectralConv2d(3, 8, 3)
    twin.load_state_dict(network.state_dict())
    ready = Arithmetic("fast", device=CPU).ready(network)
    x = torch.randn(2, 3, 8, 8)
    first = ready(x)
    assert torch.equal(ready(x), first)
    torch.testing.assert_close(twin(x), first, rtol=0.02, atol=0.02)
    assert torch.equal(network.weight_u, twin.weight_u)


def test_the_gradient_of_a_weight_with_spectral_norm_is_that_in_float32() -> None:
    torch.manual_seed(0)
    network = SpectralConv2d(3, 8, 3).eval()
    x, weight = torch.randn(4, 3, 12, 12), torch.randn(4, 8, 10, 10)
    true, fast = (
        torch.autograd.grad(
            (Arithmetic(name, device=CPU).ready(network)(x) * weight).sum(), network.weight_orig
        )[0]
        for name in ("float32", "fast")
    )
    assert (fast - true).norm() < 0.01 * true.norm()


@pytest.mark.parametrize("kernel", [3, (3, 1, 1)])
def test_a_weight_that_sees_two_steps_gets_its_whole_gradient(
    kernel: int | tuple[int, int, int],
) -> None:
    network = nn.Conv3d(32, 32, kernel, padding=1 if kernel == 3 else (1, 0, 0))
    x, weight = torch.randn(1, 32, 2, 8, 8), torch.randn(1, 32, 2, 8, 8)
    found = []
    for name in ("float32", "fast"):
        loss = (Arithmetic(name, device=CPU).ready(network)(x) * weight).sum()
        found.append(torch.autograd.grad(loss, network.weight)[0].flatten())
    assert cosine(*found) > 0.999


def test_compiled_networks_give_what_others_do(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[object] = []

    def compile_with_eager(function: Callable[..., Any], **_: object) -> Callable[..., Any]:
        compiled.append(function)
        return torch._dynamo.optimize("eager")(function)

    monkeypatch.setattr(precision, "_has_compiler", lambda: True)
    monkeypatch.setattr(torch, "compile", compile_with_eager)
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU())
    x = torch.randn(2, 3, 8, 8)
    arithmetic = Arithmetic("compiled", device=CPU)
    made = arithmetic.ready(network, is_heavy=True)(x)
    assert len(compiled) == 1
    torch.testing.assert_close(made, Arithmetic("fast", device=CPU).ready(network)(x))
    made.sum().backward()
    assert network[0].weight.grad is not None
    arithmetic.ready(nn.Conv2d(3, 8, 3))(x)
    assert len(compiled) == 1


def test_without_a_compiler_nothing_is_compiled_and_a_warning_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    monkeypatch.setattr(torch, "compile", None)  # calling it would fail
    with pytest.warns(UserWarning, match=r"needs the compiler .*: computing as \"fast\""):
        arithmetic = Arithmetic("compiled", device=CPU)
    network = nn.Conv2d(3, 8, 3)
    assert arithmetic.ready(network, is_heavy=True)(torch.zeros(1, 3, 4, 4)).shape == (1, 8, 2, 2)


def test_a_device_that_is_slow_in_bf16_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "fast_dtype", lambda _: torch.float32)
    with pytest.raises(UserError, match='precision "fast" computes in bf16, which this cpu'):
        Arithmetic("fast", device=CPU)
    Arithmetic("float32", device=CPU)


def test_a_run_goes_on_in_its_own_precision_only(
    autoencoding: Make, loader: Callable[..., ClipLoader], tmp_path: Path
) -> None:
    def train(name: str) -> AutoencodingNetworks:
        step = autoencoding(epochs=1, windows=1, batch_size=2, precision=name)
        fit(step, loader(size=32), schedule_of(step.config, 4), folder=tmp_path)
        return step.networks

    networks = train("fast")
    assert {p.dtype for p in networks.parameters()} == {torch.float32}
    again = train("fast")  # done: the checkpoint is read
    assert is_same(state_of(networks), state_of(again))
    with pytest.raises(UserError, match="holds a run of another configuration"):
        train("float32")
