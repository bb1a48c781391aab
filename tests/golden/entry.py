"""Everything that golden tests import of cinnema, and nothing else does.

Whoever moves or renames something there changes this file alone: what its functions are handed
and return stays, so that what was recorded stays comparable.
"""

import dataclasses
import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from rectified_flow import RectifiedConfig, RectifiedPrior
from torch import Tensor

from cinnema import Pipeline
from cinnema.backbones.lpips import LPIPS
from cinnema.backbones.optical_flow import backward_flow
from cinnema.backbones.registry import Found, find_backbones
from cinnema.cli.main import main
from cinnema.cli.train import validation_of
from cinnema.core.config import config_to_dict
from cinnema.data.augmentation import Augmentation
from cinnema.data.dataset import PackedDataset
from cinnema.data.loader import ClipLoader
from cinnema.data.prepare import prepare
from cinnema.data.records import Control, Item, RawClip
from cinnema.data.wind import WIND, estimate_wind
from cinnema.evaluation.features import FeatureNetwork
from cinnema.evaluation.known_truth.reader import EndPointReader, ReaderConfig, save_reader
from cinnema.evaluation.metrics import registry as metric_registry
from cinnema.media.pictures import to_tensor
from cinnema.media.videos import VideoFile
from cinnema.models.control import Drift, EndPoint
from cinnema.models.flow.conditioning import ConditionerConfig
from cinnema.models.flow.flow import FlowConfig
from cinnema.models.flow.priors import GaussianPrior, LinearGaussianPrior
from cinnema.models.keypoint.model import EndPointRange
from cinnema.models.keypoint.stage1 import KeypointConfig
from cinnema.paper.recipes import bair, tiny
from cinnema.paper.training.assembly import train_paper
from cinnema.recipes.clips import KeypointClips
from cinnema.simulators.sky.skies import Skies
from cinnema.synthesis import residual
from cinnema.training.adversarial import DiscriminatorsConfig, DiscriminatorTraining
from cinnema.training.assembly import bundle, train_stage1, train_stage2
from cinnema.training.keypoint_losses import KeypointTraining
from cinnema.training.loop import fit
from cinnema.training.recipe import KeypointData, KeypointRecipe
from cinnema.training.stage2 import Stage2Training
from golden.formula import values_of

CPU = torch.device("cpu")
POSITION, WHERE = (
    Control(name=name, kind="position", labels=("x", "y", "z"), unit="m")
    for name in ("end_effector", "where")
)
Numbers = dict[str, Any]


# --- Models and videos ----------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Shot:
    """One video: frames uint8 (t, height, width, 3), z and nu (z,), its control or None."""

    frames: np.ndarray
    z: Tensor
    nu: Tensor
    eta: Tensor | None
    fps: float
    made: Any


def load(name: str | Path) -> Pipeline:
    return Pipeline.from_pretrained(name, precision="float32")


def drift(direction: float | None = None, speed: float | None = None) -> Any:
    return Drift(direction=direction, speed=speed)


def end_point(x: float, y: float, z: float) -> Any:
    return EndPoint(x=x, y=y, z=z)


def animate(pipe: Pipeline, image: Any, **options: Any) -> list[Shot]:
    return [_shot(made) for made in pipe.animate(image, **options)]


def extend(pipe: Pipeline, image: Any, *, method: str, **options: Any) -> list[Shot]:
    return [_shot(made) for made in pipe.extend(image, extension=method, **options)]


def transfer(pipe: Pipeline, video: np.ndarray, image: Any, *, fps: float, **options: Any) -> Shot:
    return _shot(pipe.transfer(_video(video, fps), image, **options))


def edit(pipe: Pipeline, video: np.ndarray, *, fps: float, eta: Any, **options: Any) -> Shot:
    return _shot(pipe.edit(_video(video, fps), eta=eta, **options))


def interpolate(pipe: Pipeline, image: Any, **options: Any) -> list[Shot]:
    return [_shot(made) for made in pipe.interpolate(image, **options)]


@torch.no_grad()
def encode(
    pipe: Pipeline, video: np.ndarray, *, fps: float, eta: Tensor | None = None
) -> dict[str, Tensor]:
    """Return z, nu, and log-determinant and log-likelihood (in nats) of a video."""
    model = pipe.model
    motion = pipe.read_motion(_video(video, fps), query_eta=eta)
    c = model.condition(motion.query.clip[None, 0], None if eta is None else eta[None])
    nu, log_det = model.to_residual(motion.z[None], c)
    normal = torch.distributions.Normal(0.0, 1.0)
    return {
        "z": motion.z,
        "nu": motion.nu,
        "log_det": log_det,
        "log_prob": normal.log_prob(nu).sum(dim=1) + log_det,
    }


