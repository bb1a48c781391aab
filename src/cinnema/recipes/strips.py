"""Pictures of how a training comes along: real clips above, what the model makes of them below."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image

from cinnema.core.files import atomic_path
from cinnema.data.crops import SceneCrops
from cinnema.media.pictures import to_pixels, to_tensor
from cinnema.models.warping.stage1 import Stage1

_GAP, _GREY = 4, 128


def reconstruction_strips(
    crops: Sequence[SceneCrops], *, num_scenes: int = 4, num_frames: int = 5
) -> Callable[[Stage1, Path], None]:
    """Return what draws one clip of each scene into a PNG file, and its reconstruction below it.

    Args:
        crops: Of the scenes, of which the first are taken.
        num_scenes: At most.
        num_frames: Of each clip, x0 among them, spread evenly.

    Returns:
        A function of stage 1, in evaluation mode, and of the file to write; missing folders are
        made.
    """
    chosen = [(scene.frames[0], scene.flow[0]) for scene in crops[:num_scenes]]

    @torch.no_grad()
    def show(stage1: Stage1, path: Path) -> None:
        device = next(stage1.parameters()).device
        rows = []
        for frames, flow in chosen:
            real = np.asarray(frames)
            z = stage1.encode(torch.from_numpy(flow[None]).to(device))
            decoded = stage1.decode(to_tensor(real[:1]).to(device), z)[0]
            made = np.concatenate([real[:1], to_pixels(decoded.cpu().clamp(-1, 1))])
            times = np.linspace(0, len(real) - 1, num_frames).round().astype(int)
            rows += [real[times], made[times]]
        if rows:
            save_strips(path, rows)

    return show


def save_strips(path: Path, rows: Sequence[UInt8[np.ndarray, "n h w 3"]]) -> None:
    """Write rows of frames, all as long and as large, into one PNG file.

    Args:
        path: Of the file; missing folders are made.
        rows: From above to below, 1 or more.
    """
    with atomic_path(path, overwrite=True) as part:
        Image.fromarray(_column([_row(row) for row in rows])).save(part, "PNG")


def _row(frames: UInt8[np.ndarray, "n h w 3"]) -> UInt8[np.ndarray, "h _ 3"]:
    gap = np.full((frames.shape[1], _GAP, 3), _GREY, np.uint8)
    parts = [part for frame in frames for part in (gap, frame)]
    return np.concatenate(parts[1:], axis=1)


def _column(rows: Sequence[UInt8[np.ndarray, "h w 3"]]) -> UInt8[np.ndarray, "_ w 3"]:
    gap = np.full((_GAP, rows[0].shape[1], 3), _GREY, np.uint8)
    parts = [part for row in rows for part in (gap, row)]
    return np.concatenate(parts[1:], axis=0)
