"""What was computed, as it is kept in files and compared."""

import hashlib
import json
import math
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import PIL
import torch
from safetensors.numpy import load_file, save
from torch import Tensor

_FOLDER = Path(__file__).parent
_JSON, _ARRAYS = _FOLDER / "golden.json", _FOLDER / "golden.safetensors"

_KEPT = 96  # values of an array that are kept, evenly spread
_THUMBNAIL = (6, 8)  # rows and columns
_LEVELS = 1.5  # a thumbnail may differ by: one level of 255, and rounding
_SMALL = 0.1  # below, differences count as if the largest value were this: errors of rounding
_FLAGS = ("fma", "avx2", "avx512f", "avx512_bf16", "avx512_fp16", "avx_vnni", "amx_bf16")


class Record:
    """Named values of one group.

    Args:
        group: Its name, in front of every other name.

    Attributes:
        numbers: Kept as they are.
        digests: SHA-256 of whole arrays.
        arrays: Thumbnails of videos, some values of other arrays.
    """

    def __init__(self, group: str) -> None:
        self.group = group
        self.numbers: dict[str, float | None] = {}
        self.digests: dict[str, str] = {}
        self.arrays: dict[str, np.ndarray] = {}

    def number(self, name: str, value: float | None) -> None:
        """Keep one number; None and what is not finite become None."""
        name = self._new(name)
        is_number = value is not None and math.isfinite(value)
        self.numbers[name] = value if is_number else None

    def tree(self, name: str, values: Any) -> None:
        """Keep all numbers of nested dictionaries and lists, as JSON has them."""
        if isinstance(values, Mapping):
            for key, value in values.items():
                self.tree(f"{name}/{key}", value)
        elif isinstance(values, list | tuple):
            for i, value in enumerate(values):
                self.tree(f"{name}/{i}", value)
        elif values is None or isinstance(values, bool | int | float):
            self.number(name, values)

    def array(self, name: str, values: np.ndarray | Tensor) -> None:
        """Keep the hash of an array, and of a large one some values, its mean and deviation."""
        array = _plain(values)
        name = self._digest(name, array)
        flat = array.astype(np.float64).ravel()
        if flat.size > _KEPT:
            chosen = flat[np.linspace(0, flat.size - 1, _KEPT).round().astype(int)]
            flat = np.concatenate([chosen, [flat.mean(), flat.std()]])
        self.arrays[name] = flat.astype(np.float32)

    def frames(self, name: str, frames: np.ndarray) -> None:
        """Keep the hash of a video, and thumbnails of its first, middle and last frame."""
        name = self._digest(name, np.ascontiguousarray(frames))
        rows, columns = _THUMBNAIL
        shown = frames[[0, len(frames) // 2, -1]]
        small = [
            cv2.resize(frame.astype(np.float32), (columns, rows), interpolation=cv2.INTER_AREA)
            for frame in shown
        ]
        self.arrays[name] = np.stack(small).round().astype(np.uint8)

    def weights(self, name: str, state: Mapping[str, Tensor]) -> None:
        """Keep one hash of all tensors of a model, and the norm of each, by the order of names."""
        whole, norms = hashlib.sha256(), []
        for key in sorted(state):
            array = _plain(state[key])
            whole.update(key.encode() + _bytes_of(array))
            norms.append(float(np.linalg.norm(array.astype(np.float64).ravel())))
        name = self._new(name)
        self.digests[name] = whole.hexdigest()
        self.arrays[name] = np.array(norms, np.float32)

    def _digest(self, name: str, array: np.ndarray) -> str:
        name = self._new(name)
        self.digests[name] = hashlib.sha256(_bytes_of(array)).hexdigest()
        return name

    def _new(self, name: str) -> str:
        name = f"{self.group}/{name}"
        assert name not in self.numbers, name
        assert name not in self.digests, name
        return name


def fingerprint() -> dict[str, Any]:
    """What bits depend on: libraries, and what the processor can do."""
    text = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    first = dict(
        (part.strip() for part in line.split(":", 1))
        for line in text.split("\n\n")[0].splitlines()
        if ":" in line
    )
    flags = set(first.get("flags", "").split())
    return {
        "torch": torch.__version__,
        "numpy": np.__version__,
        "opencv": cv2.__version__,
        "pillow": PIL.__version__,
        "machine": platform.machine(),
        "processor": [first.get(key, "") for key in ("vendor_id", "cpu family", "model")],
        "capability": torch.backends.cpu.get_cpu_capability(),
        "flags": [flag for flag in _FLAGS if flag in flags],
        "threads": torch.get_num_threads(),
    }


def save_records(records: list[Record]) -> None:
    """Write the recorded file anew."""
    about = {
        "fingerprint": fingerprint(),
        "numbers": {k: v for record in records for k, v in record.numbers.items()},
        "digests": {k: v for record in records for k, v in record.digests.items()},
    }
    _JSON.write_text(json.dumps(about, indent=0) + "\n")
    arrays = {k: v for record in records for k, v in record.arrays.items()}
    _ARRAYS.write_bytes(save(arrays))


class Golden:
    """The recorded file.

    Attributes:
        fingerprint: Of where it was recorded.
    """

    def __init__(self) -> None:
        about = json.loads(_JSON.read_text())
        self.fingerprint: dict[str, Any] = about["fingerprint"]
        self._numbers, self._digests = about["numbers"], about["digests"]
        self._arrays = load_file(_ARRAYS)

    def differences(self, record: Record, *, exactly: bool, within: float) -> list[str]:
        """Say in a line each what of a group is not as it was recorded.

        Args:
            record: What is computed now.
            exactly: Whether to compare to the bit.
            within: Else, the largest difference, as a share of the largest value of an array.
        """
        old, new = self._of(record.group), {**record.numbers, **record.arrays}
        found = [f"{name}: is not computed any more" for name in old if name not in new]
        found += [f"{name}: was not recorded" for name in new if name not in old]
        for name in old.keys() & new.keys():
            was, now = old[name], new[name]
            same = self._is_same(name, record) if exactly else _is_close(was, now, within)
            if not same:
                found.append(f"{name}: {_say(was)} has become {_say(now)}")
        return sorted(found)

    def _of(self, group: str) -> dict[str, Any]:
        both = {**self._numbers, **self._arrays}
        return {name: value for name, value in both.items() if name.startswith(f"{group}/")}

    def _is_same(self, name: str, record: Record) -> bool:
        if name in record.digests:
            return bool(record.digests[name] == self._digests.get(name))
        return bool(record.numbers[name] == self._numbers[name])


def _is_close(was: Any, now: Any, within: float) -> bool:
    if was is None or now is None:
        return was is now
    old, new = (np.asarray(float(v) if isinstance(v, bool) else v) for v in (was, now))
    if old.shape != new.shape:
        return False
    if old.dtype == np.uint8:
        # A training amplifies what another processor rounds in another way, in its frames as well.
        away = np.abs(old.astype(int) - new)
        return bool(away.mean() <= _LEVELS and away.max() <= max(_LEVELS, within * 255))
    if not old.size:
        return True
    return float(np.abs(old - new).max()) <= within * max(float(np.abs(old).max()), _SMALL)


def _say(value: Any) -> str:
    return np.array2string(np.asarray(value).ravel()[:4], precision=8) if value is not None else "-"


def _plain(values: np.ndarray | Tensor) -> np.ndarray:
    if isinstance(values, Tensor):
        values = values.detach().cpu()
        values = (values.float() if values.dtype == torch.bfloat16 else values).numpy()
    return np.ascontiguousarray(values)


def _bytes_of(array: np.ndarray) -> bytes:
    return f"{array.dtype}{array.shape}".encode() + array.tobytes()
