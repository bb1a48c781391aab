"""A small network that predicts the position of a robot's end effector from a picture.

It is trained on real frames only, so its output for decoded frames is what is visible in them.
Colours, light and sharpness are augmented, as decoded frames differ from real ones in these.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Float32, Float64, UInt8
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass as checked_dataclass
from torch import Tensor, nn
from torch.nn import functional

from cinnema.core.config import config_from_dict
from cinnema.core.errors import UserError
from cinnema.core.state_dicts import load_state
from cinnema.core.weights import load_weights, save_weights
from cinnema.data.dataset import PackedDataset
from cinnema.data.records import Control
from cinnema.media.pictures import to_tensor
from cinnema.simulators.push import WORKSPACE

_SIDE = 64  # pixels; side of the network's input
_KIND = "end-point reader"
_FRAMES_OF_A_CLIP = 4  # in a batch: opening a clip costs more than decoding a frame


@checked_dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class ReaderConfig:
    """Configuration of a reader: layer sizes, and statistics of the training positions.

    Attributes:
        data: Name of the data set, such as "push".
        unit: Unit of the positions.
        centre: Mean position of the training frames.
        scale: Standard deviation of each coordinate.
        width: Width of the workspace, in the unit: errors are given as a share of it.
        channels: Channels of the first layer.
        kind: Identifies a file as that of a reader.
    """

    data: str
    unit: str
    centre: tuple[float, ...]
    scale: tuple[float, ...]
    width: float
    channels: int = 16
    kind: str = _KIND


class EndPointReader(nn.Module):
    """Predicts positions from pictures: convolutions, four of stride 2, and two linear layers.

    Example:
        >>> config = ReaderConfig(
        ...     data="push", unit="m", centre=(0.0,) * 3, scale=(0.1,) * 3, width=0.48
        ... )
        >>> EndPointReader(config).read(np.zeros((2, 64, 64, 3), dtype=np.uint8)).shape
        (2, 3)

    Args:
        config: Layer sizes and position statistics.
    """

    centre: Tensor
    scale: Tensor

    def __init__(self, config: ReaderConfig) -> None:
        super().__init__()
        self.config = config
        layers: list[nn.Module] = []
        wide = 3
        for factor in (1, 2, 3, 4):
            after = factor * config.channels
            layers += [nn.Conv2d(wide, after, 3, stride=2, padding=1), nn.GroupNorm(8, after)]
            layers.append(nn.SiLU())
            if factor > 1:  # at half size a second one would cost as much as all others together
                layers += [nn.Conv2d(after, after, 3, padding=1), nn.SiLU()]
            wide = after
        self.look = nn.Sequential(*layers)
        cells = (_SIDE // 16) ** 2
        self.say = nn.Sequential(
            nn.Flatten(), nn.Linear(wide * cells, 128), nn.SiLU(), nn.Linear(128, 3)
        )
        self.register_buffer("centre", torch.tensor(config.centre), persistent=False)
        self.register_buffer("scale", torch.tensor(config.scale), persistent=False)

    def forward(self, pictures: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3"]:
        """Return standardised positions: (position - mean) / deviation.

        Args:
            pictures: Pictures in [-1, 1], of any size.
        """
        if pictures.shape[-2:] != (_SIDE, _SIDE):
            pictures = functional.interpolate(pictures, (_SIDE, _SIDE), mode="area")
        # Channels last are a quarter faster on a CPU.
        pictures = pictures.contiguous(memory_format=torch.channels_last)
        predicted: Tensor = self.say(self.look(pictures))
        return predicted

    @torch.inference_mode()
    def read(self, frames: UInt8[np.ndarray, "n h w 3"]) -> Float64[np.ndarray, "n 3"]:
        """Return the position of the end effector in each picture, in the data's unit.

        Args:
            frames: Pictures, RGB.
        """
        parts = []
        for first in range(0, len(frames), 64):
            predicted = self(to_tensor(frames[first : first + 64]).to(self.centre.device))
            parts.append((predicted * self.scale + self.centre).double().cpu().numpy())
        return np.concatenate(parts) if parts else np.zeros((0, 3))


@dataclass(frozen=True, kw_only=True)
class ReaderTraining:
    """Training settings of a reader; the defaults take some minutes on one core.

    Attributes:
        steps: Number of steps of the optimiser.
        batch_size: Frames in a step, a multiple of 4.
        rate: Highest learning rate; it decays to 0 along a cosine.
        seed: Seed of all draws.
    """

    steps: int = 4000
    batch_size: int = 48
    rate: float = 2e-3
    seed: int = 0


def train_reader(
    dataset: PackedDataset,
    *,
    training: ReaderTraining | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> EndPointReader:
    """Train a reader on all frames of the split train.

    Args:
        dataset: Packed clips with a control that is a position of three numbers.
        training: Training settings; defaults to `ReaderTraining()`.
        progress: Called with a description, the number of finished steps, and the total.

    Returns:
        The reader in evaluation mode, on the CPU.

    Raises:
        UserError: The data have no such control, or no clips to train on.
    """
    training = training or ReaderTraining()
    control, clips = _require_positions(dataset)
    generator = np.random.Generator(np.random.Philox(key=training.seed))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(training.seed)
        reader = EndPointReader(_config(dataset, control, clips))
    optimiser = torch.optim.AdamW(reader.parameters(), lr=training.rate, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda step: min(1.0, step / 100) * _cosine(step / training.steps)
    )
    for step in range(training.steps):
        pictures, places = _draw_batch(dataset, control, clips, training.batch_size, generator)
        wanted = (places - reader.centre) / reader.scale
        loss = functional.smooth_l1_loss(reader(pictures), wanted, beta=0.1)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        schedule.step()
        if progress is not None:
            progress("training the reader of end points", step + 1, training.steps)
    reader.eval().requires_grad_(requires_grad=False)
    return reader


def save_reader(path: str | Path, reader: EndPointReader, *, overwrite: bool = False) -> str:
    """Write a reader to a file, and return its SHA-256.

    Args:
        path: Path of the file; ".safetensors" by convention.
        reader: The reader.
        overwrite: Whether an existing file may be replaced.

    Raises:
        UserError: `path` exists, or cannot be written.
    """
    return save_weights(
        path, reader.state_dict(), asdict(reader.config), dtype=torch.float32, overwrite=overwrite
    )


def load_reader(path: str | Path) -> EndPointReader:
    """Read what `save_reader` wrote.

    Args:
        path: The file.

    Raises:
        UserError: The file is missing, damaged, or not a reader.
    """
    file = load_weights(path)
    if file.config.get("kind") != _KIND:
        raise UserError(f"{path} contains no reader of end points: name another file, or a new one")
    reader = EndPointReader(config_from_dict(ReaderConfig, file.config, source=str(path)))
    load_state(
        reader,
        file.state,
        otherwise=f"{path} does not hold the weights that its configuration requires: remove it "
        "and train another one",
    )
    return reader.eval().requires_grad_(requires_grad=False)


def _require_positions(dataset: PackedDataset) -> tuple[Control, list[int]]:
    manifest = dataset.manifest
    control = manifest.control
    if control is None or control.kind != "position" or len(control.labels) != 3:
        raise UserError(
            f"{dataset.folder} has no position of an end effector: name clips of a robot, as "
            "`cinnema data simulate push` makes them"
        )
    clips = [int(i) for i in dataset.indices("train")]
    if not clips:
        raise UserError(
            f"{dataset.folder} has no training clips, which the reader of end points is trained "
            "on: name others with --training"
        )
    return control, clips


def _config(dataset: PackedDataset, control: Control, clips: Sequence[int]) -> ReaderConfig:
    places = np.concatenate([dataset.read(i, []).tracks[control.name] for i in clips])
    width = WORKSPACE[0][1] - WORKSPACE[0][0]
    if dataset.manifest.name != "push":
        width = float(np.ptp(places, axis=0).max())
    return ReaderConfig(
        data=dataset.manifest.name,
        unit=control.unit,
        centre=tuple(map(float, places.mean(axis=0))),
        scale=tuple(map(float, places.std(axis=0).clip(1e-6))),
        width=width,
    )


def _draw_batch(
    dataset: PackedDataset,
    control: Control,
    clips: Sequence[int],
    size: int,
    generator: np.random.Generator,
) -> tuple[Float[Tensor, "b 3 h w"], Float[Tensor, "b 3"]]:
    """Return augmented frames of some clips, and the end effector's position in them."""
    pictures, places = [], []
    for _ in range(max(1, size // _FRAMES_OF_A_CLIP)):
        index = clips[int(generator.integers(len(clips)))]
        entry = dataset.manifest.clips[index]
        times = generator.integers(entry.frames, size=_FRAMES_OF_A_CLIP).tolist()
        clip = dataset.read(index, times)
        for frame, place in zip(clip.frames, clip.tracks[control.name][times], strict=True):
            picture, place = _varied(frame, place, control, generator)  # noqa: PLW2901
            pictures.append(picture)
            places.append(place)
    return torch.stack(pictures), torch.from_numpy(np.stack(places))


def _varied(
    frame: UInt8[np.ndarray, "h w 3"],
    place: Float32[np.ndarray, "3"],
    control: Control,
    generator: np.random.Generator,
) -> tuple[Float[Tensor, "3 h w"], Float32[np.ndarray, "3"]]:
    """Mirror half of the frames; change light and colours a little; blur some; add noise."""
    if generator.random() < 0.5:
        frame, place = frame[:, ::-1], control.mirrored(place)
    light = generator.uniform(0.85, 1.15) * generator.uniform(0.95, 1.05, 3)
    x = to_tensor(np.ascontiguousarray(frame))
    x = (x + 1) * torch.from_numpy(light.astype(np.float32))[:, None, None] - 1
    x = x + float(generator.uniform(-0.05, 0.05))
    if generator.random() < 0.5:
        blurred = functional.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)
        x = torch.lerp(x, blurred, float(generator.random()))
    noise = generator.standard_normal(x.shape, dtype=np.float32) * generator.uniform(0, 0.04)
    return (x + torch.from_numpy(noise.astype(np.float32))).clamp(-1, 1), place


def _cosine(done: float) -> float:
    return 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
