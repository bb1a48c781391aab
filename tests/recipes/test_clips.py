"""The clips of the recipes: splits, streams, held-out clips, and pictures of them."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cinnema.core.distributed import Ranks
from cinnema.core.errors import UserError
from cinnema.data.augmentation import Augmentation
from cinnema.data.prepare import prepare
from cinnema.recipes.clips import KeypointClips, save_rows
from cinnema.training.recipe import KeypointData
from tiny_recipes import KEYPOINT, points, write_squares
from walking_square import WalkingSquare


@pytest.fixture(scope="module")
def squares(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_squares(tmp_path_factory.mktemp("data") / "squares")


def test_held_out_clips_are_of_the_split_and_the_same_each_time(squares: Path) -> None:
    first, again = (KeypointClips.open(KEYPOINT, squares) for _ in range(2))
    assert torch.equal(first.held_out.video, again.held_out.video)
    indices = first.dataset.indices("validation").tolist()
    assert set(first.held_out.index.tolist()) <= set(indices)
    batches = first.batches(KEYPOINT.motion, seed=0, ranks=Ranks())
    assert all(batches.names(next(batches)))


def test_the_control_of_a_latent_is_centred(squares: Path) -> None:
    clips = KeypointClips.open(KEYPOINT, squares).held_out
    pool = KEYPOINT.encode(KEYPOINT.new_stage1().eval(), clips)
    torch.testing.assert_close(pool.eta, clips.track[:, -1] - torch.tensor([0.5, 0.5, 0.0]))
    assert pool.known.tolist() == [1.0] * 4
    assert pool.joint.shape == (4, KEYPOINT.stage1.feature_dim, 8, 8)


def test_the_latents_of_points_are_those_of_true_paths(squares: Path) -> None:
    recipe = points()
    clips = KeypointClips.open(recipe, squares).held_out
    stage1 = recipe.new_stage1().eval()
    pool = recipe.encode(stage1, clips)
    torch.testing.assert_close(pool.z, stage1.encode_path(clips.track))
    other = dataclasses.replace(clips, video=clips.video.flip(1))
    torch.testing.assert_close(recipe.encode(stage1, other).z, pool.z)


def test_a_track_that_does_not_exist_is_named(squares: Path) -> None:
    lost = dataclasses.replace(KEYPOINT, data=KeypointData(landmarks="elsewhere"))
    with pytest.raises(UserError, match="has no track elsewhere, it has corners, where"):
        KeypointClips.open(lost, squares)


def test_a_track_that_cannot_be_mirrored_is_refused(tmp_path: Path) -> None:
    prepare(WalkingSquare(control=None), tmp_path / "free", encoding="raw")
    mirrored = KeypointData(
        landmarks="where", validation_clips=4, augmentation=Augmentation(mirror=0.5)
    )
    recipe = dataclasses.replace(KEYPOINT, data=mirrored)
    clips = KeypointClips.open(recipe, tmp_path / "free")
    with pytest.raises(UserError, match="set mirror to 0"):
        clips.batches(recipe.motion, seed=0, ranks=Ranks())


def test_real_clips_are_drawn_above_their_reconstructions(squares: Path, tmp_path: Path) -> None:
    clips, num = KeypointClips.open(KEYPOINT, squares), 4
    first = ((clips.held_out.video[0, 0] + 1) * 127.5).round().byte().permute(1, 2, 0).numpy()
    stage1 = clips.recipe.new_model().stage1.eval()
    clips.show(stage1, tmp_path / "new" / "1.png")
    drawn, size = np.asarray(Image.open(tmp_path / "new" / "1.png")), len(first)
    assert drawn.shape == (2 * num * (size + 4) - 4, 5 * (size + 4) - 4, 3)
    assert np.array_equal(drawn[:size, :size], first)
    assert np.array_equal(drawn[size + 4 : 2 * size + 4, :size], first)  # x0 is given


def test_without_clips_nothing_is_drawn(tmp_path: Path) -> None:
    save_rows(tmp_path / "1.png", [])
    assert list(tmp_path.iterdir()) == []
