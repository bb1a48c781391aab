"""Two processes do what one does on all of the batch."""

import doctest
import os

import pytest
import torch
from torch import Tensor, nn

from cinnema.core import distributed as module
from cinnema.core.distributed import Ranks, joined_ranks, ranks_of_environment
from cinnema.core.errors import UserError
from two_processes import in_two_processes

BATCH = 8


def new_critic() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 1))


def penalised(critic: nn.Module, real: Tensor, ranks: Ranks) -> Tensor:
    """The hinge, and 10 times the squared gradient of the whole batch's mean score.

    The mean is over all clips, those of the other ranks too: that of this rank's alone would make
    each clip's gradient R times, and the penalty R^2 times as large.
    """
    real = real.requires_grad_()
    score = critic(real)
    (gradient,) = torch.autograd.grad(score.sum() / BATCH, real, create_graph=True)
    penalty = gradient.square().sum(dim=1).mean()
    assert len(real) * ranks.size == BATCH
    return (1 - score).relu().mean() + 10 * penalty


def fit(ranks: Ranks) -> dict[str, Tensor]:
    critic = new_critic()
    optimiser = torch.optim.Adam(critic.parameters(), lr=0.01)
    clips = torch.randn(3, BATCH, 6, generator=torch.Generator().manual_seed(1))
    for batch in clips:
        optimiser.zero_grad()
        penalised(critic, batch[ranks.share(BATCH)], ranks).backward()
        ranks.average_gradients(critic.parameters())
        optimiser.step()
    return {name: value.detach().clone() for name, value in critic.state_dict().items()}


def test_two_ranks_end_where_one_does_with_a_gradient_penalty() -> None:
    alone = fit(Ranks())
    first, second = in_two_processes(fit)
    torch.testing.assert_close(first, alone, atol=1e-5, rtol=0)
    torch.testing.assert_close(second, first, atol=0, rtol=0)
    assert not torch.allclose(alone["0.weight"], new_critic()[0].weight, atol=1e-3)


def test_ranks_that_do_not_average_end_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    alone = fit(Ranks())
    monkeypatch.setattr(Ranks, "average_gradients", lambda *_: None)
    first, _ = in_two_processes(fit)
    assert not torch.allclose(first["0.weight"], alone["0.weight"], atol=1e-4)


def exchange(ranks: Ranks) -> dict[str, object]:
    mean = [torch.full((2, 3), float(ranks.rank)), torch.tensor(4.0 * ranks.rank)]
    ranks.average(mean)
    weight = nn.Parameter(torch.full((2, 2), float(ranks.rank)).t())
    count = torch.tensor(ranks.rank + 5)
    ranks.broadcast([weight, count])
    without = nn.Parameter(torch.ones(2))
    ranks.average_gradients([without])
    return {
        "mean": mean,
        "weight": weight.detach().clone(),
        "count": count,
        "all": ranks.gather(f"rank {ranks.rank}"),
        "first": ranks.from_first(lambda: f"made by {ranks.rank}"),
        "gathered": list(ranks.gather_on_first(f"rank {ranks.rank}")),
        "has_gradient": without.grad is not None,
    }


def test_means_weights_and_values_are_the_same_on_both_ranks() -> None:
    for rank, found in enumerate(in_two_processes(exchange)):
        assert found["gathered"] == ([] if rank else ["rank 1"])
        assert torch.equal(found["mean"][0], torch.full((2, 3), 0.5))
        assert torch.equal(found["mean"][1], torch.tensor(2.0))
        assert torch.equal(found["weight"], torch.zeros(2, 2))
        assert int(found["count"]) == 5
        assert found["all"] == ["rank 0", "rank 1"]
        assert found["first"] == "made by 0"
        assert not found["has_gradient"]


def test_a_batch_is_shared_without_gap_or_overlap() -> None:
    clips = list(range(12))
    assert [clip for rank in range(3) for clip in clips[Ranks(rank, 3).share(12)]] == clips


def test_shards_hold_each_item_once() -> None:
    shards = [Ranks(rank, 3).shard(range(8)) for rank in range(3)]
    assert shards == [[0, 3, 6], [1, 4, 7], [2, 5]]


@pytest.mark.parametrize(("num", "size"), [(7, 2), (0, 1), (2, 4)])
def test_a_batch_that_cannot_be_shared_evenly_is_refused(num: int, size: int) -> None:
    with pytest.raises(UserError, match=rf"batch of {num} clips.*by {size} processes.*batch_size"):
        Ranks(0, size).share(num)


@pytest.mark.parametrize(
    ("environment", "ranks"),
    [({}, Ranks()), ({"RANK": "1", "WORLD_SIZE": "4"}, Ranks(1, 4)), ({"RANK": "0"}, Ranks())],
)
def test_ranks_are_those_of_the_environment(environment: dict[str, str], ranks: Ranks) -> None:
    assert ranks_of_environment(environment) == ranks


@pytest.mark.parametrize(("rank", "size"), [("x", "2"), ("0", "two"), ("2", "2"), ("-1", "2")])
def test_variables_that_torchrun_would_not_set_are_refused(rank: str, size: str) -> None:
    with pytest.raises(UserError, match=r"RANK and WORLD_SIZE must be whole numbers"):
        ranks_of_environment({"RANK": rank, "WORLD_SIZE": size})


def test_without_torchrun_there_is_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with joined_ranks(torch.device("cpu")) as ranks:
        assert ranks == Ranks(0, 1)


def test_processes_that_cannot_find_each_other_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    for name in ("RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(UserError, match="torchrun"), joined_ranks(torch.device("cpu")):
        pass
    assert "RANK" not in os.environ


def test_the_examples_run() -> None:
    assert doctest.testmod(module).failed == 0
