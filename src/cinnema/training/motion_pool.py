"""The training data of the nature model's flow: what moves in clips, measured once."""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from cinnema.core.errors import UserError
from cinnema.core.files import atomic_path
from cinnema.data.windows import SceneWindows
from cinnema.media.pictures import to_tensor
from cinnema.models.nature.model import KindSummary, NatureModel
from cinnema.models.nature.reading import log_strength, measure_flow, measure_motion
from cinnema.training.run import counted

POOL_FILE = "motion.safetensors"
"""File in the folder of a run with the pool."""

_AT_ONCE = 8  # clips


@dataclass(frozen=True)
class MotionPool:
    """The measured motion of each kind in clips.

    Attributes:
        raw: Of each kind the velocity's coefficients, in picture sizes a step, and the logarithm
            of the turbulence's strength; see `NatureModel.normalised`.
        look: As in `KindSummary`.
        geometry: As in `KindSummary`.
        cells: As in `KindSummary`.
        scene: Index of each clip's scene.
        closer: Whether each clip is a closer view, see `cinnema.data.windows`.
        scenes: Names of the scenes.
        held_out: Whether each scene is held out.
    """

    raw: Float[Tensor, "n k r"]
    look: Float[Tensor, "n k f"]
    geometry: Float[Tensor, "n k 4"]
    cells: Float[Tensor, "n k g g"]
    scene: Int64[Tensor, " n"]
    closer: Bool[Tensor, " n"]
    scenes: tuple[str, ...]
    held_out: Bool[Tensor, " s"]

    def __len__(self) -> int:
        """Return the number of clips."""
        return len(self.raw)

    @property
    def summary(self) -> KindSummary:
        """What the model's condition is computed from."""
        return KindSummary(self.look, self.geometry, self.cells)

    @property
    def area(self) -> Float[Tensor, "n k"]:
        """Share of each kind in the picture."""
        return self.geometry[..., 0]


@torch.no_grad()
def measure_pool(
    model: NatureModel,
    windows: Sequence[SceneWindows],
    held_out: Sequence[bool],
    *,
    device: torch.device,
    progress: Callable[[int], None] | None = None,
) -> MotionPool:
    """Measure the motion of each kind in clips.

    Args:
        model: Its kind network is used, in evaluation mode.
        windows: Clips by scene.
        held_out: Whether each scene is held out.
        device: Device to compute on.
        progress: Called with the number of clips done.
    """
    model.to(device).eval()
    raw, summaries, scene = [], [], []
    for number, part in enumerate(windows):
        for start in range(0, len(part.frames), _AT_ONCE):
            video = to_tensor(np.asarray(part.frames[start : start + _AT_ONCE]))
            summary = model.summarise(model.recognise(video[:, 0].to(device)))
            raw.append(raw_motion(measure_flow(video), summary.cells.cpu()))
            summaries.append([x.cpu() for x in summary])
            scene += [number] * len(video)
            if progress is not None:
                progress(len(scene))
    look, geometry, cells = (torch.cat(column) for column in zip(*summaries, strict=True))
    names = tuple(part.scene.name for part in windows)
    return MotionPool(
        raw=torch.cat(raw),
        look=look,
        geometry=geometry,
        cells=cells,
        scene=torch.tensor(scene),
        closer=torch.from_numpy(np.concatenate([part.closer for part in windows])),
        scenes=names,
        held_out=torch.tensor(held_out),
    )


def raw_motion(
    flow: Float[Tensor, "b t 2 g g"], cells: Float[Tensor, "b k g g"]
) -> Float[Tensor, "b k r"]:
    """Return the measured motion of each kind, as `NatureModel.normalised` takes it.

    Args:
        flow: Flow from each frame to the next, in picture sizes.
        cells: Share of each kind in each cell.
    """
    out = []
    for kind in range(cells.shape[1]):
        motion = measure_motion(flow, cells[:, kind])
        strength = log_strength(motion.strength)[:, None]
        out.append(torch.cat([motion.coefficients.flatten(1), strength], 1))
    return torch.stack(out, 1)


def load_or_measure(
    path: Path,
    model: NatureModel,
    windows: Sequence[SceneWindows],
    held_out: Sequence[bool],
    *,
    device: torch.device,
) -> MotionPool:
    """Return the pool of a file if it is of these clips and this kind network, or make the file.

    Args:
        path: The file.
        model: As in `measure_pool`.
        windows: As in `measure_pool`.
        held_out: As in `measure_pool`.
        device: As in `measure_pool`.
    """
    about = _about(model, windows)
    pool = _read(path, about, held_out)
    if pool is None:
        total = sum(len(part.frames) for part in windows)
        with counted("measuring motion", total=total) as count:
            pool = measure_pool(model, windows, held_out, device=device, progress=count)
        tensors = {name: getattr(pool, name).contiguous() for name in _TENSORS}
        with atomic_path(path, overwrite=True) as part:
            # save_file would hide that a disk is full.
            part.write_bytes(save(tensors, metadata={"about": about}))
    return pool


_TENSORS = ("raw", "look", "geometry", "cells", "scene", "closer")


def _about(model: NatureModel, windows: Sequence[SceneWindows]) -> str:
    digest = hashlib.sha256()
    for name, value in sorted(model.kinds.state_dict().items()):
        digest.update(name.encode() + value.detach().cpu().contiguous().numpy().tobytes())
    for part in windows:
        digest.update(f"{part.scene.name} {part.frames.shape}".encode())
        digest.update(np.ascontiguousarray(part.frames[:, 0, ::16, ::16]).tobytes())
    return json.dumps({"scenes": [part.scene.name for part in windows], "of": digest.hexdigest()})


def _read(path: Path, about: str, held_out: Sequence[bool]) -> MotionPool | None:
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            if (file.metadata() or {}).get("about") != about:
                return None
            tensors = {name: file.get_tensor(name) for name in _TENSORS}
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} cannot be read ({error}): remove it") from error
    scenes = tuple(json.loads(about)["scenes"])
    return MotionPool(**tensors, scenes=scenes, held_out=torch.tensor(held_out))