@torch.no_grad()
def flow(pipe: Pipeline, image: np.ndarray, z: Tensor, *, eta: Tensor | None) -> dict[str, Tensor]:
    """Return what the flow makes of z (n, z), and of that read as nu, with log-determinants."""
    model = pipe.model
    x0 = to_tensor(image)[None].repeat(len(z), 1, 1, 1)
    c = model.condition(x0, None if eta is None else eta.repeat(len(z), 1))
    nu, inverse_log_det = model.to_residual(z, c)
    latent, log_det = model.to_latent(z, c)
    names = ("c", "nu", "inverse_log_det", "latent", "log_det")
    return dict(zip(names, (c, nu, inverse_log_det, latent, log_det), strict=True))


def save_motion(path: Path, shot: Shot) -> None:
    residual.save_motion(path, shot.made)


def load_motion(path: Path) -> tuple[Tensor, Tensor]:
    """Return nu and z of a motion file."""
    saved = residual.load_motion(path)
    return saved.nu, saved.z


def command(*arguments: object) -> None:
    """Run the command line; it has to end with 0."""
    said = StringIO()
    with redirect_stdout(said), redirect_stderr(said):
        code = main([str(argument) for argument in arguments])
    assert code == 0, said.getvalue()


def _shot(made: Any) -> Shot:
    eta = made.settings.get("eta")
    return Shot(
        frames=made.frames,
        z=made.z,
        nu=made.nu,
        eta=None if eta is None else torch.tensor(eta),
        fps=made.fps,
        made=made,
    )


def _video(frames: np.ndarray, fps: float) -> VideoFile:
    return VideoFile(frames=frames, fps=fps, path=Path("golden.mp4"))


# --- Data -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Clips:
    """Clips that are at hand: name, split, frames and tracks; "3-1" is a future of start 3."""

    clips: tuple[tuple[str, str, np.ndarray, Mapping[str, np.ndarray]], ...]
    size: int
    control: Control | None = None
    fps: float = 10.0
    name: str = "golden"

    def settings(self) -> dict[str, Any]:
        return {}

    def items(self) -> list[Item]:
        return [Item(name=name, split=split) for name, split, _, _ in self.clips]  # type: ignore[arg-type]

    def read(self, item: Item) -> Iterator[RawClip]:
        for name, _, frames, tracks in self.clips:
            if name == item.name:
                yield RawClip(
                    name=name,
                    source=name.partition("-")[0],
                    frames=frames,
                    fps=self.fps,
                    tracks=dict(tracks),
                    start=name.partition("-")[0] if "-" in name else None,
                )


class SimulatedSkies:
    """Simulated skies on sides of a split that suit a few of them."""

    name, control = "sky", WIND

    def __init__(self, splits: list[str], *, futures: int = 1, size: int = 128) -> None:
        self.size, self._splits = size, splits
        self._skies = Skies(len(splits), futures=futures, seed=3, size=size, num_frames=17)

    def settings(self) -> dict[str, Any]:
        return self._skies.settings()

    def items(self) -> list[Item]:
        pairs = zip(self._skies.items(), self._splits, strict=True)
        return [dataclasses.replace(item, split=split) for item, split in pairs]

    def read(self, item: Item) -> Any:
        return self._skies.read(item)


def pack(source: Any, folder: Path, *, encoding: str = "raw") -> Path:
    prepare(source, folder, encoding=encoding)  # type: ignore[arg-type]
    return folder


def read_packed(folder: Path, *, num_frames: int) -> list[tuple[str, np.ndarray, np.ndarray]]:
    """Return the key, the frames and all tracks side by side of each clip."""
    dataset = PackedDataset(folder)
    found = []
    for split in ("train", "validation", "test"):
        for index in dataset.indices(split):  # type: ignore[arg-type]
            clip = dataset.read(int(index), range(num_frames))
            tracks = [np.asarray(clip.tracks[name]) for name in sorted(clip.tracks)]
            rows = np.concatenate(tracks, axis=1) if tracks else np.zeros((num_frames, 0))
            found.append((f"{split}/{int(index)}", clip.frames, rows.astype(np.float32)))
    return found


def varied_batch(folder: Path, *, num_frames: int, track: str) -> dict[str, Tensor]:
    """Return the second batch of a training with every augmentation."""
    loader = ClipLoader(
        PackedDataset(folder),
        batch_size=2,
        num_frames=num_frames,
        augmentation=Augmentation(
            mirror=0.5, brightness=0.2, contrast=0.2, saturation=0.2, hue=0.1
        ),
        track=track,
        has_points=True,
        seed=1,
        num_workers=0,
    )
    batch = [next(loader) for _ in range(2)][1]
    return {"video": batch.video, "track": batch.track, "number": batch.number}


