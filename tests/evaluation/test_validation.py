import json

import pytest
import torch

from cinnema.backbones.lpips import LPIPS
from cinnema.core.errors import UserError
from cinnema.data.crops import SceneCrops
from cinnema.evaluation.validation import ValidationReport, ValidationSettings, validate_model
from cinnema.models.warping.model import WarpingModel

SETTINGS = ValidationSettings(
    num_reconstructed=1,
    num_flows=2,
    num_started=1,
    num_spread=1,
    num_samples=2,
    num_latents=3,
    num_fitted=5,
    times=(2, 4),
)


@pytest.fixture(scope="module")
def report(
    model: WarpingModel, lpips: LPIPS, validation: list[SceneCrops], train: list[SceneCrops]
) -> ValidationReport:
    return validate_model(model, validation, train=train, lpips=lpips, settings=SETTINGS)


def test_a_report_covers_all_textures_and_scenes(report: ValidationReport) -> None:
    for breakdown in report.breakdowns().values():
        assert list(breakdown.textures) == ["all", "clouds", "fire"]
        assert list(breakdown.scenes) == ["a", "b", "c"]


def test_a_report_says_on_how_many_clips_it_rests(report: ValidationReport) -> None:
    assert report.flow.textures["all"]["relative flow error"].num_clips == 6
    assert report.likelihood.textures["clouds"]["flow"].num_clips == 6
    assert report.inversion.num_rows == 9


def test_a_report_goes_into_json(report: ValidationReport) -> None:
    values = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert values["settings"]["times"] == [2, 4]
    assert values["inversion"]["residual"] < 1e-4
    assert "value" in values["samples"]["textures"]["clouds"]["LPIPS best"]


def test_a_report_prints_every_table(report: ValidationReport) -> None:
    text = report.to_table()
    for breakdown in report.breakdowns().values():
        assert breakdown.title in text
    assert "…" not in text
    assert "Inversion" in text


def test_the_numbers_do_not_depend_on_the_global_random_stream(
    report: ValidationReport,
    model: WarpingModel,
    lpips: LPIPS,
    validation: list[SceneCrops],
    train: list[SceneCrops],
) -> None:
    torch.rand(5)
    again = validate_model(model, validation, train=train, lpips=lpips, settings=SETTINGS)
    assert again.breakdowns() == report.breakdowns()


def test_frames_that_do_not_exist_are_refused(
    model: WarpingModel, lpips: LPIPS, validation: list[SceneCrops], train: list[SceneCrops]
) -> None:
    settings = ValidationSettings(times=(4, 5))
    with pytest.raises(UserError, match="frames from 1 to 4"):
        validate_model(model, validation, train=train, lpips=lpips, settings=settings)


def test_too_few_scenes_are_refused(
    model: WarpingModel, lpips: LPIPS, validation: list[SceneCrops], train: list[SceneCrops]
) -> None:
    with pytest.raises(UserError, match="at least 2 scenes"):
        validate_model(model, validation, train=train[:1], lpips=lpips)
    with pytest.raises(UserError, match="at least 1 scene"):
        validate_model(model, [], train=train, lpips=lpips)
