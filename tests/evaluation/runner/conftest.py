"""Drifting noise as a packed data set, and networks that cost nothing."""

import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from jaxtyping import Float
from torch import Tensor

from cinnema.backbones.lpips import LPIPS, LPIPSNetwork
from cinnema.backbones.registry import BackboneName, Found, find_backbones
from cinnema.data.dataset import PackedDataset
from cinnema.data.prepare import prepare
from cinnema.data.records import BadRecord, Control, Item, RawClip, Split
from cinnema.evaluation.features import FeatureNetwork, Video
from cinnema.evaluation.metrics import registry
from cinnema.evaluation.metrics.base import Task
from cinnema.evaluation.protocol import PackedClips, choose_protocol, choose_starts
from cinnema.models.base import VideoModel

WIND = Control(name="wind", kind="velocity", labels=("right", "down"), unit="picture sizes")


@dataclass(frozen=True)
class DriftingNoise:
    """Smooth noise that drifts by one or two pixels a frame, in a direction of its own.

    Attributes:
        num_train: Training videos.
        num_test: Test videos.
        frames: Of each.
        name: Of the data set.
        size: Of the frames, in pixels.
        futures: Clips of each video, by turns, which share its first frame where some are several.
    """

    num_train: int = 6
    num_test: int = 8
    frames: int = 13
    name: str = "drifting"
    size: int = 64
    futures: tuple[int, ...] = (1,)

    control = WIND

    def settings(self) -> dict[str, Any]:
        return {"train": self.num_train, "test": self.num_test, "futures": list(self.futures)}

    def items(self) -> Sequence[Item]:
        counts: tuple[tuple[Split, int], ...] = (("train", self.num_train), ("test", self.num_test))
        return [Item(name=f"{s}{i}", split=s) for s, count in counts for i in range(count)]

    def read(self, item: Item) -> Iterator[RawClip | BadRecord]:
        rng = np.random.default_rng(zlib.crc32(item.name.encode()))
        wide = np.kron(rng.integers(0, 256, (8, 8, 3)), np.ones((8, 8, 1))).astype(np.uint8)
        number = int(item.name.removeprefix(item.split))
        for future in range(self.futures[number % len(self.futures)]):
            step = rng.integers(1, 3, 2) * rng.choice([-1, 1], 2)
            frames = [
                np.roll(wide, tuple(step[::-1] * t), axis=(0, 1))[: self.size, : self.size]
                for t in range(self.frames)
            ]
            track = np.tile(step / self.size, (self.frames, 1)).astype(np.float32)
            yield RawClip(
                name=f"{item.name}-{future}",
                source=f"video of {item.name}",
                frames=np.stack(frames),
                fps=8.0,
                tracks={"wind": track},
                start=item.name if max(self.futures) > 1 else None,
            )


def packed(folder: Path, **options: Any) -> PackedDataset:
    prepare(DriftingNoise(**options), folder)
    return PackedDataset(folder)


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> PackedDataset:
    return packed(tmp_path_factory.mktemp("packed") / "clips")


@pytest.fixture(scope="session")
def forked(tmp_path_factory: pytest.TempPathFactory) -> PackedDataset:
    """Of three test videos one goes on in three ways, one in two, and one in one way only."""
    return packed(tmp_path_factory.mktemp("forked") / "clips", num_test=3, futures=(3, 2, 1))


