"""Golden values: what the library computed before it was rebuilt, group by group.

    PYTHONPATH=src:tests:benchmarks python tests/golden/record.py

writes golden.json and golden.safetensors anew, for changes that are meant to change what is
computed. The files in fixtures/ are of the version that was first recorded and are never made
again.
"""

import random
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from golden import entry
from golden.inputs import photograph, video, walk
from golden.keypoint_file import write_keypoint_weights
from golden.store import Record, save_records
from official_folder import write_official

Group = Callable[[Record, Path], None]
FIXTURES = Path(__file__).parent / "fixtures"


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def keep(record: Record, name: str, shot: entry.Shot) -> None:
    record.frames(f"{name}/frames", shot.frames)
    record.array(f"{name}/z", shot.z)
    record.array(f"{name}/nu", shot.nu)
    if shot.eta is not None:
        record.array(f"{name}/eta", shot.eta)


def keep_all(record: Record, name: str, values: dict[str, Tensor]) -> None:
    for key, value in values.items():
        record.array(f"{name}/{key}", value)


# --- The shipped weights --------------------------------------------------------------------------

_LOOKS: dict[str, dict[str, Any]] = {
    "two": {"num_samples": 2, "seed": 7},
    "short_cool": {"num_frames": 4, "temperature": 0.5},
    "mean": {"num_frames": 4, "temperature": 0.0},
    "onward": {"num_frames": 22},
    "sized": {"num_frames": 4, "size": (72, 40)},
    "model_size": {"num_frames": 3, "size": "model"},
    "fast": {"num_frames": 8, "fps": 24.0},
    "pingpong": {"num_frames": 5, "loop": "pingpong"},
}


def animations(record: Record, weights: str, *, controls: dict[str, Any]) -> None:
    """Animate a photograph in all ways, by shipped weights."""
    pipe, image = entry.load(weights), photograph()
    for name, options in _LOOKS.items():
        for i, shot in enumerate(entry.animate(pipe, image, **{"num_samples": 1, **options})):
            keep(record, f"{name}{i}", shot)
    for name, eta in controls.items():
        (shot,) = entry.animate(pipe, image, num_samples=1, seed=3, num_frames=6, eta=eta)
        keep(record, f"eta_{name}", shot)
    nu = normal(2, pipe.model.z_dim, seed=11)
    for i, shot in enumerate(entry.animate(pipe, image, nu=nu, num_frames=3)):
        keep(record, f"given{i}", shot)
    for method in ("continuous", "paper"):
        options = {"num_samples": 1, "num_frames": 36 if method == "continuous" else 20}
        (shot,) = entry.extend(pipe, image, method=method, **options)
        keep(record, method, shot)


def robot(record: Record, folder: Path) -> None:
    controls = {
        "near": entry.end_point(0.05, -0.02, 0.05),
        "far": entry.end_point(-0.2, 0.12, 0.12),
        "numbers": torch.tensor([0.2, 0.0, 0.02]),
    }
    animations(record, "robot", controls=controls)


def person(record: Record, folder: Path) -> None:
    animations(record, "person", controls={})


# --- Tasks ----------------------------------------------------------------------------------------


def tasks_of_bodies(record: Record, folder: Path) -> None:
    frames, other = walk()[0], photograph(height=64, width=64)
    for weights, fps in (("robot", 10.0), ("person", 12.5)):
        pipe = entry.load(weights)
        options: dict[str, Any] = {"fps": fps, "num_frames": 6}
        keep(record, f"{weights}/transfer", entry.transfer(pipe, frames, other, **options))
        for i, shot in enumerate(entry.interpolate(pipe, other, steps=3, num_frames=3)):
            keep(record, f"{weights}/between{i}", shot)
        keep_all(record, f"{weights}/encoded", entry.encode(pipe, frames, fps=fps))
    pipe = entry.load("robot")
    alone = entry.transfer(pipe, frames, other, keep="residual", fps=10.0, num_frames=4)
    keep(record, "robot/transfer_residual", alone)
    eta = entry.end_point(0.1, 0.05, 0.08)
    keep(record, "robot/edit", entry.edit(pipe, frames, eta=eta, fps=10.0, num_frames=6))


