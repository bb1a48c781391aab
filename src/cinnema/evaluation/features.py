"""Features of clips by a named network, remembered by what the clips show."""

import hashlib
import sqlite3
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Float32, UInt8
from numpy.typing import NDArray
from torch import Tensor

from cinnema.backbones.i3d import I3D, FrameResize, resize_frames
from cinnema.backbones.inception import FEATURE_DIM, Inception
from cinnema.core.errors import UserError
from cinnema.evaluation.precision import Precision, in_precision
from cinnema.media.pictures import to_tensor

Video = UInt8[np.ndarray, "n h w 3"]

_REMEMBERED = 512  # clips in memory: those of a batch are asked for by several measures
_FRAMES_AT_ONCE = 32


@dataclass(frozen=True, kw_only=True)
class FeatureNetwork:
    """What turns a clip into numbers.

    Attributes:
        name: For people.
        identity: All that decides the numbers: the file's SHA-256, layer, resize, precision.
        compute: From one clip of pixels to its features, of any shape.
        min_frames: The shortest clip that it takes.
    """

    name: str
    identity: str
    compute: Callable[[Video], Float[Tensor, "*shape"]]
    min_frames: int = 1


class FeatureCache:
    """Features on disk, by the hash of what they are of; one SQLite file for any processes.

    Args:
        folder: Where the file lies; made if missing.

    Raises:
        UserError: The folder cannot be written to, or holds a damaged file.
    """

    def __init__(self, folder: Path) -> None:
        self._path = Path(folder) / "features.sqlite"
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._database = sqlite3.connect(self._path, timeout=60, isolation_level=None)
            self._database.execute(
                "CREATE TABLE IF NOT EXISTS features (key TEXT PRIMARY KEY, value BLOB)"
            )
        except (OSError, sqlite3.Error) as error:
            raise self._unusable(error) from error

    def read(self, key: str) -> NDArray[np.float32] | None:
        """Return what was kept under a key, flat; None if nothing was."""
        try:
            row = self._database.execute(
                "SELECT value FROM features WHERE key = ?", (key,)
            ).fetchone()
        except sqlite3.Error as error:
            raise self._unusable(error) from error
        return None if row is None else np.frombuffer(row[0], dtype=np.float32)

    def write(self, key: str, value: Float32[np.ndarray, "*shape"]) -> None:
        """Keep features; what was kept under the key is replaced."""
        try:
            self._database.execute(
                "INSERT OR REPLACE INTO features VALUES (?, ?)", (key, value.tobytes())
            )
        except sqlite3.Error as error:
            raise self._unusable(error) from error

    def close(self) -> None:
        """Let go of the file."""
        self._database.close()

    def _unusable(self, error: Exception) -> UserError:
        return UserError(
            f"{self._path} cannot be used as a cache of features ({error}): delete it, or name "
            "another folder with --cache"
        )


class Remembered:
    """Arrays that are computed once for each key: in memory while they are new, and on disk.

    Args:
        cache: Where they are kept between runs; only in memory if None.
    """

    def __init__(self, cache: FeatureCache | None = None) -> None:
        self._cache = cache
        self._memory: OrderedDict[str, NDArray[np.float32]] = OrderedDict()

    def get(
        self, key: str, compute: Callable[[], Float32[np.ndarray, " n"]]
    ) -> NDArray[np.float32]:
        """Return what is kept under a key, or compute and keep it.

        Args:
            key: All that decides the array.
            compute: Makes it.
        """
        row = self._memory.get(key)
        if row is None and self._cache is not None:
            row = self._cache.read(key)
        if row is None:
            row = compute()
            if self._cache is not None:
                self._cache.write(key, row)
        self._memory[key] = row
        self._memory.move_to_end(key)
        if len(self._memory) > _REMEMBERED:
            self._memory.popitem(last=False)
        return row


class Features:
    """Features of clips by one network, computed once for each content.

    Every clip goes through the network alone, so that neither the batch nor the number of
    processes touches a single bit of them.

    Args:
        network: What computes them.
        cache: Where they are kept between runs; only in memory if None.

    Example:
        >>> features = Features(i3d_network(
        ...     I3D.kinetics(), sha256, layer="logits", resize="tensorflow", device="cpu"
        ... ))
        >>> features.of([video]).shape
        torch.Size([1, 400])
    """

    def __init__(self, network: FeatureNetwork, *, cache: FeatureCache | None = None) -> None:
        self.network = network
        self._remembered = Remembered(cache)

    def of(self, videos: Sequence[Video]) -> Float[Tensor, "b d"]:
        """Return the features of clips, in float32 on the CPU.

        Args:
            videos: At least one; all of one shape.
        """
        return torch.from_numpy(np.stack([self._of(video) for video in videos]))

    def _of(self, video: Video) -> NDArray[np.float32]:
        key = f"{self.network.identity}/{content_hash(video)}"
        return self._remembered.get(key, lambda: self._computed(video))

    @torch.inference_mode()
    def _computed(self, video: Video) -> NDArray[np.float32]:
        features = self.network.compute(video).detach().float().cpu().flatten()
        return np.asarray(features.numpy(), dtype=np.float32)


def content_hash(video: Video) -> str:
    """Return 32 hexadecimal digits that depend on the shape and every pixel of a clip."""
    digest = hashlib.blake2b(str(video.shape).encode(), digest_size=16)
    digest.update(np.ascontiguousarray(video).data)
    return digest.hexdigest()


def i3d_network(
    i3d: I3D,
    sha256: str,
    *,
    layer: Literal["logits", "features"],
    resize: FrameResize,
    device: torch.device,
    precision: Precision = "float32",
) -> FeatureNetwork:
    """Return an I3D as what FVD, DTFVD and diversity see of a clip.

    Args:
        i3d: In evaluation mode; it is changed to its fast layout, and moved.
        sha256: Of its file.
        layer: "logits" or "features".
        resize: How frames are brought to 224 x 224.
        device: Where it computes.
        precision: In which number format; see `choose_precision`.
    """
    i3d = in_precision(i3d.to(device), precision)

    def compute(video: Video) -> Tensor:
        x = resize_frames(to_tensor(video)[None].to(device), method=resize)
        out: Tensor = (i3d.logits if layer == "logits" else i3d.features)(x)
        return out[0]

    return FeatureNetwork(
        name=f"I3D {layer}",
        identity=f"{sha256}/{layer}/{resize}/{precision}",
        compute=compute,
        min_frames=i3d.config.min_frames,
    )


def inception_network(inception: Inception, sha256: str, *, device: torch.device) -> FeatureNetwork:
    """Return FID's Inception: the features of every frame of a clip, one after the other.

    Args:
        inception: In evaluation mode; it is moved.
        sha256: Of its file.
        device: Where it computes.
    """
    inception = inception.to(device)

    def compute(video: Video) -> Tensor:
        parts = to_tensor(video).split(_FRAMES_AT_ONCE)
        features = torch.cat([inception.features(part.to(device)) for part in parts])
        assert features.shape[1] == FEATURE_DIM
        return features

    return FeatureNetwork(
        name="Inception", identity=f"{sha256}/pool3/half_pixel/float32", compute=compute
    )
