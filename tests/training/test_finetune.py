"""Weights adapted to a few clips, in small."""

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import pytest
import torch

from cinnema.cli.finetune import measuring_of
from cinnema.cli.train import warping_validation
from cinnema.core.errors import UserError
from cinnema.evaluation.before_after import draw_grid
from cinnema.media.videos import write_video
from cinnema.models.files import load_model, load_warping_model, save_model
from cinnema.models.flow.conditioning import ConditionerConfig
from cinnema.models.flow.flow import FlowConfig
from cinnema.models.warping.model import WarpingModel, WarpingModelConfig
from cinnema.models.warping.stage1 import Stage1Config
from cinnema.recipes.clips import UserClips
from cinnema.synthesis.pipeline import Pipeline
from cinnema.training.finetune import FinetuneResult, Finetuning, finetune, save_finetuned
from cinnema.training.stage2 import Stage2Training
from cinnema.training.warping import WarpingTraining

CPU = torch.device("cpu")
SMALL = Finetuning(
    clips_seen=24,
    sky_share=0.0,
    num_train=8,
    num_held_out=4,
    motion=WarpingTraining(phase="motion", batch_size=4, learning_rate=3e-3, ema_decay=0.5),
    picture=WarpingTraining(
        phase="picture", batch_size=4, learning_rate=1e-3, ema_decay=0.5, network="alex"
    ),
    stage2=Stage2Training(pool=16, batch_size=8, learning_rate=1e-3, ema_decay=0.5),
)
Tune = Callable[..., FinetuneResult]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> WarpingModel:
    """One that can be told the drift, as a file gives it back."""
    conditioner = ConditionerConfig(feature_dim=8, width=8, condition_dim=4, control_dim=2)
    config = WarpingModelConfig(
        name="small",
        stage1=Stage1Config(
            size=64, num_frames=4, num_basis=2, z_dim=16, encoder_width=8, motion_width=8,
            feature_dim=8, mask_width=16, painter_width=16,
        ),
        conditioner=conditioner,
        flow=FlowConfig(
            z_dim=16, condition_dim=conditioner.out_dim, num_blocks=2, hidden_dim=16, depth=1
        ),
    )  # fmt: skip
    torch.manual_seed(0)
    model = WarpingModel(config)
    model.flow.initialise(torch.randn(64, 16), torch.randn(64, conditioner.out_dim))
    path = tmp_path_factory.mktemp("base") / "small.safetensors"
    save_model(path, model)
    return load_warping_model(path, purpose="a test")


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stripes that drift to the right."""
    root = tmp_path_factory.mktemp("clips")
    y, x = np.mgrid[:48, :64]
    frames = [128 + 60 * np.sin((x - 3 * t) / 5) + 40 * np.cos(y / 4) for t in range(30)]
    pixels = np.repeat(np.stack(frames)[..., None], 3, axis=-1).clip(0, 255).astype(np.uint8)
    write_video(root / "stripes.mp4", pixels, fps=8)
    return root


def finetuned(
    base: WarpingModel, clips: Path, config: Finetuning, run: Path, report: Callable[[str], None]
) -> FinetuneResult:
    """Adapt weights, measured as by the command."""
    return finetune(
        base,
        UserClips.of_finetuning(base.config, clips, config),
        config,
        measuring=lambda held_out: measuring_of(
            held_out, base.config, seed=config.seed, device=CPU, num_skies=1, network="alex"
        ),
        validation=lambda held_out: warping_validation(held_out, seed=config.seed),
        run=run,
        device=CPU,
        name="mine",
        base_sha256="abc",
        report=report,
    )


@pytest.fixture
def tune(base: WarpingModel, clips: Path, tmp_path: Path) -> Tune:
    """Adapt in a folder of its own."""

    def run(config: Finetuning = SMALL, *, report: Callable[[str], None] = quiet) -> FinetuneResult:
        return finetuned(base, clips, config, tmp_path / "run", report)

    return run


@pytest.fixture(scope="module")
def tuned(
    base: WarpingModel, clips: Path, tmp_path_factory: pytest.TempPathFactory
) -> FinetuneResult:
    """The result of an uninterrupted run."""
    return finetuned(base, clips, SMALL, tmp_path_factory.mktemp("runs") / "whole", quiet)


def quiet(text: str) -> None:
    del text


class StoppedError(Exception):
    """Somebody pressed Ctrl-C."""


def stop_at(begin: str) -> Callable[[str], None]:
    """Stop where a sentence begins so."""

    def report(text: str) -> None:
        if text.startswith(begin):
            raise StoppedError

    return report


def test_a_tuned_file_loads_and_animates_and_says_where_it_is_from(
    tuned: FinetuneResult, tmp_path: Path
) -> None:
    weights, numbers, grid, card = save_finetuned(
        tuned, tmp_path / "mine.safetensors", draw=draw_grid
    )
    loaded = load_model(weights).model
    assert loaded.name == "mine"
    assert loaded.control is not None
    assert all(
        torch.equal(value, loaded.state_dict()[name])
        for name, value in tuned.model.state_dict().items()
    )
    photo = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    (animation,) = Pipeline.from_pretrained(weights).animate(
        photo, num_samples=1, seed=0, num_frames=4
    )
    assert animation.frames.shape == (4, 64, 96, 3)

    told = json.loads(numbers.read_text())
    assert told["base"]["name"] == "small"
    assert told["base"]["sha256"] == "abc"
    assert told["clips"] == ["stripes.mp4"]
    assert told["kept"] == tuned.kept
    row = told["numbers"]["rows"]["relative flow error"]
    assert row["change"]["value"] == pytest.approx(row["after"] - row["before"], abs=1e-5)
    assert grid.stat().st_size > 1000
    assert "small (sha256 abc) adapted to 1 video by" in card.read_text()
    with pytest.raises(UserError, match=r"mine\.safetensors exists already.*--overwrite"):
        save_finetuned(tuned, tmp_path / "mine.safetensors", draw=draw_grid)


def test_the_base_is_left_as_it_is_and_the_clips_are_learned(
    tune: Tune, base: WarpingModel
) -> None:
    before = {name: value.clone() for name, value in base.state_dict().items()}
    result = tune(replace(SMALL, clips_seen=400, shares=(0.9, 0.0, 0.1)))
    assert all(torch.equal(value, before[name]) for name, value in base.state_dict().items())
    assert result.kept == {"stage1": "tuned", "stage2": "tuned"}
    for name in ("relative flow error", "LPIPS, recon", "negative log"):
        row = result.comparison.row(name)
        assert row.after < row.before
    flow = result.comparison.row("relative flow error")
    assert flow.change.high is not None
    assert flow.change.high < 0


def test_the_stage_1_that_gives_held_out_clips_back_best_is_kept(
    tune: Tune, tmp_path: Path
) -> None:
    result = tune(replace(SMALL, clips_seen=400, shares=(0.8, 0.1, 0.1)))
    found = {
        kept: fmean(
            score["values"]["lpips_model"]
            for score in json.loads((tmp_path / "run" / f"{file}.json").read_text())[
                "reconstruction"
            ]
        )
        for kept, file in (("base", "before"), ("motion", "motion"), ("tuned", "picture"))
    }
    assert result.kept["stage1"] == min(found, key=lambda name: found[name])
    row = result.comparison.row("LPIPS, recon")
    assert row.after == pytest.approx(min(found.values()))
    assert row.before == pytest.approx(found["base"])
    assert row.after < row.before


def test_one_that_was_stopped_goes_on_and_ends_as_an_unbroken_one(
    tune: Tune, tuned: FinetuneResult
) -> None:
    for begin in ("measuring", "picture", "stage 2: training"):
        with pytest.raises(StoppedError):
            tune(report=stop_at(begin))
    broken = tune()
    again = tune()  # done: nothing changes
    for other in (broken, again):
        assert other.comparison.to_dict() == tuned.comparison.to_dict()
        for name, value in tuned.model.state_dict().items():
            assert torch.equal(value, other.model.state_dict()[name])


def test_what_gets_no_better_is_left_as_the_base_has_it(tune: Tune, base: WarpingModel) -> None:
    spoilt = replace(
        SMALL,
        motion=replace(SMALL.motion, learning_rate=0.3),
        picture=replace(SMALL.picture, learning_rate=0.3),
        stage2=replace(SMALL.stage2, learning_rate=0.3),
    )
    said: list[str] = []
    result = tune(spoilt, report=said.append)
    assert result.kept == {"stage1": "base", "stage2": "base"}
    for name, value in base.state_dict().items():
        assert torch.equal(value, result.model.state_dict()[name])
    moving = [row for row in result.comparison.rows if not math.isnan(row.before)]  # a calm sky
    assert len(moving) >= 9
    for row in moving:  # sums in another order are rounded otherwise
        assert row.change.value == pytest.approx(0, abs=1e-6), row.name
    assert sum("so that of small is kept" in text for text in said) == 2


def test_a_picture_phase_that_spoils_leaves_the_motion_that_was_learnt(tune: Tune) -> None:
    spoilt = replace(SMALL, picture=replace(SMALL.picture, learning_rate=0.3))
    longer = replace(spoilt, clips_seen=400, shares=(0.8, 0.1, 0.1))
    result = tune(longer)
    assert result.kept["stage1"] == "motion"
    assert result.comparison.row("LPIPS, recon").change.value < 0


def test_without_time_for_motion_the_encoder_stays(tune: Tune, base: WarpingModel) -> None:
    result = tune(replace(SMALL, shares=(0.0, 0.5, 0.5)))
    tuned, old = result.model.stage1, base.stage1
    for part in ("encoder", "scene"):
        pairs = zip(getattr(tuned, part).parameters(), getattr(old, part).parameters(), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs)


def test_the_clock_decides_how_many_clips_are_seen(tune: Tune, tmp_path: Path) -> None:
    tune(replace(SMALL, clips_seen=None, minutes=0.05))  # 3 seconds
    plan = json.loads((tmp_path / "run" / "plan.json").read_text())
    assert set(plan["numbers"]) == {"motion.clips", "picture.clips", "stage2.clips", "stage2.pool"}
    assert set(plan["seconds"]) == {"motion", "picture", "stage2"}


def test_a_run_of_other_settings_is_refused(tune: Tune, base: WarpingModel) -> None:
    with pytest.raises(StoppedError):
        tune(report=stop_at("measuring"))
    with pytest.raises(UserError, match=r"holds a fine-tuning of other weights.*--run"):
        tune(replace(SMALL, seed=1))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"shares": (0.5, 0.5, 0.0)}, "shares: stage 2 depends on stage 1"),
        ({"motion": WarpingTraining(phase="mask")}, r"motion\.phase must be motion, got mask"),
        ({"stage2": Stage2Training(keep="last")}, r"stage2\.keep must be best"),
    ],
)
def test_settings_that_do_not_fit_are_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Finetuning(**changes)
