"""A video with another control: nu kept, eta changed."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from bodies import noisy_video, tiny_body
from cinnema.core.errors import UserError
from cinnema.media.videos import VideoFile
from cinnema.models.control import Drift, EndPoint
from cinnema.synthesis.pipeline import Pipeline

Photographs = Callable[[int, int], np.ndarray]


def test_with_its_own_control_a_video_is_reconstructed(pipe: Pipeline, drifting: VideoFile) -> None:
    motion = pipe.read_motion(drifting, steered=True)
    same = pipe.edit(motion, eta=Drift())
    torch.testing.assert_close(same.z, motion.z, atol=1e-4, rtol=0)
    (decoded,) = pipe.animate(
        drifting.frames[0], nu=motion.nu, eta=motion.eta, num_frames=same.frames.shape[0]
    )
    assert np.abs(decoded.frames.astype(int) - same.frames).max() <= 1


def test_nu_is_kept_and_the_control_changed(pipe: Pipeline, drifting: VideoFile) -> None:
    motion = pipe.read_motion(drifting, steered=True)
    up = pipe.edit(drifting, eta=Drift(direction=90, speed=0.5), num_frames=2)
    down = pipe.edit(drifting, eta=Drift(direction=270, speed=0.5), num_frames=2)
    assert torch.equal(up.nu, motion.nu)
    assert torch.equal(down.nu, motion.nu)
    assert up.settings["eta"][1] < 0 < down.settings["eta"][1]
    assert (up.frames != down.frames).any()


def test_it_starts_from_the_videos_own_first_frame_at_its_size(
    pipe: Pipeline, drifting: VideoFile
) -> None:
    edited = pipe.edit(drifting, eta=Drift(direction=90), num_frames=1)
    assert np.array_equal(edited.x0, drifting.frames[0])
    assert edited.frames.shape == (1, 64, 96, 3)


def test_the_estimated_drift_is_in_the_summary(pipe: Pipeline, drifting: VideoFile) -> None:
    about = pipe.read_motion(drifting, steered=True).about["query"]
    assert min(about["direction"], 360 - about["direction"]) < 20  # to the right
    assert 0 <= about["eta_known"] <= 1
    assert "it drifts to" in pipe.read_motion(drifting, steered=True).summary


def test_a_control_that_a_model_does_not_have_is_an_error(
    pipe: Pipeline, drifting: VideoFile
) -> None:
    with pytest.raises(UserError, match="takes no control"):
        Pipeline(tiny_body(steered=False)).edit(noisy_video(), eta=Drift(direction=0))
    with pytest.raises(UserError, match=r"has no end point as its control.*right from"):
        pipe.edit(drifting, eta=EndPoint(x=0, y=0, z=0))
    with pytest.raises(UserError, match=r"speed.*from 0 to"):
        pipe.edit(drifting, eta=Drift(direction=0, speed=9))
