"""Weights of other packages are read without running anything that they hold."""

import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from cinnema.backbones.packaged_weights import PackagedFile, load_numpy_pickle
from cinnema.core.errors import UserError


class RunsACommand:
    """An object whose pickle would create a file when it is read."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.target),)


def write(path: Path, content: object) -> Path:
    path.write_bytes(pickle.dumps(content))
    return path


def test_arrays_survive_the_restricted_unpickler(tmp_path: Path) -> None:
    kernel = np.arange(6.0).reshape(2, 3)
    content = {"a": {"kernel": kernel}, "b": [np.float32(1.5), "text", None]}
    read = load_numpy_pickle(write(tmp_path / "weights.pkl", content))
    assert np.array_equal(read["a"]["kernel"], kernel)
    assert read["b"] == [1.5, "text", None]


def test_a_pickle_that_would_run_something_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "evil.pkl", {"x": RunsACommand(tmp_path / "made")})
    with pytest.raises(UserError, match=r"evil\.pkl .* is not allowed"):
        load_numpy_pickle(path)
    assert not (tmp_path / "made").exists()


def test_arrays_of_objects_cannot_smuggle_in_a_call(tmp_path: Path) -> None:
    array = np.array([RunsACommand(tmp_path / "made")], dtype=object)
    with pytest.raises(UserError, match="is not allowed"):
        load_numpy_pickle(write(tmp_path / "evil.pkl", array))
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("keep", [0, 1, 40, 100])
def test_a_truncated_pickle_is_named(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "short.pkl"
    path.write_bytes(pickle.dumps({"kernel": np.zeros(100)})[:keep])
    with pytest.raises(UserError, match=r"short\.pkl"):
        load_numpy_pickle(path)


def test_a_file_that_is_no_pickle_is_named(tmp_path: Path) -> None:
    path = tmp_path / "text.pkl"
    path.write_text("This is a licence, not a network.")
    with pytest.raises(UserError, match=r"text\.pkl"):
        load_numpy_pickle(path)


def test_a_missing_file_of_an_installed_package_names_the_way_out() -> None:
    with pytest.raises(UserError, match="pip install --no-deps numpy"):
        PackagedFile("numpy", ("no", "such.file"), "numpy").find()
