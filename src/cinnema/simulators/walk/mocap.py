"""Motion capture of people: reads the files of pybullet's data, and plays them as endless cycles.

A file is JSON with `Loop` ("wrap" or "none") and `Frames`, rows of 44 numbers: duration in seconds,
position of the pelvis in metres, its rotation, and the rotations of 12 joints (Peng et al.,
"DeepMimic", 2018). Rotations are quaternions (w, x, y, z); knees and elbows have one angle about
the axis to the right. In a file x points forward, y up and z to the right.

In this module z points up and y to the left, and the end of every motion continues in its start.
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64
from numpy.typing import NDArray

from cinnema.core.errors import UserError

TURNING = (
    "pelvis", "chest", "neck",
    "right_hip", "right_knee", "right_ankle", "right_shoulder", "right_elbow",
    "left_hip", "left_knee", "left_ankle", "left_shoulder", "left_elbow",
)  # fmt: skip
"""Joints with a rotation, in the order of the files."""

_HINGES = ("right_knee", "right_elbow", "left_knee", "left_elbow")
_NUM_COLUMNS = 44
# Duration of the blend from the end of a cycle to its start, and of the return to the start of a
# motion that was not recorded as a cycle, in seconds.
_SEAM = 0.35
_RETURN = 0.5


@dataclass(frozen=True)
class Poses:
    """Position and pose of a skeleton at t moments.

    Attributes:
        place: x and y of the pelvis, in metres.
        height: z of the pelvis, in metres.
        heading: Rotation about the vertical, counter-clockwise seen from above, in radians.
        rotations: Rotations of `TURNING` relative to their parents; that of the pelvis does not
            include the heading.
    """

    place: Float64[np.ndarray, "t 2"]
    height: Float64[np.ndarray, "t"]
    heading: Float64[np.ndarray, "t"]
    rotations: Float64[np.ndarray, "t 13 4"]

    def __len__(self) -> int:
        """Return the number of moments."""
        return len(self.height)

    def __getitem__(self, moments: slice) -> "Poses":
        """Return the poses of a range of moments."""
        parts = (self.place, self.height, self.heading, self.rotations)
        return Poses(*(part[moments] for part in parts))


@dataclass(frozen=True)
class Motion:
    """A recorded motion that repeats after `period` seconds, from the position it has reached.

    Attributes:
        name: Name of the file without "humanoid3d_" and suffix; also that of the mirror image.
        times: Times of the frames, from 0 to the period, in seconds.
        frames: Poses. The first is at the origin with heading 0; the last differs from it only in
            place and heading.

    Example:
        >>> walk = read_motion(bundled_folder() / "humanoid3d_walk.txt")
        >>> poses = walk.play(0.2, np.arange(50) / 25)
        >>> poses.place[-1].round(1)
        array([1.9, 0.1])
    """

    name: str
    times: Float64[np.ndarray, "n"]
    frames: Poses

    @property
    def period(self) -> float:
        """Length of the cycle, in seconds."""
        return float(self.times[-1])

    def play(self, start: float, times: Float64[np.ndarray, "t"]) -> Poses:
        """Return poses relative to the pose at `start`, which is at the origin with heading 0.

        Args:
            start: Start within the cycle, in seconds.
            times: Times since the start, in seconds; negative times play backwards.
        """
        poses = self.at(np.concatenate([[start], start + times]))
        turn = np.exp(-1j * poses.heading[0])
        place = (_to_complex(poses.place) - _to_complex(poses.place[:1])) * turn
        return Poses(
            place=_to_plane(place[1:]),
            height=poses.height[1:],
            heading=poses.heading[1:] - poses.heading[0],
            rotations=poses.rotations[1:],
        )

    def mirrored(self) -> "Motion":
        """Return the mirror image of the motion, with left and right exchanged."""
        swapped = [TURNING.index(_other_side(name)) for name in TURNING]
        frames = Poses(
            place=self.frames.place * [1.0, -1.0],
            height=self.frames.height,
            heading=-self.frames.heading,
            rotations=self.frames.rotations[:, swapped] * [1.0, -1.0, 1.0, -1.0],
        )
        return Motion(self.name, self.times, frames)

    def at(self, moments: Float64[np.ndarray, "t"]) -> Poses:
        """Return the poses at some times, at their recorded positions.

        Args:
            moments: Times in seconds; times outside [0, period] belong to other cycles.
        """
        cycle = np.floor(moments / self.period)
        within = np.clip(moments - cycle * self.period, 0.0, self.period)
        poses = self._interpolated(within)
        turn, step = float(self.frames.heading[-1]), _to_complex(self.frames.place[-1:])[0]
        # Cycle n begins at step * (1 + r + r^2 + ... + r^(n-1)), with r = e^(i turn).
        ratio, is_straight = np.exp(1j * turn), abs(turn) < 1e-9
        walked = step * (cycle if is_straight else (1 - ratio**cycle) / (1 - ratio))
        place = walked + ratio**cycle * _to_complex(poses.place)
        return Poses(_to_plane(place), poses.height, poses.heading + cycle * turn, poses.rotations)

    def _interpolated(self, within: NDArray[np.float64]) -> Poses:
        last = len(self.times) - 1
        before = np.clip(np.searchsorted(self.times, within, side="right") - 1, 0, last - 1)
        share = (within - self.times[before]) / (self.times[before + 1] - self.times[before])
        frames = self.frames

        def between(values: NDArray[np.float64]) -> NDArray[np.float64]:
            weight = share.reshape(-1, *[1] * (values.ndim - 1))
            return np.asarray(values[before] * (1 - weight) + values[before + 1] * weight)

        rotations = slerp(frames.rotations[before], frames.rotations[before + 1], share[:, None])
        return Poses(
            between(frames.place), between(frames.height), between(frames.heading), rotations
        )


def read_motion(path: Path) -> Motion:
    """Read a motion-capture file as a cycle.

    Args:
        path: The file.

    Raises:
        UserError: The file is missing, or is not valid motion capture.
    """
    rows, loops = _read_rows(path)
    times = np.concatenate([[0.0], np.cumsum(rows[:-1, 0])])
    name = path.stem.removeprefix("humanoid3d_")
    frames = _to_poses(rows)
    if loops:
        return Motion(name, times, _close(times, frames))
    return Motion(name, np.append(times, times[-1] + _RETURN), _return_to_start(frames))


def bundled_folder() -> Path:
    """Return the folder of the motion capture in pybullet's data.

    Raises:
        UserError: pybullet is not installed.
    """
    try:
        import pybullet_data
    except ImportError:
        raise UserError(
            "motion capture comes with pybullet, which is not installed: "
            "pip install 'cinnema[sim]', or give a folder of such files"
        ) from None
    return Path(pybullet_data.getDataPath()) / "data" / "motions"


def _read_rows(path: Path) -> tuple[NDArray[np.float64], bool]:
    """Return the validated rows of a file, and whether they are a cycle."""
    try:
        content: Any = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}; choose another motion") from None
    except (ValueError, RecursionError):
        raise UserError(f"{path} is not valid JSON: it is damaged; get it again") from None
    if not isinstance(content, dict) or content.get("Loop") not in ("wrap", "none"):
        raise UserError(f'{path}: "Loop" is not "wrap" or "none": not a motion-capture file')
    frames = content.get("Frames")
    if not isinstance(frames, list) or len(frames) < 2:
        raise UserError(f'{path}: "Frames" is not a list of 2 or more rows: it is damaged')
    for index, row in enumerate(frames):
        if not isinstance(row, list) or len(row) != _NUM_COLUMNS:
            length = len(row) if isinstance(row, list) else "no"
            raise UserError(f"{path}: frame {index} has {length} columns, not {_NUM_COLUMNS}")
    try:
        rows = np.array(frames, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        raise UserError(
            f"{path}: a frame contains values that are not numbers: it is damaged"
        ) from None
    _check_numbers(path, rows)
    return rows, content["Loop"] == "wrap"


def _check_numbers(path: Path, rows: NDArray[np.float64]) -> None:
    if not np.isfinite(rows).all() or np.abs(rows).max() > 1e3:
        raise UserError(f"{path}: a number is not finite or beyond 1000: it is damaged")
    if (rows[:-1, 0] <= 1e-4).any():
        index = int(np.flatnonzero(rows[:-1, 0] <= 1e-4)[0])
        raise UserError(f"{path}: frame {index} lasts {rows[index, 0]} s, not 0.0001 s or more")
    for name, columns in _columns().items():
        lengths = np.linalg.norm(rows[:, columns], axis=1)
        # The recorded ones are from 0.58 to 1.12 long.
        if name not in _HINGES and (np.abs(lengths - 1) > 0.5).any():
            index = int(np.argmax(np.abs(lengths - 1)))
            raise UserError(
                f"{path}: the rotation of {name} in frame {index} has length "
                f"{lengths[index]:.3g}, not about 1: it is damaged"
            )


def _columns() -> dict[str, slice]:
    """Return the columns that contain the rotation of each joint of `TURNING`."""
    columns, first = {}, 4
    for name in TURNING:
        width = 1 if name in _HINGES else 4
        columns[name] = slice(first, first + width)
        first += width
    return columns


def _to_poses(rows: NDArray[np.float64]) -> Poses:
    """Convert rows to poses with z up that start at the origin with heading 0."""
    rotations = np.zeros((len(rows), len(TURNING), 4))
    for joint, (name, columns) in enumerate(_columns().items()):
        values = rows[:, columns]
        if name in _HINGES:
            half, none = values[:, 0] / 2, np.zeros(len(rows))
            values = np.stack([np.cos(half), none, none, np.sin(half)], axis=1)
        rotations[:, joint] = values / np.linalg.norm(values, axis=1, keepdims=True)
    # (x, y, z) with y up becomes (x, -z, y) with z up.
    rotations = rotations[..., [0, 1, 3, 2]] * [1.0, 1.0, -1.0, 1.0]
    heading = np.unwrap(heading_of(rotations[:, 0]))
    rotations[:, 0] = multiply(about_vertical(-heading), rotations[:, 0])
    place = (rows[:, 1] - 1j * rows[:, 3]) - (rows[0, 1] - 1j * rows[0, 3])
    return Poses(
        place=_to_plane(place * np.exp(-1j * heading[0])),
        height=rows[:, 2],
        heading=heading - heading[0],
        rotations=rotations,
    )


def _close(times: NDArray[np.float64], frames: Poses) -> Poses:
    """Blend the end of a cycle into its start, over the last third of a second."""
    seam = min(_SEAM, float(times[-1]) / 3)
    ramp = smooth_step((times - times[-1]) / seam + 1)
    gap = multiply(frames.rotations[:1], conjugate(frames.rotations[-1:]))
    bend = slerp(identity(gap.shape[:-1]), gap, ramp[:, None])
    height = frames.height + ramp * (frames.height[0] - frames.height[-1])
    rotations = multiply(bend, frames.rotations)
    rotations[-1] = rotations[0]
    return Poses(frames.place, height, frames.heading, rotations)


def _return_to_start(frames: Poses) -> Poses:
    """Append the first pose to a motion, at the place of the last one."""
    return Poses(
        place=np.concatenate([frames.place, frames.place[-1:]]),
        height=np.append(frames.height, frames.height[0]),
        heading=np.append(frames.heading, frames.heading[-1]),
        rotations=np.concatenate([frames.rotations, frames.rotations[:1]]),
    )


def _other_side(name: str) -> str:
    if name.startswith("left_"):
        return name.replace("left_", "right_")
    return name.replace("right_", "left_")


def _to_complex(place: NDArray[np.float64]) -> NDArray[np.complex128]:
    return place[:, 0] + 1j * place[:, 1]


def _to_plane(place: NDArray[np.complex128]) -> NDArray[np.float64]:
    return np.stack([place.real, place.imag], axis=1)


def smooth_step(share: Float64[np.ndarray, "*n"]) -> Float64[np.ndarray, "*n"]:
    """Return 3 s^2 - 2 s^3, with s clipped to [0, 1]."""
    share = np.clip(share, 0.0, 1.0)
    return np.asarray(share * share * (3 - 2 * share))


def identity(shape: tuple[int, ...]) -> Float64[np.ndarray, "*n 4"]:
    """Return identity rotations.

    Args:
        shape: Shape of the batch.
    """
    return np.broadcast_to(np.array([1.0, 0.0, 0.0, 0.0]), (*shape, 4))


def about_vertical(angle: Float64[np.ndarray, "*n"]) -> Float64[np.ndarray, "*n 4"]:
    """Return rotations about z.

    Args:
        angle: Angles in radians, counter-clockwise seen from above.
    """
    none = np.zeros_like(angle)
    return np.stack([np.cos(angle / 2), none, none, np.sin(angle / 2)], axis=-1)


def heading_of(rotation: Float64[np.ndarray, "*n 4"]) -> Float64[np.ndarray, "*n"]:
    """Return the twist of rotations about z, in radians in [-pi, pi)."""
    angle = 2 * np.arctan2(rotation[..., 3], rotation[..., 0])
    return np.asarray((angle + math.pi) % (2 * math.pi) - math.pi)


def conjugate(rotation: Float64[np.ndarray, "*n 4"]) -> Float64[np.ndarray, "*n 4"]:
    """Return the inverses of rotations."""
    return np.asarray(rotation * [1.0, -1.0, -1.0, -1.0])


def multiply(
    second: Float64[np.ndarray, "*#n 4"], first: Float64[np.ndarray, "*#n 4"]
) -> Float64[np.ndarray, "*#n 4"]:
    """Return the rotation `first` followed by `second` (Hamilton product)."""
    a, b, c, d = np.moveaxis(second, -1, 0)
    w, x, y, z = np.moveaxis(first, -1, 0)
    return np.stack(
        [
            a * w - b * x - c * y - d * z,
            a * x + b * w + c * z - d * y,
            a * y - b * z + c * w + d * x,
            a * z + b * y - c * x + d * w,
        ],
        axis=-1,
    )


def slerp(
    first: Float64[np.ndarray, "*#n 4"],
    second: Float64[np.ndarray, "*#n 4"],
    share: Float64[np.ndarray, "*#n"],
) -> Float64[np.ndarray, "*#n 4"]:
    """Interpolate between rotations along the shorter arc (Shoemake, 1985).

    Args:
        first: Rotation at share 0.
        second: Rotation at share 1.
        share: Position between them, in [0, 1].
    """
    cosine = np.sum(first * second, axis=-1)
    second = second * np.where(cosine < 0, -1.0, 1.0)[..., None]
    angle = np.arccos(np.clip(np.abs(cosine), 0.0, 1.0))
    # For nearly equal rotations linear interpolation is exact, and avoids a division by 0.
    sine = np.where(angle < 1e-4, 1.0, np.sin(angle))
    start = np.where(angle < 1e-4, 1 - share, np.sin((1 - share) * angle) / sine)
    end = np.where(angle < 1e-4, share, np.sin(share * angle) / sine)
    turned = start[..., None] * first + end[..., None] * second
    return np.asarray(turned / np.linalg.norm(turned, axis=-1, keepdims=True))


def to_matrix(rotation: Float64[np.ndarray, "*n 4"]) -> Float64[np.ndarray, "*n 3 3"]:
    """Return rotation matrices, for column vectors."""
    w, x, y, z = np.moveaxis(rotation, -1, 0)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)
