"""From an articulated recipe and packed clips to a weights file, in small."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from cinnema.core.config import config_from_dict, config_to_dict
from cinnema.core.errors import UserError
from cinnema.data.augmentation import Augmentation
from cinnema.data.dataset import PackedDataset
from cinnema.data.prepare import prepare
from cinnema.evaluation.held_out import keypoint_validation
from cinnema.models.files import load_model
from cinnema.models.flow.conditioning import ConditionerConfig
from cinnema.models.flow.flow import FlowConfig
from cinnema.models.keypoint.model import EndPointRange, KeypointModel
from cinnema.models.keypoint.stage1 import KeypointConfig
from cinnema.recipes.families import family_of
from cinnema.recipes.keypoint import ActingData, KeypointRecipe
from cinnema.recipes.keypoint_assembly import (
    bundle,
    held_out_clips,
    latents_of,
    new_stage1,
    train_stage1,
    train_stage2,
    training_loader,
)
from cinnema.training.keypoint import KeypointTraining
from cinnema.training.stage2 import Stage2Training
from walking_square import WalkingSquare

CPU = torch.device("cpu")
STAGE1 = KeypointConfig(
    size=32, num_frames=4, z_dim=8, encoder_width=8, width=8, code_dim=16, landmarks=3
)
CONDITIONER = ConditionerConfig(
    feature_dim=STAGE1.feature_dim, width=8, condition_dim=4, control_dim=3, control_scale=0.3
)
RECIPE = KeypointRecipe(
    name="square",
    data=ActingData(landmarks="where", validation_clips=4),
    stage1=STAGE1,
    motion=KeypointTraining(clips=16, batch_size=4, moments=2),
    picture=KeypointTraining(
        phase="picture", clips=8, batch_size=4, moments=2, perceptual=1.0, network="alex"
    ),
    conditioner=CONDITIONER,
    flow=FlowConfig(
        z_dim=8, condition_dim=CONDITIONER.out_dim, num_blocks=2, hidden_dim=16, depth=1
    ),
    stage2=Stage2Training(clips=32, pool=16, batch_size=8, validate_every=16),
    end_point=EndPointRange(low=(0.0, 0.0, -1.0), high=(1.0, 1.0, 1.0)),
)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("squares") / "packed"
    prepare(WalkingSquare(), folder, encoding="raw")
    return folder


def test_both_stages_become_one_file(data: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    with pytest.raises(UserError, match="train the stage that makes it first"):
        train_stage2(RECIPE, data=data, run=run, device=CPU)
    train_stage1(RECIPE, data=data, run=run, device=CPU)
    train_stage2(RECIPE, data=data, run=run, device=CPU)
    output = bundle(RECIPE, run=run, output=tmp_path / "square.safetensors")
    model = load_model(output).model
    assert isinstance(model, KeypointModel)
    assert model.config == RECIPE.model_config()
    assert {path.name for path in (run / "motion" / "strips").iterdir()} == {"000000016.png"}
    for folder in ("motion", "picture", "stage2"):
        assert (run / folder / "metrics.jsonl").stat().st_size > 0
    other = dataclasses.replace(RECIPE, stage1=dataclasses.replace(STAGE1, code_dim=32))
    with pytest.raises(UserError, match="was trained with another recipe"):
        bundle(other, run=run, output=tmp_path / "other.safetensors")


def test_the_control_of_a_latent_is_centred(data: Path) -> None:
    clips = held_out_clips(RECIPE, PackedDataset(data))
    pool = latents_of(RECIPE)(new_stage1(RECIPE).eval(), clips)
    expected = clips.track[:, -1] - torch.tensor([0.5, 0.5, 0.0])
    torch.testing.assert_close(pool.eta, expected)
    assert pool.known.tolist() == [1.0] * 4
    assert pool.joint.shape == (4, STAGE1.feature_dim, 8, 8)


def points() -> KeypointRecipe:
    stage1 = dataclasses.replace(STAGE1, landmarks=4, points=True)
    conditioner = dataclasses.replace(
        CONDITIONER, feature_dim=stage1.feature_dim, control_dim=0, control_scale=0.15
    )
    return dataclasses.replace(
        RECIPE,
        data=ActingData(
            landmarks="corners", validation_clips=4, augmentation=Augmentation(mirror=0.5)
        ),
        stage1=stage1,
        conditioner=conditioner,
        motion=dataclasses.replace(RECIPE.motion, guided=0.5),
        flow=dataclasses.replace(RECIPE.flow, condition_dim=conditioner.out_dim),
        end_point=None,
    )


def test_a_body_of_points_is_trained_and_sampled(data: Path, tmp_path: Path) -> None:
    recipe = points()
    train_stage1(recipe, data=data, run=tmp_path, device=CPU)
    numbers = (tmp_path / "motion" / "metrics.jsonl").read_text()
    assert "landmarks_known" in numbers
    train_stage2(recipe, data=data, run=tmp_path, device=CPU)
    model = load_model(bundle(recipe, run=tmp_path, output=tmp_path / "points.safetensors")).model
    x0 = torch.zeros(1, 3, 32, 32)
    z, _ = model.to_latent(torch.zeros(1, 8), model.condition(x0))
    assert model.decode(x0, z).shape == (1, 4, 3, 32, 32)


def test_the_flow_of_points_learns_the_z_of_true_paths(data: Path) -> None:
    recipe = points()
    clips = held_out_clips(recipe, PackedDataset(data))
    stage1 = new_stage1(recipe).eval()
    pool = latents_of(recipe)(stage1, clips)
    torch.testing.assert_close(pool.z, stage1.encode_path(clips.track))
    other = dataclasses.replace(clips, video=clips.video.flip(1))
    torch.testing.assert_close(latents_of(recipe)(stage1, other).z, pool.z)


def test_held_out_clips_are_of_the_split_and_the_same_each_time(data: Path) -> None:
    dataset = PackedDataset(data)
    first, again = (held_out_clips(RECIPE, dataset) for _ in range(2))
    assert torch.equal(first.video, again.video)
    assert set(first.index.tolist()) <= set(dataset.indices("validation").tolist())


def test_a_track_that_is_not_there_is_named(data: Path) -> None:
    lost = dataclasses.replace(RECIPE, data=ActingData(landmarks="elsewhere"))
    with pytest.raises(UserError, match="has no track elsewhere, it has corners, where"):
        next(training_loader(lost, PackedDataset(data), 4, seed=0))


def test_a_track_that_cannot_be_mirrored_is_refused(tmp_path: Path) -> None:
    prepare(WalkingSquare(control=None), tmp_path / "free", encoding="raw")
    mirrored = ActingData(landmarks="where", augmentation=Augmentation(mirror=0.5))
    with pytest.raises(UserError, match="set mirror to 0"):
        training_loader(
            dataclasses.replace(RECIPE, data=mirrored), PackedDataset(tmp_path / "free"), 4, seed=0
        )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"motion": {"phase": "picture"}}, r"motion\.phase must be motion, got picture"),
        ({"stage1": {"landmarks": 0}}, "name a track and its length, or neither"),
        ({"end_point": None}, "conditioner.control_dim and the numbers of end_point"),
        ({"stage1": {"widht": 8}}, "stage1.widht"),
    ],
)
def test_a_recipe_that_cannot_be_is_refused(change: dict[str, object], message: str) -> None:
    values = config_to_dict(RECIPE)
    for name, value in change.items():
        values[name] = values[name] | value if isinstance(value, dict) else value
    with pytest.raises(UserError, match=message):
        config_from_dict(KeypointRecipe, values)


def test_foregrounds_are_of_skies_alone(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="draws no synthetic skies"):
        family_of(RECIPE, foregrounds=tmp_path)


def test_a_rehearsal_takes_steps_of_every_training(monkeypatch: pytest.MonkeyPatch) -> None:
    family = family_of(RECIPE)
    rehearsals = family.estimate_stage1(RECIPE, device=CPU)
    rehearsals += family.estimate_stage2(RECIPE, device=CPU)
    assert [each.name for each in rehearsals] == ["motion", "picture", "stage2"]
    assert all(each.hours > 0 and each.activation_bytes > 0 for each in rehearsals)
    assert rehearsals[0].trained > rehearsals[1].trained  # the encoder is held still


def test_a_frozen_picture_scores_as_such(data: Path) -> None:
    clips = held_out_clips(RECIPE, PackedDataset(data))

    def lpips(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return (a - b).abs().mean(dim=(1, 2, 3))

    still: Callable[..., torch.Tensor] = lambda x0, _z: x0[:, None].repeat(1, 4, 1, 1, 1)  # noqa: E731
    model = new_stage1(RECIPE)
    model.decode = still  # type: ignore[method-assign]
    numbers = keypoint_validation(clips, lpips=lpips)(model)
    assert numbers["l1"] > 0
    assert numbers["l1"] == pytest.approx(numbers["l1_frozen"])
    assert numbers["lpips"] == pytest.approx(numbers["lpips_frozen"])
    assert numbers["landmarks"] > 0
