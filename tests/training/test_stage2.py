import dataclasses
import functools
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from cinnema.core.distributed import Ranks
from cinnema.core.errors import UserError
from cinnema.data.crop_batches import ClipBatch
from cinnema.models.flow.conditioning import Conditioner, ConditionerConfig
from cinnema.models.flow.flow import ConditionalFlow, FlowConfig
from cinnema.models.warping.stage1 import Stage1, Stage1Config
from cinnema.training import stage2 as training
from cinnema.training.latent_pool import encode, encode_drifting, encode_pool, load_or_encode
from cinnema.training.run import TrainingRun
from cinnema.training.stage2 import Stage2Result, Stage2Training, train
from two_processes import in_two_processes

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def stage1() -> Stage1:
    torch.manual_seed(0)
    config = Stage1Config(
        size=64, num_frames=2, num_basis=2, z_dim=16, encoder_width=8, motion_width=8,
        feature_dim=8, mask_width=16, painter_width=16,
    )  # fmt: skip
    return Stage1(config)


def _networks() -> tuple[Conditioner, ConditionalFlow]:
    torch.manual_seed(1)
    conditioner = Conditioner(ConditionerConfig(feature_dim=8, width=8, condition_dim=4))
    flow = ConditionalFlow(
        FlowConfig(z_dim=16, condition_dim=4, num_blocks=2, hidden_dim=16, depth=1, dropout=0.1)
    )
    return conditioner, flow


def _batches(*, size: int = 8) -> Iterator[ClipBatch]:
    generator = torch.Generator().manual_seed(0)
    while True:
        x0 = torch.rand(size, 3, 64, 64, generator=generator) * 2 - 1
        wind = torch.randn(size, 2, 1, 1, 1, generator=generator) * 0.02
        flow = wind * torch.tensor([0.5, 1.0])[:, None, None] * torch.ones(16, 16)
        some = torch.ones(size, 32, 32)
        yield ClipBatch(x0, flow, some, some, x0[:, None, :][:, :0], torch.ones(size, 0))


def _no_more_batches() -> Iterator[ClipBatch]:
    raise AssertionError("the pool was to be read from its file")
    yield


CONFIG = Stage2Training(
    clips=320, pool=32, batch_size=16, learning_rate=5e-3, validate_every=64, patience=2
)


def _train(
    stage1: Stage1,
    folder: Path,
    *,
    config: Stage2Training = CONFIG,
    validate: training.Validate | None = None,
    batches: Iterator[ClipBatch] | None = None,
) -> Stage2Result:
    return train(
        stage1, *_networks(), _batches() if batches is None else batches, config,
        folder=folder, device=CPU, encode_batch=encode_drifting, validate=validate,
    )  # fmt: skip


def _scores(*values: float) -> Callable[[Conditioner, ConditionalFlow], dict[str, float]]:
    left = iter(values)
    return lambda _conditioner, _flow: {"nll": next(left)}


def _same(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    return all(
        torch.equal(x, y)
        for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True)
    )


def test_training_lowers_the_negative_log_likelihood(stage1: Stage1, tmp_path: Path) -> None:
    pool = encode_pool(stage1, _batches(), 32, device=CPU, encode_batch=encode_drifting)

    def held_out(conditioner: Conditioner, flow: ConditionalFlow) -> dict[str, float]:
        generator = torch.Generator().manual_seed(5)
        z = pool.z + 0.1 * torch.randn(pool.z.shape, generator=generator)
        with torch.no_grad():
            nll = -flow.log_prob(z, conditioner(pool.joint.float())).mean() / z.shape[1]
        return {"nll": float(nll)}

    conditioner, flow = _networks()
    flow.initialise(pool.z, conditioner.eval()(pool.joint.float()))
    before = held_out(conditioner, flow.eval())["nll"]
    result = _train(stage1, tmp_path, validate=held_out)
    assert result.nll is not None
    assert result.nll < before - 0.1
    assert held_out(result.conditioner, result.flow)["nll"] == pytest.approx(result.nll, abs=1e-5)


def test_the_flow_is_initialised_from_the_pool(stage1: Stage1, tmp_path: Path) -> None:
    result = _train(stage1, tmp_path)
    assert result.flow.is_initialised
    assert not result.flow.training
    assert result.nll is None
    assert result.clips == CONFIG.clips


def test_a_run_stops_when_held_out_scenes_get_no_better(stage1: Stage1, tmp_path: Path) -> None:
    result = _train(stage1, tmp_path, validate=_scores(2.0, 1.0, 1.5, 1.4))
    assert (result.nll, result.clips, result.stopped_early) == (1.0, 128, True)


def test_the_last_weights_are_kept_where_that_is_asked(stage1: Stage1, tmp_path: Path) -> None:
    config = dataclasses.replace(CONFIG, keep="last", patience=50)
    looks = _scores(2.0, 1.0, 1.5, 1.4, 3.0, 3.0)
    watched = _train(stage1, tmp_path / "watched", config=config, validate=looks)
    alone = _train(stage1, tmp_path / "alone", config=config)
    assert (watched.nll, watched.clips) == (None, CONFIG.clips)
    assert _same(watched.flow, alone.flow)
    assert _same(watched.conditioner, alone.conditioner)


def test_a_run_that_stopped_early_stays_stopped(stage1: Stage1, tmp_path: Path) -> None:
    first = _train(stage1, tmp_path, validate=_scores(2.0, 1.0, 1.5, 1.4))
    again = _train(stage1, tmp_path, validate=_scores(), batches=_no_more_batches())
    assert (again.nll, again.clips, again.stopped_early) == (1.0, 128, True)
    assert _same(first.flow, again.flow)
    assert _same(first.conditioner, again.conditioner)