def wind_of(frames: np.ndarray) -> np.ndarray:
    return np.asarray(estimate_wind(frames).mean)


def flow_volume(frames: np.ndarray, *, size: int, grid: int) -> np.ndarray:
    """Return block means of the flow to frame 0, in picture sizes."""
    flow, cell = backward_flow(frames, size=(size, size)), size // grid
    blocks = flow.reshape(len(flow), grid, cell, grid, cell, 2)
    means = blocks.mean(axis=(2, 4), dtype=np.float32) / np.array([size, size], np.float32)
    return np.ascontiguousarray(means.transpose(3, 0, 1, 2))


# --- Training -------------------------------------------------------------------------------------


@contextmanager
def in_float32() -> Iterator[None]:
    """Whatever this processor is fast in."""
    with (
        mock.patch("torch.cpu._is_avx512_bf16_supported", return_value=False),
        mock.patch("torch.cpu._is_amx_tile_supported", return_value=False),
    ):
        yield


@contextmanager
def every_step() -> Iterator[None]:
    """The numbers of each step are written down, not of one in many."""
    modules = [module for name, module in sys.modules.items() if name.startswith("cinnema.")]

    def recorded(step: Any, batches: Any, schedule: Any, **options: Any) -> Any:
        return fit(step, batches, dataclasses.replace(schedule, record_every=1), **options)

    with ExitStack() as stack:
        for module in modules:
            if getattr(module, "fit", None) is fit:
                stack.enter_context(mock.patch.object(module, "fit", recorded))
        yield


def metrics_of(folder: Path) -> list[Numbers]:
    """Return the lines of a training's log, without what a clock tells."""
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    recorded = {"nll_without_control": "nll_free", "nll_with_control": "nll_told"}
    return [
        {recorded.get(k, k): v for k, v in json.loads(line).items() if k != "seconds"}
        for line in lines
    ]


def _train(recipe: Any, clips: Any, run: Path) -> Path:
    """Train both stages, and bundle them."""
    options = {"run": run, "device": CPU, "validation": validation_of(clips)}
    train_stage1(recipe, clips, **options)
    train_stage2(recipe, clips, **options)
    return bundle(recipe, run=run, output=run / "golden.safetensors")


_BOTH = (
    DiscriminatorTraining(module="spatial"),
    DiscriminatorTraining(module="temporal", interval=2),
)


def train_keypoint(
    data: Path, run: Path, *, points: bool, adversaries: bool
) -> tuple[dict[str, Path], Path]:
    """Train a tiny keypoint model on packed clips with the tracks "where" and "corners"."""
    judged = DiscriminatorsConfig(phases=_BOTH, start=4, widths=(8, 8)) if adversaries else None
    stage1 = KeypointConfig(
        size=32, num_frames=4, z_dim=8, encoder_width=8, width=8, code_dim=16,
        landmarks=4 if points else 3, points=points,
    )  # fmt: skip
    conditioner = ConditionerConfig(
        feature_dim=stage1.feature_dim, width=8, condition_dim=4,
        control_dim=0 if points else 3, control_scale=0.15 if points else 0.3,
    )  # fmt: skip
    limbs: Any = (((0,), (1,)),) if points else ()
    recipe = KeypointRecipe(
        name="golden",
        data=KeypointData(
            landmarks="corners" if points else "where",
            validation_clips=3,
            augmentation=Augmentation(mirror=0.5 if points else 0.0),
        ),
        stage1=stage1,
        motion=KeypointTraining(
            clips=12, batch_size=4, moments=2, teacher_forcing=0.5 if points else 0.0,
            symmetric_keypoints=limbs,
        ),
        picture=KeypointTraining(
            phase="picture", clips=12, batch_size=4, moments=2, perceptual=1.0, network="alex",
            symmetric_keypoints=limbs, discriminators=judged,
        ),
        conditioner=conditioner,
        flow=FlowConfig(
            z_dim=8, condition_dim=conditioner.out_dim, num_blocks=2, hidden_dim=16, depth=1
        ),
        stage2=Stage2Training(clips=32, pool=16, batch_size=8, validate_every=16),
        end_point=None
        if points
        else EndPointRange(low=(0.0, 0.0, -1.0), high=(1.0, 1.0, 1.0)),
    )  # fmt: skip
    weights = _train(recipe, KeypointClips.open(recipe, data), run)
    return {name: run / name for name in ("motion", "picture", "stage2")}, weights


def train_of_2021(data: Path, run: Path) -> tuple[dict[str, Path], Path]:
    """Train the paper's networks in tiny, on packed clips of 64 px with an end point."""
    recipe = tiny(bair(control=True))
    weights = train_paper(recipe, data=data, run=run, device=CPU, num_workers=0)
    return {name: run / name for name in ("stage1", "conditioning", "flow")}, weights


