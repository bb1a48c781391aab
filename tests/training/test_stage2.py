"""Training of stage 2 on a pool of encoded clips."""

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from cinnema.core.errors import UserError
from cinnema.data.dataset import PackedDataset
from cinnema.data.loader import ClipLoader, VideoBatch
from cinnema.models.flow.conditioning import Conditioner, ConditionerConfig
from cinnema.models.flow.flow import ConditionalFlow, FlowConfig
from cinnema.models.keypoint.stage1 import KeypointStage1
from cinnema.training.latent_pool import encode_pool, load_or_encode
from cinnema.training.loop import FitResult
from cinnema.training.stage2 import FlowNetworks, Stage2Training, Validate, fit_latents
from tiny_recipes import KEYPOINT

CPU = torch.device("cpu")
CONFIG = Stage2Training(
    clips=320, pool=32, batch_size=16, learning_rate=5e-3, validate_every=60, patience=2
)


Batches = Iterator[VideoBatch]


@pytest.fixture(scope="module")
def stage1() -> KeypointStage1:
    return KEYPOINT.new_stage1().eval()


@pytest.fixture
def clips(squares: PackedDataset) -> ClipLoader:
    return ClipLoader(squares, batch_size=8, num_frames=5, track="where", num_workers=0)


def new_networks() -> FlowNetworks:
    torch.manual_seed(1)
    conditioner = Conditioner(
        ConditionerConfig(feature_dim=KEYPOINT.stage1.feature_dim, width=8, condition_dim=4)
    )
    flow = ConditionalFlow(
        FlowConfig(z_dim=8, condition_dim=4, num_blocks=2, hidden_dim=16, depth=1, dropout=0.1)
    )
    return FlowNetworks(conditioner, flow)


def no_clips() -> Batches:
    raise AssertionError("the pool was to be read from its file")
    yield


def trained(
    stage1: KeypointStage1,
    batches: Batches,
    folder: Path,
    *,
    networks: FlowNetworks | None = None,
    config: Stage2Training = CONFIG,
    validate: Validate | None = None,
) -> tuple[FlowNetworks, FitResult]:
    networks = networks or new_networks()
    result = fit_latents(
        stage1, networks.conditioner, networks.flow, batches, config,
        folder=folder, device=CPU, encode_batch=KEYPOINT.encode, validate=validate,
    )  # fmt: skip
    return networks, result


def scores(*values: float) -> Callable[[Conditioner, ConditionalFlow], dict[str, float]]:
    left = iter(values)
    return lambda _conditioner, _flow: {"nll": next(left)}


def is_same(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    pairs = zip(a.state_dict().values(), b.state_dict().values(), strict=True)
    return all(torch.equal(x, y) for x, y in pairs)


def test_training_lowers_the_negative_log_likelihood(
    stage1: KeypointStage1, clips: ClipLoader, tmp_path: Path
) -> None:
    pool = encode_pool(stage1, clips, 32, device=CPU, encode_batch=KEYPOINT.encode)

    def held_out(conditioner: Conditioner, flow: ConditionalFlow) -> dict[str, float]:
        generator = torch.Generator().manual_seed(5)
        z = pool.z + 0.1 * torch.randn(pool.z.shape, generator=generator)
        with torch.no_grad():
            nll = -flow.log_prob(z, conditioner(pool.joint.float())).mean() / z.shape[1]
        return {"nll": float(nll)}

    new = new_networks()
    new.flow.initialise(pool.z, new.conditioner.eval()(pool.joint.float()))
    before = held_out(new.conditioner, new.flow.eval())["nll"]
    networks, result = trained(stage1, clips, tmp_path, validate=held_out)
    assert result.nll is not None
    assert result.nll < before
    score = held_out(networks.conditioner, networks.flow)["nll"]
    assert score == pytest.approx(result.nll, abs=1e-5)


def test_without_validation_the_last_weights_are_kept(
    stage1: KeypointStage1, clips: ClipLoader, tmp_path: Path
) -> None:
    before = {name: value.clone() for name, value in stage1.state_dict().items()}
    networks = new_networks()
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    networks, result = trained(stage1, clips, tmp_path, networks=networks)
    assert torch.equal(torch.rand(1), expected)  # the global random state is not used
    assert networks.flow.is_initialised
    assert not networks.flow.training
    assert (result.nll, result.clips) == (None, CONFIG.clips)
    assert not stage1.training
    assert all(torch.equal(before[name], value) for name, value in stage1.state_dict().items())


@pytest.mark.parametrize("keep", ["best", "last"])
def test_a_run_stops_early_and_stays_stopped(
    stage1: KeypointStage1, clips: ClipLoader, tmp_path: Path, keep: str
) -> None:
    config = dataclasses.replace(CONFIG, keep=keep)
    networks, result = trained(
        stage1, clips, tmp_path, config=config, validate=scores(2.0, 1.0, 1.5, 1.4)
    )
    expected = (1.0, 128, True) if keep == "best" else (None, 256, True)
    assert (result.nll, result.clips, result.stopped_early) == expected
    again, repeated = trained(stage1, no_clips(), tmp_path, config=config, validate=scores())
    assert repeated == result
    assert is_same(again, networks)


def test_another_stage_1_does_not_resume_the_run(
    stage1: KeypointStage1, clips: ClipLoader, tmp_path: Path
) -> None:
    trained(stage1, clips, tmp_path, config=dataclasses.replace(CONFIG, clips=16))
    with pytest.raises(UserError, match="another configuration"):
        trained(
            KEYPOINT.new_stage1(seed=1),
            clips,
            tmp_path,
            config=dataclasses.replace(CONFIG, clips=16),
        )


def test_a_pool_holds_the_encoded_clips(stage1: KeypointStage1, clips: ClipLoader) -> None:
    pool = encode_pool(stage1, clips, 12, device=CPU, encode_batch=KEYPOINT.encode)
    clips.load_state_dict({"clips": 0})
    with torch.no_grad():
        z = stage1.encode(next(clips).video)
    assert (len(pool), pool.joint.shape) == (12, (12, KEYPOINT.stage1.feature_dim, 8, 8))
    torch.testing.assert_close(pool.z[:8], z)


def test_a_pool_is_encoded_once_and_again_if_it_is_damaged_or_of_other_weights(
    stage1: KeypointStage1, clips: ClipLoader, tmp_path: Path
) -> None:
    path = tmp_path / "pool.safetensors"
    options = {"device": CPU, "encode_batch": KEYPOINT.encode}
    path.write_bytes(b"not a pool")
    pool = load_or_encode(path, stage1, clips, 10, **options)
    again = load_or_encode(path, stage1, no_clips(), 10, **options)
    assert torch.equal(pool.z, again.z)
    assert torch.equal(pool.joint, again.joint)
    other = load_or_encode(path, KEYPOINT.new_stage1(seed=1), clips, 10, **options)
    assert not torch.equal(pool.z, other.z)


def test_encoding_follows_the_format_of_stage_1(clips: ClipLoader) -> None:
    batch = next(clips)
    exact = KEYPOINT.encode(KEYPOINT.new_stage1().eval(), batch)
    rough = KEYPOINT.encode(KEYPOINT.new_stage1().bfloat16().eval(), batch)
    assert rough.z.dtype == exact.z.dtype == torch.float32
    assert np.isfinite(rough.joint.numpy()).all()