def test_a_resumed_run_ends_where_an_unbroken_one_does(
    stage1: Stage1, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        training, "TrainingRun", functools.partial(TrainingRun, seconds_between=0.0)
    )
    scores = (4.0, 3.0, 2.5, 2.4, 2.3)
    whole = _train(stage1, tmp_path / "whole", validate=_scores(*scores))
    with pytest.raises(StopIteration):  # the third look at the held-out scenes breaks the run
        _train(stage1, tmp_path / "broken", validate=_scores(*scores[:2]))
    resumed = _train(stage1, tmp_path / "broken", validate=_scores(*scores[2:]))
    assert resumed.nll == whole.nll
    assert _same(whole.flow, resumed.flow)
    assert _same(whole.conditioner, resumed.conditioner)


def test_two_ranks_take_the_steps_of_one_on_the_whole_batch(stage1: Stage1, tmp_path: Path) -> None:
    config = dataclasses.replace(CONFIG, clips=64, learning_rate=1e-3, control_dropout=0.5)

    def trained(ranks: Ranks) -> dict[str, torch.Tensor | float]:
        torch.manual_seed(1)
        conditioner = Conditioner(
            ConditionerConfig(feature_dim=8, width=8, condition_dim=4, control_dim=2, dropout=0.0)
        )
        # No dropout in the networks: it is drawn on each rank by itself.
        sizes = {"z_dim": 16, "condition_dim": conditioner.config.out_dim, "hidden_dim": 16}
        flow = ConditionalFlow(FlowConfig(num_blocks=2, depth=1, dropout=0.0, **sizes))
        batches = _batches() if ranks.is_first else _no_more_batches()
        result = train(
            stage1, conditioner, flow, batches, config, folder=tmp_path / str(ranks.size),
            device=CPU, encode_batch=encode_drifting, ranks=ranks,
            validate=lambda *_: {"nll": 1.0 + ranks.rank},
        )  # fmt: skip
        return result.flow.state_dict() | {"nll": result.nll}

    one = trained(Ranks())
    for two in in_two_processes(trained):
        torch.testing.assert_close(two, one, atol=1e-5, rtol=0)


def test_a_likelihood_that_is_no_number_stops_the_run_and_names_the_rows(
    stage1: Stage1, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loss = training._Networks.loss
    monkeypatch.setattr(
        training._Networks, "loss", lambda self, draw: loss(self, draw) * float("nan")
    )
    with pytest.raises(UserError, match=r"loss nan.*row \d+ of the pool"):
        _train(stage1, tmp_path)
    assert len(json.loads((tmp_path / "nan-0.json").read_text())["batch"]) == CONFIG.batch_size
    assert not (tmp_path / "checkpoint.pt").exists()


def test_training_leaves_the_global_random_stream_alone(stage1: Stage1, tmp_path: Path) -> None:
    networks = _networks()
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    train(
        stage1,
        *networks,
        _batches(),
        CONFIG,
        folder=tmp_path,
        device=CPU,
        encode_batch=encode_drifting,
    )
    assert torch.equal(torch.rand(1), expected)


def test_stage_1_is_not_changed(stage1: Stage1, tmp_path: Path) -> None:
    before = {name: value.clone() for name, value in stage1.state_dict().items()}
    _train(stage1, tmp_path)
    assert not stage1.training
    assert all(torch.equal(before[name], value) for name, value in stage1.state_dict().items())


def test_another_stage_1_does_not_resume_the_run(stage1: Stage1, tmp_path: Path) -> None:
    _train(stage1, tmp_path)
    with pytest.raises(UserError, match="another configuration"):
        _train(Stage1(stage1.config), tmp_path)


def test_a_pool_holds_what_stage_1_says_of_each_clip(stage1: Stage1) -> None:
    pool = encode_pool(stage1, _batches(size=8), 12, device=CPU, encode_batch=encode_drifting)
    first = next(_batches(size=8))
    with torch.no_grad():
        z = stage1.encode(first.flow)
    assert (len(pool), pool.joint.shape) == (12, (12, 8, 8, 8))
    torch.testing.assert_close(pool.z[:8], z)


def test_a_pool_is_encoded_once(stage1: Stage1, tmp_path: Path) -> None:
    path = tmp_path / "pool.safetensors"
    pool = load_or_encode(path, stage1, _batches(), 10, device=CPU, encode_batch=encode_drifting)
    again = load_or_encode(
        path, stage1, _no_more_batches(), 10, device=CPU, encode_batch=encode_drifting
    )
    assert torch.equal(pool.z, again.z)
    assert torch.equal(pool.joint, again.joint)


def test_a_broken_or_foreign_pool_is_encoded_again(stage1: Stage1, tmp_path: Path) -> None:
    path = tmp_path / "pool.safetensors"
    path.write_bytes(b"not a pool")
    pool = load_or_encode(path, stage1, _batches(), 4, device=CPU, encode_batch=encode_drifting)
    other = load_or_encode(
        path, Stage1(stage1.config), _batches(), 4, device=CPU, encode_batch=encode_drifting
    )
    assert not torch.equal(pool.z, other.z)


def test_encoding_follows_the_format_of_stage_1(stage1: Stage1) -> None:
    batch = next(_batches())
    exact = encode(stage1, batch.x0, batch.flow, batch.moving)
    rough = encode(Stage1(stage1.config).bfloat16().eval(), batch.x0, batch.flow, batch.moving)
    assert rough.z.dtype == exact.z.dtype == torch.float32
    assert np.isfinite(rough.joint.numpy()).all()
