"""Motion files: nu, z, and where they are from."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from cinnema.core.errors import UserError
from cinnema.synthesis.pipeline import Pipeline
from cinnema.synthesis.residual import load_motion, save_motion


def test_nu_comes_back_with_where_it_is_from(
    pipe: Pipeline, photograph: Callable[[int, int], np.ndarray], tmp_path: Path
) -> None:
    animation = pipe.animate(photograph(32, 48), num_samples=2, num_frames=1, seed=5, fps=12)[1]
    save_motion(tmp_path / "a.safetensors", animation)
    saved = load_motion(tmp_path / "a.safetensors")
    assert torch.equal(saved.nu, animation.nu)
    assert torch.equal(saved.z, animation.z)
    assert (saved.seed, saved.sample, saved.weights) == (5, 1, pipe.sha256)
    assert saved.about == animation.settings
    assert saved.about["fps"] == 12


def test_files_of_something_else_hold_no_nu(weights: Path, tmp_path: Path) -> None:
    (tmp_path / "text.safetensors").write_text("nu")
    for path in (weights, tmp_path / "text.safetensors"):
        with pytest.raises(UserError, match=f"{path.name} is not a motion file"):
            load_motion(path)
