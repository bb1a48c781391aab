"""Features of clips by a network, cached by the hash of the clips' pixels."""

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
from cinnema.media.pictures import to_tensor

Video = UInt8[np.ndarray, "n h w 3"]

Precision = Literal["float32", "mixed", "bfloat16"]

# Layers of I3D that bfloat16 does not harm. All of it in bfloat16 moves FVD by over a per cent,
# mostly because of the wide convolutions at the beginning (benchmarks/i3d.py).
_HARMLESS = ("conv3d_1a", "mixed_3b", "mixed_4")

_IN_MEMORY = 512  # clips; several metrics use the features of the same batch
_FRAMES_AT_ONCE = 32


@dataclass(frozen=True, kw_only=True)
class FeatureNetwork:
    """A network that maps a clip to features.

    Attributes:
        name: Name of the network.
        identity: What determines the features: SHA-256 of the file, layer, resize, precision.
        compute: Maps one clip of pixels to its features, of any shape.
        min_frames: Smallest number of frames that the network accepts.
    """

    name: str
    identity: str
    compute: Callable[[Video], Float[Tensor, "*shape"]]
    min_frames: int = 1


class FeatureCache:
    """Arrays on disk by key, in one SQLite file that several processes can use at once.

    Args:
        folder: Folder of the file; created if missing.

    Raises:
        UserError: The folder cannot be written to, or contains a damaged file.
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
        """Return the flattened array of a key, or None if the key is not in the cache."""
        try:
            row = self._database.execute(
                "SELECT value FROM features WHERE key = ?", (key,)
            ).fetchone()
        except sqlite3.Error as error:
            raise self._unusable(error) from error
        return None if row is None else np.frombuffer(row[0], dtype=np.float32)

    def write(self, key: str, value: Float32[np.ndarray, "*shape"]) -> None:
        """Write the array of a key, replacing an existing one."""
        try:
            self._database.execute(
                "INSERT OR REPLACE INTO features VALUES (?, ?)", (key, value.tobytes())
            )
        except sqlite3.Error as error:
            raise self._unusable(error) from error

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def _unusable(self, error: Exception) -> UserError:
        return UserError(
            f"{self._path} cannot be used as a cache of features ({error}): delete it, or name "
            "another folder with --cache"
        )


class ArrayCache:
    """Arrays that are computed once for each key: the latest in memory, all on disk.

    Args:
        cache: The cache on disk; None keeps the latest in memory only.
    """

    def __init__(self, cache: FeatureCache | None = None) -> None:
        self._cache = cache
        self._memory: OrderedDict[str, NDArray[np.float32]] = OrderedDict()

    def get(
        self, key: str, compute: Callable[[], Float32[np.ndarray, " n"]]
    ) -> NDArray[np.float32]:
        """Return the array of a key, computing it on a cache miss.

        Args:
            key: String that identifies the array.
            compute: Function that computes the array on a cache miss.
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
        if len(self._memory) > _IN_MEMORY:
            self._memory.popitem(last=False)
        return row


class Features:
    """Features of clips by one network, computed once for each content.

    The network sees one clip at a time, so the features do not depend on the batch or the number
    of processes, to the bit.

    Args:
        network: The network.
        cache: The cache on disk; None keeps the latest features in memory only.

    Example:
        >>> features = Features(i3d_network(
        ...     I3D.kinetics(), sha256, layer="logits", resize="tensorflow", device="cpu"
        ... ))
        >>> features.of([video]).shape
        torch.Size([1, 400])
    """

    def __init__(self, network: FeatureNetwork, *, cache: FeatureCache | None = None) -> None:
        self.network = network
        self._arrays = ArrayCache(cache)

    def of(self, videos: Sequence[Video]) -> Float[Tensor, "b d"]:
        """Return the features of clips, in float32 on the CPU.

        Args:
            videos: Clips of one shape, at least one.
        """
        return torch.from_numpy(np.stack([self._of(video) for video in videos]))

    def _of(self, video: Video) -> NDArray[np.float32]:
        key = f"{self.network.identity}/{content_hash(video)}"
        return self._arrays.get(key, lambda: self._computed(video))

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
    """Return the I3D network whose features FVD, DTFVD and diversity use.

    Args:
        i3d: The network in evaluation mode; its layout, precision and device change in place.
        sha256: SHA-256 of its file.
        layer: "logits" or "features".
        resize: How frames are resized to 224 x 224.
        device: Device that it computes on.
        precision: Number format; see `choose_precision`.
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
    """Return FID's Inception: the features of every frame of a clip, concatenated.

    Args:
        inception: The network in evaluation mode; it is moved to `device`.
        sha256: SHA-256 of its file.
        device: Device that it computes on.
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


def choose_precision(device: torch.device) -> Precision:
    """Return the number format of I3D for a device: "mixed" on CPUs with bfloat16 in hardware.

    Args:
        device: Device that the network computes on.
    """
    if device.type != "cpu":
        return "float32"
    has_bf16 = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return "mixed" if has_bf16 else "float32"


def in_precision(i3d: I3D, precision: Precision) -> I3D:
    """Fold batch norms, lay channels out last, and round weights, in place.

    Args:
        i3d: The network in evaluation mode, float32.
        precision: "float32" changes numbers by rounding only; "mixed" has the layers that it does
            not harm in bfloat16, "bfloat16" all but the last.

    Returns:
        The network itself.
    """
    i3d.fold_batch_norm().channels_last()
    if precision == "float32":
        return i3d
    for name, layer in i3d.named_children():
        is_trunk = name.lower().startswith(("conv3d_1", "conv3d_2", "mixed"))
        if is_trunk and (precision == "bfloat16" or name.lower().startswith(_HARMLESS)):
            for weight in layer.parameters():
                weight.data = weight.data.to(torch.bfloat16)
    return i3d
