"""What a phase trains, when and how fast; and what it leaves alone."""

import doctest
from types import ModuleType

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from cinnema.core.errors import UserError
from cinnema.paper import recipes as paper
from cinnema.paper.training import conditioning, phases
from cinnema.paper.training.conditioning import Plateau
from cinnema.paper.training.phases import AdamConfig, Phase

ADAM = AdamConfig(learning_rate=0.1, betas=(0.5, 0.9), decay=0.5, decay_every=3)


def test_the_rate_falls_by_steps() -> None:
    assert [ADAM.rate(epoch) for epoch in (0, 2, 3, 5, 6)] == [0.1, 0.1, 0.05, 0.05, 0.025]


def test_a_phase_begins_at_its_epoch_and_keeps_its_interval() -> None:
    phase = Phase("p", [nn.Linear(1, 1)], ADAM, start=1, interval=2)
    due = [(n, e) for e in (0, 1) for n in range(4) if phase.is_due(n, epoch=e)]
    assert due == [(0, 1), (2, 1)]


def test_the_rate_of_a_phase_falls_from_where_it_begins() -> None:
    network = nn.Linear(1, 1)
    phase = Phase("p", [network], ADAM, start=2)
    for epoch, rate in ((2, 0.1), (4, 0.1), (5, 0.05)):
        phase.descend({"a": network.weight.sum()}, 0, epoch=epoch)
        assert phase.optimiser.param_groups[0]["lr"] == pytest.approx(rate)


def test_a_phase_descends_the_sum_of_its_losses() -> None:
    network = nn.Linear(1, 1, bias=False)
    before = network.weight.item()
    phase = Phase("p", [network], ADAM)
    seen = phase.descend({"a": 3 * network.weight.sum(), "b": -network.weight.sum()}, 0, epoch=0)
    assert network.weight.item() == pytest.approx(before - 0.1)  # Adam's first step is the rate
    assert seen["a"] == pytest.approx(3 * before)
    assert seen["b"] == pytest.approx(-before)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_is_refused_before_a_weight_moves(value: float) -> None:
    network = nn.Linear(1, 1)
    before = network.weight.item()
    phase = Phase("temporal discriminator", [network], ADAM)
    with pytest.raises(UserError, match=r"temporal discriminator: penalty (nan|inf) at step 7"):
        phase.descend({"a": network.weight.sum(), "penalty": torch.tensor(value)}, 7, epoch=0)
    with pytest.raises(UserError, match="gradient"):
        phase.descend({"root": (network.weight * 0).sqrt().sum()}, 7, epoch=0)
    assert network.weight.item() == before


def test_a_plateau_halves_the_rate_after_epochs_without_a_better_mean() -> None:
    plateau, factors = Plateau(patience=1), []
    for epoch, loss in enumerate([5.0, 4.0, 4.5, 4.5, 4.5, 4.5, 3.0, 3.5]):
        plateau.enter(epoch)
        factors.append(plateau.factor)
        plateau.add(loss - 1)
        plateau.add(loss + 1)
    assert factors == [1, 1, 1, 1, 0.5, 0.5, 0.25, 0.25]


@settings(deadline=None)
@given(losses=st.lists(st.floats(0, 10), min_size=2, max_size=12), stop=st.integers(1, 11))
def test_a_plateau_that_was_saved_goes_on_as_if_it_had_not_been(
    losses: list[float], stop: int
) -> None:
    whole, first, second = (Plateau(patience=1) for _ in range(3))
    for step, loss in enumerate(losses):
        whole.enter(step // 2)
        whole.add(loss)
        if step == stop:
            second.load_state_dict(first.state_dict())
        part = first if step < stop else second
        part.enter(step // 2)
        part.add(loss)
    last = first if len(losses) <= stop else second
    assert last.state_dict() == whole.state_dict()


@pytest.mark.parametrize("module", [paper, phases])
def test_the_examples_run(module: ModuleType) -> None:
    result = doctest.testmod(module, extraglobs={"torch": torch})
    assert result.attempted > 0
    assert result.failed == 0


@pytest.mark.parametrize("kind", [conditioning.ImageDecoder, Plateau])
def test_the_examples_of_a_class_run(kind: type) -> None:
    runner = doctest.DocTestRunner()
    for example in doctest.DocTestFinder().find(kind, globs={**vars(conditioning)}):
        runner.run(example)
    assert runner.summarize().attempted > 0
    assert runner.summarize().failed == 0