def imported(record: Record, folder: Path) -> None:
    """The model of 2021, from a folder of checkpoints as they were published."""
    for control in (False, True):
        name = "steered" if control else "plain"
        published = write_official(folder / name, control=control)
        weights = folder / f"{name}.safetensors"
        entry.command("import", "official", published, "-o", weights)
        pipe, image = entry.load(weights), photograph(height=64, width=64)
        record.weights(f"{name}/weights", pipe.model.state_dict())
        eta = torch.tensor([0.6, 0.0, 0.25]) if control else None
        encoded = entry.encode(pipe, walk(size=64)[0], fps=10.0, eta=eta)
        keep_all(record, f"{name}/encoded", encoded)
        made = entry.flow(pipe, image, normal(2, pipe.model.z_dim, seed=4), eta=eta)
        keep_all(record, f"{name}/flow", made)
        (shot,) = entry.animate(pipe, image, num_samples=1, seed=2)
        keep(record, f"{name}/animated", shot)
    (shot,) = entry.animate(pipe, image, num_samples=1, eta=entry.end_point(0.6, 0.1, 0.3))
    keep(record, "steered/told", shot)
    (shot,) = entry.extend(pipe, image, method="continuous", num_samples=1, num_frames=20)
    keep(record, "steered/continuous", shot)


# --- Files ----------------------------------------------------------------------------------------


def files(record: Record, folder: Path) -> None:
    """Files of the version that was recorded, and files of this one, read."""
    nu, z = entry.load_motion(FIXTURES / "sky.nu.safetensors")
    record.array("old_motion/nu", nu)
    record.array("old_motion/z", z)

    for key, frames, tracks in entry.read_packed(FIXTURES / "packed", num_frames=5):
        record.frames(f"old_packed/{key}/frames", frames)
        record.array(f"old_packed/{key}/tracks", tracks)

    weights = write_keypoint_weights(folder / "keypoint.safetensors")
    old = entry.load(weights)
    record.weights("old_weights", old.model.state_dict())
    for i, shot in enumerate(entry.animate(old, photograph(height=32, width=32), num_samples=2)):
        keep(record, f"old_weights/animated{i}", shot)


# --- Data -----------------------------------------------------------------------------------------


def _squares(folder: Path, *, num: int, size: int, length: int, control: bool) -> Path:
    """Pack squares that walk about: every third clip validates, the last one tests."""
    clips = []
    for seed in range(num):
        frames, path = walk(length, size=size, seed=seed)
        where = np.concatenate([path, np.zeros((length, 1), np.float32)], axis=1)
        half = 0.125
        tracks = {"where": where, "corners": np.concatenate([path - half, path + half], axis=1)}
        if control:
            tracks = {"end_effector": where * 0.4 + np.array([0.45, -0.2, 0.2], np.float32)}
        split = "validation" if seed % 3 == 2 else "train"
        split = "test" if seed == num - 1 else split
        tracks = {key: track.astype(np.float32) for key, track in tracks.items()}
        clips.append((f"{seed:02}", split, frames, tracks))
    spec = entry.POSITION if control else entry.WHERE
    return entry.pack(entry.Clips(tuple(clips), size=size, control=spec), folder)


def data(record: Record, folder: Path) -> None:
    packed = _squares(folder / "squares", num=6, size=32, length=7, control=False)
    batch = entry.varied_batch(packed, num_frames=5, track="corners")
    keep_all(record, "batch", batch)
    skies = entry.pack(
        entry.SimulatedSkies(["train", "test"], futures=2, size=64), folder / "skies"
    )
    for key, frames, wind in entry.read_packed(skies, num_frames=17):
        record.frames(f"sky/{key}/frames", frames)
        record.array(f"sky/{key}/wind", wind)
        record.array(f"sky/{key}/estimated", entry.wind_of(frames))
    clouds = video(5, height=64, width=64)
    record.array("flow", entry.flow_volume(clouds, size=64, grid=16))
    for network in ("alex", "vgg"):
        record.array(f"lpips/{network}", entry.perceptual_distance(network, clouds[0], clouds[4]))


# --- Training -------------------------------------------------------------------------------------


def _keep_trainings(
    record: Record, name: str, folders: dict[str, Path], weights: Path, *, side: int
) -> None:
    for part, folder in folders.items():
        record.tree(f"{name}{part}", entry.metrics_of(folder))
    pipe = entry.load(weights)
    record.weights(f"{name}weights", pipe.model.state_dict())
    image = photograph(height=side, width=side)
    (shot,) = entry.animate(pipe, image, num_samples=1, num_frames=3)
    keep(record, f"{name}animated", shot)


