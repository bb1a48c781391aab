"""The decoder for synthesis gives the frames of the decoder, within a stated tolerance."""

from typing import Any

import pytest
import torch
from torch import Tensor

from cinnema.core.errors import UserError
from cinnema.paper.decoder import Decoder, DecoderConfig
from cinnema.paper.fast_decoder import FastDecoder
from cinnema.paper.model import PaperModel
from cinnema.paper.spectral import fold_spectral_norm
from cinnema.synthesis.pipeline import Pipeline
from paper_model import tiny_paper_model

CONFIGS = {
    "as of Landscape": {"upsample_s": (2, 2), "upsample_t": (2, 1)},
    "as of BAIR": {"upsample_s": (2, 1), "upsample_t": (2, 1)},
    "long": {"upsample_s": (1, 1), "upsample_t": (3, 1)},
}


def decoder(**changes: Any) -> Decoder:
    torch.manual_seed(0)
    made = Decoder(
        DecoderConfig(**{"channel_factor": 8, "z_dim": 6, "spectral_norm": True, **changes})
    )
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape))
    return made.eval().requires_grad_(False)


def inputs(rows: int = 2) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    x0 = torch.rand(rows, 3, 40, 40, generator=generator) * 2 - 1
    return x0, torch.randn(rows, 6, generator=generator)


def psnr(found: Tensor, expected: Tensor) -> float:
    return float(10 * torch.log10(4 / (found - expected).square().mean()))


@pytest.mark.parametrize("name", CONFIGS)
def test_frames_agree_in_float32(name: str) -> None:
    plain, (x0, z) = decoder(**CONFIGS[name]), inputs()
    expected = plain(x0, z)
    assert expected.std() > 0.1  # frames that differ from grey
    assert psnr(FastDecoder(plain, dtype=torch.float32)(x0, z), expected) > 80


@pytest.mark.parametrize("name", CONFIGS)
def test_frames_agree_to_40_db_in_bfloat16(name: str) -> None:
    # 57 dB at the published width: rounding errors of more channels cancel.
    plain, (x0, z) = decoder(**CONFIGS[name]), inputs()
    found = FastDecoder(plain, dtype=torch.bfloat16)(x0, z)
    assert found.dtype == torch.float32
    assert psnr(found, plain(x0, z)) > 40


@pytest.mark.parametrize("name", CONFIGS)
def test_a_rearranged_decoder_has_the_same_frames_and_gradients(name: str) -> None:
    plain, rearranged = (decoder(**CONFIGS[name]).double().train() for _ in range(2))
    rearranged.rearranges = True
    x0, z = (x.double() for x in inputs())
    for network in (plain, rearranged):
        network.requires_grad_(True)
        video = network(x0, z)
        (video.square().mean() + video.mean()).backward()
    torch.testing.assert_close(rearranged(x0, z), plain(x0, z))
    for (key, a), b in zip(plain.named_parameters(), rearranged.parameters(), strict=True):
        assert a.grad is not None
        assert b.grad is not None
        torch.testing.assert_close(b.grad, a.grad, rtol=1e-6, atol=1e-9, msg=key)


def test_a_folded_decoder_gives_the_same() -> None:
    plain, (x0, z) = decoder(**CONFIGS["as of BAIR"]), inputs()
    found = FastDecoder(plain, dtype=torch.float32)(x0, z)
    fold_spectral_norm(plain)
    assert psnr(FastDecoder(plain, dtype=torch.float32)(x0, z), found) > 100


def test_each_first_frame_counts_whatever_was_decoded_before() -> None:
    fast, (x0, z) = FastDecoder(decoder(**CONFIGS["as of BAIR"]), dtype=torch.float32), inputs()
    together = fast(x0, z)
    for row in (0, 1, 1, 0):
        alone = fast(x0[row : row + 1], z[row : row + 1])
        torch.testing.assert_close(alone, together[row : row + 1], rtol=0, atol=1e-4)


def test_shapes_are_checked_as_those_of_the_decoder_are() -> None:
    fast, (x0, z) = FastDecoder(decoder(**CONFIGS["as of BAIR"]), dtype=torch.float32), inputs()
    with pytest.raises(UserError, match="needs one row of 6 numbers for each of 2 first frames"):
        fast(x0, z[:, :5])


def test_an_accelerated_model_has_the_weights_of_the_other_and_leaves_it_as_it_is() -> None:
    model = tiny_paper_model()
    x0, z = torch.rand(1, 3, 64, 64), torch.randn(1, 8)
    before = model.decode(x0, z)
    fast = model.accelerated()
    assert isinstance(fast, PaperModel)
    assert list(fast.state_dict()) == list(model.state_dict())
    found = fast.decode(x0, z)
    assert 0 < (found - before).abs().max() < 0.05
    assert torch.equal(model.decode(x0, z), before)


def test_a_pipeline_is_fast_unless_float32_is_asked_for() -> None:
    model = tiny_paper_model()
    assert Pipeline(model, precision="float32").model is model
    assert Pipeline(model).model is not model
