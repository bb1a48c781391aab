"""Pictures of what stage 1 makes of held-out clips."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from cinnema.data.crops import Scene, SceneCrops
from cinnema.models.warping.stage1 import Stage1, Stage1Config
from cinnema.recipes.strips import reconstruction_strips

SIZE, T = 64, 4
SMALL = Stage1Config(
    size=SIZE, num_frames=T, num_basis=2, z_dim=16, encoder_width=8, motion_width=8, feature_dim=8,
    mask_width=16, painter_width=16,
)  # fmt: skip


def scene(level: int) -> SceneCrops:
    """Frame t has the grey level + t."""
    levels = (level + np.arange(T + 1)).astype(np.uint8)[None, :, None, None, None]
    return SceneCrops(
        scene=Scene("a", "clouds", held_out=False),
        frames=np.broadcast_to(levels, (1, T + 1, SIZE, SIZE, 3)).copy(),
        flow=np.zeros((1, 2, T, 16, 16), dtype=np.float32),
        motion=np.zeros((1, 32, 32), dtype=np.float32),
    )


def test_real_frames_are_above_and_what_is_made_of_them_below(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Stage1(SMALL).eval()
    path = tmp_path / "strips" / "1.png"
    show = reconstruction_strips([scene(50), scene(100), scene(200)], num_scenes=2, num_frames=3)
    show(model, path)
    show(model, path)  # it replaces the one before
    strip = np.asarray(Image.open(path))
    assert strip.shape == (4 * SIZE + 3 * 4, 3 * SIZE + 2 * 4, 3)
    rows = [row * (SIZE + 4) + SIZE // 2 for row in range(4)]
    columns = [column * (SIZE + 4) + SIZE // 2 for column in range(3)]
    assert strip[rows[0], columns, 0].tolist() == [50, 52, 54]
    assert strip[rows[2], columns, 0].tolist() == [100, 102, 104]
    assert strip[rows[1], columns[0], 0] == 50  # x0 is given
    assert abs(int(strip[rows[1], columns[2], 0]) - 50) < 40  # warped by next to nothing
    assert (strip[SIZE : SIZE + 4] == 128).all()


def test_without_scenes_nothing_is_drawn(tmp_path: Path) -> None:
    reconstruction_strips([])(Stage1(SMALL).eval(), tmp_path / "1.png")
    assert list(tmp_path.iterdir()) == []