def _formula_weights(model: Any) -> Any:
    """Give a model weights that depend on their names and shapes alone."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(values_of(name, tuple(parameter.shape)))
    return model


# --- Measuring ------------------------------------------------------------------------------------


def evaluate(weights: str | Path, data: Path, json_file: Path, *options: object) -> Numbers:
    """Run `cinnema evaluate` without VGG16, and with pixels for what I3D would say."""
    ends = FeatureNetwork(
        name="pixels",
        identity="pixels",
        compute=lambda video: torch.from_numpy(
            video[:: len(video) - 1, 16::32, 16::32].astype(np.float32).ravel()
        ),
    )

    def without_vgg(folder: Path | None = None) -> Mapping[Any, Found]:
        found = dict(find_backbones(folder))
        found["vgg"] = dataclasses.replace(found["vgg"], path=None, state="missing")
        return found

    with (
        mock.patch.object(metric_registry, "feature_network", return_value=ends),
        mock.patch("cinnema.backbones.registry.find_backbones", without_vgg),
    ):
        command(
            "evaluate", weights, data, "--threads", 1, "--device", "cpu",
            "--cache", json_file.parent / "cache", "--json", json_file, *options,
        )  # fmt: skip
    values = json.loads(json_file.read_text())
    recorded = {"motion of a random nu": "by a random nu"}
    rows = {
        name: {recorded.get(column, column): cell for column, cell in row["values"].items()}
        for name, row in values["rows"].items()
    }
    return {"rows": rows, "curves": values["curves"]}


def measure(
    task: str, weights: str | Path, data: Path, json_file: Path, *options: object
) -> Numbers:
    """Run `cinnema measure`; return its numbers in order, whatever they are called."""
    command("measure", task, weights, data, "-o", json_file, "--device", "cpu", *options)
    numbers = json.loads(json_file.read_text())["numbers"]
    if task in _ROWS:  # which were in another order when this was recorded
        kinds = list(dict.fromkeys(number["what"] for number in numbers))
        numbers.sort(key=lambda n: (kinds.index(n["what"]), _ROWS[task].index(n["of"])))
    return {str(i): number for i, number in enumerate(numbers)}


_CONTROLLED = (
    "cINN", "eta of another clip", "random nu, edited", "no eta", "frozen first frame",
    "reconstruction", "real against real",
)  # fmt: skip
_ROWS = dict.fromkeys(("direction", "edit", "end-point"), _CONTROLLED) | {
    "transfer": (
        "another picture, given path and nu", "another picture, given the path, random nu",
        "another picture, given nu", "another picture, random nu", "frozen first frame",
        "reconstruction", "real clip of the most similar path",
    )
}  # fmt: skip


def save_untrained_reader(path: Path) -> Path:
    """Write what reads a robot's end point off pictures, with weights of a formula."""
    config = ReaderConfig(
        data="golden", unit="m", centre=(0.0, 0.0, 0.05), scale=(0.1, 0.1, 0.03), width=0.48,
        channels=8,
    )  # fmt: skip
    save_reader(path, _formula_weights(EndPointReader(config)))
    return path


@torch.no_grad()
def perceptual_distance(network: str, a: np.ndarray, b: np.ndarray) -> Tensor:
    return LPIPS.load(network)(to_tensor(a[None]), to_tensor(b[None]))  # type: ignore[arg-type]


# --- Flows and priors -----------------------------------------------------------------------------


def priors(z: Tensor, c: Tensor) -> dict[str, Tensor]:
    """Fit each simple prior; return log-likelihoods, and draws of a fixed seed."""
    groups = torch.arange(len(z)) // 4
    fitted = {
        "gaussian": GaussianPrior.fit(z, c),
        "linear": LinearGaussianPrior.fit(z, c, groups=groups),
    }
    found = {}
    for name, prior in fitted.items():
        found[f"{name}/log_prob"] = prior.log_prob(z, c)
        generator = torch.Generator().manual_seed(5)
        found[f"{name}/sample"] = prior.sample(c, temperature=0.8, generator=generator)
    return found


@torch.no_grad()
def rectified(z: Tensor, c: Tensor) -> dict[str, Tensor]:
    config = RectifiedConfig(
        z_dim=z.shape[1], condition_dim=c.shape[1], hidden_dim=16, depth=1, num_steps=4
    )
    prior = _formula_weights(RectifiedPrior(config)).eval()
    generator = torch.Generator().manual_seed(5)
    return {"log_prob": prior.log_prob(z, c), "sample": prior.sample(c, generator=generator)}


def config_of(pipe: Pipeline) -> dict[str, Any]:
    return config_to_dict(pipe.model.config)
