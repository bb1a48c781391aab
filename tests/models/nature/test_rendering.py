"""The blur that separates detail from the rest."""

import torch
from torch.nn import functional

from cinnema.models.nature.rendering import low_pass


def test_the_blur_is_three_box_filters_with_reflected_edges() -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 3, 64, 128)  # a radius of 6 pixels
    with torch.inference_mode():  # what is kept from here has to work in training as well
        low_pass(x)
    expected = x.requires_grad_(True)
    for _ in range(3):
        padded = functional.pad(expected, (6,) * 4, mode="reflect")
        expected = functional.avg_pool2d(padded, 13, stride=1)
    found = low_pass(x)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    weight = torch.randn_like(x)
    gradients = [torch.autograd.grad((y * weight).sum(), x)[0] for y in (found, expected)]
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-5)
