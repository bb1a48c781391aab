"""What every model can do, asked of the warping one."""

import pytest
import torch
from torch import Tensor

from cinnema.core.errors import UserError
from cinnema.models.warping.model import WarpingModel


@pytest.fixture
def video(model: WarpingModel) -> Tensor:
    """Two clips of smooth texture that drifts to the right."""
    size = model.size
    x = torch.linspace(0, 12, size)[None, :] + torch.linspace(0, 7, size)[:, None].sin()
    drift = (
        torch.arange(model.num_frames + 1)[:, None, None]
        * torch.tensor([0.05, 0.1])[:, None, None, None]
    )
    return (x - drift).sin()[:, :, None].expand(-1, -1, 3, -1, -1).contiguous()


@torch.no_grad()
def test_a_video_goes_to_z_to_nu_and_back(model: WarpingModel, video: Tensor) -> None:
    z = model.encode(video)
    c = model.condition(video[:, 0])
    nu, log_det = model.to_residual(z, c)
    again, log_det_back = model.to_latent(nu, c)
    assert z.shape == nu.shape == (2, model.z_dim)
    torch.testing.assert_close(again, z, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(log_det, -log_det_back, atol=1e-4, rtol=1e-4)
    frames = model.decode(video[:, 0], z)
    assert frames.shape == (2, model.num_frames, 3, model.size, model.size)
    assert frames.abs().max() <= 1


@torch.no_grad()
def test_clips_of_a_batch_are_treated_alone(model: WarpingModel, video: Tensor) -> None:
    together = model.encode(video)
    alone = torch.cat([model.encode(clip[None]) for clip in video])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(together[0], together[1], atol=1e-3)


def test_a_clip_of_another_length_is_refused(model: WarpingModel, video: Tensor) -> None:
    with pytest.raises(UserError, match="encodes clips of shape"):
        model.encode(video[:, :-1])


def test_a_control_is_refused_by_a_model_that_takes_none(
    model: WarpingModel, video: Tensor
) -> None:
    with pytest.raises(UserError, match="takes no control"):
        model.condition(video[:, 0], torch.zeros(2, 3))
