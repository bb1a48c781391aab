"""Two processes take the step of one on the whole batch, gradient penalty and all.

With plain gradient descent in short steps: Adam's first steps turn rounding into steps of full
length, and long ones cross the kinks of the hinge and of L1 at different places.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from cinnema.core.distributed import Ranks
from cinnema.data.loader import ClipLoader, VideoBatch
from cinnema.paper.training import phases
from cinnema.paper.training.assembly import schedule_of
from cinnema.training.loop import Position, fit
from cinnema.training.losses import adaptive_weight
from paper.training.small_networks import state_of
from two_processes import in_two_processes

Make = Callable[..., Any]
RATE = 1e-3


@pytest.fixture(autouse=True)
def plain_descent(monkeypatch: pytest.MonkeyPatch) -> None:
    def optimiser(
        _: phases.AdamConfig, networks: list[nn.Module], **_other: bool
    ) -> torch.optim.Optimizer:
        return torch.optim.SGD([p for n in networks for p in n.parameters()], lr=1.0)

    monkeypatch.setattr(phases.AdamConfig, "optimiser", optimiser)
    monkeypatch.setattr(phases.AdamConfig, "rate", lambda *_: RATE)


def share_of(batch: VideoBatch, ranks: Ranks) -> VideoBatch:
    own = ranks.share(len(batch.video))
    return VideoBatch(**{name: value[own] for name, value in vars(batch).items()})


def test_stage_1_with_its_gradient_penalty(autoencoding: Make, small_batch: VideoBatch) -> None:
    def trained(ranks: Ranks) -> dict[str, Any]:
        # The pictures that the other discriminator sees are drawn by each rank from its clips.
        step = autoencoding(w_spatial=0.0, ranks=ranks)
        losses = step.take(share_of(small_batch, ranks), Position(0, epoch=0))
        names = ("penalty", "hinge_t", "recon", "percep", "kl", "matching", "adversarial_t")
        parts = ("encoder", "decoder", "temporal")
        states = {part: state_of(getattr(step.networks, part)) for part in parts}
        return {"losses": {name: losses[name] for name in names}} | states

    one, start = trained(Ranks()), autoencoding().networks
    assert one["losses"]["penalty"] > 1
    for two in in_two_processes(trained):
        torch.testing.assert_close(two, one, atol=1e-5, rtol=1e-5)
    moved = [
        (one["temporal"][name] - p).abs().max() for name, p in start.temporal.named_parameters()
    ]
    assert max(moved) > 1e-3


def test_the_cinn(flow: Make, batch: VideoBatch) -> None:
    def trained(ranks: Ranks) -> dict[str, Tensor]:
        step = flow(ranks=ranks)
        generator, (z, c) = (
            torch.Generator().manual_seed(0),
            step.latents(share_of(batch, ranks), number=0),
        )
        first = [torch.randn(64, like.shape[1], generator=generator) for like in (z, c)]
        step.networks.initialise(*first)
        for number in range(2):
            step.take(share_of(batch, ranks), Position(number, epoch=0))
        return state_of(step.networks)

    one = trained(Ranks())
    for two in in_two_processes(trained):
        torch.testing.assert_close(two, one, atol=1e-5, rtol=1e-5)


def test_the_first_batch_of_the_cinn(
    flow: Make, batch: VideoBatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(phases.AdamConfig, "rate", lambda *_: 0.0)

    def initialised(ranks: Ranks) -> dict[str, Tensor]:
        step = flow(ranks=ranks)
        step.take(share_of(batch, ranks), Position(0, epoch=0))
        return state_of(step.networks)

    one = initialised(Ranks())
    for two in in_two_processes(initialised):  # one over deviations of two clips, which are small
        torch.testing.assert_close(two, one, atol=1e-5, rtol=1e-4)


def test_the_adaptive_weight_counts_over_all_ranks() -> None:
    def weight(ranks: Ranks) -> Tensor:
        layer = nn.Parameter(torch.tensor([1.0, 2.0]))
        x = torch.tensor([[1.0, 3.0], [5.0, -2.0]])[ranks.share(2)]
        y = (x * layer).sum(dim=1)
        return adaptive_weight(y.square().mean(), y.mean(), layer, ranks=ranks)

    for two in in_two_processes(weight):
        torch.testing.assert_close(two, weight(Ranks()))


def test_a_run_is_written_by_one_and_resumed_by_both(
    autoencoding: Make, loader: Callable[..., ClipLoader], tmp_path: Path
) -> None:
    def trained(ranks: Ranks) -> dict[str, Tensor]:
        step = autoencoding(epochs=1, ranks=ranks)
        step.config = replace(step.config, batch_size=2)
        batches = loader(size=32, batch_size=1, rank=ranks.rank, num_ranks=2)
        fit(step, batches, schedule_of(step.config, 4), folder=tmp_path)
        return state_of(step.networks.encoder)

    first, second = in_two_processes(trained)
    torch.testing.assert_close(second, first, atol=0, rtol=0)
    lines = (tmp_path / "metrics.jsonl").read_text()
    again, _ = in_two_processes(trained)  # done: nothing is trained again
    torch.testing.assert_close(again, first, atol=0, rtol=0)
    assert (tmp_path / "metrics.jsonl").read_text() == lines
