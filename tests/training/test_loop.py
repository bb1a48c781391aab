"""The loop of stage 1 with a step of the test's own: what an implementer owes, what he gets."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from cinnema.training import loop
from cinnema.training.adversarial import DiscriminatorsConfig
from cinnema.training.loop import Rendered, Step, fit, from_the_start, known_by, trial_of
from cinnema.training.warping import Stage1Training

CPU = torch.device("cpu")
CONFIG = Stage1Training(clips=400, batch_size=4, learning_rate=0.1, weight_decay=0.0, ema_decay=0.5)


class Doubling(Step[nn.Linear, Tensor, Stage1Training]):
    """Learns to double two numbers of a batch, without a bias; renders nothing."""

    def choose_trained(self) -> None:
        self.model.bias.requires_grad_(requires_grad=False)

    def losses(
        self, batch: Tensor, generator: torch.Generator
    ) -> tuple[dict[str, Tensor], Rendered | None]:
        drawn = batch[torch.randperm(len(batch), generator=generator)[:2]]
        error = self.model(drawn) - 2 * drawn
        return {"error": error.square().mean()}, None

    def last_layer(self) -> Tensor:
        raise AssertionError("nothing was rendered, so nobody may ask")

    def names(self, batch: Tensor) -> list[str]:
        return [f"row {row}" for row in range(len(batch))]


class Numbers:
    """Batches of four numbers."""

    def __init__(self) -> None:
        self.asked_from: list[int] = []

    def __next__(self) -> Tensor:
        return torch.tensor([[-1.0], [0.5], [1.0], [2.0]])

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.asked_from.append(state["clips"])


def line() -> nn.Linear:
    network = nn.Linear(1, 1)
    nn.init.zeros_(network.weight)
    nn.init.zeros_(network.bias)
    return network


@pytest.fixture(autouse=True)
def in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "fast_dtype", lambda _device: torch.float32)


def test_the_loop_trains_what_a_step_chooses_and_leaves_its_average(tmp_path: Path) -> None:
    network = line()
    step = Doubling(network, CONFIG, device=CPU)
    fit(step, Numbers(), folder=tmp_path, about={})
    assert network.weight.item() == pytest.approx(2, abs=0.05)
    assert network.bias.item() == 0
    kept = torch.load(tmp_path / "checkpoint.pt", weights_only=True)["parts"]
    assert torch.equal(network.weight, kept["average"]["values"][0])
    assert not torch.equal(network.weight, kept["model"]["weight"])


def test_batches_go_on_from_the_clip_where_the_run_was(tmp_path: Path) -> None:
    for _ in range(2):
        batches = Numbers()
        fit(Doubling(line(), CONFIG, device=CPU), batches, folder=tmp_path, about={})
    assert batches.asked_from == [400]


def test_a_validation_that_fails_leaves_the_weights_that_are_trained() -> None:
    network = line()
    step = Doubling(network, CONFIG, device=CPU)
    trial_of(step, next(Numbers()))(0)
    trained, seen = network.weight.item(), []

    def fail() -> None:
        with step.averaged():
            seen.append((network.weight.item(), network.training))
            raise ArithmeticError

    with pytest.raises(ArithmeticError):
        fail()
    assert seen[0][0] != trained
    assert not seen[0][1]
    assert network.weight.item() == trained
    assert network.training


def test_adversaries_rest_while_nothing_is_rendered() -> None:
    config = Stage1Training(
        phase="picture", batch_size=4, adversaries=DiscriminatorsConfig(widths=(8, 8))
    )
    step = Doubling(line(), config, device=CPU)
    losses = trial_of(step, next(Numbers()))(0)
    assert losses.keys() == {"error", "gradient"}
    assert "spatial_adversary" in step.parts()


def test_a_step_that_does_not_say_what_was_rendered_cannot_be_made() -> None:
    class Silent(Step[nn.Linear, Tensor, Stage1Training]):
        def choose_trained(self) -> None:
            pass

    with pytest.raises(TypeError, match="losses"):
        Silent(line(), CONFIG, device=CPU)


def test_a_run_is_known_by_its_later_options_only_where_they_change_something() -> None:
    usual, later = Stage1Training(), ("frames", "seed")
    assert known_by(usual, usual, later=later).keys() & set(later) == set()
    told = known_by(Stage1Training(frames=3, clips=8), usual, later=later)
    assert (told["frames"], told["clips"], "seed" in told) == (3, 8, False)


def test_in_a_trial_adversaries_take_part_from_the_start() -> None:
    assert from_the_start(None) is None
    late = DiscriminatorsConfig(start=4000, gamma=0.3)
    assert from_the_start(late) == DiscriminatorsConfig(start=0, gamma=0.3)
