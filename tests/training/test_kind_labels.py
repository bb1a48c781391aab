"""Labels of pixels from teachers and from what changes over time."""

from pathlib import Path

import numpy as np
import pytest

from cinnema.core.errors import UserError
from cinnema.data.labelled import UNKNOWN
from cinnema.models.nature.kinds import KIND_SIZE
from cinnema.training.kind_labels import (
    FALLING,
    FIRE,
    PLANTS,
    SKY,
    STILL,
    WATER,
    Seen,
    Teachers,
    change_over_time,
    label_clip,
    label_still,
)

SIZE = KIND_SIZE
QUIET, BUSY = np.zeros((SIZE, SIZE), np.float32), np.full((SIZE, SIZE), 6, np.float32)
GREY = np.full((SIZE, SIZE, 3), 100, np.uint8)
FLAME = np.full((SIZE, SIZE, 3), (250, 150, 30), np.uint8)


def seen(**probabilities: float) -> Seen:
    names = Seen._fields
    return Seen(*(np.full((SIZE, SIZE), probabilities.get(n, 0.0), np.float32) for n in names))


@pytest.mark.parametrize(
    ("texture", "picture", "what", "change", "expected"),
    [
        ("clouds", GREY, seen(sky=0.9), QUIET, SKY),
        ("clouds", GREY, seen(), QUIET, STILL),
        ("clouds", GREY, seen(), BUSY, UNKNOWN),
        ("clouds", GREY, seen(water=0.9), QUIET, WATER),
        ("water", GREY, seen(), BUSY, WATER),
        ("water", GREY, seen(person=0.9), BUSY, STILL),
        ("water", GREY, seen(), QUIET, STILL),
        ("water", GREY, seen(), QUIET + 1.5, UNKNOWN),  # perhaps a slow, dark sea
        ("fire", FLAME, seen(), BUSY, FIRE),
        ("fire", GREY, seen(), QUIET + 4, UNKNOWN),
        ("fire", GREY, seen(), QUIET, STILL),
        ("smoke", GREY, seen(), BUSY, FIRE),
        ("rain", GREY, seen(), BUSY, FALLING),
        ("snow", GREY, seen(sky=0.9), BUSY, FALLING),
        ("snow", GREY, seen(sky=0.9), QUIET + 1, UNKNOWN),
        ("snow", GREY, seen(sky=0.9, scene_sky=0.9), QUIET, SKY),
        ("snow", GREY, seen(sky=0.9), QUIET, UNKNOWN),  # perhaps snow on the ground
        ("snow", GREY, seen(plants=0.9), QUIET, PLANTS),
        ("rain", GREY, seen(plants=0.9), BUSY, PLANTS),
        ("vegetation", GREY, seen(), BUSY, PLANTS),
        ("other", GREY, seen(water=0.9), BUSY, UNKNOWN),
    ],
)
def test_a_clip_is_labelled_by_the_teachers_and_by_what_changes(
    texture: str, picture: np.ndarray, what: Seen, change: np.ndarray, expected: int
) -> None:
    assert np.unique(label_clip(picture, what, change, texture)).tolist() == [expected]


@pytest.mark.parametrize(
    ("sort", "picture", "what", "expected"),
    [
        ("city", GREY, seen(), STILL),
        ("city", GREY, seen(sky=0.9, scene_sky=0.9), SKY),
        ("snow_mountain", GREY, seen(sky=0.9), UNKNOWN),  # the scene network sees no sky
        ("snow_ground", GREY, seen(sky=0.9), STILL),
        ("snow_ground", GREY, seen(water=0.9), STILL),
        ("snow_ground", GREY, seen(plants=0.9), PLANTS),
        ("interior", GREY, seen(sky=0.9, scene_sky=0.9), STILL),
        ("fire", FLAME, seen(), FIRE),
        ("rain", GREY, seen(), UNKNOWN),
        ("beach_sea", GREY, seen(water=0.2), UNKNOWN),
        ("people", GREY, seen(person=0.9, plants=0.9), STILL),
    ],
)
def test_a_photograph_is_labelled_by_the_teachers_and_by_what_it_is_of(
    sort: str, picture: np.ndarray, what: Seen, expected: int
) -> None:
    assert np.unique(label_still(picture, what, sort)).tolist() == [expected]


def test_change_is_that_of_each_step() -> None:
    frames = [np.full((90, 160, 3), 20 + 3 * t, np.uint8) for t in range(5)]
    frames = [np.where(np.arange(160)[:, None] < 80, f, np.uint8(20)) for f in frames]
    change = change_over_time(frames)
    assert change.shape == (SIZE, SIZE)
    assert change[:, 20].mean() == pytest.approx(3, abs=0.1)
    assert change[:, -20].mean() == pytest.approx(0, abs=0.1)


TEACHERS = """
import torch
class Sky:
    def __init__(self, path): pass
    def __call__(self, x): return (x[:, 2:] > 0.6).float()
class Ade:
    def __init__(self, path): pass
    def __call__(self, x):
        logits = torch.zeros(1, 151, *x.shape[2:])
        logits[0, 22] = (x[0, 2] < 0.6).float()
        return logits[:, :, ::4, ::4]
"""


def write_teachers(folder: Path, code: str = TEACHERS) -> Path:
    folder.mkdir()
    (folder / "networks.py").write_text(code)
    for name in ("sky_u2netp.npz", "ade20k_deeplab_mnv2.npz"):
        (folder / name).write_bytes(b"weights")
    return folder


def test_teachers_are_run_from_their_folder(tmp_path: Path) -> None:
    picture = np.full((100, 150, 3), 100, np.uint8)
    picture[:50, :, 2] = 250
    found = Teachers(write_teachers(tmp_path / "teachers")).see(picture)
    assert found.sky.shape == (SIZE, SIZE)
    assert found.sky[: SIZE // 3].mean() > 0.9
    assert found.water[2 * SIZE // 3 :].mean() > 0.9
    assert found.person.max() == 0


def test_missing_or_broken_teachers_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="teachers"):
        Teachers(tmp_path / "teachers")
    with pytest.raises(UserError, match="defines no class Sky"):
        Teachers(write_teachers(tmp_path / "empty", "x = 1"))
    with pytest.raises(UserError, match=r"cannot be run \(no"):
        Teachers(write_teachers(tmp_path / "broken", "raise OSError('no')"))
