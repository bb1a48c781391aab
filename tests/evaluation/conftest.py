import pytest
import torch

from cinnema.backbones.lpips import LPIPS
from cinnema.models.nature.model import NatureModel
from small_nature import nature_model


@pytest.fixture(scope="session")
def model() -> NatureModel:
    return nature_model(name="tiny", size=64, num_frames=4)


@pytest.fixture(scope="session")
def lpips() -> LPIPS:
    torch.manual_seed(0)
    return LPIPS("alex").eval()