def training_keypoint(record: Record, folder: Path) -> None:
    packed = _squares(folder / "packed", num=12, size=32, length=7, control=False)
    for name, points, adversaries in (
        ("robot", False, False),
        ("person", True, False),
        ("judged", False, True),
    ):
        with entry.in_float32(), entry.every_step():
            folders, weights = entry.train_keypoint(
                packed, folder / name, points=points, adversaries=adversaries
            )
        _keep_trainings(record, f"{name}/", folders, weights, side=32)


def training_paper(record: Record, folder: Path) -> None:
    """The networks of 2021: auto-encoder with discriminators, conditioning encoder, flow."""
    packed = _squares(folder / "packed", num=4, size=64, length=10, control=True)
    with entry.in_float32(), entry.every_step():
        folders, weights = entry.train_of_2021(packed, folder / "run")
    _keep_trainings(record, "", folders, weights, side=64)


# --- Measuring ------------------------------------------------------------------------------------


def evaluation_robot(record: Record, folder: Path) -> None:
    """The tasks of a robot, whose end point an untrained network reads off."""
    clips = []
    for start in range(8):
        frames, path = walk(17, seed=start)
        for future in range(1 if start < 3 else 4):
            turn = np.linspace(0, future, 17)
            pairs = zip(frames, turn, strict=True)
            moved = np.stack([np.roll(frame, int(by), axis=1) for frame, by in pairs])
            track = np.concatenate([path * 0.4 - 0.2, np.full((17, 1), 0.05)], axis=1)
            track[:, 0] += 0.4 * turn / 64
            split = "train" if start < 3 else "test"
            tracks = {"end_effector": track.astype(np.float32)}
            clips.append((f"{start}-{future}", split, moved, tracks))
    source = entry.Clips(tuple(clips), size=64, control=entry.POSITION)
    packed = entry.pack(source, folder / "robot")
    reader = entry.save_untrained_reader(folder / "reader.safetensors")
    for task, num in (("end-point", 4), ("transfer", 3), ("futures", 2), ("swap", 10)):
        options = ["--clips", num, "--regressor", reader]
        found = entry.measure(task, "robot", packed, folder / f"{task}.json", *options)
        record.tree(task, found)
    options = ["--samples", 1, "--clips", 2]
    numbers = entry.evaluate("robot", packed, folder / "numbers.json", *options)
    record.tree("robot", numbers)


def flows(record: Record, folder: Path) -> None:
    """The shipped flows there and back, and what they are compared with."""
    etas = {"robot": torch.tensor([[0.1, 0.0, 0.05]])}
    for weights in ("robot", "person"):
        pipe = entry.load(weights)
        image = photograph(height=pipe.model.size, width=pipe.model.size)
        z = normal(3, pipe.model.z_dim, seed=6)
        keep_all(record, weights, entry.flow(pipe, image, z, eta=None))
        if weights in etas:
            keep_all(record, f"{weights}_eta", entry.flow(pipe, image, z, eta=etas[weights]))
    c = normal(40, 3, seed=8)
    z = normal(40, 6, seed=9) + c @ normal(3, 6, seed=10)
    keep_all(record, "priors", entry.priors(z, c))
    keep_all(record, "rectified", entry.rectified(z, c))


# By name; how near values have to be on another machine, as a share of the largest. The first steps
# of Adam are as large for a gradient of nothing but rounding as for any other, so that the paper's
# networks, which have many, soon differ; optical flow may turn on one pixel of a video.
GROUPS: dict[str, tuple[Group, float]] = {
    group.__name__: (group, within)
    for group, within in (
        (robot, 1e-4),
        (person, 1e-4),
        (tasks_of_bodies, 1e-4),
        (imported, 1e-4),
        (files, 1e-4),
        (data, 1e-4),
        (training_keypoint, 1e-4),
        (training_paper, 0.2),
        (evaluation_robot, 0.1),
        (flows, 1e-4),
    )
}


def compute(name: str, folder: Path) -> Record:
    """Compute a group on one thread; what was drawn or computed before changes nothing."""
    record, threads = Record(name), torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            np.random.seed(0)  # noqa: NPY002 - of others' code, if it should use it
            random.seed(0)
            GROUPS[name][0](record, folder)
    finally:
        torch.set_num_threads(threads)
    return record


def main() -> None:
    """Compute everything and write it down."""
    torch.set_num_threads(1)
    records = []
    for name in GROUPS:
        began = time.process_time()
        with tempfile.TemporaryDirectory() as folder:
            records.append(compute(name, Path(folder)))
        made = records[-1]
        num = len(made.numbers) + len(made.digests)
        print(f"{name}: {num} values, {time.process_time() - began:.1f} s", flush=True)
    save_records(records)


if __name__ == "__main__":
    main()