class Drifter(VideoModel):
    """x0 drifts to the right and down and grows lighter; z says how much of each, c is its colour.

    nu to z is linear: z = nu scale + what the mean colour (and the control) adds.
    """

    name, size, num_frames, z_dim, control_dim = "drifter", 64, 4, 3, 0

    def __init__(self, *, control_dim: int = 0) -> None:
        super().__init__()
        self.control_dim = control_dim
        self.scale = torch.nn.Parameter(torch.tensor([0.02, 0.02, 0.1]), requires_grad=False)

    def encode(
        self, video: Float[Tensor, "b t1 3 h w"], *, generator: torch.Generator | None = None
    ) -> Float[Tensor, "b 3"]:
        steps = [self._step(clip) for clip in video]
        z = torch.stack(steps)
        noise = 0 if generator is None else 0.003 * torch.randn(z.shape, generator=generator)
        return z + noise

    def _step(self, clip: Tensor) -> Tensor:
        """The shift, up to two pixels a frame, that brings x0 nearest to the frame after it."""
        shifts = [(dx, dy) for dx in range(-2, 3) for dy in range(-2, 3)]
        errors = [(clip[0].roll((dy, dx), (1, 2)) - clip[1]).square().mean() for dx, dy in shifts]
        dx, dy = shifts[int(torch.stack(errors).argmin())]
        lighter = float(clip[-1].mean() - clip[0].mean())
        return torch.tensor([dx / self.size, dy / self.size, lighter])

    def condition(
        self, x0: Float[Tensor, "b 3 h w"], eta: Float[Tensor, "b e"] | None = None
    ) -> Float[Tensor, "b c"]:
        colour = x0.mean(dim=(2, 3))
        return colour if eta is None else torch.cat([colour, eta], dim=1)

    def _told(self, c: Tensor) -> Tensor:
        """What c adds to z: the colour to how light, and the control to where."""
        told = torch.zeros(len(c), 3)
        told[:, 2] = 0.1 * c[:, :3].mean(dim=1)
        if self.control_dim:
            told[:, :2] = c[:, 3:] / self.num_frames
        return told

    def to_latent(
        self, nu: Float[Tensor, "b 3"], c: Float[Tensor, "b c"]
    ) -> tuple[Float[Tensor, "b 3"], Float[Tensor, " b"]]:
        scale = self.scale * (0.1 if self.control_dim else 1.0)
        return nu * scale + self._told(c), scale.log().sum().expand(len(nu))

    def to_residual(
        self, z: Float[Tensor, "b 3"], c: Float[Tensor, "b c"]
    ) -> tuple[Float[Tensor, "b 3"], Float[Tensor, " b"]]:
        scale = self.scale * (0.1 if self.control_dim else 1.0)
        return (z - self._told(c)) / scale, -scale.log().sum().expand(len(z))

    def decode(
        self, x0: Float[Tensor, "b 3 h w"], z: Float[Tensor, "b 3"]
    ) -> Float[Tensor, "b t 3 h w"]:
        clips = [
            torch.stack([self._shifted(x, step, t) for t in range(1, self.num_frames + 1)])
            for x, step in zip(x0, z, strict=True)
        ]
        return torch.stack(clips).clamp(-1, 1)

    def _shifted(self, x: Tensor, step: Tensor, t: int) -> Tensor:
        dx, dy = (step[:2] * self.size * t).round().int().tolist()
        return x.roll((dy, dx), (1, 2)) + step[2] * t / self.num_frames


@pytest.fixture(scope="session")
def drifter() -> Drifter:
    return Drifter().eval()


def colours_of(video: Video) -> torch.Tensor:
    """Mean colours of the quarters of the first and the last frame: 24 numbers."""
    ends = torch.from_numpy(np.stack([video[0], video[-1]]).astype(np.float32) / 255)
    quarters = torch.nn.functional.adaptive_avg_pool2d(ends.permute(0, 3, 1, 2), 2)
    return quarters.flatten()


@pytest.fixture(scope="module")
def cheap() -> Iterator[Mapping[BackboneName, Found]]:
    """LPIPS of random AlexNet for both, mean colours for I3D: the others are missing."""
    torch.manual_seed(0)
    lpips = LPIPS("alex").eval()
    monkeypatch = pytest.MonkeyPatch()

    def load(network: LPIPSNetwork) -> LPIPS:
        return lpips

    def network(task: Task, name: BackboneName, path: Path) -> FeatureNetwork:
        return FeatureNetwork(name="colours", identity="colours", compute=colours_of)

    monkeypatch.setattr(LPIPS, "load", load)
    monkeypatch.setattr(registry, "feature_network", network)
    monkeypatch.delenv("CINNEMA_BACKBONES", raising=False)
    yield find_backbones()
    monkeypatch.undo()


def windows(
    dataset: PackedDataset,
    *,
    num_frames: int = 4,
    size: int = 64,
    split: Split = "test",
    **options: Any,
) -> PackedClips:
    """Windows of packed clips by the protocol "aligned"."""
    protocol = choose_protocol("aligned", "drifting", num_frames=num_frames)
    starts = choose_starts(dataset, protocol, split=split, num_frames=num_frames, **options)
    return PackedClips(dataset, starts, num_frames=num_frames, size=size, split=split)
